"""Counts a detector's trainable parameters and the operations that a crop takes.

Operations are counted from shapes, in two conventions that published figures mix: as fvcore counts (one
multiply-accumulate each for matrix products and convolutions, five an element for a LayerNorm, nothing for
scaled_dot_product_attention), and complete. Both are given as FLOPs, two a multiply-accumulate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from deepscan.model.detector import Detector
from deepscan.model.header import DetectorSettings
from deepscan.model.tower import TowerSize

# QTFP (CVPR 2026), supplement, Table 5, for ViT-L/14: trainable parameters in millions and GFLOPs a crop.
PUBLISHED_TOWER = "ViT-L-14-quickgelu"
PUBLISHED = {
    ("effort", False): (0.19, 155.6),
    ("effort", True): (4.39, 155.6),
    ("lora", False): (1.77, 155.7),
    ("lora", True): (5.97, 155.7),
    ("full", False): (305.04, 155.6),
    ("full", True): (309.24, 155.6),
}
EXPLAINED = {
    "effort": "the paper's 0.19 is 0.1967 truncated, and leaves out the query tokens and the head",
    "full": "the paper's figure is 1.07 M more than the whole tower has, including its projection to text;"
    " nothing public says what else was counted",
}


@dataclass(frozen=True, slots=True)
class Size:
    """A detector's trainable parameters by part, and its operations a crop in FLOPs."""

    tower: int  # trained by the adapter
    queries: int  # query tokens, their attention, the balance of a weighted average
    head: int
    flops_fvcore: float  # of the tower and the projections, attention products left out
    flops_complete: float
    flops_queries: float  # part of flops_complete: the query module as it is computed
    flops_queries_written: float  # the same with every patch projected, as the paper writes it

    @property
    def trained(self) -> int:
        """All trainable parameters."""
        return self.tower + self.queries + self.head


def size(settings: DetectorSettings) -> Size:
    """Count a detector, without weights."""
    with torch.device("meta"):
        detector = Detector(settings)
    parts = {"tower": 0, "queries": 0, "head": 0}
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            part = name.split(".")[0]
            parts[part if part in parts else "queries"] += parameter.numel()
    shape = detector.tower.size  # of as many layers as run
    linear, norms, products = _tower(shape)
    linear += detector.head.in_features
    attention, written = _queries(shape, settings) if settings.with_queries else (0, 0)
    if settings.reference:  # the crop's copy goes the same way
        linear, norms, products, attention, written = (
            2 * n for n in (linear, norms, products, attention, written)
        )
    return Size(
        **parts,
        flops_fvcore=2.0 * (linear + norms + attention),
        flops_complete=2.0 * (linear + norms + products + attention),
        flops_queries=2.0 * attention,
        flops_queries_written=2.0 * written,
    )


def _tower(size: TowerSize) -> tuple[int, int, int]:
    """Multiply-accumulates of a crop: linear layers and convolution; LayerNorms; attention's products."""
    d, hidden = size.width, int(size.width * size.mlp_ratio)
    patches = (size.image_size // size.patch_size) ** 2
    tokens = patches + 1
    linear = patches * 3 * size.patch_size**2 * d
    linear += size.layers * tokens * (4 * d * d + 2 * d * hidden)
    norms = 5 * tokens * d * (2 * size.layers + 2)
    products = size.layers * 2 * tokens * tokens * d
    # Where [CLS] looked: its query projected, folded with the keys, held against all tokens by each head.
    products += 2 * d * d + d // size.head_width * tokens * d
    return linear, norms, products


def _queries(size: TowerSize, settings: DetectorSettings) -> tuple[int, int]:
    """Multiply-accumulates of the query module: as computed (keys and values folded) and as written."""
    d, k, h = size.width, settings.queries, settings.heads
    patches = (size.image_size // size.patch_size) ** 2
    folded = 2 * k * d * d + k * h * patches * d  # queries, folded keys, scores
    folded += h * patches * d + 2 * d * d  # gathering, values, out
    folded += (
        2 * d * d + h * patches * d
    )  # the head's row read back to the values; evidence of patches
    written = k * d * d + 2 * patches * d * d + 2 * k * patches * d + k * d * d
    return folded, written
