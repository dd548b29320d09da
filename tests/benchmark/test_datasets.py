"""Every test set in made-up trees: DeepfakeBench's crops in all dialects, and the official layouts."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepscan.benchmark.datasets import SETS, TEN, inventory, official, parse, present, read_test
from deepscan.cli import run
from deepscan.errors import DataError, SettingsError

# protocol.md's labels of each set; the last of some sets' names says which listing is read.
LABELS = {
    "ff++": ("FF-real", "FF-DF", "FF-F2F", "FF-FS", "FF-NT"),
    "cdf1": ("CelebDFv1_real", "CelebDFv1_fake"), "cdf2": ("CelebDFv2_real", "CelebDFv2_fake"),
    "fsh": ("FF-real", "FF-FH"), "uadfv": ("UADFV_Real", "UADFV_Fake"), "dfd": ("DFD_real", "DFD_fake"),
    "dfdc": ("DFDC_Real", "DFDC_Fake"), "dfdcp": ("DFDCP_Real", "DFDCP_FakeA", "DFDCP_FakeB"),
    "dfo": ("DFR_Real", "DFR_Fake"), "wdf": ("WDF_Real", "WDF_Fake"), "ffiw": ("FFIW_Real", "FFIW_Fake"),
    **{name: (f"{name}_Real", f"{name}_Fake") for name in list(SETS)[11:]},
}  # fmt: skip
LEVELS = {"ff++", "fsh", "dfd"}  # with one more level, c23, under the splits

# How the five dialects write the path of a crop.
DIALECTS = {
    "datasets/rgb": "./datasets/rgb/{inner}/frames/{video}/{frame}.png",
    "plain": "{inner}/frames/{video}/{frame}.png",
    "leading slash": "/{inner}/frames/{video}/{frame}.png",
    "no frames folder": "DiT/{inner}/{video}/{frame}.png",
    "backslashes": "{inner}\\frames\\{video}\\{frame}.png",
}


def deepfakebench(root: Path, short: str, dialect: str = "plain", videos: int = 2) -> Path:
    """A set's listing with so many test videos a label, 000 and on, two crops each, and one that trains."""
    test_set, form = SETS[short], DIALECTS[dialect]
    name = test_set.listings[0]
    labels: dict[str, Any] = {}
    for label in LABELS[short]:
        sides: dict[str, Any] = {"train": {}, "val": {}, "test": {}}
        for number in range(videos + 1):
            video, split = f"{number:03d}", "train" if number == videos else "test"
            frames = [
                form.format(inner=f"{name}/{label}", video=video, frame=f) for f in ("007", "012")
            ]
            sides[split][video] = {"label": label, "frames": frames}
            for frame in frames:
                plain = frame.replace("\\", "/").removeprefix("./").removeprefix("/")
                (root / plain).parent.mkdir(parents=True, exist_ok=True)
                (root / plain).touch()
        labels[label] = {s: {"c23": v} for s, v in sides.items()} if short in LEVELS else sides
    (root / f"{name}.json").write_text(json.dumps({name: labels}), "utf-8")
    return root


# --- prepared crops --------------------------------------------------------------------------------


def test_the_sets_are_the_protocols() -> None:
    assert list(SETS)[:11] == ["ff++", *TEN]
    assert [s.short for s in parse("all")] == list(TEN)
    assert SETS["cdf2"].expected == {("test", 0): 178, ("test", 1): 340}
    assert (SETS["dfdc"].total, SETS["dfdcp"].about) == (5000, True)
    assert SETS["ff++"].expected["test", 1] == 4 * 140


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("short", SETS)
def test_every_set_in_every_dialect(tmp_path: Path, short: str, dialect: str) -> None:
    crops = read_test(SETS[short], deepfakebench(tmp_path, short, dialect))
    fakes = len(LABELS[short]) - 1
    assert {row.split for row in crops.rows} == {"test"}
    videos = {(row.label, row.video) for row in crops.rows}
    assert [sum(label == k for label, _ in videos) for k in (0, 1)] == [2, 2 * fakes]
    assert [row.frame for row in crops.rows][:2] == [7, 12]
    inner = re.escape(f"{SETS[short].listings[0]}/{LABELS[short][0]}")
    assert re.fullmatch(rf"[^/]+/0/real/(DiT/)?{inner}/(frames/)?000", crops.rows[0].video)
    assert {r.method for r in crops.rows} == {"real", *LABELS[short][1:]}


