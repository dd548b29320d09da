"""Runs MTCNN: finds every face in a batch of equal-sized images, with facenet-pytorch's weights.

The cascade of Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded
Convolutional Networks" (IEEE Signal Processing Letters 23, 2016): a small network slides over a
pyramid of the images and proposes boxes, a second one rejects most of them, a third one decides on the
rest and places five landmarks. Each network also corrects its boxes, and after every step the weaker of two
boxes on one face is dropped.

Networks, thresholds and box arithmetic are those of facenet-pytorch 2.5.3, so its weights work as they do
there. They are read from its wheel without importing it, since it would import torchvision and double the
start-up. One
thing differs: all pictures for a network, pyramid levels and crops alike, are averaged from one summed-area
table instead of being cut one by one.

Boxes here are float32 (n, 4): left, top, right, bottom in image pixels. `owner` (n,) says which image
of the batch each belongs to.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscan.errors import WeightsMismatch, WeightsMissing
from deepscan.shapes import Bool, Float, Float32, Int, UInt8

# The first network's field of view in pixels of its pyramid level, which is also the smallest face it can
# find.
FIELD = 12
STRIDE = 2  # from one such field to the next: the first network pools once

# From one level of the pyramid to the next: half the area, 0.709 = sqrt(1/2).
FACTOR = 0.709

# A box survives each step with at least this confidence ...
PROPOSED, REFINED, SETTLED = 0.6, 0.7, 0.7
# ... and where two overlap more than this, only the better one: within a level, then across levels
# and in each later step.
WITHIN, ACROSS = 0.5, 0.7

# Sides of the pictures that the second and third network take.
SMALL, LARGE = 24, 48

# Pixels given to a network at a time. More are slower on a CPU, whose caches overflow, and take more memory
# in a crowd; fewer leave a GPU idle.
AT_ONCE = 1 << 17
AT_ONCE_ON_GPU = 1 << 22

# A level with more pixels than this is searched in strips: the first network takes 200 bytes for each pixel.
STRIP = 1 << 19

# Pixels in one summed-area table, at twelve bytes each: eight images of 1080p, but one of 8K.
SUMMED = 1 << 24

# Pairs of boxes compared at a time.
COMPARED = 1 << 18

Boxes = Float32[np.ndarray, "_n 4"]  # of any two steps, hence no counts held equal
Scores = Float32[np.ndarray, " _n"]
Owner = Int[np.ndarray, " _n"]

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Detections:
    """The faces of one image, surest first.

    `landmarks`, x and y: left eye, right eye, nose, left and right mouth corner, as in records.Face.
    """

    boxes: Float32[np.ndarray, "n 4"]
    confidences: Float32[np.ndarray, " n"]
    landmarks: Float32[np.ndarray, "n 5 2"]


class Mtcnn:
    """The three networks, one after the other.

    Args:
        device: torch device the networks run on; boxes are sorted out on the CPU.

    Raises:
        WeightsMissing: facenet-pytorch, or a weights file of it, is not installed.
        WeightsMismatch: a weights file does not fit its network.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        if self._device.type == "cuda":
            # By default a GPU rounds convolutions to ten bits and finds other faces than a CPU. This is set
            # once
            # for the whole process: switching it on and off would affect other threads at random.
            torch.backends.cudnn.allow_tf32 = False
        self._proposer = _load(_Proposer(), "pnet.pt", self._device)
        self._refiner = _load(_Refiner(), "rnet.pt", self._device)
        self._settler = _load(_Settler(), "onet.pt", self._device)

    @property
    def _at_once(self) -> int:
        return AT_ONCE if self._device.type == "cpu" else AT_ONCE_ON_GPU

    @torch.inference_mode()
    def detect(self, images: UInt8[np.ndarray, "b h w 3"], smallest: float) -> list[Detections]:
        """Faces of at least `smallest` pixels in each RGB image; none if the image itself is smaller."""
        found: list[Detections] = []
        for part in _parts(len(images), images.shape[1:3], SUMMED):
            sums = SummedArea(images[part], self._device)
            boxes, owner = self._propose(sums, FIELD / smallest)
            boxes, owner = self._refine(sums, boxes, owner)
            boxes, owner, scores, landmarks = self._settle(sums, boxes, owner)
            places = [np.flatnonzero(owner == image) for image in range(sums.count)]
            found += [Detections(boxes[here], scores[here], landmarks[here]) for here in places]
        return found

    def _propose(self, sums: SummedArea, scale: float) -> tuple[Boxes, Owner]:
        """First step: boxes from all levels of the pyramid, `scale` being its largest."""
        levels = list(_levels(sums.height, sums.width, scale))
        seen = [self._slide(sums, number, level) for number, level in enumerate(levels)]
        if not seen:
            return np.empty((0, 4), np.float32), np.empty(0, int)
        # Copied in one go, to wait for the GPU only once.
        places, said = (torch.cat(part).cpu().numpy() for part in zip(*seen, strict=True))
        number, image, row, column = places.T
        corner = STRIDE * np.column_stack([column, row]).astype(np.float32)
        size = np.array(levels, np.float32)[number, None]  # in facenet's precision: it is rounded
        box = np.hstack([np.floor((corner + 1) / size), np.floor((corner + FIELD) / size)])
        score, by = said[:, 0], said[:, 1:]
        within = suppress(box, score, image * len(levels) + number, WITHIN)
        box, score, by, image = box[within], score[within], by[within], image[within]
        kept = suppress(box, score, image, ACROSS)
        return _square(_moved(box[kept], by[kept], 0)), image[kept]

    def _slide(
        self, sums: SummedArea, number: int, level: float
    ) -> tuple[Int[Tensor, "_n 4"], Float[Tensor, "_n 5"]]:
        """Slide the first network over one level: place, confidence and moves of each proposal.

        A place is the level's `number`, an image, a row and a column, in fields.
        """
        size = (int(sums.height * level + 1), int(sums.width * level + 1))
        whole = np.tile((0, 0, sums.width, sums.height), (sums.count, 1))
        places, said = [], []
        for part in _parts(sums.count, size, self._at_once):
            images = np.arange(sums.count)[part]
            for rows in _strips(size):
                score, move = self._proposer(sums.means(images, whole[part], size, rows))
                image, row, column = (score >= PROPOSED).nonzero(as_tuple=True)
                values = [score[image, row, column][:, None], move[image, :, row, column]]
                said.append(torch.hstack(values))
                image, row = image + part.start, row + rows.start // STRIDE
                places.append(torch.stack([torch.full_like(image, number), image, row, column], 1))
        return torch.cat(places), torch.cat(said)

    def _refine(self, sums: SummedArea, boxes: Boxes, owner: Owner) -> tuple[Boxes, Owner]:
        """Second step: keep the proposed boxes that hold a face and fit them more closely."""
        boxes, owner, said = self._judge(self._refiner, sums, boxes, owner, SMALL, REFINED)
        kept = suppress(boxes, said[:, 0], owner, ACROSS)
        return _square(_moved(boxes[kept], said[kept, 1:5], 1)), owner[kept]

    def _settle(
        self, sums: SummedArea, boxes: Boxes, owner: Owner
    ) -> tuple[Boxes, Owner, Scores, Float32[np.ndarray, "n 5 2"]]:
        """Third step: the last boxes, with their confidences and landmarks."""
        boxes, owner, said = self._judge(self._settler, sums, boxes, owner, LARGE, SETTLED)
        # Landmarks come as shares of the box that was looked at: all x, then all y.
        shares = said[:, 5:].reshape(-1, 2, 5).transpose(0, 2, 1)
        landmarks = _sides(boxes, 1)[:, None] * shares + boxes[:, None, :2] - 1
        boxes = _moved(boxes, said[:, 1:5], 1)
        kept = suppress(boxes, said[:, 0], owner, ACROSS, of_smaller=True)
        return boxes[kept], owner[kept], said[kept, 0], landmarks[kept]

    def _judge(
        self,
        net: _Refiner | _Settler,
        sums: SummedArea,
        boxes: Boxes,
        owner: Owner,
        side: int,
        threshold: float,
    ) -> tuple[Boxes, Owner, Float32[np.ndarray, "_n said"]]:
        """The boxes that `net` accepts, seen at `side` x `side` pixels, and its whole output for them."""
        # Cut to whole pixels as facenet-pytorch does it: 1-based with both ends inside.
        crops = np.trunc(boxes).astype(int)
        crops[:, :2] = np.maximum(crops[:, :2], 1) - 1
        crops[:, 2:] = np.minimum(crops[:, 2:], (sums.width, sums.height))
        seen = (crops[:, 2:] > crops[:, :2]).all(1)
        boxes, owner, crops = boxes[seen], owner[seen], crops[seen]
        answers = np.empty((len(crops), net.says), np.float32)
        for part in _parts(len(crops), (side, side), self._at_once):
            pictures = sums.means(owner[part], crops[part], (side, side))
            answers[part] = net(pictures).cpu().numpy()
        sure = answers[:, 0] > threshold
        return boxes[sure], owner[sure], answers[sure]


