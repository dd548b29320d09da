"""The detector: CLIP's image tower, its adapters and queries, checkpoints and weight files.

Crops and a checkpoint's name come in. An `Output` (logits and attention) goes out. The pipeline and
every package above it may import this one; what is exported here loads torch only when called, the
modules `detector`, `tower`, `adapters` and `checkpoint` load it on import.
"""

from deepscan.model.networks import Scorer, each, load_finder, load_scorer, loading, prepare_weights

__all__ = ["Scorer", "each", "load_finder", "load_scorer", "loading", "prepare_weights"]
