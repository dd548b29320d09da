"""Joins the faces of successive sampled instants into tracks, one for each person.

Within a shot a face is known by its place, a little later by its place and its look, and across cuts by its
look alone. In doubt tracks are not joined: two tracks of one person do less harm than one of two people. At
the end, when more is known of each look, tracks are compared again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from deepscan.records import Face, Pixels
from deepscan.shapes import Float

# People hardly change places within a second; later someone else may stand there.
MOMENT = 1.0

# How much two looks must correlate to be one person's: within a moment in one place and shot, where a face
# turned aside is likelier than another's; later in the same place and shot; and anywhere. Of 2,793 pairs of
# looks less than a second apart in clips of one person, 1 in 1,000 is below 0.72, and half of all pairs of
# two persons are below 0.34. In 110 clips of as many people, six crops each, the last crop's look reaches
# SAME_LOOK with one of the five before it in 93 %, and with one of five of another person in 0.5 %.
NOT_ANOTHER = 0.5
LIKE = 0.6
SAME_LOOK = 0.75

# Later looks of a track that a new face is compared with, and tracks that it is compared with: without a
# bound, a crowd would slow down every frame.
LOOKS = 8
REMEMBERED = 64

# Two faces further apart than this, in face sizes, or this different in size, are in different places.
MAX_SHIFT = 1.0
MAX_ZOOM = 1.8


Look = Float[np.ndarray, " features"]


@dataclass(slots=True)
class _Open:
    """A track that may still grow."""

    id: int
    last: Face
    time: Fraction
    shot: int
    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=LOOKS))
    seen: set[Fraction] = field(default_factory=set)


class Follower:
    """Gives each face of each successive frame the id of its track, starting from 1."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._shot = 0
        self._next_id = 1

    def follow(
        self, faces: Sequence[Face], looks: Sequence[Look], time: Fraction, cut: bool = False
    ) -> list[int]:
        """Track ids of one frame's faces, in their order. Call once per sampled instant, faces or not.

        The Hungarian method pairs tracks and faces for the highest total of nearness in place and in look; a
        pair whose looks are not alike enough for what else is known is never made.

        Args:
            looks: what `look_of` says of each face.
            time: seconds; later than at the call before.
            cut: whether the scene changed since the frame before, so that places mean nothing.
        """
        self._shot += cut
        self._open = sorted(self._open, key=lambda t: t.time)[-REMEMBERED:]
        ids: dict[int, int] = {}
        if self._open and faces:
            scores = self._scores(faces, looks, time)
            for row, column in _pairing(scores):
                if scores[row, column] > 0:
                    ids[column] = self._open[row].id
                    self._keep(self._open[row], faces[column], looks[column], time)
        for column, face in enumerate(faces):
            if column not in ids:
                ids[column] = self._next_id
                self._open.append(_Open(self._next_id, face, time, self._shot))
                self._keep(self._open[-1], face, looks[column], time)
                self._next_id += 1
        return [ids[column] for column in range(len(faces))]

    def same(self) -> dict[int, int]:
        """After the last frame: the tracks of one person by look, as later id -> earliest id.

        The most similar tracks are joined first. Tracks that were ever seen together are two people.
        """
        tracks = sorted(self._open, key=lambda t: t.id)
        alike = [
            (float((np.stack(a.looks) @ np.stack(b.looks).T).max()), i, i + 1 + j)
            for i, a in enumerate(tracks)
            for j, b in enumerate(tracks[i + 1 :])
        ]
        person = list(range(len(tracks)))
        seen = [set(track.seen) for track in tracks]
        for score, i, j in sorted(alike, reverse=True):
            one, other = sorted((person[i], person[j]))
            if score >= SAME_LOOK and one != other and not seen[one] & seen[other]:
                seen[one] |= seen[other]
                person = [one if p == other else p for p in person]
        return {tracks[i].id: tracks[p].id for i, p in enumerate(person) if i != p}

    def find(
        self, person: int, near: Face, faces: Sequence[Face], looks: Sequence[Look]
    ) -> int | None:
        """Index of this person's face in a frame, given the face `near` before or after; None if absent.

        `person` is an id that `same` does not change.
        """
        joined = self.same()
        own = [t.looks for t in self._open if joined.get(t.id, t.id) == person]
        if not own or not faces:
            return None
        alike = (np.stack([look for looks in own for look in looks]) @ np.stack(looks, 1)).max(0)
        places = [likeness(near, face) for face in faces]
        fits = [
            place + look if look >= (LIKE if place else SAME_LOOK) else 0.0
            for place, look in zip(places, alike.tolist(), strict=True)
        ]
        best = int(np.argmax(fits))
        return best if fits[best] > 0 else None

    def _scores(
        self, faces: Sequence[Face], looks: Sequence[Look], time: Fraction
    ) -> Float[np.ndarray, "tracks faces"]:
        """How well each face fits each track; 0 where they may not be joined."""
        new = np.stack(looks, 1)
        scores = np.zeros((len(self._open), len(faces)))
        for row, track in enumerate(self._open):
            alike = (np.stack(track.looks) @ new).max(0)
            for column, face in enumerate(faces):
                place, needed = 0.0, SAME_LOOK
                if track.shot == self._shot and (place := likeness(track.last, face)) > 0:
                    needed = NOT_ANOTHER if time - track.time <= MOMENT else LIKE
                if alike[column] >= needed:
                    scores[row, column] = place + alike[column]
        return scores

    def _keep(self, track: _Open, face: Face, look: Look, time: Fraction) -> None:
        track.last, track.time, track.shot = face, time, self._shot
        track.looks.append(look)
        track.seen.add(time)


