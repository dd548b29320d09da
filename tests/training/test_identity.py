"""What a detector has seen is never what it is judged, or calibrated, on."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from builders import toy
from deepscan.benchmark import predict
from deepscan.benchmark.datasets import Crops, TestSet
from deepscan.config import Scoring
from deepscan.data.crops import CropRow, Identity, read_crops
from deepscan.errors import DataError
from deepscan.model import tower, weights
from deepscan.model.header import read_header
from deepscan.training.identity import Seen, refuse, rows_digest, stated
from deepscan.training.run import Trained, calibrate_anew, resume, train
from deepscan.training.settings import TrainSettings
from deepscan.training.splits import split, thin

DATE = "2026-01-31"


def _known(base: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the process know the toy base until the patch is undone."""
    for module, name in ((tower, "tower_size"), (weights, "catalogue")):
        patch.setattr(module, name, getattr(module, name))
    toy.install(base)


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _known(tmp_path / "base", monkeypatch)


def settings(tmp_path: Path, **changes: Any) -> TrainSettings:
    plain: dict[str, Any] = {
        "data": (tmp_path / "data",), "out": tmp_path / "run", "base": "toy", "heads": 4, "batch": 8,
        "precision": "float32", "epochs": 1, "steps": 1, "workers": 0, "validation": 0.34, "frames": 2,
    }  # fmt: skip
    return TrainSettings(**plain | changes)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """A detector that learnt from two of each video's four frames."""
    folder = tmp_path_factory.mktemp("learnt")
    with pytest.MonkeyPatch.context() as patch:
        _known(folder / "base", patch)
        toy.crops(folder / "data", people=24, frames=4)
        yield train(settings(folder), DATE)


@pytest.fixture
def trained(tmp_path: Path, learnt: Trained) -> Trained:
    """The same in a test's own folder, with the data that it learnt from."""
    shutil.copytree(learnt.folder.parent / "data", tmp_path / "data")
    shutil.copytree(learnt.folder, tmp_path / "run")
    moved = tmp_path / "run" / learnt.checkpoint.relative_to(learnt.folder)
    return replace(learnt, folder=tmp_path / "run", checkpoint=moved)


def copied(data: Path, to: Path) -> Path:
    """The same pictures under other names: other people by their file names."""
    for path in data.rglob("*.jpg"):
        kind, name = path.parent.name, path.name
        new = "_".join(str(int(part) + 500) for part in name.removesuffix(".jpg").split("_"))
        (to / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to / kind / f"{new}.jpg")
    return to


def linked(data: Path, to: Path) -> Path:
    to.symlink_to(data, target_is_directory=True)
    return to


def other_frames(data: Path, to: Path) -> Path:
    """The frames of the same videos that training left out, in a folder of the same name."""
    kept = {row.path for row in thin(read_crops(data), 2)}
    for path in data.rglob("*.jpg"):
        if path not in kept:
            place = to / data.name / path.parent.name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    return to / data.name


ATTEMPTS: list[Callable[[Path, Path], Path]] = [
    lambda data, to: data,
    lambda data, to: Path(shutil.copytree(data, to)),
    linked,
    copied,
    other_frames,
]
NAMES = ("all frames", "another folder", "a symlink", "renamed", "the other frames")


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=NAMES)
def test_what_was_learnt_from_judges_and_calibrates_nothing(
    trained: Trained, tmp_path: Path, attempt: Callable[[Path, Path], Path]
) -> None:
    again = attempt(tmp_path / "data", tmp_path / "again")
    with pytest.raises(DataError, match=r"was trained on \d+ of these \d+ crops.*\.jpg"):
        calibrate_anew(
            trained.checkpoint, tmp_path / "c.safetensors", settings(tmp_path, data=(again,))
        )
    judge = predict.candidate(str(trained.checkpoint))
    crops = Crops(TestSet("own", "own", folder=again), again, read_crops(again), [])
    with pytest.raises(DataError, match=r"own: detector was trained on \d+ of these"):
        predict.score(tmp_path / "predictions", judge, crops, Scoring(device="cpu"), 0)
    with pytest.raises(DataError, match=r"test: training or validation shows \d+ of these"):
        train(settings(tmp_path, test=again, out=tmp_path / "second"), DATE)


def test_one_picture_under_two_names_is_not_on_both_sides(tmp_path: Path) -> None:
    data = toy.crops(tmp_path / "data", people=6, frames=1)
    for person in range(1, 6):  # whoever is held out
        shutil.copy(data / "real/000_0.jpg", data / f"real/{person:03d}_0.jpg")
    with pytest.raises(DataError, match=r"validation: training shows .* \(the same bytes\)"):
        train(settings(tmp_path), DATE)


