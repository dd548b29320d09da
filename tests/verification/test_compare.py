"""Two results of one input: what was done differently, and what came out."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from builders.reports import CALIBRATED, made
from deepscan.cli import run
from deepscan.report import json as report_json
from deepscan.verification.compare import compare


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return report_json.to_dict(made(2, calibration=CALIBRATED)[0])


def written(folder: Path, document: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(document))
    return folder


def test_the_same_result_twice(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = written(tmp_path / "a", document), written(tmp_path / "b", document)
    assert compare(one, other / "report.json").same
    assert run(["compare", str(one), str(other)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Both say the same."


def test_other_weights_and_faces_in_another_order(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = copy.deepcopy(document)
    changed["tool"]["detector"] |= {"name": "other", "sha256": "00" * 32}
    changed["run"]["settings"]["sampling"]["frames"] = 64
    changed["verdict"]["name"] = "manipulation_indicated"
    changed["tracks"].reverse()
    for number, track in enumerate(changed["tracks"], 1):
        track["id"] = number
        for frame in track["frames"]:
            frame["logit"] += 0.5
        track["score"] += 0.5
    one, other = written(tmp_path / "a", document), written(tmp_path / "b", changed)
    found = compare(one, other)
    assert found.same_input
    assert [d.what for d in found.done] == [
        "detector", "SHA-256 of the detector", "settings: sampling.frames",
    ]  # fmt: skip
    assert [(d.what, d.second) for d in found.found] == [("verdict", "manipulation_indicated")]
    assert [face.tracks for face in found.faces] == [
        (1, 2),
        (2, 1),
    ]  # by their place, not their number
    assert all(face.frames == 32 for face in found.faces)
    assert [face.largest for face in found.faces] == pytest.approx([0.5, 0.5])
    assert run(["compare", str(one), str(other)]) == 3
    text = capsys.readouterr().out
    assert "  detector: toy | other\n" in text
    assert "  settings: sampling.frames: 32 | 64\n" in text
    assert "face 1, there 2: score" in text
    assert "WARNING" not in text


def test_results_of_two_files_are_not_compared_in_silence(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = copy.deepcopy(document)
    changed["input"]["sha256"] = "11" * 32
    changed["tracks"].pop()
    one, other = written(tmp_path / "a", document), written(tmp_path / "b", changed)
    assert run(["compare", str(one), str(other), "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == "deepscan.compare/1"
    assert not said["same_input"]
    assert "of different files" in said["warnings"][0]
    assert said["faces"][1]["tracks"] == [2, None]
    assert run(["compare", str(one), str(other)]) == 3
    text = capsys.readouterr().out
    assert text.startswith("WARNING: The two results are of different files")
    assert "face 2 of the first alone" in text


def test_what_is_no_result_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text("[]")
    assert run(["compare", str(tmp_path), str(tmp_path / "none")]) == 1
    assert "not a report of deepscan" in capsys.readouterr().err
    assert run(["compare", str(tmp_path / "none"), str(tmp_path)]) == 1
    assert "name a folder of results" in capsys.readouterr().err
