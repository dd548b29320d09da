"""Scans many inputs in parallel and survives crashes and restarts.

Paths and `Settings` come in. An `Outcome` for each input goes out, kept in batch.sqlite and shown in
index.html, a table or Parquet. Data, training, verification, the benchmark, the server and the command
line may import this package; `batch`, which loads the whole pipeline, is imported by its own name.
"""

from deepscan.batches.pool import Death, Pool, cores

__all__ = ["Death", "Pool", "cores"]
