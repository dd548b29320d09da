"""Trains detectors with an evidence map and judges them on sources they did not learn from.

`pack` gathers the material in one archive; `plan` runs experiments on it, by `train`, `model` and `views`.
What came out is in docs/training-log.md. `ship` makes the shipped checkpoint of it, calibrated by the scores
in left-out.csv; `compare` holds a shipped detector against the recipe on what neither has seen.
"""
