"""The frame viewer and the film, in a real browser: zoom, steps, maps, saving."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders import clips, reports
from builders.browser import Open
from deepscan.report import json as report_json
from deepscan.report import page


def seen(view: Any) -> list[float]:
    """What of the frame the viewer shows: x, y, width, height."""
    return [float(v) for v in view.locator("#viewer .stage").get_attribute("viewBox").split()]


def test_a_frame_is_zoomed_dragged_and_shown_in_its_own_pixels(
    visit: Open, report_page: Path
) -> None:
    """Frames of 320 x 180; face 2 stands at 80, 50 and is 44 x 65."""
    view = visit(report_page)
    view.get_by_role("button", name="Step through 32 frames").click()
    assert seen(view) == [0, 0, 320, 180]
    view.keyboard.press("+")
    assert seen(view) == pytest.approx([60, 33.75, 200, 112.5])
    stage = view.locator("#viewer .stage").bounding_box()
    middle = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    view.mouse.move(*middle)
    view.mouse.down()
    view.mouse.move(middle[0] + 50, middle[1])
    view.mouse.up()
    assert seen(view)[0] < 60  # pulled to the right, more of the left is seen
    view.get_by_role("button", name="1:1").click()
    assert seen(view) == [0, 0, 320, 180]  # smaller than the viewer as it is
    view.mouse.move(*middle)
    view.mouse.wheel(0, -100)
    assert seen(view)[2] == pytest.approx(256)
    view.keyboard.press("0")
    assert seen(view) == [0, 0, 320, 180]


def test_a_face_opens_at_its_place_and_stays_in_view_while_one_steps(
    visit: Open, report_page: Path
) -> None:
    view = visit(report_page)
    view.locator("#face-2 summary").first.click()
    view.locator("#face-2 .cell").nth(3).click()
    x, y, width, height = seen(view)
    assert 0 == x < 80 < 124 < x + width < 320  # moved no further than to the frame's edge
    assert y + height / 2 == pytest.approx(82.5)
    before = seen(view)
    view.keyboard.press("ArrowRight")
    assert view.locator("#viewer-title").inner_text() == "0:01.000, frame 4"
    assert seen(view) == before
    for _ in range(40):
        view.keyboard.press("ArrowRight")
    assert view.locator("#viewer-title").inner_text() == "0:07.750, frame 31"
    assert view.locator("#later").get_attribute("aria-disabled") == "true"


def test_maps_and_boxes_are_switched_on_and_off(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    view.get_by_role("button", name=re.compile("^Examine the frame at .* with its map")).click()
    heat, switch = view.locator("#viewer .heat:visible"), view.locator("#map")
    assert heat.count() == 2
    assert switch.get_attribute("aria-pressed") == "true"
    view.keyboard.press("m")
    assert heat.count() == 0
    view.keyboard.press("b")
    assert view.locator("#viewer .boxes").is_hidden()
    view.get_by_role("button", name="Close").click()
    assert view.locator(".strip .heat:visible").count() == 0


def test_attention_is_a_switch_away_from_evidence(visit: Open, report_page: Path) -> None:
    view = visit(report_page)
    layers = view.locator("#face-1 .cell").first.locator(".heat use")
    assert [layers.nth(i).is_visible() for i in range(2)] == [False, False]
    view.get_by_label("evidence", exact=True).check()
    assert [layers.nth(i).is_visible() for i in range(2)] == [True, False]
    view.get_by_label("attention", exact=True).check()
    assert [layers.nth(i).is_visible() for i in range(2)] == [False, True]


def test_a_frame_is_saved_with_the_map_that_is_on(
    visit: Open, report_page: Path, tmp_path: Path
) -> None:
    view = visit(report_page)
    view.get_by_role("button", name="Step through 32 frames").click()
    saved = []
    for name in ("plain.png", "map.png"):
        with view.expect_download() as download:
            view.get_by_role("button", name="Save", exact=True).click()
        download.value.save_as(tmp_path / name)
        saved.append(np.asarray(Image.open(tmp_path / name).convert("RGB"), int))
        view.keyboard.press("m")
    assert download.value.suggested_filename.startswith("interview.mp4-0:0".replace(":", "_"))
    assert saved[0].shape == (180, 320, 3)
    reddened = saved[1][..., 0] - saved[0][..., 0] > 60
    rows, columns = np.nonzero(reddened)
    assert 50 <= rows.min() <= rows.max() <= 115  # on the faces: 50 to 115, from 20 and from 80 on
    assert 20 <= columns.min() <= columns.max() <= 124


def test_the_film_plays_in_the_page(visit: Open, tmp_path: Path) -> None:
    """Two seconds, one grey and one white: what stands in the page is what is played."""
    clips.write(
        tmp_path / "film.mp4", [np.full((96, 128, 3), v, np.uint8) for v in (90, 255)], rate=1
    )
    report, kept = reports.made()
    film = (tmp_path / "film.mp4").read_bytes()
    view = visit(page.write(report_json.to_dict(report), tmp_path, kept, film))
    video = view.locator("video")
    video.evaluate("v => v.readyState >= 1 || new Promise(done => v.onloadedmetadata = done)")
    assert video.evaluate("v => [v.videoWidth, v.videoHeight, v.error]") == [128, 96, None]
    moved = (
        "v => new Promise(done => { v.onseeked = () => done(v.currentTime); v.currentTime = 1.5; })"
    )
    assert video.evaluate(moved) == pytest.approx(1.5)
