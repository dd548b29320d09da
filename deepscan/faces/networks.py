"""MTCNN's three networks with facenet-pytorch's weights.

The weights are read from facenet-pytorch's wheel without importing it: it would import torchvision and double
the start-up. The layers' names are the keys of its files.
"""

from __future__ import annotations

import importlib.util
import pickle
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscan.errors import WeightsMismatch, WeightsMissing
from deepscan.shapes import Float

Net = TypeVar("Net", bound=nn.Module)


class PNet(nn.Module):
    """P-Net: confidence and moves of the box at every position of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(
        self, x: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b rows columns"], Float[Tensor, "b 4 rows columns"]]:
        x = self._pooled(_centred(x))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(1)[:, 1], self.conv4_2(x)

    def _pooled(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 10 rows columns"]:
        """First layer, PReLU and 2 x 2 maximum pooling; at an odd edge, the maximum of what is there.

        The four values of a pool come from one convolution of stride 2 with kernels one pixel apart, and are
        compared ten channels at a time. Layer and pooling in sequence give the same and take twice as long.
        """
        odd = x.shape[2] % 2, x.shape[3] % 2
        if any(odd):
            x = functional.pad(x, (0, odd[1], 0, odd[0]))
        kernels, bias, slopes = self._apart
        x = functional.prelu(functional.conv2d(x, kernels, bias, stride=2), slopes)
        upper, lower = x.chunk(2, 1)
        if odd[0]:  # below the last row there is only padding
            lower[:, :, -1] = upper[:, :, -1]
        left, right = torch.maximum(upper, lower).chunk(2, 1)
        if odd[1]:
            right[..., -1] = left[..., -1]
        return torch.maximum(left, right)

    @cached_property
    def _apart(self) -> tuple[Tensor, Tensor, Tensor]:
        """The first layer's kernels at the four places of a pool, 4 x 4 each, with bias and PReLU slopes."""
        weight, bias = self.conv1.weight, self.conv1.bias
        assert bias is not None
        places = [functional.pad(weight, (j, 1 - j, i, 1 - i)) for i in (0, 1) for j in (0, 1)]
        kernels = torch.cat(places).contiguous(memory_format=torch.channels_last)
        return kernels, bias.repeat(4), self.prelu1.weight.repeat(4)


class RNet(nn.Module):
    """R-Net: of crops, the confidence (1) and the moves (4)."""

    outputs = 5

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Float[Tensor, "n 3 24 24"]) -> Float[Tensor, "n 5"]:
        x = self.pool(self.prelu1(self.conv1(_centred(x))))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(_flat(x)))
        return torch.hstack([self.dense5_1(x).softmax(1)[:, 1:], self.dense5_2(x)])


class ONet(nn.Module):
    """O-Net: of crops, the confidence (1), the moves (4) and the landmarks (5 x, 5 y)."""

    outputs = 15

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Float[Tensor, "n 3 48 48"]) -> Float[Tensor, "n 15"]:
        x = self.pool(self.prelu1(self.conv1(_centred(x))))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(_flat(x)))
        return torch.hstack(
            [self.dense6_1(x).softmax(1)[:, 1:], self.dense6_2(x), self.dense6_3(x)]
        )


def _centred(pixels: Tensor) -> Tensor:
    """Pixels scaled from 0..255 to -1..1, as in the networks' training."""
    return (pixels - 127.5).mul_(1 / 128)


def _flat(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """One row per crop, columns first and channels last: Caffe's Matlab order, kept by the weights."""
    return x.permute(0, 3, 2, 1).flatten(1)


def load(net: Net, name: str, device: torch.device) -> Net:
    """`net` with the weights in facenet-pytorch's file `name`, ready to run on `device`."""
    package = importlib.util.find_spec("facenet_pytorch")  # finds it, does not import it
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise WeightsMissing(
            "MTCNN's weights come with facenet-pytorch: pip install facenet-pytorch"
        )
    path = Path(folders[0]) / "data" / name
    advice = "reinstall it: pip install --force-reinstall --no-deps 'facenet-pytorch>=2.5.3,<2.6'"
    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise WeightsMissing(f"{path}: facenet-pytorch lacks MTCNN's weights; {advice}") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError) as error:
        raise WeightsMismatch(f"{path}: not MTCNN's weights; {advice} ({error})") from error
    return net.eval().to(device).to(memory_format=torch.channels_last)