def _pairing(scores: Float[np.ndarray, "tracks faces"]) -> list[tuple[int, int]]:
    """Rows and columns of the pairing with the highest total score, as many pairs as fit."""
    if min(scores.shape) == 1:  # one face or one track, the usual case: no need to load scipy
        row, column = np.unravel_index(scores.argmax(), scores.shape)
        return [(int(row), int(column))]
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(scores, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


# --- what a face looks like ------------------------------------------------------------------------

CELLS, DIRECTIONS = 8, 8  # of the face: how edges run in each cell
PATCHES = 8  # of nearly all of the crop, with hair and collar: their colours
FAINT_EDGES = 20.0  # added to each cell's sum, so that noise on plain skin is not a pattern


def look_of(pixels: Pixels) -> Look:
    """A face's look: how edges run in the aligned crop's inside, and the colours of all of it. Length 1.

    Two looks are compared by their product, 1 for the same picture; both halves are correlations.
    Source for the edges: N. Dalal and B. Triggs, "Histograms of oriented gradients for human detection",
    CVPR 2005, here with signed directions, square roots and each cell scaled by itself.
    """
    return np.concatenate([_centred(_edges(pixels)), _centred(_colours(pixels))]) / np.sqrt(2)


def _edges(pixels: Pixels) -> Float[np.ndarray, "cells cells directions"]:
    grey = _inside(pixels, 5, 2 * CELLS).mean(-1)
    grey = grey.reshape(grey.shape[0] // 2, 2, -1, 2).mean((1, 3))
    down, across = np.gradient(grey)
    strength = np.hypot(across, down)
    direction = np.arctan2(down, across) % (2 * np.pi) / (2 * np.pi) * DIRECTIONS
    side = grey.shape[0] // CELLS
    found = np.empty((CELLS, CELLS, DIRECTIONS))
    for i in range(DIRECTIONS):
        off = np.abs(direction - i)
        share = np.maximum(0, 1 - np.minimum(off, DIRECTIONS - off)) * strength
        found[..., i] = share.reshape(CELLS, side, CELLS, side).sum((1, 3))
    found = np.sqrt(found)
    return found / (found.sum(2, keepdims=True) + FAINT_EDGES)


def _colours(pixels: Pixels) -> Float[np.ndarray, "patches patches 3"]:
    whole = _inside(pixels, 7.5, PATCHES)
    side = whole.shape[0] // PATCHES
    return whole.reshape(PATCHES, side, PATCHES, side, 3).mean((1, 3))


def _inside(pixels: Pixels, eighths: float, cells: int) -> Float[np.ndarray, "side side 3"]:
    """The middle of a crop, so many eighths of its side, and a side that the cells divide."""
    side = int(pixels.shape[0] * eighths / 8) // cells * cells
    start = (pixels.shape[0] - side) // 2
    return pixels[start : start + side, start : start + side].astype(float)


def _centred(values: np.ndarray) -> Float[np.ndarray, " n"]:
    values = values.ravel() - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-9)


def likeness(a: Face, b: Face) -> float:
    """How near two faces are in place and size: 0 (too far away) to 2.

    The sum of the boxes' intersection over union and of the landmarks' nearness, 1 where they
    coincide and 0 at a mean distance of MAX_SHIFT face sizes.
    """
    size = np.sqrt(a.box.size * b.box.size)
    zoom = max(a.box.size, b.box.size) / min(a.box.size, b.box.size)
    shift = float(np.hypot(*(a.landmarks - b.landmarks).T).mean() / size)
    if zoom > MAX_ZOOM or shift >= MAX_SHIFT:
        return 0.0
    return a.box.iou(b.box) + 1 - shift / MAX_SHIFT
