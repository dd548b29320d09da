"""Results as a COCO data set: frames, and the faces in them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders import clips
from builders.reports import CALIBRATED, made
from deepscan.cli import run
from deepscan.config import Sampling, Settings
from deepscan.files import sha256
from deepscan.report import json as report_json


def result(
    folder: Path, path: str, settings: Settings, digest: str = "ab" * 32, frames: int = 4
) -> Path:
    """A folder of results on two people; face 1 is raised."""
    report, _ = made(
        2, frames, path=path, logit=lambda t, i: 9.0 if t == 1 else -9.0, calibration=CALIBRATED
    )
    report = replace(
        report,
        source=replace(report.source, sha256=digest),
        provenance=replace(report.provenance, settings=settings.to_dict()),
    )
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(report_json.text(report))
    return folder


def labels(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "labels.json").read_text())


def test_every_frame_and_every_face_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result(tmp_path / "results" / "a.mp4", "a.mp4", Settings())
    result(tmp_path / "results" / "deep" / "b.mp4", "b.mp4", Settings())
    arguments = [
        "export-labels",
        str(tmp_path / "results"),
        "--no-images",
        "-o",
        str(tmp_path / "coco"),
    ]
    assert run(arguments) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'coco' / 'labels.json'}\n"
    found = labels(tmp_path / "coco")
    assert [image["id"] for image in found["images"]] == list(range(1, 9))
    assert len({image["file_name"] for image in found["images"]}) == 8
    assert [face["id"] for face in found["annotations"]] == list(range(1, 17))
    names = {category["id"]: category["name"] for category in found["categories"]}
    first, second = (f for f in found["annotations"] if f["image_id"] == 1)
    assert names[first["category_id"]] == "manipulation_indicated"
    assert names[second["category_id"]] == "inconclusive"
    assert first["bbox"] == [20.0, 50.0, 44.0, 65.0]  # left, top, width, height
    assert first["area"] == 44 * 65
    assert first["score"] == pytest.approx(1 / (1 + np.exp(-9)), abs=1e-6)
    assert (first["track"], first["logit"]) == (1, 9.0)
    assert run(arguments) == 1  # an earlier data set stays
    assert "already" in capsys.readouterr().err


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    result(tmp_path / "a.mp4", "a.mp4", Settings())
    assert (
        run(["export-labels", str(tmp_path / "a.mp4"), "--no-images", "-o", str(tmp_path / "coco")])
        == 0
    )
    data = coco.COCO(str(tmp_path / "coco" / "labels.json"))
    high = data.getAnnIds(catIds=data.getCatIds(catNms=["manipulation_indicated"]))
    assert len(high) == len(data.getImgIds()) == 4


def test_the_frames_are_decoded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = clips.write(tmp_path / "clip.mp4", 4)
    settings = Settings(sampling=Sampling(frames=4))
    given = result(tmp_path / "r", str(clip), settings, sha256(clip))
    assert run(["export-labels", str(given), "-o", str(tmp_path / "coco")]) == 0
    names = [image["file_name"] for image in labels(tmp_path / "coco")["images"]]
    assert sorted(p.name for p in (tmp_path / "coco" / "data").iterdir()) == names
    pixels = [np.asarray(Image.open(tmp_path / "coco" / "data" / name)) for name in names]
    assert [clips.number(p) for p in pixels] == [0, 1, 2, 3]
    clip.write_bytes(clip.read_bytes() + b" ")
    assert run(["export-labels", str(given), "-o", str(tmp_path / "again")]) == 1
    assert "its SHA-256 differs" in capsys.readouterr().err
    clip.unlink()
    assert run(["export-labels", str(given), "-o", str(tmp_path / "again")]) == 1
    assert "--no-images writes only the labels" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_folder_without_results_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export-labels", str(tmp_path), "-o", str(tmp_path / "coco")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "no report.json in it or below it" in line
