"""Runs MTCNN: finds every face in a batch of equal-sized images, with facenet-pytorch's weights.

The cascade of Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded
Convolutional Networks" (IEEE Signal Processing Letters 23, 2016): a small network slides over a
pyramid of the images and proposes boxes, a second one rejects most of them, a third one decides on the
rest and places five landmarks. Each network also corrects its boxes, and after every step the weaker of two
boxes on one face is dropped.

Networks, thresholds and box arithmetic are those of facenet-pytorch 2.5.3, so its weights work as they do
there. One thing differs: all pictures for a network, pyramid levels and crops alike, are averaged from one
summed-area table instead of being cut one by one.

Boxes here are float32 (n, 4): left, top, right, bottom in image pixels. `owner` (n,) says which image
of the batch each belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepscan.faces.networks import ONet, PNet, RNet, load
from deepscan.faces.suppression import Boxes, Owner, Scores, sides, suppress
from deepscan.shapes import Float, Float32, Int, UInt8

# The first network's field of view in pixels of its pyramid level, and the smallest face it can find.
FIELD = 12
STRIDE = 2  # from one such field to the next: the first network pools once

# From one level of the pyramid to the next: half the area, 0.709 = sqrt(1/2).
FACTOR = 0.709

# A box survives each step with at least this confidence ...
PROPOSED, REFINED, OUTPUT = 0.6, 0.7, 0.7
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
            # By default a GPU rounds convolutions to ten bits and finds other faces than a CPU. Set for the
            # whole process, for good: switching it back would affect other threads at random.
            torch.backends.cudnn.allow_tf32 = False
        self._pnet = load(PNet(), "pnet.pt", self._device)
        self._rnet = load(RNet(), "rnet.pt", self._device)
        self._onet = load(ONet(), "onet.pt", self._device)

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
            boxes, owner, scores, landmarks = self._output(sums, boxes, owner)
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
        places, outputs = (torch.cat(part).cpu().numpy() for part in zip(*seen, strict=True))
        number, image, row, column = places.T
        corner = STRIDE * np.column_stack([column, row]).astype(np.float32)
        size = np.array(levels, np.float32)[number, None]  # in facenet's precision: it is rounded
        box = np.hstack([np.floor((corner + 1) / size), np.floor((corner + FIELD) / size)])
        score, by = outputs[:, 0], outputs[:, 1:]
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
        places, outputs = [], []
        for part in _parts(sums.count, size, self._at_once):
            images = np.arange(sums.count)[part]
            for rows in _strips(size):
                score, move = self._pnet(sums.means(images, whole[part], size, rows))
                image, row, column = (score >= PROPOSED).nonzero(as_tuple=True)
                values = [score[image, row, column][:, None], move[image, :, row, column]]
                outputs.append(torch.hstack(values))
                image, row = image + part.start, row + rows.start // STRIDE
                places.append(torch.stack([torch.full_like(image, number), image, row, column], 1))
        return torch.cat(places), torch.cat(outputs)

    def _refine(self, sums: SummedArea, boxes: Boxes, owner: Owner) -> tuple[Boxes, Owner]:
        """Second step: keep the proposed boxes that hold a face and fit them more closely."""
        boxes, owner, outputs = self._accept(self._rnet, sums, boxes, owner, SMALL, REFINED)
        kept = suppress(boxes, outputs[:, 0], owner, ACROSS)
        return _square(_moved(boxes[kept], outputs[kept, 1:5], 1)), owner[kept]

    def _output(
        self, sums: SummedArea, boxes: Boxes, owner: Owner
    ) -> tuple[Boxes, Owner, Scores, Float32[np.ndarray, "n 5 2"]]:
        """Third step: the last boxes, with their confidences and landmarks."""
        boxes, owner, outputs = self._accept(self._onet, sums, boxes, owner, LARGE, OUTPUT)
        # Landmarks come as shares of the box that was looked at: all x, then all y.
        shares = outputs[:, 5:].reshape(-1, 2, 5).transpose(0, 2, 1)
        landmarks = sides(boxes, 1)[:, None] * shares + boxes[:, None, :2] - 1
        boxes = _moved(boxes, outputs[:, 1:5], 1)
        kept = suppress(boxes, outputs[:, 0], owner, ACROSS, of_smaller=True)
        return boxes[kept], owner[kept], outputs[kept, 0], landmarks[kept]

    def _accept(
        self,
        net: RNet | ONet,
        sums: SummedArea,
        boxes: Boxes,
        owner: Owner,
        side: int,
        threshold: float,
    ) -> tuple[Boxes, Owner, Float32[np.ndarray, "_n outputs"]]:
        """The boxes that `net` accepts at `side` x `side` pixels, and its full output for them."""
        # Cut to whole pixels as facenet-pytorch does it: 1-based with both ends inside.
        crops = np.trunc(boxes).astype(int)
        crops[:, :2] = np.maximum(crops[:, :2], 1) - 1
        crops[:, 2:] = np.minimum(crops[:, 2:], (sums.width, sums.height))
        seen = (crops[:, 2:] > crops[:, :2]).all(1)
        boxes, owner, crops = boxes[seen], owner[seen], crops[seen]
        outputs = np.empty((len(crops), net.outputs), np.float32)
        for part in _parts(len(crops), (side, side), self._at_once):
            pictures = sums.means(owner[part], crops[part], (side, side))
            outputs[part] = net(pictures).cpu().numpy()
        sure = outputs[:, 0] > threshold
        return boxes[sure], owner[sure], outputs[sure]


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


def _moved(boxes: Boxes, moves: Float32[np.ndarray, "n 4"], edge: float) -> Boxes:
    """Boxes with each side shifted by its share of the box's width or height."""
    return boxes + moves * np.tile(sides(boxes, edge), 2)


def _square(boxes: Boxes) -> Boxes:
    """Squares about the boxes' centres, as large as their longer sides."""
    size = sides(boxes, 0)
    longer = size.max(1, keepdims=True)
    corner = boxes[:, :2] + size * 0.5 - longer * 0.5
    return np.hstack([corner, corner + longer])


def _levels(height: int, width: int, scale: float) -> Iterator[float]:
    """Scales of the pyramid, down to the smallest that still holds one field."""
    # The shorter side is multiplied with the same rounding, so that it ends where facenet-pytorch ends.
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