class SummedArea:
    """Sums over all rectangles of a batch of images at once (Crow, SIGGRAPH 1984).

    Entry [image, y, x] is the sum of all pixels above y and left of x, so any rectangle's sum takes four
    entries. The entries are int32 and may wrap around; differences wrap likewise, so they are exact as long
    as the rectangle's own sum fits, up to 8 million pixels.
    """

    def __init__(self, images: UInt8[np.ndarray, "b h w 3"], device: torch.device) -> None:
        self.count, self.height, self.width = images.shape[:3]
        shape = (self.count, self.height + 1, self.width + 1, 3)
        sums = torch.empty(shape, dtype=torch.int32, device=device)
        sums[:, 0], sums[:, :, 0] = 0, 0
        inner = sums[:, 1:, 1:]
        # Move the bytes first and widen them on the device.
        there = torch.from_numpy(np.require(images, requirements="W")).to(device)
        inner.copy_(there).cumsum_(2)
        if device.type == "cpu":
            # cumsum_(1) would walk down one column after the other and miss every cache.
            for y in range(2, self.height + 1):
                sums[:, y] += sums[:, y - 1]
        else:
            inner.cumsum_(1)
        self._entries = sums.view(-1, 3)

    def means(
        self,
        owner: Owner,
        crops: Int[np.ndarray, "n 4"],
        size: tuple[int, int],
        rows: slice = slice(None),
    ) -> Float[Tensor, "n 3 rows columns"]:
        """Each crop of its image resampled to `size` (rows, columns), or only some `rows` of it.

        A pixel is the mean of all pixels it touches, as in PyTorch's adaptive average pooling ("area"
        interpolation). `crops` are left, top, right, bottom, inside the image and not empty. The result is in
        channels-last order, which is faster for the networks.
        """
        device = self._entries.device
        left, top, right, bottom = torch.from_numpy(crops).to(device).T
        first = torch.from_numpy(owner).to(device) * (self.height + 1)
        above, below = (edge[:, rows] for edge in _bins(top, bottom, size[0]))
        before, after = _bins(left, right, size[1])
        pixels = (below - above)[:, :, None] * (after - before)[:, None]

        def upto(y: Int[Tensor, "n rows"], x: Int[Tensor, "n columns"]) -> Tensor:
            lines = (first[:, None] + y) * (self.width + 1)
            return self._entries.index_select(0, (lines[:, :, None] + x[:, None]).flatten())

        sums = upto(below, after)
        sums -= upto(above, after)
        sums -= upto(below, before)
        sums += upto(above, before)
        means = sums.view(*pixels.shape, 3) / pixels[..., None]
        return means.permute(0, 3, 1, 2)


