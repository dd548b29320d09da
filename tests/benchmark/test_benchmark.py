"""The whole line on a tiny tower and tiny pictures: train, score, tell; and again, from what is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from builders import footage, toy
from deepscan.benchmark import predict, predictions, studies
from deepscan.benchmark.predict import averaged_views
from deepscan.benchmark.runs import RunStore
from deepscan.cli import run
from deepscan.data.prepare import PrepareSettings, prepare
from deepscan.model import tower, weights
from deepscan.training.settings import TrainSettings

TINY = """
base = "toy"
heads = 4
batch = 8
validation = 0.34
precision = "float32"
workers = 0
epochs = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs with masks to learn from, two sets to be judged on, and settings for both."""
    place = tmp_path_factory.mktemp("bench")
    toy.prepared(place / "pairs")
    toy.crops(place / "flat", people=4)
    listing = toy.prepared(place / "masked", people=4) / "toy.json"
    listing.write_text(listing.read_text("utf-8").replace('"train"', '"test"'), "utf-8")
    (place / "tiny.toml").write_text(TINY, "utf-8")
    return place


@pytest.fixture(autouse=True, scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = toy.install(tmp_path_factory.mktemp("base"))
    yield
    tower.tower_size, weights.catalogue = before  # type: ignore[assignment]


def bench(folder: Path, *asked: str, out: str = "out", code: int = 0) -> int:
    common = [
        "--datasets",
        f"one={folder / 'flat'},two={folder / 'masked'}",
        "--device=cpu",
        "--workers=0",
    ]
    done = run(["benchmark", *common, f"--out={folder / out}", "--batch=8", *asked])
    assert done == code
    return done


def training(folder: Path, *asked: str) -> list[str]:
    return [
        *asked,
        "--data",
        str(folder / "pairs"),
        "--config",
        str(folder / "tiny.toml"),
        "--steps=2",
    ]


STUDY = ("--table=2", "--figure=1", "--localisation", "--train")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """The same folder, once what Table 2 and Figure 1 compare has been trained and judged."""
    bench(folder, *training(folder, *STUDY))
    return folder


def table(folder: Path, name: str, out: str = "out") -> dict[str, Any]:
    document = json.loads((folder / out / f"{name}.json").read_text("utf-8"))
    return dict(document["rows"])


@pytest.mark.slow
def test_a_study_is_trained_once_and_told_in_every_form(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in (trained / "out").rglob("*.safetensors")}
    parts = set((trained / "out/predictions").iterdir())
    assert len({p.parent for p in before}) == 3  # FLCL's run is figure 1's too
    bench(trained, *training(trained, *STUDY))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert set((trained / "out/predictions").iterdir()) == parts

    assert "Table 2" in capsys.readouterr().out
    rows = table(trained, "table-2")
    assert list(rows) == ["flcl", "macl"]
    assert list(rows["flcl"]) == ["one", "two", "avg", "pooled", "gain, on average", "over"]
    cell = rows["macl"]["one"]
    assert cell["low"] <= cell["value"] <= cell["high"]
    assert cell["videos"] == 8
    assert rows["macl"]["over"] == "flcl"
    assert "published" not in cell  # these are no sets of the paper's
    for suffix in ("md", "csv", "tex", "json"):
        assert (trained / "out" / f"table-2.{suffix}").stat().st_size > 200
    for suffix in ("png", "svg"):
        assert (trained / "out" / f"figure-1.{suffix}").stat().st_size > 10_000
    assert "peak of queries" in json.dumps(table(trained, "figure-1-activation-two"))
    assert set(table(trained, "table-2-localisation-two")) >= {
        "flcl: queries",
        "macl: [CLS]",
        "flcl: fake likelihood",
    }


@pytest.mark.slow
def test_what_is_missing_is_named_and_planned_not_trained(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained
    bench(folder, "--table=1", *training(folder), code=1)
    listed = capsys.readouterr().err
    assert "not trained yet: " in listed
    assert "effort+ours, avg (seed 0, missing)" in listed
    bench(folder, "--table=1", "--dry-run", *training(folder), "--json")
    (plan,) = json.loads(capsys.readouterr().out)["tables"]
    assert plan["rows"]["train effort+ours, avg, seed 0"]["state"] == "missing"
    assert plan["rows"]["train effort+ours, avg, seed 0"]["how much"] == "2 steps"
    assert plan["rows"]["together"]["time"].endswith((" s", " min"))
    assert not list((folder / "out/runs").glob("effort+ours-avg*"))


@pytest.mark.slow
def test_a_detector_is_judged_beside_another_tool(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made,) = (trained / "out/runs").glob("effort+ours-0-*/detector.safetensors")
    lines = [f"real/{i:03d},0.1" for i in range(4)] + [
        f"fake/{i:03d}_{i ^ 1:03d},0.9" for i in range(4)
    ]
    other = tmp_path / "other.csv"
    other.write_text("video,score\n" + "\n".join(lines) + "\n", "utf-8")
    bench(
        trained, "--weights", str(made), "--other", f"theirs={other}", "--averaging",
        "--protocol=deepfakebench", "--distortions=resize,h264", out="judged",
    )  # fmt: skip
    rows = table(trained, "auc", "judged")
    assert rows["theirs"]["one"]["value"] == 1
    assert rows["theirs"]["two"] is None  # whose real/000 and on bear the same names
    assert rows["theirs"]["over"] == "effort+ours"
    assert rows["theirs"]["gain, on average"]["videos"] == 8
    assert "Effort" not in rows  # no set of the paper's is among these
    notes = json.loads((trained / "judged/auc.json").read_text("utf-8"))["notes"]
    assert "effort+ours was trained on pairs." in notes
    assert not any("SBI" in note for note in notes)
    theirs = json.loads((trained / "judged/auc-deepfakebench.json").read_text("utf-8"))
    # There "two" has real/000 and fake/000, one video to DeepfakeBench, and real by its rounding.
    assert theirs["rows"]["effort+ours"]["two"] is None
    assert "value" in theirs["rows"]["effort+ours"]["one"]
    why = "two: merged by folder names, its videos are all of one class (effort+ours"
    assert any(note.startswith(why) for note in theirs["notes"])
    measures = table(trained, "measures-effort+ours", "judged")
    assert measures["videos scored"] == {"one": "8", "two": "8"}
    assert {"frame AUC", "EER", "Cllr"} <= set(measures)
    averaged = table(trained, "averaging-effort+ours", "judged")
    assert list(averaged) == ["as they are", "averaged"]
    assert "gain, on average" in averaged["averaged"]
    assert list(table(trained, "robustness-effort+ours", "judged")) == [
        "as they are", "resize:224", "resize:112", "resize:64", *(f"h264:{i}" for i in range(1, 6)),
    ]  # fmt: skip
    assert (trained / "judged/robustness-effort+ours.png").stat().st_size > 5000
    capsys.readouterr()

    bench(trained, "--tabulate", "--weights", str(tmp_path / "gone"), "--json", out="judged")
    listed = {t["name"]: t for t in json.loads(capsys.readouterr().out)["tables"]}
    assert listed["auc"]["rows"]["effort+ours"]["one"] == rows["effort+ours"]["one"]


@pytest.mark.slow
def test_frames_are_distorted_before_faces_are_found(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        predict, "cores", lambda: 1
    )  # processes would take longer to start than to work
    one = footage.portrait()
    footage.film(tmp_path / "UADFV/real/0000.mp4", one, 4)
    footage.film(tmp_path / "UADFV/fake/0000.mp4", footage.swapped(one), 4)
    prepare(tmp_path / "UADFV", tmp_path / "prepared", PrepareSettings(frames=2, jobs=1))
    (made,) = (trained / "out/runs").glob("effort+ours-0-*/detector.safetensors")
    asked = [
        "--datasets=uadfv",
        f"--root={tmp_path}",
        f"--weights={made}",
        "--distortions=contrast",
    ]
    assert (
        run(["benchmark", *asked, f"--out={tmp_path / 'out'}", "--device=cpu", "--workers=0"]) == 0
    )
    rows = json.loads((tmp_path / "out/robustness-effort+ours.json").read_text("utf-8"))["rows"]
    assert list(rows) == ["as they are", *(f"contrast:{level}" for level in range(1, 6))]
    assert rows["contrast:5"]["gain, on average"]["videos"] == 2
    seen = predictions.read(tmp_path / "out/predictions")
    assert seen.num_rows == 6 * 2 * 2
    assert None not in seen["time"].to_pylist() + seen["face_size"].to_pylist()
    dark = tmp_path / "out/distorted/uadfv/contrast-5/UADFV/real/frames/0000/000.png"
    plain = tmp_path / "prepared/UADFV/real/frames/0000/000.png"
    assert np.asarray(Image.open(dark)).mean() < 0.5 * np.asarray(Image.open(plain)).mean()
    capsys.readouterr()


@pytest.mark.slow
def test_a_run_is_known_by_its_settings_and_data(trained: Path, tmp_path: Path) -> None:
    recipe = TrainSettings(
        (trained / "pairs",), tmp_path, base="toy", heads=4, batch=8, validation=0.34, steps=2, epochs=1,
        precision="float32", workers=0,
    )  # fmt: skip
    store = RunStore(trained / "out/runs", recipe)
    assert store.run("effort+ours", 0).state == "finished"
    assert store.run("effort+ours", 1).state == "missing"
    assert store.run("effort+ours, no FLCL", 0).state == "missing"
    said = replace(recipe, flcl=0.14)  # the default, said
    assert RunStore(trained / "out/runs", said).run("effort+ours", 0).state == "finished"
    elsewhere = replace(recipe, data=(toy.prepared(tmp_path / "other", signal=30),))
    assert RunStore(trained / "out/runs", elsewhere).run("effort+ours", 0).state == "missing"
    by_name = RunStore(trained / "out/runs", None)
    assert by_name.run("effort+ours, MACL", 0).state == "finished"


def test_averaging_looks_at_mirrored_and_zoomed_copies() -> None:
    crop = torch.arange(20 * 20 * 3).reshape(1, 20, 20, 3).to(torch.uint8)
    plain, mirrored, zoomed, both = averaged_views(crop)
    assert (mirrored == plain.flip(2)).all()
    assert zoomed.shape == both.shape == (1, 18, 18, 3)
    assert (zoomed == crop[:, 1:19, 1:19]).all()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ([], "nothing to do: name --datasets"),
        (["--datasets=cdf3"], r"'cdf3' is not one of ff\+\+, cdf1"),
        (["--datasets=cdf2,cdf2"], "cdf2 is named twice"),
        (["--table=1", "--weights=default"], "a study names its own detectors"),
        (["--datasets=cdf2", "--train"], "--train trains a study's runs"),
        (["--datasets=cdf2", "--other=x"], "'x' is not like NAME=FILE"),
        (["--study=table-9"], "'table-9' is not one of table-1"),
        (["--datasets=cdf2", "--distortions=rain"], "'rain' is not one of saturation"),
        (["--table=1", "--seeds=a"], "'a' is not like 0,1,2"),
    ],
)
def test_contradictions_are_refused(
    asked: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["benchmark", *asked, "--root", str(tmp_path)]) == 2
    assert re.search(says, capsys.readouterr().err)


def test_every_row_of_a_study_is_a_run_and_every_published_row_is_found() -> None:
    for name, study in studies.STUDIES.items():
        assert set(study.rows.values()) <= set(studies.RUNS), name
        if study.published is not None:
            assert set(study.published.figures()) == set(study.published.rows), name
    table_1 = studies.STUDIES["table-1"].published
    assert table_1 is not None
    assert table_1.figures()["concat"]["dfdc"] == 0.875
    components = studies.STUDIES["components"].published
    assert components is not None
    assert components.figures()["+ query + FLCL"] == {
        "cdf1": 0.976,
        "fsh": 0.902,
        "dfdcp": 0.917,
        "avg": 0.931,
    }
    assert studies.peers()["Effort"]["dfdc"] == 0.843