def test_a_checkpoint_keeps_hashes_and_no_names(trained: Trained, tmp_path: Path) -> None:
    """24 people, real and manipulated, two frames each: 96 crops, 48 videos."""
    seen = stated(read_header(trained.checkpoint).training)
    assert seen is not None
    assert [len(getattr(seen, name)) for name in ("files", "videos", "people")] == [96, 48, 24]
    assert "data/" not in json.dumps(seen.plain())
    with (trained.folder / "crops.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["sha256"] for line in lines} == seen.files
    assert {line["side"] for line in lines} == {"train", "validation"}
    assert lines[0]["video"].startswith("data/")


def test_the_same_people_calibrate_nothing_but_may_be_judged(tmp_path: Path) -> None:
    """As Celeb-DF's official splits share people."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.png")
    one, two = (
        CropRow(
            tmp_path / f"{n}.png", 0, n, "", "g", "real", "", 0, None, None,
            identity=Identity(n, "", ("CelebDF/id0",)),
        )
        for n in "ab"
    )  # fmt: skip
    seen = Seen.of([one])
    refuse(seen, [two], "x")
    with pytest.raises(DataError, match="the same people"):
        refuse(seen, [two], "x", people=True)


@pytest.mark.parametrize("field", ["label", "split", "group", "source", "video", "method"])
def test_a_digest_sees_what_a_listing_says(tmp_path: Path, field: str) -> None:
    rows = read_crops(toy.prepared(tmp_path / "data", people=2))
    value = 1 - rows[0].label if field == "label" else "other"
    changed = [replace(rows[0], **{field: value}), *rows[1:]]
    assert rows_digest(tmp_path, rows) == rows_digest(tmp_path, rows[::-1])
    assert rows_digest(tmp_path, changed) != rows_digest(tmp_path, rows)


@pytest.mark.parametrize("field", ["path", "mask"])
def test_a_digest_sees_every_byte(tmp_path: Path, field: str) -> None:
    rows = [row for row in read_crops(toy.prepared(tmp_path / "data", people=2)) if row.mask]
    before = rows_digest(tmp_path, rows)
    Image.new("L", (256, 256), 7).save(getattr(rows[0], field))
    assert rows_digest(tmp_path, rows) != before


def test_a_run_does_not_go_on_with_another_listing(tmp_path: Path) -> None:
    """People moved from val to train in the JSON, no picture changed."""
    listing = toy.prepared(tmp_path / "data", people=6) / "toy.json"
    document = json.loads(listing.read_text("utf-8"))
    for label, videos in document["toy"].items():
        held = {name: videos["train"].pop(name) for name in ("004", "005")}
        document["toy"][label] = videos | {"val": held}
    listing.write_text(json.dumps(document), "utf-8")
    asked = settings(tmp_path)
    train(asked, DATE)
    for videos in document["toy"].values():
        videos["train"]["004"] = videos["val"].pop("004")
    listing.write_text(json.dumps(document), "utf-8")
    with pytest.raises(DataError, match="its files or its listing have changed"):
        resume(asked.out)


def test_people_who_chain_into_one_group_are_held_out_by_video_and_that_is_said() -> None:
    def row(name: str, label: int, group: str) -> CropRow:
        path = Path(f"{label}_{name}.png")
        return CropRow(path, label, f"{label}/{name}", name, group, "m", "", 0, None, None)

    chained = [row(str(i), label, "id0") for i in range(10) for label in (0, 1)]
    said: list[str] = []
    learn, val = split([chained], 0.2, 0, say=said.append)
    assert len(val) == 4  # two videos, each with its manipulation
    assert not {r.source for r in learn} & {r.source for r in val}
    assert "20 of 20 videos show people of one group" in said[0]
    apart = [row(str(i), label, str(i)) for i in range(10) for label in (0, 1)]
    said.clear()
    split([apart], 0.2, 0, say=said.append)
    assert not said


def test_crops_prepared_anew_are_scored_anew(trained: Trained, tmp_path: Path) -> None:
    """By their bytes: the video's name is the same, what was said of its earlier crops is dropped."""
    own = toy.crops(tmp_path / "own", people=2, frames=2)
    judge, store = predict.candidate(str(trained.checkpoint)), tmp_path / "predictions"

    def score() -> int:
        crops = Crops(TestSet("own", "own", folder=own), own, read_crops(own), [])
        done = predict.score(store, judge, crops, Scoring(device="cpu"), 0)
        return 0 if done is None else done.crops

    assert (score(), score()) == (8, 0)
    before = predict.predictions.read(store)
    Image.new("RGB", (256, 256), "red").save(own / "real/000_0.jpg")
    assert (score(), score()) == (2, 0)  # the video's two crops
    after = predict.predictions.read(store)
    assert len(after) == len(before) == 8
    changed = set(after["crop"].to_pylist()) - set(before["crop"].to_pylist())
    assert len(changed) == 1
