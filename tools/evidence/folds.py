"""Which sources are left out of a training together, and judged by it."""

from __future__ import annotations

import numpy as np

from deepscan.shapes import Bool
from tools.evidence.entries import SETS
from tools.evidence.material import Material, Rows

# Folds of methods/: what their source pages' names begin with.
# fmt: off
METHODS = {
    "M1": ("cxcx1996", "e4s2022", "celebv-text", "ashawkey", "cyberhost"),
    "M2": ("harlanhong", "rizkiarm", "jnjaby", "williamyang1991/VToonify"),
    "M3": ("cnnlstm", "neeek2303", "FuxiVirtualHuman", "FeiiYin", "stitch-time"),
    "M4": (
        "deepbrainai", "hunyuanvideo", "omnihuman", "antonibigata", "Dorniwang", "MooreThreads",
        "williamyang1991/Rerender", "williamyang1991/StyleGANEX", "yerfor", "wangzhiyaoo", "facebookresearch",
    ),
    "M5": (
        "lixinyyang", "X-LANCE", "loopyavatar", "tanshuai0219", "ali-vilab", "Zejun-Yang", "StelaBou",
        "ajay-sainy", "bytedance", "yiranran",
    ),
}
# fmt: on

FOLDS = ("pairs", "ffpp", "dfdc", *METHODS)
HELD = (
    "pairs",
    "ffpp",
    "dfdc",
    "methods",
)  # groups whose fold 0 by person the final detector is judged on

# The two folds of a run are left out together.
RUNS = {"R1": ("pairs", "M2"), "R2": ("ffpp", "M1"), "R3": ("dfdc", "M3"), "R4": ("M4", "M5")}

JUDGED_OF_DFDC = 400  # crops of each class: it has as many as all others together


def of_fold(material: Material, fold: str) -> Bool[np.ndarray, " n"]:
    """Which crops are a fold's."""
    if fold in SETS:
        return material.group == fold
    return np.array([source.startswith(METHODS[fold]) for source in material.source])


def judged(material: Material, fold: str) -> Rows:
    """The rows that a fold is judged by: all, but of dfdc a choice."""
    rows = np.flatnonzero(of_fold(material, fold))
    if fold != "dfdc":
        return rows
    rng = np.random.default_rng(1)
    chosen = [
        rng.permutation(rows[material.label[rows] == label])[:JUDGED_OF_DFDC] for label in (1, 0)
    ]
    return np.sort(np.concatenate(chosen))
