"""Scores test sets and makes the paper's tables and figures.

Prepared crops and checkpoints come in. Predictions in Parquet go out, and tables and figures made from
them alone. Only the command line and the tools may import this package, module by module: begin with
`run` and `request`.
"""
