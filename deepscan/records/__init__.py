"""The records that packages hand on, and the conventions they all share.

Colour is RGB, uint8. Boxes and points are display pixels (rotation and pixel aspect applied), x to
the right, y down; a box is left, top, right, bottom, half-open. Label 1 means manipulated, and a
logit above 0 leans to manipulated. Times are seconds on the stream's own clock: pts x time base.

All records are frozen; those with pixels print shapes instead of numbers.
"""

from __future__ import annotations

from deepscan.records.calibration import FEWEST_FRAMES, Calibration, Rung, Thresholds
from deepscan.records.evidence import (
    Contrast,
    Coverage,
    Evidence,
    Finding,
    FrameEvidence,
    Interval,
    Scores,
    SecondLook,
    Stretch,
    TrackEvidence,
    Verdict,
    VerdictName,
)
from deepscan.records.faces import Box, Crop, CropQuality, Face, Output
from deepscan.records.media import (
    Colour,
    Confinement,
    Credentials,
    DecodeCount,
    Frame,
    Pixels,
    Source,
)
from deepscan.records.report import (
    Areas,
    Case,
    EvidenceSum,
    Faithfulness,
    Provenance,
    Report,
    Request,
)

__all__ = [
    "FEWEST_FRAMES",
    "Areas",
    "Box",
    "Calibration",
    "Case",
    "Colour",
    "Confinement",
    "Contrast",
    "Coverage",
    "Credentials",
    "Crop",
    "CropQuality",
    "DecodeCount",
    "Evidence",
    "EvidenceSum",
    "Face",
    "Faithfulness",
    "Finding",
    "Frame",
    "FrameEvidence",
    "Interval",
    "Output",
    "Pixels",
    "Provenance",
    "Report",
    "Request",
    "Rung",
    "Scores",
    "SecondLook",
    "Source",
    "Stretch",
    "Thresholds",
    "TrackEvidence",
    "Verdict",
    "VerdictName",
]
