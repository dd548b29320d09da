"""Makes report.html, one file for people, from the document in report.json and the pictures kept for it.

Style, script and pictures are all inside. The page's own policy lets it load nothing and run only what it
names by hash, and everything that comes from the input is shown as text.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup

from deepscan.errors import DataError
from deepscan.files import parse_json
from deepscan.judgement.words import HEADLINES
from deepscan.report import heatmap, lanes, scale, views
from deepscan.report.pictures import FacePicture, FramePicture
from deepscan.report.rendering import CONFINED, data_uri, drawing_sheet, plain, render

NAME = "report.html"

# The largest page possible. Pictures and film have bounds of their own, which keep them to some 2.5 MB;
# the rest are words and curves.
MOST_BYTES = 5 * 2**20

PIXELS = re.compile(r"(?<=data:)(image/jpeg|image/webp|video/mp4);base64,[A-Za-z0-9+/=]*")

# FFmpeg's names of demuxers that read several containers; others name themselves.
CONTAINERS = {
    "mov,mp4,m4a,3gp,3g2,mj2": "MP4 or QuickTime",
    "matroska,webm": "Matroska or WebM",
    "mpegts": "MPEG transport stream",
    "mpeg": "MPEG program stream",
    "avi": "AVI",
    "flv": "Flash Video",
    "asf": "ASF (Windows Media)",
}

PAPER_POINTS = 8.6  # the text's size on paper, as page.css has it

MOST_TAGS = 100  # shown; report.json keeps them all
MOST_SPANS = 12  # times listed of one face; the curve and report.json have them all

# Paper is bounded to four sheets: so many faces have a card there, and so many of the others a row.
PAPER_CARDS = 5
PAPER_ROWS = 20


def write(
    document: dict[str, Any],
    folder: Path,
    pictures: Sequence[FramePicture] = (),
    film: bytes | None = None,
) -> Path:
    """Write report.html into `folder`."""
    path = folder / NAME
    path.write_text(html(document, pictures, film), "utf-8", newline="\n")
    return path


def html(
    document: dict[str, Any],
    pictures: Sequence[FramePicture] = (),
    film: bytes | None = None,
    paper: bool = False,
) -> str:
    """The page.

    Args:
        document: the content of report.json; fields added by later versions may be missing.
        pictures: frames with their faces, in order of time.
        film: an MP4 of the frames with their maps, small enough to stand in the page.
        paper: for a renderer without scripts: what is operated is left out, the sheets' head stands in the
            style, and every picture and drawing is complete by itself.
    """
    document = _whole(document)
    frames = list(views.frames(document, pictures))
    first = views.shown_first(document)
    drawn = {name for frame in frames for face in frame.faces for name, _ in face.heat}
    kinds = [(kind, _bar(kind)) for name, kind in heatmap.SCALES.items() if name in drawn]
    strips = views.strips(frames)
    timeline = lanes.draw(document)
    top = _sheet_head(document)
    own = f"<style>{drawing_sheet(PAPER_POINTS)}</style>" if paper else ""
    return render(
        "page.html.jinja",
        "page.js",
        doc=document,
        paper=Markup(top) if paper else "",  # noqa: S704, escaped by _sheet_head
        paper_policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        drawing=Markup(own),  # noqa: S704, a file of this package
        training=_training(document["tool"]["detector"]["training"]),
        kinds=kinds,
        name=PurePath(document["input"]["path"]).name,
        confined=CONFINED,
        containers=CONTAINERS,
        headlines=HEADLINES,
        first=first,
        cards=views.cards(document),
        best={track: views.telling(document, frames, track) for track in strips},
        highs={track["id"]: lanes.thresholds(track, document)[1] for track in document["tracks"]},
        scale=scale.draw(document),
        frames=frames,
        posters=views.posters(frames, first),
        timeline=timeline,
        by_track={lane.track: lane for lane in timeline.lanes} if timeline else {},
        tracks=views.ordered(document, first),
        strips=strips,
        film=None if film is None else data_uri("video/mp4", film),
        settings=list(_settings(document["run"])),
        outputs=_outputs(document["outputs"]),
        command=shlex.join(document["run"]["argv"] or ()),
        data=_data(document, timeline, frames, pictures, film) | {"head": top},
        most_tags=MOST_TAGS,
        most_spans=MOST_SPANS,
        paper_cards=PAPER_CARDS,
        paper_rows=PAPER_ROWS,
        because=views.because,
        seen=views.seen,
        span=lanes.span,
    )


def same(document: dict[str, Any], page: str) -> bool:
    """Whether a page matches this document: the page is made again, except for the pictures' pixels.

    Raises:
        DataError: it was not made by `html`.
    """
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    try:
        data = parse_json(found[1]) if found else {}
        pictures = [
            FramePicture(
                int(index),
                float(time),
                int(width),
                int(height),
                b"",
                tuple(_read_back(*face) for face in faces),
            )
            for index, time, width, height, faces in data.get("kept") or ()
        ]
        again = html(document, pictures, b"" if data.get("film") else None)
    except (
        *(TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
        jinja2.TemplateError,
    ) as error:
        raise DataError(f"not a page of this version of deepscan: {error!r:.200}") from error
    return PIXELS.sub("", page) == PIXELS.sub("", again)


def _kept(face: FacePicture) -> list[Any]:
    place = [float(f"{v:.5g}") for v in np.asarray(face.to_frame).ravel()]
    return [face.track, list(face.region), list(face.heat), face.side, place]


def _read_back(track: Any, region: Any, maps: Any, side: Any, place: Any) -> FacePicture:
    """What `_kept` wrote, without pixels."""
    left, top, width, height = (int(v) for v in region)
    to_frame = np.array([float(v) for v in place]).reshape(2, 3)
    heat = {str(name): b"" for name in maps}
    return FacePicture(int(track), b"", (left, top, width, height), heat, int(side), to_frame)


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
    scores, measured = document["scores"], document["calibration"]["measured"]
    stretch = (scores or {}).get("stretch")
    results = document.get("performance")
    if measured is not None:
        fields = ("rungs", "unseen", "indicated", "cleared", "codecs", "tail")
        measured = {**dict.fromkeys(fields), **measured}
    return {
        **later,
        "opinions": [],
        **document,
        "performance": results and {"kinds": [], **results},
        "tool": {"confinement": None, **document["tool"]},
        "verdict": {
            **{"summary": document["verdict"]["sentence"], "probability": "", "next": []},
            **document["verdict"],
        },
        "scores": scores
        and {**score, **scores, "stretch": stretch and {"finding": None, **stretch}},
        "calibration": {**bounds, **document["calibration"], "measured": measured},
        "coverage": {"second_look": None, **document["coverage"]},
        "tracks": [{**track, **own} for own in document["tracks"]],
        "run": {**run, "case": {**case, **(run["case"] or {})}},
    }


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


def _sheet_head(document: dict[str, Any]) -> str:
    """The head of printed sheets, as CSS: case, exhibit and file, the input's SHA-256, the page's number."""
    case, source = document["run"]["case"], document["input"]
    parts = [
        f"{label} {case[label.lower()]}" for label in ("Case", "Exhibit") if case[label.lower()]
    ]
    name = plain(PurePath(source["path"]).name, 60)
    first = _css(" \u00b7 ".join([*(plain(part, 40) for part in parts), name]))
    second = _css(f"SHA-256 {source['sha256']}")
    return (
        f'@page {{ @top-left {{ content: "{first}" "\\a " "{second}"; white-space: pre }}'
        ' @top-right { content: counter(page) " of " counter(pages) } }'
    )


def _css(text: str) -> str:
    """Text as the inside of a CSS string: all but letters, digits and spaces by their codes."""
    return "".join(
        c if c.isascii() and (c.isalnum() or c == " ") else f"\\{ord(c):x} " for c in text
    )


def _outputs(names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Output files with their addresses; many of a kind become one line with their count."""
    kinds = Counter(_kind(name) for name in names)
    return [
        *((name, quote(name), 1) for name in names if kinds[_kind(name)] <= 4),
        *(
            (kind, quote(f"{PurePath(kind).parent}/"), count)
            for kind, count in kinds.items()
            if count > 4
        ),
    ]


def _kind(name: str) -> str:
    path = PurePath(name)
    return f"{path.parent}/*{path.suffix}"


def _data(
    document: dict[str, Any],
    timeline: lanes.Timeline | None,
    frames: Sequence[views.FrameView],
    pictures: Sequence[FramePicture],
    film: bytes | None,
) -> dict[str, Any]:
    """Data for the page's script: the points of the timeline, which frames can be opened, paper's head.

    `kept` and `film` say what pictures there were, without their pixels, for `same`.
    """
    return {
        "kept": [
            [p.index, p.time, p.width, p.height, [_kept(face) for face in p.faces]]
            for p in pictures
        ],
        "film": film is not None,
        "bounds": {
            str(track["id"]): lanes.thresholds(track, document) for track in document["tracks"]
        },
        "frames": [frame.index for frame in frames],
        "lanes": {}
        if timeline is None
        else {
            str(lane.track): [
                [p.x, p.y, round(p.time, 3), round(p.logit, 2), p.index] for p in lane.points
            ]
            for lane in timeline.lanes
        },
    }
