"""Makes report.html, one file for people, from the document in report.json and the pictures kept for it.

Style, script and pictures are all inside. The page's own policy lets it load nothing and run only what it
names by hash, and everything that comes from the input is shown as text.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from deepscan.errors import DataError
from deepscan.files import parse_json
from deepscan.report import heatmap, lanes
from deepscan.report.pictures import FacePicture, FramePicture
from deepscan.report.rendering import CONFINED, HEADLINES, picture_uri, render

NAME = "report.html"

# The largest page possible, with as many pictures as pictures.py keeps, each as large as it allows. The
# pages of our test clips have 1 to 3 MB.
MOST_BYTES = 20 * 2**20

PIXELS = re.compile(r"(?<=data:image/)(jpeg|webp);base64,[A-Za-z0-9+/=]*")

MOST_TAGS = 100  # shown; report.json keeps them all


@dataclass(frozen=True, slots=True)
class FaceView:
    """One face of one frame as the page shows it; pictures are data URIs, or None if not kept."""

    track: int
    index: int
    time: float
    logit: float
    box: tuple[float, ...]  # x, y, width, height
    jpeg: str | None
    heat: dict[str, str]  # of each kind of map
    place: str  # SVG matrix that lays the crop over the frame
    side: int


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
    def heated(self) -> bool:
        return any(face.heat for face in self.faces)


def write(document: dict[str, Any], folder: Path, pictures: Sequence[FramePicture] = ()) -> Path:
    """Write report.html into `folder`."""
    path = folder / NAME
    path.write_text(html(document, pictures), "utf-8", newline="\n")
    return path


def html(document: dict[str, Any], pictures: Sequence[FramePicture] = ()) -> str:
    """The page.

    Args:
        document: the content of report.json; fields added by later versions may be missing.
        pictures: frames with their faces, in order of time.
    """
    document = _whole(document)
    frames = list(_frames(document, pictures))
    by_index = {frame.index: frame for frame in frames}
    scores = document["scores"]
    deciding = None if scores is None else scores["track"]
    best = _strongest(document, frames)
    drawn = {name for frame in frames for face in frame.faces for name in face.heat}
    kinds = [(scale, _bar(scale)) for name, scale in heatmap.SCALES.items() if name in drawn]
    return render(
        "page.html.jinja",
        "page.js",
        doc=document,
        training=_training(document["tool"]["detector"]["training"]),
        kinds=kinds,
        name=PurePath(document["input"]["path"]).name,
        confined=CONFINED,
        headline=_headline(document),
        headlines=HEADLINES,
        deciding=deciding,
        highs={track["id"]: lanes.thresholds(track, document)[1] for track in document["tracks"]},
        rule=_rule(document),
        frames=frames,
        posters=_posters(document, frames),
        best=best,
        start_at=_start_at(best, deciding),
        timeline=(timeline := lanes.draw(document)),
        tracks=sorted(document["tracks"], key=lambda t: (not t["enough"], -t["score"])),
        strips=_strips(frames),
        settings=list(_settings(document["run"])),
        outputs=_outputs(document["outputs"]),
        command=shlex.join(document["run"]["argv"] or ()),
        data=_data(document, timeline, by_index, pictures),
        most_tags=MOST_TAGS,
        span=lanes.span,
    )


def same(document: dict[str, Any], page: str) -> bool:
    """Whether a page shows what this document says: it is made again, but for the pictures' pixels.

    Raises:
        DataError: it was not made by `html`.
    """
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    try:
        kept = parse_json(found[1])["kept"] if found else None
        pictures = [
            FramePicture(
                int(index),
                float(time),
                int(width),
                int(height),
                b"",
                tuple(
                    FacePicture(
                        int(track),
                        b"",
                        {str(name): b"" for name in maps},
                        int(side),
                        np.array([float(v) for v in place]).reshape(2, 3),
                    )
                    for track, maps, side, place in faces
                ),
            )
            for index, time, width, height, faces in kept or ()
        ]
        again = html(document, pictures)
    except (TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise DataError(f"not a page of this version of deepscan's: {error!r:.200}") from error
    return PIXELS.sub("", page) == PIXELS.sub("", again)


def _kept(face: FacePicture) -> list[Any]:
    place = [float(f"{v:.5g}") for v in np.asarray(face.to_frame).ravel()]
    return [face.track, list(face.heat), face.side, place]


def _headline(document: dict[str, Any]) -> str:
    """The verdict in words; a stretch that stands out is named first."""
    verdict, scores = document["verdict"], document["scores"]
    stretch = scores["stretch"] if scores else None
    if stretch and verdict["reason"] == "stretch_high":
        return f"Manipulation indicated at {lanes.span(stretch)}"
    if stretch and verdict["reason"] == "stretch_stands_out":
        return f"Inconclusive overall, but look at {lanes.span(stretch)}"
    return HEADLINES[verdict["name"]]


# --- what is shown ---------------------------------------------------------------------------------


def _whole(document: dict[str, Any]) -> dict[str, Any]:
    """The document with None for every field that earlier versions did not write."""
    later = dict.fromkeys(("performance", "faithfulness", "c2pa", "heatmaps", "evidence_sum"))
    score = dict.fromkeys(("interval", "share_above", "longest_run", "stretch", "faces_judged"))
    track = dict.fromkeys(
        ("interval", "share_above", "longest_run", "runs", "cuts", "merged", "finding")
    )
    bounds = dict.fromkeys(("likelihood_ratio", "rates"))
    case = dict.fromkeys(("case", "exhibit", "examiner", "notes"), "")
    run = {**dict.fromkeys(("argv", "case", "origins")), **document["run"]}
    scores = document["scores"]
    return {
        **later,
        **document,
        "tool": {"confinement": None, **document["tool"]},
        "scores": None if scores is None else {**score, **scores},
        "calibration": {**bounds, **document["calibration"]},
        "coverage": {"second_look": None, **document["coverage"]},
        "tracks": [{**track, **own} for own in document["tracks"]],
        "run": {**run, "case": {**case, **(run["case"] or {})}},
    }


def _frames(document: dict[str, Any], pictures: Sequence[FramePicture]) -> Iterator[FrameView]:
    """The kept frames, with the faces that report.json has in them."""
    found: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for track in document["tracks"]:
        for frame in track["frames"]:
            found.setdefault(frame["index"], []).append((track["id"], frame))
    person = {other: track["id"] for track in document["tracks"] for other in track["merged"] or ()}
    for picture in pictures:
        kept = {person.get(face.track, face.track): face for face in picture.faces}
        faces = []
        for track, frame in found.get(picture.index, ()):
            face = kept.get(track)
            left, top, right, bottom = frame["box"]
            faces.append(
                FaceView(
                    track,
                    picture.index,
                    frame["time"],
                    frame["logit"],
                    (left, top, round(right - left, 1), round(bottom - top, 1)),
                    picture_uri("jpeg", face.jpeg) if face else None,
                    _layers(face) if face else {},
                    " ".join(f"{v:.5g}" for v in np.asarray(face.to_frame).T.ravel())
                    if face
                    else "",
                    face.side if face else 0,
                )
            )
        jpeg = picture_uri("jpeg", picture.jpeg)
        assert jpeg is not None
        yield FrameView(
            picture.index, picture.time, picture.width, picture.height, jpeg, tuple(faces)
        )


def _layers(face: FacePicture) -> dict[str, str]:
    """The maps over a face, the kind that says most first."""
    uris = {name: picture_uri("webp", face.heat.get(name)) for name in heatmap.SCALES}
    return {name: uri for name, uri in uris.items() if uri is not None}


def _strongest(document: dict[str, Any], frames: Sequence[FrameView]) -> FrameView | None:
    """Among frames with a map, the one where the deciding face (or any face) has its highest logit."""
    scores = document["scores"]
    heated = [(face, frame) for frame in frames for face in frame.faces if face.heat]
    own = [pair for pair in heated if scores is not None and pair[0].track == scores["track"]]
    return max(own or heated, key=lambda pair: pair[0].logit)[1] if heated else None


def _start_at(frame: FrameView | None, deciding: int | None) -> int:
    """Where the slider starts, in percent: at the middle of the face, so that both halves are seen."""
    if frame is None:
        return 0
    face = max(frame.faces, key=lambda f: (f.track == deciding, bool(f.heat), f.logit))
    return round(min(max(100 * (face.box[0] + face.box[2] / 2) / frame.width, 0), 100))


def _posters(document: dict[str, Any], frames: Sequence[FrameView]) -> list[tuple[str, FrameView]]:
    """Up to three frames and why they are shown: the deciding face's extremes and its middle."""
    if not frames:
        return []
    scores = document["scores"]
    if scores is not None:
        own = sorted(
            (face.logit, frame.index, frame)
            for frame in frames
            for face in frame.faces
            if face.track == scores["track"]
        )
        if len(own) >= 3:
            middle = own[len(own) // 2][2]
            words = f"of face {scores['track']} among the frames kept"
            return [
                (f"Highest logit {words}", own[-1][2]),
                (f"Median logit {words}", middle),
                (f"Lowest logit {words}", own[0][2]),
            ]
    places = sorted({0, len(frames) // 2, len(frames) - 1})
    return [("Sampled frame", frames[i]) for i in places]


def _strips(frames: Sequence[FrameView]) -> dict[int, list[FaceView]]:
    """The faces with a picture, by track, in order of time."""
    strips: dict[int, list[FaceView]] = {}
    for frame in frames:
        for face in frame.faces:
            if face.jpeg:
                strips.setdefault(face.track, []).append(face)
    return strips


@dataclass(frozen=True, slots=True)
class Rule:
    """The number line of the verdict: places in percent."""

    bottom: float
    top: float
    low: float
    high: float
    zero: float
    score: float
    interval: tuple[float, float] | None
    tracks: tuple[float, ...]  # scores of the other judged faces


def _rule(document: dict[str, Any]) -> Rule | None:
    scores, bounds = document["scores"], document["calibration"]
    if scores is None:
        return None
    span = scores["interval"]
    ends = (span["low"], span["high"]) if span else ()
    others = [t["score"] for t in document["tracks"] if t["enough"] and t["id"] != scores["track"]]
    # Symmetric about 0 and equal for most reports, so that they can be compared.
    reach = max(10.0, *(float(math.ceil(1.1 * abs(v))) for v in (scores["video"], *ends, *others)))

    def place(value: float) -> float:
        return round(50 + 50 * value / reach, 2)

    return Rule(
        -reach,
        reach,
        place(bounds["low"]),
        place(bounds["high"]),
        place(0),
        place(scores["video"]),
        (place(ends[0]), place(ends[1])) if ends else None,
        tuple(place(v) for v in others),
    )


def _bar(scale: heatmap.Scale) -> list[str]:
    """A scale's colours, from its bottom to its top in even steps."""
    return ["#" + bytes(colour).hex() for colour in heatmap.bar_of(scale, 25)]


def _settings(run: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Every setting with its value and where it came from."""
    origins = run["origins"] or {}
    for stage, values in run["settings"].items():
        for name, value in values.items() if isinstance(values, dict) else ():
            key = f"{stage}.{name}"
            yield key, _plain(value), origins.get(key, "")


def _plain(value: object) -> str:
    """A setting as one would write it in a file or as a flag."""
    if value is None:
        return "none"
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _training(training: object) -> str:
    """What the detector was trained on; if its file names no data, everything it says about training."""
    return (
        str(training.get("data", training) if isinstance(training, dict) else training)
        if training
        else "not stated"
    )


def _outputs(names: Sequence[str]) -> list[tuple[str, int]]:
    """Output files; many of a kind become one line with their count."""
    kinds = Counter(_kind(name) for name in names)
    return [
        *((name, 1) for name in names if kinds[_kind(name)] <= 4),
        *((kind, count) for kind, count in kinds.items() if count > 4),
    ]


def _kind(name: str) -> str:
    path = PurePath(name)
    return f"{path.parent}/*{path.suffix}"


def _data(
    document: dict[str, Any],
    timeline: lanes.Timeline | None,
    frames: dict[int, FrameView],
    pictures: Sequence[FramePicture],
) -> dict[str, Any]:
    """Data for the page's script: the points of the timeline and which frames can be opened.

    `kept` says what `pictures` were, without their pixels, for `same`.
    """
    return {
        "kept": [
            [p.index, p.time, p.width, p.height, [_kept(face) for face in p.faces]]
            for p in pictures
        ],
        "bounds": {
            str(track["id"]): lanes.thresholds(track, document) for track in document["tracks"]
        },
        "frames": sorted(frames),
        "lanes": {}
        if timeline is None
        else {
            str(lane.track): [
                [p.x, p.y, round(p.time, 3), round(p.logit, 2), p.index] for p in lane.points
            ]
            for lane in timeline.lanes
        },
    }
