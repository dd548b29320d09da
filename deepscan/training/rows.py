"""The crops for training, validation and test, and the digests of their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deepscan.data.crops import CropRow, read_crops
from deepscan.errors import DataError
from deepscan.training import identity
from deepscan.training.identity import Seen, rows_digest
from deepscan.training.settings import TrainSettings
from deepscan.training.splits import BLENDED, check_classes, split, thin
from deepscan.training.step import Ranks


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows for training, for validation, and for the test at the end."""

    train: list[CropRow]
    val: list[CropRow]
    test: list[CropRow]


def digests_of_data(settings: TrainSettings) -> dict[str, str]:
    """The digests of the data of `settings`, as a run's settings.json states them.

    Raises:
        DataError: as `train`.
    """
    return read_splits(replace(settings, test=None), Ranks(0, 1, "cpu"))[1]


def shown(
    settings: TrainSettings, say: Callable[[str], None] | None = None
) -> tuple[list[CropRow], list[CropRow]]:
    """The training and validation rows of `settings`.

    Raises:
        DataError: data missing, unreadable, one-sided or too little to split.
    """
    wanted = None if settings.dataset is None else [settings.dataset]
    sets = [thin(own_crops(folder, wanted), settings.frames) for folder in settings.data]
    return split(sets, settings.validation, settings.seed, settings.pseudo > 0, say)


def read_splits(
    settings: TrainSettings, ranks: Ranks, say: Callable[[str], None] | None = None
) -> tuple[Splits, dict[str, str]]:
    """The rows of all sides, and the digests of their files (of the leading process alone)."""
    learn, val = shown(settings, say)
    test: list[CropRow] = []
    if settings.test is not None:
        every = read_crops(settings.test)
        test = [row for row in every if row.split == "test"] or every
        check_classes("test", test)
    if settings.losses().contrast == "macl":
        manipulated = [row for row in learn if row.label == 1]
        if not settings.pseudo and all(row.mask is None for row in manipulated):
            raise DataError(
                f"macl: none of the {len(manipulated)} manipulated crops has a mask; --contrast flcl needs"
                " none"
            )
    digests: dict[str, str] = {}
    if ranks.leads:
        learnt = Seen.of(learn)
        identity.refuse(learnt, val, "validation: training shows")
        identity.refuse(learnt | Seen.of(val), test, "test: training or validation shows")
        for folder in settings.data:
            digests[f"data/{folder.name}"] = own_digest(folder, learn + val)
        if settings.test is not None:
            digests["test"] = rows_digest(settings.test, test)
    return Splits(learn, val, test), digests


def own_crops(folder: Path, sets: Sequence[str] | None) -> list[CropRow]:
    """A folder's rows, whose names do not meet those of another folder's."""
    return [
        replace(
            row,
            video=f"{folder.name}/{row.video}",
            source=row.source and f"{folder.name}/{row.source}",
        )
        for row in read_crops(folder, sets)
    ]


def own_digest(folder: Path, rows: Sequence[CropRow]) -> str:
    """Of those of the rows that are `folder`'s own; blends are made of them."""
    own = [row for row in rows if row.method != BLENDED and row.path.is_relative_to(folder)]
    return rows_digest(folder, own)
