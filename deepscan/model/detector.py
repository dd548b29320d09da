"""The query-purified detector: tower -> patches -> K queries -> one global token -> one logit.

Source: "Beyond [CLS] Token: Query-Driven Token-Level Forgery Purification for Generalizable Deepfake
Detection" (QTFP, CVPR 2026). Its baselines are the same detector with `token` "cls", without queries.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscan.errors import SettingsError
from deepscan.model import adapters
from deepscan.model.header import MEAN, STD, DetectorSettings
from deepscan.model.tower import Attention, Tower, draw_normal
from deepscan.records import Output
from deepscan.shapes import Float, Int, UInt8

# Pixels a side that become one in a copy without detail: of 224 a side, they leave a face its features alone.
COARSE = 4


class QueryAggregation(nn.Module):
    """K learnable queries, independent of the tower, attend to the patches; their mean is the global token.

    Args:
        width: token width d, a multiple of `heads`.
    """

    def __init__(self, width: int, queries: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(queries, width))
        self.attention = Attention(width, heads)
        draw_normal(self.query, std=0.02)

    def forward(
        self, patches: Float[Tensor, "b p d"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k p"]]:
        """Global token, and each query's attention over patches averaged over heads.

        The same as projecting keys and values of every patch, in another order: patches are gathered
        by their weights first and projected afterwards, since K times heads is far below their number.
        """
        attention, width = self.attention, patches.shape[-1]
        weights = attention.weights(self.query[None], patches)  # (b, h, k, p)
        gathered = weights.mean(2) @ patches[:, None].flatten(1, 2)  # (b, h, d), mean over queries
        w_v = attention.in_proj_weight.chunk(3)[2].view(attention.heads, -1, width)
        b_v = attention.in_proj_bias.chunk(3)[2]
        answer = torch.einsum("bhd,hcd->bhc", gathered, w_v).flatten(1) + b_v
        return attention.out_proj(answer), weights.mean(1)


def without_detail(
    images: Float[Tensor, "b 3 height width"],
) -> Float[Tensor, "b 3 height width"]:
    """Images at a quarter of their resolution, brought back to their size."""
    small = functional.avg_pool2d(images, COARSE)
    return functional.interpolate(small, images.shape[-2:], mode="bilinear")


class Answer(NamedTuple):
    """All that a forward pass finds, for the losses to work on; `query` is None without queries.

    A tuple, because torch's wrappers for several GPUs and for compilation look into those.
    """

    logit: Float[Tensor, " b"]
    cls: Float[Tensor, "b d"]
    patches: Float[Tensor, "b p d"]
    cls_attention: Float[Tensor, "b p"]
    global_token: Float[Tensor, "b d"] | None
    query_attention: Float[Tensor, "b k p"] | None


class Detector(nn.Module):
    """Crops in, one logit each out; above 0 leans to manipulated.

    With `settings.reference` a crop is scored against itself: taken off its logit is a share of that of its
    own copy without detail. Whom the copy shows, in what light and pose, says nothing of manipulation, yet
    moves a score; in the difference much of that is gone. It takes a second pass. In training mode the crop
    alone is scored: what learnt from differences did no better on data that it had not seen.
    Source: an effect as the difference to what is said without its cause, as in K. Tang et al., "Unbiased
    Scene Graph Generation from Biased Training", CVPR 2020.

    The tower computes in its weights' type or autocast's, the aggregation and the head always in float32.
    """

    mean: Tensor
    std: Tensor
    # The mean patch of real crops and of manipulated ones that it learnt from, (2, d), by which FLCL tells
    # patches of one crop apart. No part of a score; None where its checkpoint has none.
    prototypes: Tensor | None

    def __init__(self, settings: DetectorSettings) -> None:
        super().__init__()
        self.settings = settings
        # Another way to do `outputs` of crops on the host, where there is a faster one.
        self.run: Callable[[UInt8[np.ndarray, "b height width 3"]], tuple[Tensor, ...]] | None = (
            None
        )
        self.tower = Tower(settings.tower, settings.patch_norm, settings.depth)
        width = self.tower.width
        if (settings.adapted or 0) > self.tower.size.layers:
            raise SettingsError(
                f"adapted: {settings.adapted} is more than the {self.tower.size.layers} layers that run"
            )
        if settings.with_queries:
            if width % settings.heads:
                raise SettingsError(
                    f"heads: {settings.heads} do not divide the tower's width of {width}"
                )
            self.aggregation = QueryAggregation(width, settings.queries, settings.heads)
        if settings.token == "weighted-avg":
            self.balance = nn.Parameter(torch.zeros(2))
        self.head = nn.Linear(2 * width if settings.token == "concat" else width, 1)
        # Not part of any checkpoint's tensors: the header states them and the loader compares.
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.register_buffer("prototypes", None, persistent=False)
        adapters.adapt(self.tower, settings)

    def forward(
        self,
        crops: UInt8[Tensor, "b height width 3"],
        keep: Int[Tensor, " p"] | None = None,
        patches: bool = True,
    ) -> Answer:
        """Score aligned RGB crops of any one size, by all patches or by those to `keep`.

        Without queries a score needs no patches: with `patches` False the answer has none, and is the
        sooner there.
        """
        images = self._images(crops)
        answer = self._answer(images, keep, patches)
        share = self.settings.reference
        if share and not self.training:
            copy = self._answer(without_detail(images), keep, patches=False)
            answer = answer._replace(logit=answer.logit - share * copy.logit)
        return answer

    @torch.no_grad()
    def held_to(
        self,
        answer: Answer,
        tower: Tower,
        crops: UInt8[Tensor, "b height width 3"],
        keep: Int[Tensor, " p"] | None = None,
    ) -> Answer:
        """The answer with another tower's [CLS] and its attention: a yardstick that does not train."""
        images = ((self._images(crops) - self.mean) / self.std).to(tower.dtype)
        tokens = tower(images, keep, patches=False)
        return answer._replace(cls=tokens.cls.float(), cls_attention=tokens.cls_attention)

    def _images(self, crops: UInt8[Tensor, "b height width 3"]) -> Float[Tensor, "b 3 side side"]:
        """Crops at the tower's size, RGB in 0..1."""
        images = crops.to(self.mean.device).permute(0, 3, 1, 2).float() / 255
        side = self.tower.input_side
        if images.shape[-2:] != (side, side):
            images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return images

    def _answer(
        self, images: Float[Tensor, "b 3 side side"], keep: Int[Tensor, " p"] | None, patches: bool
    ) -> Answer:
        """What is found in images of the tower's size, RGB in 0..1, each by itself."""
        images = ((images - self.mean) / self.std).to(self.tower.dtype)
        tokens = self.tower(images, keep, patches or self.settings.with_queries)
        with torch.autocast(self.mean.device.type, enabled=False):
            cls, found = tokens.cls.float(), tokens.patches.float()
            token, query_attention = None, None
            if self.settings.with_queries:
                token, query_attention = self.aggregation(found)
            classified = self._classified(cls, token)
            if self.settings.normalise:
                classified = functional.normalize(classified, dim=-1)
            logit = self.head(classified).squeeze(-1)
        return Answer(logit, cls, found, tokens.cls_attention, token, query_attention)

    def _classified(self, cls: Tensor, token: Tensor | None) -> Tensor:
        """What the head sees, of [CLS] and the global token."""
        if token is None:
            return cls
        match self.settings.token:
            case "avg":
                return (cls + token) / 2
            case "weighted-avg":
                a, b = self.balance.softmax(0)
                return a * cls + b * token
            case "concat":
                return torch.cat([cls, token], 1)
            case _:
                return token

    def outputs(
        self, crops: UInt8[Tensor, "b height width 3"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b k p"], Float[Tensor, "b p"]]:
        """What a score is made of, float32: logits, the queries' attention (or [CLS]'s for it), [CLS]'s."""
        answer = self(crops, patches=False)
        query, cls = answer.query_attention, answer.cls_attention.float()
        return answer.logit.float(), cls[:, None] if query is None else query.float(), cls

    @torch.inference_mode()
    def score(self, crops: UInt8[np.ndarray, "b height width 3"]) -> Output:
        """Forward as numpy values, float32. Without queries, [CLS]'s attention stands in for theirs.

        A batch that the device has no memory for is scored in halves.

        Raises:
            SettingsError: there is not even memory for one crop.
        """
        with suppress(
            torch.OutOfMemoryError
        ):  # left before it is tried again: it holds what is in the way
            found = self.outputs(torch.from_numpy(crops)) if self.run is None else self.run(crops)
            return Output(*(x.cpu().numpy() for x in found))
        device = self.mean.device
        if len(crops) == 1:
            raise SettingsError(
                f"device {device}: its memory does not hold the detector's work on one crop; end what else"
                " runs there, or use --device cpu"
            )
        if device.type == "cuda":
            torch.cuda.empty_cache()
        halves = [self.score(half) for half in np.array_split(crops, 2)]
        names = ("logit", "query_attention", "cls_attention")
        return Output(*(np.concatenate([getattr(half, name) for half in halves]) for name in names))

    def initialise(self, generator: torch.Generator) -> None:
        """Put what trains to its start: drawn from `generator`, where torch's own laws use its global one.

        The base must be loaded: effort starts from its singular vectors.
        """
        if self.settings.with_queries:
            attention = self.aggregation.attention
            nn.init.normal_(self.aggregation.query, std=0.02, generator=generator)
            nn.init.xavier_uniform_(attention.in_proj_weight, generator=generator)
            _draw(attention.out_proj, generator)
        _draw(self.head, generator)
        adapters.start(self.tower, generator)

    def trained_state(self) -> dict[str, Tensor]:
        """What is not the base's: what a checkpoint holds. Adapted towers add their adapter's tensors.

        For adapter "full", and of "norm" the norms, these are the tower's own.
        """
        trains = {name for name, p in self.named_parameters() if p.requires_grad}
        return {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith("tower.") or name in trains or ".change." in name
        }


def _draw(linear: nn.Linear, generator: torch.Generator) -> None:
    bound = linear.in_features**-0.5
    nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
    nn.init.zeros_(linear.bias)
