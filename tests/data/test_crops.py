"""Prepared crops in all forms that are about, read into rows."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from deepscan.data.crops import read_crops
from deepscan.data.deepfakebench import locate, sibling_folder
from deepscan.errors import DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def listing(folder: Path, name: str, labels: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({name: labels}), "utf-8")
    return folder


def entry(*frames: str, **more: str) -> dict[str, Any]:
    return {"label": "stands here too", "frames": list(frames), **more}


def faceforensics(folder: Path, *methods: str, level: str = "c23") -> Path:
    """000 and 003 and what each method makes of them, one frame each, in train."""
    real = "FaceForensics++/original_sequences/youtube/c23/frames"
    labels: dict[str, Any] = {
        "FF-real": {"train": {level: {i: entry(f"{real}/{i}/005.png") for i in ("000", "003")}}}
    }
    for method in methods:
        fake = f"FaceForensics++/manipulated_sequences/{method}/c23/frames"
        videos = {v: entry(f"{fake}/{v}/005.png") for v in ("000_003", "003_000")}
        labels[f"FF-{method}"] = {"train": {level: videos}}
    for name in labels.values():
        for video in name["train"][level].values():
            touch(folder, *video["frames"])
    return listing(folder, "FaceForensics++", labels)


# --- DeepfakeBench's form --------------------------------------------------------------------------


def test_a_forgery_is_tied_to_its_original_and_never_merged_with_its_namesakes(
    tmp_path: Path,
) -> None:
    rows = read_crops(faceforensics(tmp_path, "DF", "F2F"))
    assert [(r.label, r.method, r.source, r.split, r.frame) for r in rows] == [
        (0, "real", "000", "train", 5),
        (0, "real", "003", "train", 5),
        (1, "FF-DF", "000", "train", 5),
        (1, "FF-DF", "003", "train", 5),
        (1, "FF-F2F", "000", "train", 5),
        (1, "FF-F2F", "003", "train", 5),
    ]
    assert {r.group for r in rows} == {"000"}
    assert len({r.video for r in rows}) == 6
    assert rows[2].video == (
        "FaceForensics++/1/FF-DF/FaceForensics++/manipulated_sequences/DF/c23/frames/000_003"
    )


@pytest.mark.parametrize(
    ("listed", "lies"),
    [
        ("./datasets/rgb/S/real/frames/08/1.png", "datasets/rgb/S/real/frames/08/1.png"),
        ("S/real/frames/08/1.png", "S/real/frames/08/1.png"),
        ("/S/real/frames/08/1.png", "rgb/S/real/frames/08/1.png"),
        ("DiT/cdf/real/08/1.png", "datasets/DiT/cdf/real/08/1.png"),
        ("1.png", "1.png"),
        ("S\\real\\frames\\08\\1.png", "datasets/rgb/S/real/frames/08/1.png"),
        ("/somebody/datasets/rgb/S/real/frames/08/1.png", "S/real/frames/08/1.png"),
    ],
)
@pytest.mark.parametrize("where", ["", "dataset_json", "preprocessing/dataset_json"])
def test_every_dialect_of_paths_leads_to_the_file(
    tmp_path: Path, listed: str, lies: str, where: str
) -> None:
    touch(tmp_path, lies)
    listing(tmp_path / where, "S", {"S_Real": {"test": {"08": entry(listed)}}})
    (row,) = read_crops(tmp_path, ["S"])
    assert (row.path, row.label, row.split) == (tmp_path / lies, 0, "test")


def test_frames_are_sorted_as_numbers_or_else_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "a/10.png", "a/9.png", "b/x_2.png", "b/x_10.png")
    videos = {"a": entry("a/10.png", "a/9.png"), "b": entry("b/x_2.png", "b/x_10.png")}
    rows = read_crops(listing(tmp_path, "S", {"S_fake": {"train": videos}}))
    assert [(r.path.name, r.frame) for r in rows] == [
        ("9.png", 9),
        ("10.png", 10),
        ("x_10.png", 0),
        ("x_2.png", 1),
    ]


def test_masks_and_landmarks_lie_beside_the_frames(tmp_path: Path) -> None:
    touch(tmp_path, "S/frames/v/1.png", "S/frames/v/2.png", "S/masks/v/2.png")
    touch(tmp_path, "S/landmarks/v/1.npy")
    videos = {"v": entry("S/frames/v/1.png", "S/frames/v/2.png")}
    first, second = read_crops(listing(tmp_path, "S", {"S_fake": {"train": videos}}))
    assert (first.mask, first.landmarks) == (None, tmp_path / "S/landmarks/v/1.npy")
    assert (second.mask, second.landmarks) == (tmp_path / "S/masks/v/2.png", None)


def test_only_the_folder_named_frames_is_replaced() -> None:
    assert sibling_folder(PurePosixPath("frames/S/frames/v"), "masks") == PurePosixPath(
        "frames/S/masks/v"
    )
    assert sibling_folder(PurePosixPath("S/cdf/frames"), "masks") is None  # a video called frames


def test_celeb_df_says_in_names_whose_face_is_where(tmp_path: Path) -> None:
    inner = "Celeb-DF-v2/{}/frames/{}/000.png"
    names = {
        "CelebDFv2_real": [("Celeb-real", "id0_0005"), ("YouTube-real", "00170")],
        "CelebDFv2_fake": [("Celeb-synthesis", "id0_id1_0005")],
    }
    labels = {
        label: {
            "test": {video: entry(inner.format(*where)) for where in found for video in where[1:]}
        }
        for label, found in names.items()
    }
    touch(tmp_path, *(inner.format(*where) for found in names.values() for where in found))
    rows = read_crops(listing(tmp_path, "Celeb-DF-v2", labels))
    assert [(r.label, r.source, r.group) for r in rows] == [
        (0, "", rows[0].video),
        (0, "id0_0005", "id0"),
        (1, "id0_0005", "id0"),
    ]


def test_dfd_names_actors_and_scene(tmp_path: Path) -> None:
    labels = {
        "DFD_real": {"test": {"c23": {"01__hug_happy": entry("r/1.png")}}},
        "DFD_fake": {"test": {"c23": {"01_02__hug_happy__YVGY8LOK": entry("f/1.png")}}},
    }
    touch(tmp_path, "r/1.png", "f/1.png")
    rows = read_crops(listing(tmp_path, "DeepFakeDetection", labels))
    assert [(r.source, r.group) for r in rows] == [("01__hug_happy", "01")] * 2


def test_what_a_listing_states_goes_before_what_names_say(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "c/1.png")
    stated = {"a": entry("a/1.png", source="clip", group="7"), "c": entry("c/1.png", source="clip")}
    labels = {
        "pairs_real": {"train": stated},
        "pairs_fake": {"train": {"b": entry("b/1.png", source="clip", group="7", method="swap")}},
    }
    rows = read_crops(listing(tmp_path, "pairs", labels))
    assert [(r.source, r.group, r.method) for r in rows] == [
        ("clip", "7", "real"),
        ("clip", "clip", "real"),  # the source is the group where no group is stated
        ("clip", "7", "swap"),
    ]


def test_a_video_in_several_splits_has_rows_for_each(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    splits = {split: {"a": entry("a/1.png")} for split in ("train", "val", "test")}
    rows = read_crops(listing(tmp_path, "S", {"S_real": splits}))
    assert [r.split for r in rows] == ["train", "val", "test"]
    assert len({r.video for r in rows}) == 1


def test_one_listed_everywhere_because_it_has_no_split_is_one_row(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    splits = {split: {"a": entry("a/1.png", split="")} for split in ("train", "val", "test")}
    assert [r.split for r in read_crops(listing(tmp_path, "S", {"S_real": splits}))] == [""]


def test_a_picture_in_several_sets_is_one_row(tmp_path: Path) -> None:
    faceforensics(tmp_path, "DF")
    document = json.loads((tmp_path / "FaceForensics++.json").read_text("utf-8"))
    listing(tmp_path, "FaceShifter", {"FF-real": document["FaceForensics++"]["FF-real"]})
    assert len(read_crops(tmp_path)) == 4
    assert len(read_crops(tmp_path, ["FaceShifter"])) == 2
    assert {
        r.video.split("/")[0] for r in read_crops(tmp_path, ["FaceShifter", "FaceForensics++"])
    } == {
        "FaceShifter",
        "FaceForensics++",
    }


def test_the_level_asked_for_is_read_and_others_are_named(tmp_path: Path) -> None:
    faceforensics(tmp_path, level="c40")
    assert len(read_crops(tmp_path, compression="c40")) == 2
    with pytest.raises(DataError, match=r"FaceForensics\+\+\.json: holds c40, not c23"):
        read_crops(tmp_path)


def test_dfdcs_nameless_val_video_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    splits = {"test": {"a": entry("a/1.png")}, "val": entry("a/1.png"), "train": {}}
    assert [r.split for r in read_crops(listing(tmp_path, "DFDC", {"DFDC_Real": splits}))] == [
        "test"
    ]


def test_missing_files_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "S/frames/v/1.png")
    videos = {"v": entry(*(f"S/frames/v/{i}.png" for i in (1, 2, 3)))}
    with pytest.raises(
        DataError, match=r"2 listed pictures are missing, the first is S/frames/v/2\.png"
    ):
        read_crops(listing(tmp_path, "S", {"S_fake": {"train": videos}}))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"S_fake": {"train": {"v": entry("a/../../b.png")}}}, "is outside the data"),
        ({"S_fake": {"train": {"v": {"frames": 3}}}}, "not of the form"),
        ({"S_fake": ["train"]}, "not of the form"),
        ({"S_fake": {"train": {"v": entry()}}}, "name no pictures"),
    ],
)
def test_a_malformed_listing_is_refused(tmp_path: Path, labels: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_crops(listing(tmp_path, "S", labels))


def test_files_that_are_no_listing_are_left_alone_unless_asked_for(tmp_path: Path) -> None:
    faceforensics(tmp_path)
    (tmp_path / "train.json").write_text('[["000", "003"]]', "utf-8")  # the data set's own
    assert len(read_crops(tmp_path)) == 2
    with pytest.raises(DataError, match=r"train\.json: not a listing of crops"):
        read_crops(tmp_path, ["train"])
    with pytest.raises(
        DataError, match=r"no DFDC\.json here.*; there are FaceForensics\+\+, train"
    ):
        read_crops(tmp_path, ["DFDC"])
    (tmp_path / "cut.json").write_text('{"cut": ', "utf-8")
    with pytest.raises(DataError, match=r"cut\.json: not readable JSON"):
        read_crops(tmp_path)


# --- where sets lie --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", ["", "prepared", "DeepfakeBench/preprocessing/dataset_json", "FF-DF", "prepared/FF-DF"]
)
def test_a_set_is_found_under_the_data_root(tmp_path: Path, where: str) -> None:
    listing(tmp_path / where, "FF-DF", {})
    inner = where.removesuffix("/preprocessing/dataset_json")
    assert locate(tmp_path, "FF-DF") == tmp_path / inner


def test_an_unfound_set_is_told_how_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        locate(tmp_path, "FF-DF")
    output = str(caught.value)
    for place in (tmp_path, tmp_path / "prepared", tmp_path / "FF-DF", tmp_path / "DeepfakeBench"):
        assert str(place) in output
    assert f"deepscan prepare {tmp_path}/FaceForensics++ --out {tmp_path}/prepared" in output
    assert "github.com/ondyari/FaceForensics" in output


# --- flat folders ----------------------------------------------------------------------------------


def test_flat_crops_have_label_video_source_and_group(tmp_path: Path) -> None:
    names = ("real/000_0.jpg", "real/003_10.jpg", "real/003_2.jpg", "real/555_0.jpg")
    fakes = ("fake/003_000_4.jpg", "fake/000_003_4.jpg")
    rows = read_crops(touch(tmp_path, *names, *fakes))
    assert [(r.path.name, r.label, r.video, r.source, r.group) for r in rows] == [
        ("000_0.jpg", 0, "real/000", "000", "000"),
        ("003_2.jpg", 0, "real/003", "003", "000"),
        ("003_10.jpg", 0, "real/003", "003", "000"),
        ("555_0.jpg", 0, "real/555", "555", "555"),
        ("000_003_4.jpg", 1, "fake/000_003", "000", "000"),
        ("003_000_4.jpg", 1, "fake/003_000", "003", "000"),
    ]
    assert [(r.method, r.split, r.frame) for r in rows[2:5]] == [
        ("real", "", 10),
        ("real", "", 0),
        ("fake", "", 4),
    ]


def test_flat_crops_have_the_landmarks_that_lie_beside_them(tmp_path: Path) -> None:
    touch(tmp_path, "real/003_2.jpg", "real/003_10.jpg", "fake/003_000_4.jpg")
    beside = touch(tmp_path, "landmarks/real/003_2.npy") / "landmarks" / "real" / "003_2.npy"
    found = {row.path.stem: row.landmarks for row in read_crops(tmp_path)}
    assert found == {"003_2": beside, "003_10": None, "003_000_4": None}


def test_groups_join_through_others(tmp_path: Path) -> None:
    fakes = ("fake/004_003_0.jpg", "fake/001_002_0.jpg", "fake/003_002_0.jpg")
    rows = read_crops(touch(tmp_path, "real/004_0.jpg", "real/005_0.jpg", *fakes))
    assert {r.video: r.group for r in rows} == {
        "real/004": "001",
        "real/005": "005",
        "fake/001_002": "001",
        "fake/003_002": "001",
        "fake/004_003": "001",
    }


def test_one_class_may_be_all_there_is(tmp_path: Path) -> None:
    assert [r.label for r in read_crops(touch(tmp_path, "real/000_0.jpg"))] == [0]


def test_a_folder_of_neither_form_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither a DeepfakeBench listing.*nor real/<id>_<frame>"):
        read_crops(tmp_path)
    with pytest.raises(DataError, match=r"000_0\.jpg: not named like <target>_<source>_<frame>"):
        read_crops(touch(tmp_path, "real/000_0.jpg", "fake/000_0.jpg"))


@pytest.mark.shared
def test_the_shared_crops_are_as_their_readme_says(shared: Path) -> None:
    rows = read_crops(shared / "ffpp-crops")
    videos = {(row.label, row.video) for row in rows}
    assert [sum(label == wanted for label, _ in videos) for wanted in (0, 1)] == [140, 140]
    assert len({row.group for row in rows}) == 70
