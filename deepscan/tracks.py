"""Who is who: faces of successive sampled instants joined into tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from deepscan.records import Face

# A face may be lost for this many sampled instants (a turn, a hand, a blink of the finder) and still
# be taken up again; longer, and someone else may stand there.
MAX_GAP = 4

# Two faces further apart than this, in face sizes, or this different in size, are two people.
MAX_SHIFT = 1.0
MAX_ZOOM = 1.8


@dataclass(slots=True)
class _Open:
    """A track that may still grow."""

    id: int
    last: Face
    step: int


class Follower:
    """Gives each face of each successive frame the id of its track, starting from 1."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._step = 0
        self._next_id = 1

    def follow(self, faces: Sequence[Face]) -> list[int]:
        """Track ids of one frame's faces, in their order. Call once per sampled instant, faces or not.

        The Hungarian method picks the pairing of open tracks and faces of the highest total
        `likeness`; pairs that are out of reach are never made.
        """
        self._step += 1
        self._open = [t for t in self._open if self._step - t.step <= MAX_GAP + 1]
        scores = np.array([[likeness(t.last, face) for face in faces] for t in self._open])
        ids: dict[int, int] = {}
        if scores.size:
            for row, column in _pairing(scores):
                if scores[row, column] > 0:
                    track = self._open[row]
                    track.last, track.step = faces[column], self._step
                    ids[column] = track.id
        for column, face in enumerate(faces):
            if column not in ids:
                ids[column] = self._next_id
                self._open.append(_Open(self._next_id, face, self._step))
                self._next_id += 1
        return [ids[column] for column in range(len(faces))]


def _pairing(scores: Float[np.ndarray, "tracks faces"]) -> list[tuple[int, int]]:
    """Rows and columns of the pairing with the highest total score, as many pairs as fit."""
    if min(scores.shape) == 1:  # one face or one track, as most videos have: no need to load scipy
        row, column = np.unravel_index(scores.argmax(), scores.shape)
        return [(int(row), int(column))]
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(scores, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def likeness(a: Face, b: Face) -> float:
    """How well two faces could be one person a moment apart: 0 (out of reach) to 2.

    The sum of the boxes' intersection over union and of the landmarks' nearness, 1 where they
    coincide and 0 at a mean distance of MAX_SHIFT face sizes.
    """
    size = np.sqrt(a.box.size * b.box.size)
    zoom = max(a.box.size, b.box.size) / min(a.box.size, b.box.size)
    shift = float(np.hypot(*(a.landmarks - b.landmarks).T).mean() / size)
    if zoom > MAX_ZOOM or shift >= MAX_SHIFT:
        return 0.0
    return a.box.iou(b.box) + 1 - shift / MAX_SHIFT
