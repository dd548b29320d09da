"""The query-purified detector: tower -> patches -> K queries -> one global token -> one logit.

Source: "Beyond [CLS] Token: Query-Driven Token-Level Forgery Purification for Generalizable Deepfake
Detection" (QTFP, CVPR 2026).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deepscan.model.header import MEAN, STD, DetectorSettings
from deepscan.model.tower import Tokens, Tower, draw_normal
from deepscan.records import Output


class QueryAggregation(nn.Module):
    """K learnable queries, independent of the tower, attend to the patches; their mean is the global token.

    Args:
        width: token width d, a multiple of `heads`.
    """

    def __init__(self, width: int, queries: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(queries, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        draw_normal(self.query, std=0.02)

    def forward(
        self, patches: Float[Tensor, "b p d"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k p"]]:
        """Global token, and each query's attention over patches averaged over heads."""
        query = self.query.expand(len(patches), -1, -1)
        answers, attention = self.attention(query, patches, patches, need_weights=True)
        return answers.mean(1), attention


class Detector(nn.Module):
    """Crops in, one logit each out; above 0 leans to manipulated.

    The tower computes in its weights' type, the aggregation and the head always in float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: DetectorSettings) -> None:
        super().__init__()
        self.settings = settings
        self.tower = Tower(settings.tower, settings.patch_norm)
        self.aggregation = QueryAggregation(self.tower.width, settings.queries, settings.heads)
        self.head = nn.Linear(self.tower.width, 1)
        # Not part of any checkpoint's tensors: the header states them and the loader compares.
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def tokens(self, crops: UInt8[Tensor, "b height width 3"]) -> Tokens:
        """The tower's tokens of aligned RGB crops of any one size."""
        images = crops.to(self.mean.device).permute(0, 3, 1, 2).float() / 255
        side = self.tower.input_side
        if images.shape[-2:] != (side, side):
            images = nn.functional.interpolate(
                images, (side, side), mode="bilinear", antialias=True
            )
        return self.tower(((images - self.mean) / self.std).to(self.tower.dtype))

    def classify(
        self, patches: Float[Tensor, "b p d"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b k p"]]:
        """Logits and query attention of last-layer patches."""
        token, attention = self.aggregation(patches.float())
        return self.head(token).squeeze(-1), attention

    def forward(self, crops: UInt8[Tensor, "b height width 3"]) -> tuple[Tensor, Tensor, Tensor]:
        """Logit (b,), query attention (b, k, p) and [CLS] attention (b, p)."""
        tokens = self.tokens(crops)
        logit, attention = self.classify(tokens.patches)
        return logit, attention, tokens.cls_attention

    @torch.inference_mode()
    def score(self, crops: UInt8[np.ndarray, "b height width 3"]) -> Output:
        """Forward as numpy values, float32."""
        logit, query, cls = self(torch.from_numpy(crops))
        return Output(*(value.float().cpu().numpy() for value in (logit, query, cls)))

    def trained_state(self) -> dict[str, Tensor]:
        """The tensors that are not the base's: what a checkpoint holds."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("tower.")}
