"""Splits crops into training and validation: no group of people is in both."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from deepscan.data.crops import CropRow
from deepscan.errors import DataError

BLENDED = "self-blended"  # the method of pseudo-fakes

T = TypeVar("T")


def thin(rows: Iterable[CropRow], frames: int) -> list[CropRow]:
    """At most `frames` crops of each video, spread evenly over those it has."""
    videos: dict[tuple[str, str], list[CropRow]] = defaultdict(list)
    for row in rows:
        videos[row.split, row.video].append(row)
    kept: list[CropRow] = []
    for crops in videos.values():
        crops.sort(key=lambda row: row.frame)
        kept += spread(crops, frames)
    return kept


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, spread evenly over them."""
    places = np.linspace(0, len(items) - 1, min(count, len(items)), dtype=int)
    return [items[place] for place in places.tolist()]


def split(
    sets: Sequence[Sequence[CropRow]],
    share: float,
    seed: int,
    blend: bool = False,
    say: Callable[[str], None] | None = None,
) -> tuple[list[CropRow], list[CropRow]]:
    """Rows to learn from and rows to validate on, without the videos in a "test" split.

    Those are left out wherever else they appear: in DeepfakeBench's listings the val of Celeb-DF and DFDCP
    equals their test, and Celeb-DF's train holds everything.

    Each of `sets` is split by itself, so that both sides hold every kind of material: into its own "train"
    and "val" if it has both, otherwise a `share` of its groups, drawn by `seed`, is held out. If one group
    holds more than half of the videos, sources are held out instead: a video and its manipulations stay
    together, but a person may be on both sides, and `say` is called with a warning. With `blend`, if no crop
    held out of a set is manipulated, a self-blended one is added for each of them.

    Raises:
        DataError: a side is empty or holds one class only, or there are too few groups to draw from.
    """
    train: list[CropRow] = []
    val: list[CropRow] = []
    for rows in sets:
        learn, held = _divided(rows, share, seed, say)
        if blend and not any(row.label for row in held):
            held += [blended(row) for row in held]
        train += learn
        val += held
    if not blend:
        check_classes("training", train)
    check_classes("validation", val)
    return train, val


def _divided(
    rows: Sequence[CropRow], share: float, seed: int, say: Callable[[str], None] | None
) -> tuple[list[CropRow], list[CropRow]]:
    tested = {row.video for row in rows if row.split == "test"}
    usable = [row for row in rows if row.video not in tested]
    train = [row for row in usable if row.split == "train"]
    val = [row for row in usable if row.split == "val"]
    if not (train and val):
        videos = {row.video: row for row in usable}
        of_group = Counter(row.group for row in videos.values())
        units = {name: row.group for name, row in videos.items()}
        if of_group and max(of_group.values()) > len(videos) / 2:
            sources = {name: row.source or name for name, row in videos.items()}
            if len(set(sources.values())) > len(of_group):
                units = sources
                if say is not None:
                    say(
                        f"{max(of_group.values())} of {len(videos)} videos show people of one group"
                        f" ({usable[0].path.parent}): held out are videos with all made of them, not people;"
                        " the same person may be on both sides"
                    )
        held = _held_out(list(units.values()), share, seed)
        train = [row for row in usable if units[row.video] not in held]
        val = [row for row in usable if units[row.video] in held]
    return train, val


def blended(row: CropRow) -> CropRow:
    """A real crop as the self-blended pseudo-fake that `picture` will make of it."""
    return replace(row, label=1, method=BLENDED, video=f"{row.video}/{BLENDED}", mask=None)


def check_classes(what: str, rows: Sequence[CropRow]) -> None:
    """Raise DataError unless there are real and manipulated crops among `rows`."""
    manipulated = sum(row.label for row in rows)
    if not 0 < manipulated < len(rows):
        raise DataError(
            f"{what} data: {len(rows) - manipulated} real and {manipulated} manipulated crops; both classes"
            " are needed (--pseudo 1 makes manipulated ones from real crops, for training)"
        )


def _held_out(groups: Sequence[str], share: float, seed: int) -> set[str]:
    names = sorted(set(groups))
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise DataError(
            f"{len(names)} group(s) of people cannot be split into training and validation; add videos of"
            " other people, or hold out a smaller share"
        )
    return set(np.random.default_rng(seed).permutation(names)[:count].tolist())
