"""The query-purified detector: tower -> patches -> K queries -> one global token -> one logit.

Source: "Beyond [CLS] Token: Query-Driven Token-Level Forgery Purification for Generalizable Deepfake
Detection" (QTFP, CVPR 2026). Its baselines are the same detector with `token` "cls", without queries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscan.errors import SettingsError
from deepscan.faces.alignment import on_face, seen
from deepscan.model import adapters
from deepscan.model.aggregation import Gathered, QueryAggregation
from deepscan.model.header import MEAN, STD, DetectorSettings
from deepscan.model.tower import Tokens, Tower
from deepscan.records import Output
from deepscan.shapes import Float, Int, UInt8

# Pixels a side that become one in a copy without detail: of 224 a side, they leave a face its features alone.
COARSE = 4

# A patch's evidence is a small part of a logit: where patches are taught, it starts to count forty-fold, and
# patches start as more likely real than not, which most are.
LOCATING = (math.log(40.0), -2.0)

OFF_FACE = -3.0  # what queries' scores of patches off the face start with, where they learn places

LEAST_DEVIATION = 0.05  # of a channel over patches, where layers are brought to one scale


def without_detail(
    images: Float[Tensor, "b 3 height width"],
) -> Float[Tensor, "b 3 height width"]:
    """Images at a quarter of their resolution, brought back to their size."""
    small = functional.avg_pool2d(images, COARSE)
    return functional.interpolate(small, images.shape[-2:], mode="bilinear")


class Answer(NamedTuple):
    """All that a forward pass finds, for the losses to work on; what queries find is None without them.

    `evidence` and `constant` add up to the logit: logit = sum over patches of evidence + constant.

    A tuple, because torch's wrappers for several GPUs and for compilation look into those.
    """

    logit: Float[Tensor, " b"]
    cls: Float[Tensor, "b d"]
    patches: Float[Tensor, "b p d"]
    cls_attention: Float[Tensor, "b p"]
    global_token: Float[Tensor, "b d"] | None
    query_attention: Float[Tensor, "b k p"] | None
    evidence: Float[Tensor, "b p"] | None
    constant: Float[Tensor, " b"] | None
    likelihood: (
        Float[Tensor, "b p"] | None
    )  # that a patch is manipulated, by a detector that was taught


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
        if settings.layers is not None and settings.layers[-1] != self.tower.size.layers:
            raise SettingsError(
                f"layers: the last, {settings.layers[-1]}, is not the last that runs,"
                f" {self.tower.size.layers}; lower depth to it"
            )
        self.readers = nn.ModuleList(nn.LayerNorm(width) for _ in settings.layers or ())
        if settings.with_queries:
            if width % settings.heads:
                raise SettingsError(
                    f"heads: {settings.heads} do not divide the tower's width of {width}"
                )
            patches = self.tower.patches if settings.prior else None
            self.aggregation = QueryAggregation(width, settings.queries, settings.heads, patches)
        if settings.located:
            # From a patch's evidence to the log-odds that it is manipulated: a scale's logarithm, an offset.
            self.locating = nn.Parameter(torch.tensor(LOCATING))
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
        images = self.images(crops)
        answer = self.answer(images, keep, patches)
        share = self.settings.reference
        if share and not self.training:
            copy = self.answer(without_detail(images), keep, patches=False)
            answer = answer._replace(
                logit=answer.logit - share * copy.logit,
                evidence=_less(answer.evidence, copy.evidence, share),
                constant=_less(answer.constant, copy.constant, share),
            )
        return answer

    def located(self, evidence: Float[Tensor, "b p"]) -> Float[Tensor, "b p"]:
        """Log-odds that each patch is manipulated, as the detector learnt to read them off its evidence."""
        scale, offset = self.locating
        return evidence * scale.exp() + offset

    @torch.no_grad()
    def held_to(
        self,
        answer: Answer,
        tower: Tower,
        crops: UInt8[Tensor, "b height width 3"],
        keep: Int[Tensor, " p"] | None = None,
    ) -> Answer:
        """The answer with another tower's [CLS] and its attention: a yardstick that does not train."""
        images = ((self.images(crops) - self.mean) / self.std).to(tower.dtype)
        tokens = tower(images, keep, False, self.settings.layers or ())
        cls, _ = self._read(tokens)
        return answer._replace(cls=cls, cls_attention=tokens.cls_attention)

    def images(self, crops: UInt8[Tensor, "b height width 3"]) -> Float[Tensor, "b 3 side side"]:
        """What the detector sees of crops, at the tower's size, RGB in 0..1."""
        left, top, size = seen(self.settings.view, crops.shape[1])
        crops = crops[:, top : top + size, left : left + size]
        images = crops.to(self.mean.device).permute(0, 3, 1, 2).float() / 255
        side = self.tower.input_side
        if images.shape[-2:] != (side, side):
            images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return images

    def answer(
        self,
        images: Float[Tensor, "b 3 side side"],
        keep: Int[Tensor, " p"] | None = None,
        patches: bool = True,
    ) -> Answer:
        """The answer for images of the tower's size, RGB in 0..1, each by itself: without `reference`."""
        return self.of_tokens(self.tokens(images, keep, patches), keep)

    def tokens(
        self,
        images: Float[Tensor, "b 3 side side"],
        keep: Int[Tensor, " p"] | None = None,
        patches: bool = True,
    ) -> Tokens:
        """What the tower makes of images, given as for `answer`."""
        images = ((images - self.mean) / self.std).to(self.tower.dtype)
        patches = patches or self.settings.with_queries
        return self.tower(images, keep, patches, self.settings.layers or ())

    def of_tokens(self, tokens: Tokens, keep: Int[Tensor, " p"] | None = None) -> Answer:
        """The answer for tokens, of all patches or of those to `keep`."""
        with torch.autocast(self.mean.device.type, enabled=False):
            cls, found = self._read(tokens)
            gathered = self.aggregation(found, keep) if self.settings.with_queries else None
            classified = self._classified(cls, gathered)
            length = None
            if self.settings.normalise:
                length = torch.linalg.vector_norm(classified, dim=-1).clamp_min(1e-12)
                classified = classified / length[:, None]
            logit = self.head(classified).squeeze(-1)
            if gathered is None:
                return Answer(logit, cls, found, tokens.cls_attention, None, None, None, None, None)
            of_cls, of_token = self._rows()
            evidence, constant = self.aggregation.evidence(found, gathered.of_heads, of_token)
            constant = constant + (
                cls @ of_cls if of_cls is not None else cls.new_zeros(cls.shape[0])
            )
            if length is not None:
                evidence, constant = evidence / length[:, None], constant / length
            constant = constant + self.head.bias
            likelihood = self.located(evidence).sigmoid() if self.settings.located else None
        return Answer(
            logit, cls, found, tokens.cls_attention,
            gathered.token, gathered.attention, evidence, constant, likelihood,
        )  # fmt: skip

    def _read(self, tokens: Tokens) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b p d"]]:
        """[CLS] and the patches as they are classified, float32: the mean of the layers that are read."""
        if not self.readers:
            return tokens.cls.float(), tokens.patches.float()
        pairs = zip(self.readers, tokens.states, strict=True)
        mean = torch.stack([reader(state.float()) for reader, state in pairs]).mean(0)
        return mean[:, 0], mean[:, 1:]

    def _classified(self, cls: Tensor, gathered: Gathered | None) -> Tensor:
        """The head's input, from [CLS] and the global token."""
        if gathered is None:
            return cls
        token = gathered.token
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

    def _rows(self) -> tuple[Float[Tensor, " d"] | None, Float[Tensor, " d"]]:
        """What [CLS] and the global token are multiplied by in the logit, which adds the head's bias."""
        row = self.head.weight[0]
        match self.settings.token:
            case "avg":
                return row / 2, row / 2
            case "weighted-avg":
                a, b = self.balance.softmax(0)
                return a * row, b * row
            case "concat":
                of_cls, of_token = row.chunk(2)
                return of_cls, of_token
            case _:
                return None, row

    def outputs(self, crops: UInt8[Tensor, "b height width 3"]) -> tuple[Tensor, ...]:
        """What a score is made of, float32, in the order of Output's arrays.

        Without queries, [CLS]'s attention stands in for theirs, there is no evidence of patches, (b, 0), and
        the constant is the logit.
        """
        answer = self(crops, patches=False)
        logit, cls = answer.logit.float(), answer.cls_attention.float()
        none = logit.new_empty(logit.shape[0], 0)
        if answer.query_attention is None or answer.evidence is None or answer.constant is None:
            return logit, cls[:, None], cls, none, logit, none
        query, evidence = answer.query_attention.float(), answer.evidence.float()
        likelihood = none if answer.likelihood is None else answer.likelihood.float()
        return logit, query, cls, evidence, answer.constant.float(), likelihood

    @torch.inference_mode()
    def score(self, crops: UInt8[np.ndarray, "b height width 3"]) -> Output:
        """Forward as numpy values, float32 (see `outputs`).

        A batch that the device has no memory for is scored in halves.

        Raises:
            SettingsError: there is not even memory for one crop.
        """
        with suppress(
            torch.OutOfMemoryError
        ):  # left before it is tried again: it holds what is in the way
            found = self.outputs(torch.from_numpy(crops)) if self.run is None else self.run(crops)
            logit, query, cls, evidence, constant, likelihood = (x.cpu().numpy() for x in found)
            view = self.settings.view
            return Output(logit, query, cls, evidence, constant, likelihood, view)
        device = self.mean.device
        if len(crops) == 1:
            raise SettingsError(
                f"device {device}: it has too little memory to score one crop; stop other programs"
                f" that use it, or use --device cpu"
            )
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return Output.joined([self.score(half) for half in np.array_split(crops, 2)])

    def initialise(self, generator: torch.Generator) -> None:
        """Put what trains to its start: drawn from `generator`, where torch's own laws use its global one.

        The base must be loaded: effort starts from its singular vectors.
        """
        if self.settings.with_queries:
            attention = self.aggregation.attention
            nn.init.normal_(self.aggregation.query, std=0.02, generator=generator)
            nn.init.xavier_uniform_(attention.in_proj_weight, generator=generator)
            _draw(attention.out_proj, generator)
            if self.aggregation.place is not None:  # on the face
                face = torch.from_numpy(on_face(self.settings.view, round(self.tower.patches**0.5)))
                self.aggregation.place.data.copy_(torch.where(face, 0.0, OFF_FACE))
        _draw(self.head, generator)
        adapters.start(self.tower, generator)

    @torch.no_grad()
    def standardise(self, tokens: Tokens) -> None:
        """Start the layers that are read, if any are named, with mean 0 and deviation 1 over these patches.

        Channel by channel: some are a hundred times as large as others, and would be all that is seen.
        """
        for reader, state in zip(self.readers, tokens.states, strict=True):
            assert isinstance(reader, nn.LayerNorm)
            plain = functional.layer_norm(state[:, 1:].float(), reader.normalized_shape).flatten(
                0, 1
            )
            reader.weight.copy_(1 / plain.std(0).clamp_min(LEAST_DEVIATION))
            reader.bias.copy_(-plain.mean(0) * reader.weight)

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


def _less(value: Tensor | None, of_copy: Tensor | None, share: float) -> Tensor | None:
    return None if value is None or of_copy is None else value - share * of_copy


def _draw(linear: nn.Linear, generator: torch.Generator) -> None:
    bound = linear.in_features**-0.5
    nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
    nn.init.zeros_(linear.bias)
