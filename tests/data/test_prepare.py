"""Preparing data sets: counted, resumable, and readable by deepscan and DeepfakeBench alike."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders import footage
from deepscan.cli import run
from deepscan.data import prepare as module
from deepscan.data.crops import CropRow, Identity, read_cropless, read_crops
from deepscan.data.journal import PreparedVideo
from deepscan.data.prepare import Count, PrepareSettings, prepare
from deepscan.errors import OutputError, SettingsError

TWO = PrepareSettings(frames=2, jobs=1)


CUT = module._cut  # before anything is patched


def deadly_cut(job: Any, task: Any) -> list[PreparedVideo]:
    """As a decoder's fault would: the process is gone in the middle of this one video."""
    if task[0].path.name == "bad.mp4":
        os._exit(9)
    return CUT(job, task)


@pytest.fixture(scope="module")
def footage_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of two good videos, a still, and what fails in three ways."""
    folder = tmp_path_factory.mktemp("mine")
    one = footage.portrait()
    footage.film(folder / "a.mp4", one)
    footage.film(folder / "swaps" / "a.mp4", footage.swapped(one))
    forged = np.zeros_like(one)
    forged[footage.FACE] = 255
    footage.film(folder / "mask.mp4", forged)
    Image.fromarray(one).save(folder / "still.jpg")
    footage.film(folder / "nobody.mp4", footage.wall())
    (folder / "broken.mp4").write_bytes(b"nothing of the kind")
    (folder / "mine.csv").write_text(
        "path,label,method,split,mask,source,group\n"
        "a.mp4,real,,train,,a,anna\n"
        "swaps/a.mp4,fake,roop,train,mask.mp4,a,anna\n"
        "still.jpg,real,,,,,\n"
        "nobody.mp4,real,,test,,,\n"
        "gone.mp4,fake,,test,,,\n"
        "broken.mp4,fake,,test,,,\n",
        "utf-8",
    )
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """All that is prepared, but for the journal, whose lines come in the order videos finish."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".prepare" not in path.parts
    }


def listing(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / f"{name}.json").read_text("utf-8"))[name]


# --- what comes out --------------------------------------------------------------------------------


def test_every_video_is_counted_and_failures_stop_nothing(
    footage_folder: Path, tmp_path: Path
) -> None:
    output: list[tuple[int, int]] = []
    summary = prepare(
        footage_folder / "mine.csv",
        tmp_path,
        TWO,
        lambda _, done, total: output.append((done, total)),
    )
    assert summary.counts == (
        Count("mine_real", "train", videos=1, ready=1, faceless=0, failed=0, crops=2),
        Count("mine_fake", "train", videos=1, ready=1, faceless=0, failed=0, crops=2),
        Count("mine_real", "test", videos=1, ready=0, faceless=1, failed=0, crops=0),
        Count("mine_fake", "test", videos=2, ready=0, faceless=0, failed=2, crops=0),
        Count("mine_real", "", videos=1, ready=1, faceless=0, failed=0, crops=1),
    )
    (gone, why), (broken, how) = sorted(summary.failures, reverse=True)
    assert (gone, broken) == ("mine/frames/gone", "mine/frames/broken")
    assert "gone.mp4: no such file" in why
    assert "broken.mp4: not a readable video" in how
    assert (summary.faceless_frames, summary.damaged_frames, summary.fresh) == (2, 0, 6)
    assert str(summary) == f"6 videos: 3 ready, 1 faceless, 2 failed; 5 crops in {tmp_path}"
    assert output == [(i, 6) for i in range(1, 7)]


