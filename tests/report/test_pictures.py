"""The pictures kept for the page: how large they can get, whose come first, where they lie."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders import reports
from deepscan.faces.alignment import TEMPLATE, align
from deepscan.records import Box, Crop, Face, Frame, Output
from deepscan.report import json as report_json
from deepscan.report import overlays, page, pictures, views
from deepscan.report.heatmap import ATTENTION, OPACITY
from deepscan.report.pictures import FacePicture, FramePicture, Pictures


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_layer_keeps_to_its_bytes_whatever_it_shows(rng: np.random.Generator) -> None:
    assert len(pictures.heat(rng.gamma(0.5, 2, (24, 24)), ATTENTION)) <= pictures.HEAT_BYTES


def test_ten_minutes_of_full_hd_make_a_page_of_three_megabytes(rng: np.random.Generator) -> None:
    """A talking head of 400 pixels before a wall of grain, with 32 instants and the film at its most."""
    grain = rng.normal(128, 8, (1080, 1920, 3)).clip(0, 255).astype(np.uint8)
    report, _ = reports.made(1, seconds=Fraction(600))
    frame = Frame(0, Fraction(0), grain)
    marks = (TEMPLATE - 128) * 2.5 + (900, 500)
    crop = align(frame, Face(Box(700, 300, 1100, 800), 0.999, marks), track=1)
    output = Output(np.ones(1), np.full((1, 1, 256), 1 / 256), np.full((1, 256), 1 / 256),
                    rng.normal(0, 0.05, (1, 256)), np.zeros(1), np.zeros((1, 0)))  # fmt: skip
    taken = Pictures(32, heat=True)
    taken.add(frame, [crop], output)
    (one,) = taken.frames([1])
    kept = pictures._bounded([replace(one, index=i) for i in range(32)], [1])
    html = page.html(report_json.to_dict(report), kept, bytes(overlays.SMALL_BYTES))
    assert len(html.encode()) <= 3_000_000


def test_a_picture_keeps_to_its_bytes_whatever_it_shows() -> None:
    data = pictures.jpeg(noise(1080, 1920), pictures.FRAME_SIDE, pictures.FRAME_BYTES)
    assert len(data) <= pictures.FRAME_BYTES
    assert data.startswith(b"\xff\xd8\xff")


def test_the_heaviest_page_keeps_within_its_bound() -> None:
    report, _ = reports.made(people=12, instants=pictures.EVEN + pictures.PEAKS)
    document = report_json.to_dict(report)
    count = pictures.EVEN + pictures.PEAKS
    faces = [bytes(pictures.FACES_BYTES // 4)] * 4
    faces += [bytes(pictures.THUMBNAIL_BYTES)] * (
        pictures.THUMBNAILS_BYTES // pictures.THUMBNAIL_BYTES
    )
    maps = [bytes(pictures.HEATS_BYTES // 2)] * 2 + [b""] * len(faces)
    shown = [
        FacePicture(1 + i % 12, data, (0, 0, 64, 64), {"evidence": maps[i]}, 256, np.eye(2, 3))
        for i, data in enumerate(faces)
    ]
    heaviest = [
        FramePicture(i, float(i), 1920, 1080, bytes(pictures.FRAME_BYTES), tuple(shown[i::count]))
        for i in range(count)
    ]
    film = bytes(overlays.SMALL_BYTES)
    assert len(page.html(document, heaviest, film).encode()) < page.MOST_BYTES


def test_faces_keep_their_own_pixels_until_their_room_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Noise of 200 pixels takes some 40 kB: of four faces there is room for one, and for two thumbnails.

    The result is about face 3; of face 2 there are two, and the lower one has no room.
    """
    monkeypatch.setattr(pictures, "FACES_BYTES", 60_000)
    monkeypatch.setattr(pictures, "THUMBNAILS_BYTES", 4_000)
    data = pictures.jpeg(noise(200, 200), 1024, 10**6)
    face = FacePicture(1, data, (0, 0, 200, 200), {"evidence": b"map"}, 256, np.eye(2, 3), 1.0)
    loud, mine = replace(face, track=2, logit=9.0), replace(face, track=3, logit=-2.0)
    frame = FramePicture(0, 0.0, 640, 360, b"", (face, loud, mine))
    again = replace(frame, index=1, faces=(replace(loud, logit=8.0),))
    kept, other = pictures._bounded([frame, again], [3])
    assert [(f.track, len(f.jpeg) == len(data)) for f in kept.faces] == [
        (1, False),
        (2, False),
        (3, True),
    ]
    assert all(len(f.jpeg) <= pictures.THUMBNAIL_BYTES for f in kept.faces[:2])
    assert other.faces == ()
    monkeypatch.setattr(pictures, "HEATS_BYTES", 4)
    kept, _ = pictures._bounded([frame, again], [3])
    assert [bool(f.heat) for f in kept.faces] == [False, False, True]


def test_a_map_lies_where_its_crop_was_cut(rng: np.random.Generator) -> None:
    """A face turned by 30 degrees: the layer's corners are the crop's corners in the frame."""
    frame = Frame(0, Fraction(0), rng.integers(0, 255, (400, 600, 3), np.uint8))
    turn = np.array([[np.cos(0.5236), -np.sin(0.5236)], [np.sin(0.5236), np.cos(0.5236)]])
    marks = (TEMPLATE - 128) @ turn.T * 0.5 + (300, 200)
    crop = align(frame, Face(Box(250, 150, 350, 250), 0.999, marks), track=1)
    taken = Pictures(1, heat=False)
    taken.add(frame, [crop], None)
    ((face,),) = (picture.faces for picture in taken.frames())
    place = [float(v) for v in views._face(1, stated(crop), face).place.split()]
    matrix = np.array(place).reshape(3, 2).T
    corners = np.array([(0, 0, 1), (face.side, 0, 1), (face.side, face.side, 1)]) @ matrix.T
    assert corners == pytest.approx(crop.corners()[:3], abs=0.05)
    left, top, width, height = face.region
    assert (crop.corners() >= (left - 1e-6, top - 1e-6)).all()
    assert (crop.corners() <= (left + width + 1e-6, top + height + 1e-6)).all()
    with Image.open(io.BytesIO(face.jpeg)) as image:
        assert image.size == (width, height)  # the frame's own pixels


def stated(crop: Crop) -> dict[str, Any]:
    box = crop.face.box
    return {
        "index": 0,
        "time": 0.0,
        "logit": 1.0,
        "box": [box.left, box.top, box.right, box.bottom],
    }


def test_a_long_video_keeps_the_frames_that_matter() -> None:
    """Twenty minutes at an instant a second; the manipulation falls between the evenly spread frames."""
    _, kept = reports.made(
        1, 1200, heat=False, logit=lambda track, i: 5.0 if i in (601, 602, 603) else -5.0 - i / 1200
    )
    assert len(kept) == pictures.EVEN + pictures.PEAKS
    assert {601, 602, 603} < {picture.index for picture in kept}


def test_the_layer_over_a_face_is_its_heat_and_clear_where_there_is_no_preference() -> None:
    values = np.ones((14, 14))
    values[3, 5] = ATTENTION.top
    with Image.open(io.BytesIO(pictures.heat(values, ATTENTION))) as image:
        alpha = np.asarray(image)[..., 3]
    assert alpha.shape == (56, 56)  # 4 x 4 a patch
    assert np.unravel_index(alpha.argmax(), alpha.shape)[0] // 4 == 3
    assert alpha[12:16, 20:24].max() == pytest.approx(255 * OPACITY, rel=0.3)
    assert alpha[20:].sum() == alpha[:, 28:].sum() == 0
