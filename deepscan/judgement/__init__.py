"""Turns scores into a verdict with its reasons.

Scored faces and a detector's calibration come in. `Evidence` goes out: tracks, scores, intervals,
cautions and the verdict. Every package above may import this one; `metrics`, which training and the
benchmark use, loads scipy and is imported by its own name.
"""

from deepscan.judgement.verdict import judge, thresholds_of

__all__ = ["judge", "thresholds_of"]