def test_crops_come_back_as_rows(footage_folder: Path, tmp_path: Path) -> None:
    prepare(footage_folder / "mine.csv", tmp_path, TWO)
    real = next(row for row in read_crops(tmp_path) if row.source == "a")
    assert real == CropRow(
        tmp_path / "mine/frames/a/000.png",
        0,
        "mine/0/real/mine/frames/a",
        source="a",
        group="anna",
        method="real",
        split="train",
        frame=0,
        mask=None,
        landmarks=tmp_path / "mine/landmarks/a/000.npy",
        time=0.0,
        face_size=real.face_size,
        identity=Identity("mine/0/real/mine/frames/a", "mine/a", ("mine/anna",)),
    )
    assert real.face_size == pytest.approx(120, rel=0.2)  # the portrait's face is 130 x 120 pixels
    assert [(c.label, c.video, c.split, c.state) for c in read_cropless(tmp_path)] == [
        (0, "mine/0/real/mine/frames/nobody", "test", "faceless"),
        (1, "mine/1/mine_fake/mine/frames/broken", "test", "failed"),
        (1, "mine/1/mine_fake/mine/frames/gone", "test", "failed"),
    ]
    assert [(r.label, r.method, r.split, r.group, r.frame) for r in read_crops(tmp_path)] == [
        (0, "real", "train", "anna", 0),
        (0, "real", "train", "anna", 3),
        (0, "real", "", "mine/0/real/mine/frames/still", 0),
        (1, "roop", "train", "anna", 0),
        (1, "roop", "train", "anna", 3),
    ]


def test_masks_and_landmarks_are_written_in_crop_pixels(
    footage_folder: Path, tmp_path: Path
) -> None:
    prepare(footage_folder / "mine.csv", tmp_path, TWO)
    (row, _) = (row for row in read_crops(tmp_path) if row.method == "roop")
    assert row.mask is not None
    assert row.landmarks is not None
    points = np.load(row.landmarks)
    assert (points.dtype, points.shape) == (np.float32, (5, 2))
    with Image.open(row.mask) as image:
        mask = np.asarray(image)
    assert (mask.shape, set(np.unique(mask).tolist())) == ((256, 256), {0, 255})
    x, y = points[2].astype(int)  # the nose was changed, the corners were not
    assert mask[y, x] == 255
    assert mask[:10, :10].max() == 0


def test_pairs_become_two_videos_with_one_source(tmp_path: Path) -> None:
    folder, one = tmp_path / "pairs", footage.portrait()
    footage.pair(folder / "good.mp4", one, footage.swapped(one))
    footage.pair(folder / "same.mp4", one, one)
    (folder / "pairs.csv").write_text("name,kind,source_group\ngood,pair,7\nsame,pair,8\n", "utf-8")
    summary = prepare(folder, tmp_path / "out", TWO)
    assert [(c.name, c.ready, c.failed) for c in summary.counts] == [
        ("pairs_real", 1, 1),
        ("pairs_fake", 1, 1),
    ]
    assert "both halves show the same face" in summary.failures[0][1]
    rows = read_crops(tmp_path / "out")
    assert [(r.label, r.source, r.group, r.split, r.frame) for r in rows] == [
        (0, "good", "7", "train", 0),
        (0, "good", "7", "train", 2),
        (1, "good", "7", "train", 0),
        (1, "good", "7", "train", 2),
    ]
    assert [r.mask is None for r in rows] == [True, True, False, False]


def test_faceforensics_is_listed_as_deepfakebench_asks_for_it(tmp_path: Path) -> None:
    root, one = tmp_path / "FF", footage.portrait()
    for split, ids in (("train", ["000", "003"]), ("val", ["1", "2"]), ("test", ["5", "6"])):
        root.mkdir(exist_ok=True)
        (root / f"{split}.json").write_text(json.dumps([ids]), "utf-8")
    fakes = "manipulated_sequences/Deepfakes"
    footage.film(root / "original_sequences/youtube/c23/videos/000.mp4", one)
    footage.film(root / fakes / "c23/videos/000_003.mp4", footage.swapped(one))
    footage.film(root / fakes / "masks/videos/000_003.mp4", np.full_like(one, 255))
    out = tmp_path / "out"
    summary = prepare(root, out, TWO)
    assert (summary.total("ready"), summary.total("failed")) == (2, 10)
    for name in ("FaceForensics++", "FF-DF"):
        labels = listing(out, name)
        assert list(labels) == ["FF-real", "FF-DF"]
        for label in labels:
            for mode in ("train", "val", "test"):  # it looks up each, with the level under it
                assert isinstance(labels[label][mode]["c23"], dict)
        video = labels["FF-DF"]["train"]["c23"]["000_003"]
        assert video["label"] == "FF-DF"
        inner = "FaceForensics++/manipulated_sequences/Deepfakes/c23/frames/000_003"
        assert video["frames"] == [f"{inner}/000.png", f"{inner}/003.png"]
        for frame in video["frames"]:  # under rgb_dir; masks are where "frames" is "masks"
            assert (out / frame).is_file()
            assert (out / frame.replace("frames", "masks")).is_file()
    real, _, fake, _ = read_crops(out, ["FaceForensics++"])
    assert (real.source, real.group) == (fake.source, fake.group) == ("000", "000")


