"""Turns rows of crops into training batches: real crops, each next to a manipulation of it.

The order is a pure function of the seed and of a count: unit n of a run is the same whichever process
asks, whatever ran before, and however often the run was interrupted.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deepscan.data.crops import CropRow
from deepscan.errors import DataError
from deepscan.faces.alignment import CROP_SIDE, TEMPLATE, seen
from deepscan.model.tower import TowerSize
from deepscan.records import Pixels
from deepscan.shapes import Bool, Float, UInt8
from deepscan.training.augment import AugmentSettings, augment, augmentation
from deepscan.training.losses import forged_patches
from deepscan.training.pseudo import PseudoSettings, self_blend
from deepscan.training.splits import BLENDED, blended, check_classes


@dataclass(frozen=True, slots=True)
class Unit:
    """A real crop and the manipulated one that goes with it, augmented alike."""

    real: CropRow
    fake: CropRow
    seed: int  # of the views
    donor: CropRow | None = None  # of another person's face, where that is what is blended in


class CropSampler:
    """The n-th unit of training, for all n from 0.

    Manipulated crops come in passes, each of all of them in an order of its own; with every one comes the
    same frame of its original, or any of its original's, or where there is none any real crop. A `pseudo`
    share of the units is real crops alone, drawn by lot; in that pass the manipulated crops whose places
    they take are not shown. Where some real crops come with landmarks, those without are not blended. A
    `swap` share of the blended ones gets the face of any other real crop instead of its own.

    With `natural` there are no pairs: unit n is one crop, passes are of all crops, real or not.
    """

    def __init__(
        self,
        rows: Sequence[CropRow],
        pseudo: float,
        seed: int,
        swap: float = 0.0,
        natural: bool = False,
    ) -> None:
        self.reals = [row for row in rows if row.label == 0]
        self.fakes = [row for row in rows if row.label == 1]
        if not self.reals or (not self.fakes and pseudo < 1):
            check_classes("training", rows)
        self._blendable = [row for row in self.reals if row.landmarks] or self.reals
        self._pseudo, self._swap, self._seed = pseudo, swap, seed
        self.size = 1 if natural else 2  # crops a unit
        self._of_source: dict[str, list[CropRow]] = defaultdict(list)
        for row in self.reals:
            if row.source:
                self._of_source[row.source].append(row)
        self._frames = {(row.source, row.frame): row for row in self.reals if row.source}
        self._permutation = lru_cache(maxsize=4)(self._permuted)

    def crops(self, n: int) -> tuple[list[CropRow], Unit]:
        """The crops of the n-th unit, real before manipulated, and the unit."""
        if self.size == 2:
            unit = self.unit(n)
            return [unit.real, unit.fake], unit
        row = self._turn([*self.reals, *self.fakes], n, 3)
        views = int(np.random.default_rng([self._seed, 1, n]).integers(2**31))
        return [row], Unit(row, row, views)

    def unit(self, n: int) -> Unit:
        """The n-th unit."""
        rng = np.random.default_rng([self._seed, 1, n])
        views = int(rng.integers(2**31))
        if rng.random() < self._pseudo:
            real = self._turn(self._blendable, n, 2)
            donor = None
            if rng.random() < self._swap:
                donor = self._blendable[int(rng.integers(len(self._blendable)))]
            return Unit(real, blended(real), views, donor)
        fake = self._turn(self.fakes, n, 3)
        same = self._frames.get((fake.source, fake.frame))
        if same is not None:
            return Unit(same, fake, views)
        among = self._of_source.get(fake.source) or self.reals
        return Unit(among[int(rng.integers(len(among)))], fake, views)

    def _turn(self, rows: Sequence[CropRow], n: int, stream: int) -> CropRow:
        passed, place = divmod(n, len(rows))
        return rows[self._permutation(len(rows), passed, stream)[place]]

    def _permuted(self, count: int, passed: int, stream: int) -> list[int]:
        return np.random.default_rng([self._seed, stream, passed]).permutation(count).tolist()


class TrainingCrops(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """Unit n -> its c crops (c, side, side, 3), their manipulated patches (c, p), has_mask (c,), labels (c,).

    c is 2, a real and a manipulated crop, or 1 with natural sampling.

    has_mask is False for a manipulated crop of which no mask says which of its patches are manipulated.

    Args:
        size: the tower's, which says what its patches are.
        share: of a patch that must be manipulated for it to count as such.
        blend: how pseudo-fakes are made.
        view: which share of a crop's side the tower's patches cover (see faces.alignment.seen).
    """

    def __init__(
        self,
        sampler: CropSampler,
        changes: AugmentSettings,
        size: TowerSize,
        share: float = 0.5,
        blend: PseudoSettings | None = None,
        view: float = 1.0,
    ) -> None:
        self._sampler, self._transform = sampler, augmentation(changes)
        self._blend = blend or PseudoSettings()
        self._size, self._share, self._view = size, share, view

    def __getitem__(
        self, n: int
    ) -> tuple[
        UInt8[Tensor, "c side side 3"], Bool[Tensor, "c p"], Bool[Tensor, " c"], Float[Tensor, " c"]
    ]:
        rows, unit = self._sampler.crops(n)
        face = _face_points(unit.real)
        shown = []
        for row in rows:
            pixels, mask = picture(row, unit.seed, self._blend, unit.donor)
            forged_at = mask if mask.any() else None  # an empty one stays so, however it is moved
            shown.append(augment(pixels, forged_at, self._transform, unit.seed, face))
        crops = np.stack([pixels for pixels, _ in shown])
        masks = np.stack([self._as_input(mask) for _, mask in shown])
        grid = self._size.image_size // self._size.patch_size
        forged = forged_patches(torch.from_numpy(masks), grid, self._share)
        has_mask = [not r.label or r.mask is not None or r.method == BLENDED for r in rows]
        labels = torch.tensor([float(row.label) for row in rows])
        return torch.from_numpy(crops), forged, torch.tensor(has_mask), labels

    def _as_input(self, mask: Bool[np.ndarray, "h w"] | None) -> Bool[np.ndarray, "side side"]:
        """What is seen of a mask, at the tower's input size; of None, nothing."""
        side = self._size.image_size
        if mask is None:
            return np.zeros((side, side), bool)
        left, top, size = seen(self._view, len(mask))
        mask = mask[top : top + size, left : left + size]
        image = Image.fromarray(mask.astype(np.uint8) * 255)
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) > 127