def test_one_folder_name_under_two_methods_stays_two_videos(tmp_path: Path) -> None:
    crops = read_test(SETS["ff++"], deepfakebench(tmp_path, "ff++"))
    named = {row.video for row in crops.rows if row.video.endswith("/000")}
    assert (
        len(named) == 5
    )  # merged by DeepfakeBench's protocol alone: see test_benchmark_evaluation


def test_deeperforensics_is_found_by_either_of_its_names(tmp_path: Path) -> None:
    deepfakebench(tmp_path, "dfo")
    listing = (tmp_path / "test_DFR.json").read_text("utf-8")
    (tmp_path / "test_DFR.json").unlink()
    (tmp_path / "DeeperForensics-1.0.json").write_text(
        listing.replace('"test_DFR"', '"DeeperForensics-1.0"'), "utf-8"
    )
    assert len(read_test(SETS["dfo"], tmp_path).rows) == 8


def test_a_set_of_ones_own_is_all_for_testing_where_it_states_no_split(tmp_path: Path) -> None:
    for name in ("real/000_0.jpg", "fake/000_003_0.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (mine,) = parse(f"mine={tmp_path}")
    assert [row.label for row in read_test(mine, None).rows] == [0, 1]


# --- what is missing -------------------------------------------------------------------------------


@pytest.mark.parametrize("short", SETS)
def test_a_missing_set_is_named_with_what_was_looked_for(tmp_path: Path, short: str) -> None:
    with pytest.raises(DataError) as caught:
        read_test(SETS[short], tmp_path)
    output = str(caught.value)
    assert f"{SETS[short].listings[0]}.json" in output
    assert f"deepscan prepare {tmp_path}/" in output
    assert "get the data set itself from" in output


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    deepfakebench(tmp_path, "cdf2")
    gone = "Celeb-DF-v2/CelebDFv2_fake/frames/001/012.png"
    (tmp_path / gone).unlink()
    with pytest.raises(DataError, match=f"1 listed pictures are missing, the first is {gone}"):
        read_test(SETS["cdf2"], tmp_path)


def test_a_set_without_a_test_side_is_refused(tmp_path: Path) -> None:
    deepfakebench(tmp_path, "cdf2", videos=0)
    with pytest.raises(DataError, match="cdf2 lists no videos of the test split"):
        read_test(SETS["cdf2"], tmp_path)


def test_missing_sets_are_skipped_if_asked_and_remembered(tmp_path: Path) -> None:
    sets = parse("cdf2,dfdc")
    deepfakebench(tmp_path, "cdf2")
    with pytest.raises(DataError, match=r"no prepared DFDC here.*--skip-missing"):
        present(sets, tmp_path, skip_missing=False)
    found, skipped = present(sets, tmp_path, skip_missing=True)
    assert [c.test_set.short for c in found] == ["cdf2"]
    assert "no prepared DFDC here" in skipped["dfdc"]
    with pytest.raises(DataError, match="none of the data sets was found"):
        present(parse("dfdc"), tmp_path, skip_missing=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cdf9", "'cdf9' is not one of"),
        ("cdf2,all", "cdf2 is named twice"),
        ("dfdc=/x", "cannot be used as a name"),
    ],
)
def test_unknown_names_are_refused(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        parse(text)


# --- official layouts ------------------------------------------------------------------------------


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def faceforensics(root: Path) -> None:
    for split, ids in (("train", ["000", "003"]), ("val", ["1", "2"]), ("test", ["5", "6"])):
        touch(root, f"{split}.json")
        (root / f"{split}.json").write_text(json.dumps([ids]), "utf-8")
    for method in ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter"):
        touch(root, f"manipulated_sequences/{method}/c23/videos/5_6.mp4")
    touch(root, "original_sequences/youtube/c23/videos/5.mp4")
    touch(root, "original_sequences/actors/c23/videos/01__hug.mp4")
    touch(root, "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__hug__X.mp4")


def celeb_df(root: Path) -> None:
    touch(
        root,
        "Celeb-real/id0_0000.mp4",
        "YouTube-real/00170.mp4",
        "Celeb-synthesis/id0_id1_0000.mp4",
    )
    listed = (
        "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n0 Celeb-synthesis/gone.mp4\n"
    )
    (root / "List_of_testing_videos.txt").write_text(listed, "utf-8")


def dfdc(root: Path) -> None:
    touch(root, "test/a.mp4", "test/labels.csv")
    (root / "test/labels.csv").write_text("filename,label\na.mp4,1\nb.mp4,0\n", "utf-8")


def dfdcp(root: Path) -> None:
    touch(root, "method_A/7/x.mp4")
    entries = {
        "method_A/7/x.mp4": {"label": "fake", "set": "test"},
        "original_videos/7/y.mp4": {"label": "real", "set": "test"},
    }
    (root / "dataset.json").write_text(json.dumps(entries), "utf-8")


def deeperforensics(root: Path) -> None:
    for split in ("train", "val", "test"):
        touch(root, f"lists/splits/{split}.txt")
        (root / f"lists/splits/{split}.txt").write_text(f"{split}_M1.mp4\n", "utf-8")
    touch(root, "source_videos/M1/light/happy.mp4", "manipulated_videos/end_to_end/test_M1.mp4")


# By set: its tree, (real, manipulated) test videos listed, and how many listed videos are not there.
LAYOUTS: dict[str, tuple[Callable[[Path], None], tuple[int, int], int]] = {
    "ff++": (faceforensics, (2, 8), 6 - 1 + 24 - 4),
    "fsh": (faceforensics, (2, 2), 6 - 1 + 6 - 1),
    "dfd": (faceforensics, (1, 1), 0),
    "cdf1": (celeb_df, (1, 2), 1),
    "cdf2": (celeb_df, (1, 2), 1),
    "dfdc": (dfdc, (1, 1), 1),
    "dfdcp": (dfdcp, (1, 1), 1),
    "dfo": (deeperforensics, (1, 1), 2),
    "wdf": (
        lambda root: touch(
            root, *(f"deepfake_in_the_wild/{k}_test/1.tar.gz" for k in ("real", "fake"))
        ),
        (1, 1),
        0,
    ),
    "uadfv": (lambda root: touch(root, "real/0000.mp4", "fake/0000_fake.mp4"), (1, 1), 0),
}


@pytest.mark.parametrize("short", LAYOUTS)
def test_every_official_layout_is_found_and_counted(tmp_path: Path, short: str) -> None:
    make, (real, manipulated), gone = LAYOUTS[short]
    folder, page = SETS[short].layout
    make(tmp_path / folder)
    found = inventory(SETS[short], tmp_path)
    assert found.layout == tmp_path / folder == official(SETS[short], tmp_path)
    assert {k: v for k, v in found.layout_videos.items() if k[0] == "test"} == {
        ("test", 0): real,
        ("test", 1): manipulated,
    }
    assert len(found.layout_missing) == gone
    assert page
    assert found.crops is None
    assert "no prepared" in found.problem


def test_distortions_want_the_videos(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"DFDC: no videos of DFDC in its official layout; get it from"
    ):
        official(SETS["dfdc"], tmp_path)
    with pytest.raises(DataError, match="only sets under the data root have them"):
        official(SETS["dfdc"], None)


# --- deepscan datasets -----------------------------------------------------------------------------


def test_the_command_shows_what_is_there_and_what_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    deepfakebench(tmp_path, "cdf2")
    celeb_df(tmp_path / "Celeb-DF-v1")
    asked = ["datasets", "--root", str(tmp_path)]
    assert run(asked) == 0
    output = capsys.readouterr()
    lines = [line.split() for line in output.out.splitlines()]
    assert [
        "cdf2",
        "Celeb-DF",
        "v2",
        "train",
        "1",
        "1",
        "prepared,",
        "not",
        "as",
        "expected",
    ] in lines
    assert ["test", "2", "2", "178", "+", "340"] in lines
    assert any(line[:3] == ["cdf1", "Celeb-DF", "v1"] and "whole" in line for line in lines)
    assert "cdf2: test: 2 real, 178 expected" in output.err
    assert "cdf1: 1 listed videos are missing, the first is" in output.err
    assert f"dfdc: not under {tmp_path}; its folder is DFDC, from ai.meta.com" in output.err

    assert run([*asked, "--datasets=cdf2", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)["cdf2"]
    assert one["prepared"] == str(tmp_path)
    assert one["videos"]["test"] == {"real": 2, "manipulated": 2}
    shutil.rmtree(tmp_path / "Celeb-DF-v2")
    assert run([*asked, "--datasets=cdf2", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)["cdf2"]
    assert one["prepared"] is None
    assert "listed pictures are missing" in one["problem"]