def test_archives_are_videos_by_the_sequence(tmp_path: Path) -> None:
    crop = footage.png(np.zeros((224, 224, 3), np.uint8))
    members = {f"./7/fake/{s}/{i}.png": crop for s in (0, 1) for i in (3, 4)}
    root = tmp_path / "wild"
    footage.archive(root / "deepfake_in_the_wild/fake_test/7.tar.gz", members)
    (count,) = prepare(root, tmp_path / "out", TWO).counts
    assert count == Count("WDF_Fake", "test", videos=2, ready=2, faceless=0, failed=0, crops=4)
    rows = read_crops(tmp_path / "out", ["test_WDF"])
    assert len({row.video for row in rows}) == 2
    assert str(rows[0].path.relative_to(tmp_path / "out")) == (
        "WildDeepfake/fake_test/frames/7_0/003.png"
    )


def test_videos_of_one_name_stay_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        footage.film(tmp_path / folder / "a.mp4", footage.portrait())
    (tmp_path / "s.csv").write_text("path,label\nx/a.mp4,0\ny/a.mp4,0\n", "utf-8")
    prepare(tmp_path / "s.csv", tmp_path / "out", TWO)
    assert list(listing(tmp_path / "out", "s")["s_real"]["test"]) == [
        "s/x/frames/a",
        "s/y/frames/a",
    ]
    rows = read_crops(tmp_path / "out")
    assert [row.split for row in rows] == [""] * 4
    assert len({row.video for row in rows}) == 2


# --- going on --------------------------------------------------------------------------------------


