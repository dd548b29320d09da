"""Another detector's predictions, for `deepscan benchmark --other`: MesoNet's Meso4 on prepared crops.

    python docs/peers/mesonet.py Meso4_F2F.h5 meso4.csv CROPS...
    deepscan benchmark --datasets mine=CROPS --other Meso4=meso4.csv

Its published weights (github.com/DariusAf/MesoNet, Apache-2.0) are Keras'; h5py reads them and torch
computes. Source of the network: D. Afchar et al., "MesoNet: a compact facial video forgery detection
network", WIFS 2018, figure 1. It takes RGB crops of 256 pixels in 0..1 and answers with P(real).
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deepscan.data.crops import read_crops
from deepscan.files import part_file
from deepscan.training.data import pictures

POOLS = (2, 2, 2, 4)
EPSILON = 1e-3  # of Keras' batch normalisation
SLOPE = 0.1  # of the leaky rectifier


def read_weights(path: Path) -> list[dict[str, Tensor]]:
    """Tensors of the layers that have any, in the network's order."""
    with h5py.File(path) as file:
        layers = []
        for name in file.attrs["layer_names"]:
            layer = file[name]
            names = [word.decode() for word in layer.attrs["weight_names"]]
            if names:
                layers.append(
                    {
                        word.rpartition("/")[2].removesuffix(":0"): torch.from_numpy(
                            np.array(layer[word])
                        )
                        for word in names
                    }
                )
    return layers


def logits(layers: Sequence[dict[str, Tensor]], crops: Tensor) -> Tensor:
    """Meso4's log odds that crops (b, 256, 256, 3) are manipulated."""
    x = crops.permute(0, 3, 1, 2).float() / 255
    for i, pool in enumerate(POOLS):
        conv, norm = layers[2 * i], layers[2 * i + 1]
        x = functional.conv2d(
            x, conv["kernel"].permute(3, 2, 0, 1), conv["bias"], padding="same"
        ).relu()
        x = functional.batch_norm(
            x,
            norm["moving_mean"],
            norm["moving_variance"],
            norm["gamma"],
            norm["beta"],
            eps=EPSILON,
        )
        x = functional.max_pool2d(x, pool)
    x = x.permute(0, 2, 3, 1).flatten(1)  # Keras' order: channels last
    hidden, out = layers[-2:]
    x = functional.leaky_relu(x @ hidden["kernel"] + hidden["bias"], SLOPE)
    return -(x @ out["kernel"] + out["bias"]).squeeze(1)  # it says how real they are


def predict(weights: Path, crops: Path) -> Iterator[tuple[str, int, float]]:
    """Video, frame and logit of every crop."""
    layers, rows = read_weights(weights), read_crops(crops)
    with torch.inference_mode():
        done = 0
        for batch in pictures(rows, 64, 0):
            for row, value in zip(rows[done:], logits(layers, batch).tolist(), strict=False):
                yield row.video, row.frame, value
            done += len(batch)


def main(weights: str, out: str, *folders: str) -> None:
    """Write a predictions file of the crops in all folders."""
    with part_file(Path(out)) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "frame", "logit"])
        for folder in folders:
            writer.writerows(predict(Path(weights), Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