def _bins(
    start: Int[Tensor, " n"], end: Int[Tensor, " n"], count: int
) -> tuple[Int[Tensor, "n count"], Int[Tensor, "n count"]]:
    """Where each of `count` equal parts of each span starts and ends, out to whole pixels."""
    steps = torch.arange(count + 1, device=start.device) * (end - start)[:, None]
    low = steps[:, :-1].div(count, rounding_mode="floor")
    high = -(-steps[:, 1:]).div(count, rounding_mode="floor")
    return start[:, None] + low, start[:, None] + high


# --- boxes -----------------------------------------------------------------------------------------


def suppress(
    boxes: Boxes, scores: Scores, owner: Owner, threshold: float, of_smaller: bool = False
) -> Int[np.ndarray, " kept"]:
    """Non-maximum suppression within each image: indices of the boxes kept, best first.

    From the best down, a box is dropped if it overlaps a better box that was kept by more than `threshold`.

    Args:
        boxes: of any number of images.
        scores: higher is better; ties keep their order.
        owner: each box's image; boxes of different images are never compared.
        threshold: share of overlap, see `overlap`.
        of_smaller: see `overlap`.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, owner = boxes[order], owner[order]
    beats = [np.empty((2, 0), np.int32)]
    for pairs in _meeting(boxes, owner):
        better, worse = pairs.min(0), pairs.max(0)
        beaten = overlap(boxes[better], boxes[worse], of_smaller) > threshold
        beats.append(np.stack([better[beaten], worse[beaten]]))
    return order[_unbeaten(len(order), np.hstack(beats))]


def _unbeaten(count: int, beats: Int[np.ndarray, "2 _pairs"]) -> Bool[np.ndarray, " count"]:
    """Who is kept, if in each pair the first beats the second only while it is kept itself.

    The first of a pair has the lower number. Each round decides all anew from the round before, until nothing
    changes. The lowest number is right from the start and each round settles at least one more; in practice
    it takes four or five rounds.
    """
    stays = np.ones(count, bool)
    while True:
        still = np.ones(count, bool)
        still[beats[1, stays[beats[0]]]] = False
        if (still == stays).all():
            return stays
        stays = still


def _meeting(boxes: Boxes, owner: Owner) -> Iterator[Int[np.ndarray, "2 _pairs"]]:
    """Indices of pairs of boxes in one image: all that touch (some twice), and some that do not.

    Each box is entered into every horizontal band it reaches into, and each band is swept from left to right.
    So in a larger crowd each box is still compared with its neighbours only.
    """
    if len(boxes) < 2:
        return
    left, top, right, bottom = boxes.astype(float).T
    band = max(1.0, float(np.median(bottom - top)))
    low, high = np.floor(top / band).astype(int), np.floor((bottom + 1) / band).astype(int)
    who, step = _spread(np.maximum(high - low + 1, 0))
    # One axis for all bands of all images, long enough that none reaches into the next.
    bands = (owner - owner.min()) * (high.max() - low.min() + 1) + low - low.min()
    length = right.max() - left.min() + 2
    start = (bands[who] + step) * length + left[who] - left.min()
    by_start = np.argsort(start)
    who, start = who[by_start], start[by_start]
    end = np.searchsorted(start, start + (right - left + 1)[who], side="right")
    ahead = np.maximum(end - np.arange(len(who)) - 1, 0)
    upto = np.cumsum(ahead)
    for at in range(0, int(ahead.sum()), COMPARED):
        pair = np.arange(at, min(at + COMPARED, int(upto[-1])))
        here = np.searchsorted(upto, pair, side="right")
        there = here + 1 + pair - (upto - ahead)[here]
        yield np.stack([who[here], who[there]])


def _spread(
    counts: Int[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " _all"], Int[np.ndarray, " _all"]]:
    """Each place as many times as `counts` says, in order, and how many times it has been there before."""
    place = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return place, np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)


def overlap(
    a: Float32[np.ndarray, "*#n 4"], b: Float32[np.ndarray, "*#n 4"], of_smaller: bool
) -> Float32[np.ndarray, ...]:
    """Intersection over union of pairs; `of_smaller`: over the smaller box, right and bottom inside.

    The latter is the rule of the authors' last step: a box inside another is dropped, however small.
    """
    edge = int(of_smaller)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    shared = np.maximum(high - low + edge, 0).prod(-1)
    area_a, area_b = _sides(a, edge).prod(-1), _sides(b, edge).prod(-1)
    whole = np.minimum(area_a, area_b) if of_smaller else area_a + area_b - shared
    with np.errstate(divide="ignore", invalid="ignore"):  # a box moved inside out overlaps nothing
        return shared / whole


def _sides(boxes: Float32[np.ndarray, "*n 4"], edge: float) -> Float32[np.ndarray, "*n 2"]:
    """Width and height; `edge` 1 includes the right and bottom pixels, as in MTCNN's training."""
    return boxes[..., 2:] - boxes[..., :2] + edge


