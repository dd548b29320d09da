"""Prepares what the report page shows: the kept frames with their faces, and the most telling of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepscan.judgement.agreement import DISAGREE
from deepscan.judgement.words import HEADLINES, about, counted, listed, logit
from deepscan.report import heatmap
from deepscan.report.pictures import FacePicture, FramePicture
from deepscan.report.rendering import picture_uri


@dataclass(frozen=True, slots=True)
class FaceView:
    """One face of one frame; all places are in the frame's pixels. Without a picture `name` is empty."""

    track: int
    index: int
    time: float
    logit: float
    box: tuple[float, ...]  # x, y, width, height
    name: str = ""  # of its picture on the page
    jpeg: str = ""  # a data URI, as the maps are
    region: tuple[int, int, int, int] = (0, 0, 0, 0)  # what the picture shows: x, y, width, height
    heat: tuple[tuple[str, str], ...] = ()  # each kind of map: its name, its picture
    place: str = ""  # SVG matrix that lays a map over the frame
    side: int = 0

    @property
    def square(self) -> tuple[float, float, float]:
        """A square around the region: x, y, side."""
        x, y, width, height = self.region
        side = max(width, height)
        return x - (side - width) / 2, y - (side - height) / 2, side


@dataclass(frozen=True, slots=True)
class FrameView:
    """One kept frame; `faces` are all faces scored in it, with or without a picture."""

    index: int
    time: float
    width: int
    height: int
    jpeg: str
    faces: tuple[FaceView, ...]

    @property
    def name(self) -> str:
        return f"p{self.index}"


@dataclass(frozen=True, slots=True)
class Card:
    """What stands beside a face's number: it must agree with the headline, which may rest on less of it."""

    words: str
    raised: bool  # a manipulation of this face is the result
    tags: tuple[str, ...]
    part: dict[str, Any] | None  # the stretch of it that stands out


def cards(document: dict[str, Any]) -> dict[int, Card]:
    """Each face's card, by track."""
    verdict, scores = document["verdict"], document["scores"]
    stretch = (scores or {}).get("stretch")
    stretch = stretch and {"finding": None, **stretch}
    apart = verdict["reason"] == DISAGREE
    found = {}
    for track in document["tracks"]:
        finding = track["finding"]
        words = "" if track["enough"] else HEADLINES["insufficient"]
        if finding:
            words = HEADLINES[finding["name"]]
        part = stretch if stretch and stretch["track"] == track["id"] else None
        if part:
            when = about(part["start"], part["end"])
            high = verdict["reason"] == "stretch_high"
            name = "manipulation_indicated" if high else "inconclusive"
            words = f"{HEADLINES[name]} {'at' if high else 'because of'} {when}"
        raised = words.startswith(HEADLINES["manipulation_indicated"]) and not apart
        if apart and finding:
            words = f"{document['tool']['detector']['name']}: {words[0].lower()}{words[1:]}"
        decides = not apart and scores and track["id"] == (stretch or scores)["track"]
        tags = ["decides the result"] if decides else []
        if finding and finding["weak"] and not part:
            tags.append("weak evidence" if decides else "too weak to decide")
        found[track["id"]] = Card(words, raised, tuple(tags), part)
    return found


def ordered(document: dict[str, Any], first: int | None) -> list[dict[str, Any]]:
    """The faces, the most suspicious first, and last those that were not seen well enough."""

    def order(track: dict[str, Any]) -> tuple[bool, bool, bool, float]:
        indicated = (track["finding"] or {}).get("name") == "manipulation_indicated"
        return not track["enough"], track["id"] != first, not indicated, -track["score"]

    return sorted(document["tracks"], key=order)