def batches(
    dataset: TrainingCrops,
    start: int,
    stop: int,
    units: int,
    rank: int,
    world: int,
    workers: int,
    pin: bool = False,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The batches of steps `start` to `stop` for this process, as `TrainingCrops` of u units, (c u, ...).

    With `pin` crops stand in pinned memory, from which a GPU takes them while it computes.

    A step shows `units` units; this process gets its share of them, real and manipulated in turn.
    """
    share = units // world
    steps = [
        range(step * units + rank * share, step * units + (rank + 1) * share)
        for step in range(start, stop)
    ]
    loader = DataLoader(
        dataset,
        batch_sampler=[list(step) for step in steps],
        num_workers=workers,
        worker_init_fn=_one_thread,
        pin_memory=pin,
        # Workers draw nothing from it; given, so that torch's global generator is not drawn from.
        generator=torch.Generator(),
    )
    for crops, *rest in _named(loader):
        forged, has_mask, labels = (x.flatten(0, 1) for x in rest)
        yield crops.flatten(0, 1), forged, has_mask, labels


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


# --- files -----------------------------------------------------------------------------------------


def picture(
    row: CropRow,
    seed: int | None = None,
    blend: PseudoSettings | None = None,
    donor: CropRow | None = None,
) -> tuple[UInt8[np.ndarray, "side side 3"], Bool[np.ndarray, "side side"]]:
    """A crop's pixels, brought to the side all crops have, and where it is manipulated, so far as is known.

    Args:
        seed: of a blended crop; by default its video and frame give one.
        blend: how it is blended, if it is.
        donor: whose face is blended in; None: its own.

    Raises:
        DataError: a file cannot be decoded.
    """
    side = (CROP_SIDE, CROP_SIDE)
    pixels = _read(row.path).copy()  # the caller may change it
    if row.method == BLENDED:
        points = _landmarks(row)
        face = None if donor is None else (_read(donor.path), _landmarks(donor))
        own = zlib.crc32(f"{row.video}/{row.frame}".encode())
        rng = np.random.default_rng(own if seed is None else seed)
        try:
            pixels, share = self_blend(pixels, points, rng, blend or PseudoSettings(), face)
        except DataError as error:
            raise DataError(f"{row.path}: {error}; remove it from the listing") from error
        return pixels, share > 0.5
    if row.mask is None:
        return pixels, np.zeros(side, bool)
    with _opened(row.mask) as image:
        return pixels, np.asarray(image.convert("L").resize(side, Image.Resampling.BILINEAR)) > 127


@lru_cache(maxsize=2)  # a crop and its own blend are shown together
def _read(path: Path) -> UInt8[np.ndarray, "side side 3"]:
    side = (CROP_SIDE, CROP_SIDE)
    with _opened(path) as image:
        rgb = image.convert("RGB")
        return np.asarray(rgb if rgb.size == side else rgb.resize(side, Image.Resampling.BICUBIC))


def _face_points(row: CropRow) -> Float[np.ndarray, "_points 2"]:
    """A crop's landmarks; of one without, where an aligned crop has its eyes, nose and mouth."""
    points = _landmarks(row)
    return TEMPLATE if points is None else points


def _landmarks(row: CropRow) -> Float[np.ndarray, "_points 2"] | None:
    return None if row.landmarks is None else np.load(row.landmarks).astype(float)


def _opened(path: Any) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
        return image
    except OSError as error:
        raise DataError(
            f"{path}: not a readable picture ({error}); replace it or remove it from the listing"
        ) from error


class Pictures(Dataset[Tensor]):
    """Row i's pixels, as they are or as `change` leaves them; pseudo-fakes as `blend` makes them."""

    def __init__(
        self,
        rows: Sequence[CropRow],
        change: Callable[[Pixels], Pixels] | None,
        blend: PseudoSettings | None,
    ) -> None:
        self._rows, self._change, self._blend = rows, change, blend

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> UInt8[Tensor, "side side 3"]:
        pixels = picture(self._rows[i], blend=self._blend)[0]
        return torch.from_numpy(pixels if self._change is None else self._change(pixels).copy())


def pictures(
    rows: Sequence[CropRow],
    batch: int,
    workers: int,
    change: Callable[[Pixels], Pixels] | None = None,
    blend: PseudoSettings | None = None,
) -> Iterator[Tensor]:
    """All rows' crops in their order, (batch, side, side, 3) at a time."""
    loader = DataLoader(
        Pictures(rows, change, blend),
        batch,
        num_workers=workers,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),
    )
    yield from _named(loader)


def _named(loader: Iterable[Any]) -> Iterator[Any]:
    """The loader's batches; a worker's DataError without the traceback that torch wraps it in."""
    try:
        yield from loader
    except DataError as error:
        raise DataError(str(error).strip().splitlines()[-1].split("DataError: ")[-1]) from error