def _moved(boxes: Boxes, moves: Float32[np.ndarray, "n 4"], edge: float) -> Boxes:
    """Boxes with each side shifted by its share of the box's width or height."""
    return boxes + moves * np.tile(_sides(boxes, edge), 2)


def _square(boxes: Boxes) -> Boxes:
    """Squares about the boxes' centres, as large as their longer sides."""
    sides = _sides(boxes, 0)
    longer = sides.max(1, keepdims=True)
    corner = boxes[:, :2] + sides * 0.5 - longer * 0.5
    return np.hstack([corner, corner + longer])


def _levels(height: int, width: int, scale: float) -> Iterator[float]:
    """Scales of the pyramid, down to the smallest that still holds one field."""
    # The shorter side is multiplied along, with the same rounding, so that it ends where facenet-pytorch
    # ends.
    side = min(height, width) * scale
    while side >= FIELD:
        yield scale
        scale *= FACTOR
        side *= FACTOR


def _parts(count: int, size: tuple[int, ...], most: int) -> Iterator[slice]:
    """Split `count` pictures of `size` into runs of at most `most` pixels, but at least one picture."""
    step = max(1, most // (size[0] * size[1]))
    return (slice(i, i + step) for i in range(0, count, step))


def _strips(size: tuple[int, int]) -> Iterator[slice]:
    """Split a level into strips of about STRIP pixels so that each field lies in exactly one.

    Neighbouring strips share FIELD - STRIDE rows, because a field reaches that far beyond its first rows.
    """
    shared = FIELD - STRIDE
    fields = -(-(size[0] - shared) // STRIDE)
    step = max(1, STRIP // size[1] // STRIDE)
    for at in range(0, fields, step):
        last = at + step >= fields  # its last row may be half a field's step
        yield slice(STRIDE * at, size[0] if last else STRIDE * (at + step) + shared)


# --- networks: the layers' names are the keys of facenet-pytorch's files ------------------------------


class _Proposer(nn.Module):
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


class _Refiner(nn.Module):
    """R-Net: of crops, the confidence (1) and the moves (4)."""

    says = 5

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


class _Settler(nn.Module):
    """O-Net: of crops, the confidence (1), the moves (4) and the landmarks (5 x, 5 y)."""

    says = 15

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


def _load(net: Net, name: str, device: torch.device) -> Net:
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