def test_a_second_run_does_only_what_is_missing(footage_folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(footage_folder, mine)
    out = tmp_path / "out"
    prepare(mine / "mine.csv", out, TWO)
    before = files(out)
    shutil.copy(mine / "a.mp4", mine / "gone.mp4")  # found again
    summary = prepare(mine / "mine.csv", out, TWO)
    assert summary.fresh == 2  # that one, and the broken one once more
    assert (summary.total("ready"), summary.total("failed")) == (4, 1)
    assert all(files(out)[name] == data for name, data in before.items() if "json" not in name)

    footage.film(mine / "a.mp4", footage.portrait(), frames=9)  # another file under its name
    summary = prepare(mine / "mine.csv", out, TWO)
    assert summary.fresh == 2
    assert sorted(p.name for p in (out / "mine/frames/a").iterdir()) == ["000.png", "008.png"]


def test_a_run_broken_off_goes_on_to_the_same_bytes(footage_folder: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    prepare(footage_folder / "mine.csv", whole, TWO)

    def interrupt(_: str, done: int, __: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(footage_folder / "mine.csv", broken, TWO, interrupt)
    assert not (broken / "mine.json").exists()
    # As a kill would leave it: a torn line, a video in place that no line tells of, and a part of one.
    with (broken / ".prepare" / "mine.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"video": "mine/frames/st')
    for name in ("mine/frames/still/077.png", ".prepare/mine.part/x/frames/000.png"):
        (broken / name).parent.mkdir(parents=True, exist_ok=True)
        (broken / name).touch()
    assert prepare(footage_folder / "mine.csv", broken, TWO).fresh == 4
    assert files(broken) == files(whole)
    left = {path.name for path in (broken / ".prepare").iterdir()}
    assert left == {"mine.jsonl", ".mine.jsonl.lock"}


def test_other_settings_are_refused(footage_folder: Path, tmp_path: Path) -> None:
    prepare(footage_folder / "mine.csv", tmp_path, TWO)
    with pytest.raises(SettingsError, match=r"started with frames 2, now requested with frames 3"):
        prepare(footage_folder / "mine.csv", tmp_path, PrepareSettings(frames=3, jobs=1))


def test_two_runs_at_one_place_do_not_take_each_others_work_apart(
    footage_folder: Path, tmp_path: Path
) -> None:
    def again(*_: Any) -> None:
        with pytest.raises(
            OutputError, match="another process is using it; wait until it has finished"
        ):
            prepare(footage_folder / "mine.csv", tmp_path, TWO)

    assert prepare(footage_folder / "mine.csv", tmp_path, TWO, again).fresh


@pytest.mark.parametrize("theirs", ["mine.json", "mine/swaps/frames/a/000.png"])
def test_what_another_tool_prepared_is_never_written_over(
    footage_folder: Path, tmp_path: Path, theirs: str
) -> None:
    (tmp_path / theirs).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / theirs).write_text("theirs", "utf-8")
    with pytest.raises(OutputError, match="not made by deepscan prepare"):
        prepare(footage_folder / "mine.csv", tmp_path, TWO)
    assert (tmp_path / theirs).read_text("utf-8") == "theirs"


@pytest.mark.parametrize("change", [{"frames": 0}, {"jobs": 0}, {"compression": "c99"}])
def test_senseless_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(change))):
        PrepareSettings(**change)


def test_a_full_disk_keeps_what_is_finished(
    footage_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Path] = []
    save = module._save_png

    def fill(path: Path, pixels: Any) -> None:
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        saved.append(path)
        save(path, pixels)

    with monkeypatch.context() as patched:
        patched.setattr(module, "_save_png", fill)
        with pytest.raises(OutputError, match=r"No space left.*run the same command again"):
            prepare(footage_folder / "mine.csv", tmp_path, TWO)
    assert prepare(footage_folder / "mine.csv", tmp_path, TWO).fresh == 5


# --- several processes -----------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_make_the_same_and_a_killed_one_costs_nothing(
    footage_folder: Path, tmp_path: Path
) -> None:
    def kill(_: str, done: int, __: int) -> None:
        if done == 1:
            for process in multiprocessing.active_children():
                process.kill()

    prepare(footage_folder / "mine.csv", tmp_path / "one", TWO)
    both = PrepareSettings(frames=2, jobs=2)
    assert prepare(footage_folder / "mine.csv", tmp_path / "two", both, kill).total("ready") == 3
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.slow
def test_a_video_that_kills_its_process_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_cut", deadly_cut)
    names = ("a", "bad", "b")
    for name in names:
        footage.film(tmp_path / f"{name}.mp4", footage.portrait())
    (tmp_path / "s.csv").write_text(
        "path,label\n" + "".join(f"{name}.mp4,0\n" for name in names), "utf-8"
    )
    summary = prepare(tmp_path / "s.csv", tmp_path / "out", PrepareSettings(frames=2, jobs=2))
    assert (summary.total("ready"), summary.total("failed")) == (2, 1)
    assert "bad.mp4: the process that read it was killed" in summary.failures[0][1]


# --- the command -----------------------------------------------------------------------------------


def test_the_command_shows_a_table_and_says_what_failed(
    footage_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(footage_folder / "mine.csv")
    assert run(["prepare", source, "--out", str(tmp_path), "--frames", "2", "--jobs", "1"]) == 3
    out, err = capsys.readouterr()
    assert "mine_fake" in out
    assert "faceless" in out
    assert "failed: " in err
    assert "gone.mp4: no such file" in err
    again = ["prepare", source, "--out", str(tmp_path), "--frames", "2", "--json", "-q"]
    assert run([*again, "--jobs", "1"]) == 3
    out, err = capsys.readouterr()
    output = json.loads(out)
    assert (output["videos"], output["ready"], output["crops"], err) == (6, 3, 5, "")
    assert {failure["video"] for failure in output["failures"]} == {
        "mine/frames/gone",
        "mine/frames/broken",
    }


def test_exit_codes_tell_all_nothing_and_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    footage.film(tmp_path / "a.mp4", footage.portrait())
    footage.film(tmp_path / "nobody.mp4", footage.wall())
    for name in ("a", "nobody"):
        (tmp_path / f"{name}.csv").write_text(f"path,label\n{name}.mp4,0\n", "utf-8")

    def code(source: str, *more: str) -> int:
        out = str(tmp_path / "out")
        return run(["prepare", str(tmp_path / source), "--out", out, "--frames", "2", *more])

    assert code("a.csv") == 0
    assert code("nobody.csv") == 1
    assert code("gone.csv") == 1
    assert "gone.csv: no such folder or CSV" in capsys.readouterr().err
    assert code("a.csv", "--compression", "c1") == 2