def because(track: dict[str, Any]) -> str:
    """Why a face has its result, in a few words."""
    finding = track["finding"]
    if not finding:
        return f"seen in {counted(len(track['frames']), 'frame')}, {track['face_size']:.0f} px"
    low, high, score = finding["low"], finding["high"], finding["score"]
    if score >= high:
        words = f"at or above its upper limit, {logit(high)}"
        words += ", which decides nothing here" if finding["name"] == "inconclusive" else ""
    elif score <= low:
        words = f"at or below its lower limit, {logit(low)}"
        words += ", which clears nothing here" if finding["name"] == "inconclusive" else ""
    else:
        words = f"between {logit(low)} and {logit(high)}"
    return f"{words}; weak: {listed(finding['weak'])}" if finding["weak"] else words


def seen(track: dict[str, Any]) -> str:
    """From when to when a face was seen."""
    return about(track["frames"][0]["time"], track["frames"][-1]["time"])


def frames(document: dict[str, Any], pictures: Sequence[FramePicture]) -> Iterator[FrameView]:
    """The kept frames, with the faces that report.json has in them."""
    found: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for track in document["tracks"]:
        for frame in track["frames"]:
            found.setdefault(frame["index"], []).append((track["id"], frame))
    person = {other: track["id"] for track in document["tracks"] for other in track["merged"] or ()}
    for picture in pictures:
        kept = {person.get(face.track, face.track): face for face in picture.faces}
        faces = tuple(
            _face(track, frame, kept.get(track)) for track, frame in found.get(picture.index, ())
        )
        uri = picture_uri("jpeg", picture.jpeg)
        yield FrameView(picture.index, picture.time, picture.width, picture.height, uri, faces)


def _face(track: int, frame: dict[str, Any], picture: FacePicture | None) -> FaceView:
    left, top, right, bottom = frame["box"]
    box = (left, top, round(right - left, 1), round(bottom - top, 1))
    plain = (track, frame["index"], frame["time"], frame["logit"], box)
    if picture is None:
        return FaceView(*plain)
    return FaceView(
        *plain,
        f"p{frame['index']}-{track}",
        picture_uri("jpeg", picture.jpeg),
        picture.region,
        # The kind that says most first.
        tuple(
            (n, picture_uri("webp", picture.heat[n])) for n in heatmap.SCALES if n in picture.heat
        ),
        " ".join(f"{v:.5g}" for v in np.asarray(picture.to_frame).T.ravel()),
        picture.side,
    )


def shown_first(document: dict[str, Any]) -> int | None:
    """The face on the first screen: the one with the stretch that stands out, else the deciding one."""
    scores = document["scores"]
    if scores is None:
        return None
    stretch = scores["stretch"]
    return stretch["track"] if stretch else scores["track"]


def telling(document: dict[str, Any], kept: Sequence[FrameView], track: int) -> FaceView | None:
    """A face's most telling picture: its highest logit, within its outstanding stretch if it has one."""
    stretch = (document["scores"] or {}).get("stretch")
    own = [face for frame in kept for face in frame.faces if face.track == track and face.name]
    if stretch and stretch["track"] == track:
        within = [f for f in own if stretch["start"] <= f.time <= stretch["end"]]
        own = within or own
    return max(own, key=lambda face: (bool(face.heat), face.logit), default=None)


def posters(kept: Sequence[FrameView], track: int | None) -> list[tuple[str, FrameView]]:
    """Up to three frames and why they are shown: a face's extremes and its middle."""
    own = sorted(
        (face.logit, frame.index, frame)
        for frame in kept
        for face in frame.faces
        if face.track == track
    )
    if len(own) >= 3:
        words = f"of face {track} among the frames kept"
        return [
            (f"Highest score {words}", own[-1][2]),
            (f"Middle score {words}", own[len(own) // 2][2]),
            (f"Lowest score {words}", own[0][2]),
        ]
    places = sorted({0, len(kept) // 2, len(kept) - 1}) if kept else []
    return [("Frame", kept[i]) for i in places]


def strips(kept: Sequence[FrameView]) -> dict[int, list[FaceView]]:
    """The faces with a picture, by track, in order of time."""
    found: dict[int, list[FaceView]] = {}
    for frame in kept:
        for face in frame.faces:
            if face.name:
                found.setdefault(face.track, []).append(face)
    return found
