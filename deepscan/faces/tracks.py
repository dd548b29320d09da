"""Joins the faces of successive sampled instants into tracks, one for each person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepscan.records import Face, Pixels
from deepscan.shapes import Float

# A face may be missing for this many sampled instants (turned away, covered, overlooked) and still continue
# its track in the same place; after that someone else may stand there.
MAX_GAP = 4

# If instants lie seconds apart, people move too far between them, and the look of the aligned face decides.
# Two faces of one person mostly correlate more than this, faces of two people seldom
# (tests/faces/test_tracks.py measures both on real clips).
SAME_LOOK = 0.85
LOOK_SIDE = 16

# Tracks that may be continued by their look; without a bound, a crowd would slow down every frame.
REMEMBERED = 64

# Two faces further apart than this, in face sizes, or this different in size, are two people.
MAX_SHIFT = 1.0
MAX_ZOOM = 1.8


Look = Float[np.ndarray, " cells"]


@dataclass(slots=True)
class _Open:
    """A track that may still grow."""

    id: int
    last: Face
    look: Look | None
    step: int


class Follower:
    """Gives each face of each successive frame the id of its track, starting from 1."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._step = 0
        self._next_id = 1

    def follow(self, faces: Sequence[Face], looks: Sequence[Look] | None = None) -> list[int]:
        """Track ids of one frame's faces, in their order. Call once per sampled instant, faces or not.

        The Hungarian method pairs tracks and faces for the highest total of `likeness` (in place, while the
        track is fresh) and `resemblance` (in look, if `looks` are given); a pair without either is never
        made.
        """
        self._step += 1
        self._open = sorted(self._open, key=lambda t: t.step)[-REMEMBERED:]
        seen = list(looks) if looks is not None else [None] * len(faces)
        scores = np.array(
            [
                [self._match(track, *one) for one in zip(faces, seen, strict=True)]
                for track in self._open
            ]
        )
        ids: dict[int, int] = {}
        if scores.size:
            for row, column in _pairing(scores):
                if scores[row, column] > 0:
                    track = self._open[row]
                    track.last, track.look, track.step = faces[column], seen[column], self._step
                    ids[column] = track.id
        for column, face in enumerate(faces):
            if column not in ids:
                ids[column] = self._next_id
                self._open.append(_Open(self._next_id, face, seen[column], self._step))
                self._next_id += 1
        return [ids[column] for column in range(len(faces))]

    def _match(self, track: _Open, face: Face, look: Look | None) -> float:
        fresh = self._step - track.step <= MAX_GAP + 1
        place = likeness(track.last, face) if fresh else 0.0
        if track.look is None or look is None:
            return place
        return place + resemblance(track.look, look)


def _pairing(scores: Float[np.ndarray, "tracks faces"]) -> list[tuple[int, int]]:
    """Rows and columns of the pairing with the highest total score, as many pairs as fit."""
    if min(scores.shape) == 1:  # one face or one track, the usual case: no need to load scipy
        row, column = np.unravel_index(scores.argmax(), scores.shape)
        return [(int(row), int(column))]
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(scores, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def look_of(pixels: Pixels) -> Look:
    """A face's look: its aligned crop in coarse grey, minus the mean, scaled to length 1."""
    side = pixels.shape[0]
    cell = side * 5 // 8 // LOOK_SIDE  # the middle five eighths: the face without its surroundings
    start = (side - cell * LOOK_SIDE) // 2
    stop = start + cell * LOOK_SIDE
    grey = pixels[start:stop, start:stop].mean(-1)
    cells = grey.reshape(LOOK_SIDE, cell, LOOK_SIDE, cell).mean((1, 3)).ravel()
    cells = cells - cells.mean()
    return cells / max(float(np.linalg.norm(cells)), 1e-9)


def resemblance(a: Look, b: Look) -> float:
    """By how much two looks correlate more than those of different people: 0 to 1 - SAME_LOOK."""
    return max(0.0, float(a @ b) - SAME_LOOK)


def likeness(a: Face, b: Face) -> float:
    """How likely two faces are one person a moment apart: 0 (too far away) to 2.

    The sum of the boxes' intersection over union and of the landmarks' nearness, 1 where they
    coincide and 0 at a mean distance of MAX_SHIFT face sizes.
    """
    size = np.sqrt(a.box.size * b.box.size)
    zoom = max(a.box.size, b.box.size) / min(a.box.size, b.box.size)
    shift = float(np.hypot(*(a.landmarks - b.landmarks).T).mean() / size)
    if zoom > MAX_ZOOM or shift >= MAX_SHIFT:
        return 0.0
    return a.box.iou(b.box) + 1 - shift / MAX_SHIFT
