"""A spare token for what a tower keeps of the whole picture in a few plain patches, without training.

In towers like CLIP's a few patches of the background get many times the length of others; queries look there,
though these patches say nothing of their place. Some neurons of MLPs make them. Where these fire on a spare
token instead, no patch grows, and the spare token is not read.

Source: N. Jiang et al., "Vision Transformers Don't Need Trained Registers", NeurIPS 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepscan.model.tower import Block, Tokens, Tower
from deepscan.shapes import Bool, Float, Int

LONG = 3.0  # times the median length of a crop's patches: a longer one is an outlier
NEURONS = 20  # that make them, of all layers together: without ten there are some left


@torch.no_grad()
def outliers(state: Float[Tensor, "b n d"]) -> Bool[Tensor, "b p"]:
    """Which patches of a layer's tokens, [CLS] first, are outliers."""
    length = state[:, 1:].float().norm(dim=2)
    return length > LONG * length.median(1, keepdim=True).values


@torch.no_grad()
def makers(
    tower: Tower, images: Float[Tensor, "b 3 side side"], layer: int, count: int = NEURONS
) -> dict[int, Int[Tensor, " n"]]:
    """The neurons that fire most on what are outliers after a layer: of each layer before it their numbers.

    Args:
        images: normalised.
        layer: counted from 1. Only neurons of this layer and of earlier ones can make its outliers.
    """
    fired: list[Tensor] = []
    with ExitStack() as hooks:
        for block in tower.visual.blocks()[:layer]:
            hooks.callback(
                _gelu(block)
                .register_forward_hook(lambda _, __, made: fired.append(made[:, 1:].float()))
                .remove
            )
        state = tower(images, None, True, (layer,)).states[0]
    where = outliers(state)
    strength = torch.stack([of_layer[where].abs().mean(0) for of_layer in fired])
    best = strength.flatten().topk(count).indices
    layers, neurons = best // strength.shape[1], best % strength.shape[1]
    return {int(number): neurons[layers == number] for number in layers.unique()}


def _gelu(block: Block) -> nn.Module:
    """What makes a layer's neurons fire."""
    return cast(nn.Module, block.mlp.gelu)


@contextmanager
def spare_token(tower: Tower, neurons: dict[int, Int[Tensor, " n"]]) -> Iterator[None]:
    """For as long, the tower has one token more, the last, and these neurons fire there alone."""

    def added(_: Any, __: Any, tokens: Tensor) -> Tensor:
        return torch.cat([tokens, torch.zeros_like(tokens[:, :1])], 1)

    def moved(own: Int[Tensor, " n"]) -> Any:
        def hook(_: Any, __: Any, made: Tensor) -> Tensor:
            made = made.clone()
            most = made[:, 1:, own].amax(1)
            made[:, 1:, own] = 0
            made[:, -1, own] = most
            return made

        return hook

    with ExitStack() as hooks:
        hooks.callback(tower.visual.ln_pre.register_forward_hook(added).remove)
        for number, own in neurons.items():
            gelu = _gelu(tower.visual.blocks()[number])
            hooks.callback(gelu.register_forward_hook(moved(own)).remove)
        yield


def without_spare(tokens: Tokens) -> Tokens:
    """What a tower with a spare token made of images, but for that."""
    return replace(
        tokens,
        patches=tokens.patches[:, :-1],
        cls_attention=tokens.cls_attention[:, :-1],
        states=tuple(state[:, :-1] for state in tokens.states),
    )
