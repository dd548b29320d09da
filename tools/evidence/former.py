"""Detectors that `plan` wrote before it trained deepscan's own: by today's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from deepscan.model.header import DetectorSettings


def settings(recipe: Mapping[str, Any]) -> DetectorSettings:
    """Of the detector of a recipe that has a tower and heads; there was one head."""
    head, tower = recipe["heads"][0], recipe["tower"]
    return DetectorSettings(
        queries=head["queries"],
        heads=head["heads"],
        token=head["token"],
        adapter=tower["adapter"],
        lora_rank=tower["rank"],
        lora_alpha=tower["alpha"],
        depth=tower["depth"],
        view=recipe["margin"],
        layers=tuple(head["layers"]),
        prior=head["prior"] == "learn",
        located=head["patch"] == "evidence",
    )


def state(found: Mapping[str, Tensor], detector: DetectorSettings) -> dict[str, Tensor]:
    """Its tensors; of adapters just lora, which the shipped detectors had."""
    made = {
        "aggregation.query": found["head.query"],
        "aggregation.place": found["head.place"],
        "aggregation.attention.in_proj_weight": found["head.inw"],
        "aggregation.attention.in_proj_bias": found["head.inb"],
        "aggregation.attention.out_proj.weight": found["head.outw"],
        "aggregation.attention.out_proj.bias": found["head.outb"],
        "head.weight": found["head.w"][None],
        "head.bias": found["head.b"][None],
        "locating": torch.stack([found["head.log_tau"], found["head.patch_bias"]]),
    }
    for i in range(len(detector.layers or ())):
        made[f"readers.{i}.weight"] = found["head.lnw"][i]
        made[f"readers.{i}.bias"] = found["head.lnb"][i]
    for layer in range(detector.depth or 0):
        block = f"tower.visual.transformer.resblocks.{layer}."
        # In turn A and B of q, k, v, out, fc1 and fc2.
        pairs = [found[f"tower.lora.b{layer}_{place}"] for place in range(12)]
        made[f"{block}attn.change.a"] = torch.stack(pairs[0:6:2])
        made[f"{block}attn.change.b"] = torch.stack(pairs[1:6:2])
        for place, name in ((6, "attn.out_proj"), (8, "mlp.c_fc"), (10, "mlp.c_proj")):
            made[f"{block}{name}.change.a"] = pairs[place][None]
            made[f"{block}{name}.change.b"] = pairs[place + 1][None]
    return made
