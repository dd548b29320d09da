"""Official layouts, made of empty files: what is listed, as what, and where its crops will lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepscan.data.layouts import VideoRow, read_layout
from deepscan.errors import DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def write(folder: Path, name: str, text: str) -> Path:
    touch(folder, name)
    (folder / name).write_text(text, "utf-8")
    return folder


def faceforensics(folder: Path) -> Path:
    """One pair of ids in each split."""
    for split, ids in (("train", ["000", "003"]), ("val", ["1", "2"]), ("test", ["5", "6"])):
        write(folder, f"{split}.json", json.dumps([ids]))
    return folder


def output(rows: tuple[VideoRow, ...]) -> list[tuple[str, int, str, str]]:
    return [(row.path.name, row.label, row.name, row.split) for row in rows]


# --- FaceForensics++ -------------------------------------------------------------------------------


def test_faceforensics_is_listed_by_its_splits(tmp_path: Path) -> None:
    root = faceforensics(tmp_path)
    touch(root, "original_sequences/youtube/c23/videos/000.mp4")
    touch(root, "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4")
    layout = read_layout(root)
    assert layout.sets == {"FaceForensics++": ("FF-real", "FF-DF"), "FF-DF": ("FF-real", "FF-DF")}
    assert output(layout.rows)[:5] == [
        ("000.mp4", 0, "FF-real", "train"),
        ("003.mp4", 0, "FF-real", "train"),
        ("000_003.mp4", 1, "FF-DF", "train"),
        ("003_000.mp4", 1, "FF-DF", "train"),
        ("1.mp4", 0, "FF-real", "val"),
    ]
    real, _, fake, other, *_ = layout.rows
    assert str(real.relative) == "FaceForensics++/original_sequences/youtube/c23/frames/000"
    assert (
        str(fake.relative) == "FaceForensics++/manipulated_sequences/Deepfakes/c23/frames/000_003"
    )
    assert fake.path == root / "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4"
    assert fake.mask == root / "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4"
    assert (real.compression, real.mask, other.mask) == ("c23", None, None)


def test_another_level_of_compression_is_another_folder(tmp_path: Path) -> None:
    root = touch(faceforensics(tmp_path), "original_sequences/youtube/c40/videos/000.mp4")
    row = read_layout(root, "c40").rows[0]
    assert row.path.is_file()
    assert str(row.relative) == "FaceForensics++/original_sequences/youtube/c40/frames/000"


def test_faceshifter_and_deepfakedetection_are_sets_of_their_own(tmp_path: Path) -> None:
    root = touch(
        faceforensics(tmp_path),
        "manipulated_sequences/FaceShifter/c23/videos/000_003.mp4",
        "original_sequences/actors/c23/videos/01__hug_happy.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__hug_happy__YVGY8LOK.mp4",
    )
    layout = read_layout(root)
    assert layout.sets == {
        "FaceForensics++": ("FF-real",),
        "FaceShifter": ("FF-real", "FF-FH"),
        "DeepFakeDetection": ("DFD_real", "DFD_fake"),
    }
    assert output(layout.rows)[-2:] == [
        ("01__hug_happy.mp4", 0, "DFD_real", "test"),
        ("01_02__hug_happy__YVGY8LOK.mp4", 1, "DFD_fake", "test"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [("[[1]]", "not a list of pairs"), ("[", "not JSON"), (None, "cannot be read")],
)
def test_damaged_split_lists_are_refused(tmp_path: Path, text: str | None, says: str) -> None:
    root = touch(faceforensics(tmp_path), "original_sequences/youtube/c23/videos/000.mp4")
    if text is None:
        (root / "val.json").unlink()
    else:
        write(root, "val.json", text)
    with pytest.raises(DataError, match=rf"val\.json: {says}"):
        read_layout(root)


# --- Celeb-DF --------------------------------------------------------------------------------------


def test_celeb_df_calls_real_1_and_tests_on_a_list(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "Celeb-DF-v2",
        "Celeb-real/id0_0000.mp4",
        "Celeb-synthesis/id0_id1_0000.mp4",
        "YouTube-real/00170.mp4",
    )
    text = "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id2_id3_0001.mp4\n"
    layout = read_layout(write(root, "List_of_testing_videos.txt", text))
    assert layout.sets == {"Celeb-DF-v2": ("CelebDFv2_real", "CelebDFv2_fake")}
    assert output(layout.rows) == [
        ("id0_0000.mp4", 0, "CelebDFv2_real", "train"),
        ("id0_id1_0000.mp4", 1, "CelebDFv2_fake", "train"),
        ("id2_id3_0001.mp4", 1, "CelebDFv2_fake", "test"),  # listed though it is not there
        ("00170.mp4", 0, "CelebDFv2_real", "test"),
    ]
    assert str(layout.rows[0].relative) == "Celeb-DF-v2/Celeb-real/frames/id0_0000"


def test_the_first_celeb_df_is_told_by_its_name_or_its_short_list(tmp_path: Path) -> None:
    for name in ("Celeb-DF-v1", "renamed"):
        root = write(tmp_path / name, "List_of_testing_videos.txt", "1 Celeb-real/id0_0000.mp4")
        assert read_layout(root).name == "Celeb-DF-v1"


def test_an_odd_line_of_the_list_is_named(tmp_path: Path) -> None:
    text = "1 Celeb-real/id0_0000.mp4\nREAL Celeb-real/id0_0001.mp4\n"
    with pytest.raises(DataError, match=r"videos\.txt, line 2: 'REAL Celeb-real/id0_0001\.mp4'"):
        read_layout(write(tmp_path, "List_of_testing_videos.txt", text))


# --- the others ------------------------------------------------------------------------------------


def test_dfdc_has_labels_for_test_and_originals_for_train(tmp_path: Path) -> None:
    root = write(tmp_path, "test/labels.csv", "filename,label\nx.mp4,1\ny.mp4,0\n")
    parts = {"a.mp4": {"label": "REAL"}, "b.mp4": {"label": "FAKE", "original": "a.mp4"}}
    write(root, "train/dfdc_train_part_0/metadata.json", json.dumps(parts))
    rows = read_layout(root).rows
    assert output(rows) == [
        ("x.mp4", 1, "DFDC_Fake", "test"),
        ("y.mp4", 0, "DFDC_Real", "test"),
        ("a.mp4", 0, "DFDC_Real", "train"),
        ("b.mp4", 1, "DFDC_Fake", "train"),
    ]
    assert [row.source for row in rows] == ["", "y", "a", "a"]
    assert str(rows[3].relative) == "DFDC/train/dfdc_train_part_0/frames/b"


def test_dfdc_preview_has_two_methods_and_ties_by_person(tmp_path: Path) -> None:
    entries = {
        "original_videos/7/7_A.mp4": {"label": "real", "set": "train"},
        "method_A/7/7_8_B.mp4": {"label": "fake", "set": "test"},
        "method_B/9/9_8_B.mp4": {"label": "fake", "set": "train"},
    }
    rows = read_layout(write(tmp_path, "dataset.json", json.dumps(entries))).rows
    assert [(r.name, r.split, r.group, str(r.relative)) for r in rows] == [
        ("DFDCP_FakeA", "test", "7", "DFDCP/method_A/frames/7_8_B"),
        ("DFDCP_FakeB", "train", "9", "DFDCP/method_B/frames/9_8_B"),
        ("DFDCP_Real", "train", "7", "DFDCP/original_videos/frames/7_A"),
    ]


def test_deeperforensics_splits_its_forgeries_by_lists(tmp_path: Path) -> None:
    for split, stem in (("train", "000_M101"), ("val", "001_M102"), ("test", "002_W103")):
        write(tmp_path, f"lists/splits/{split}.txt", f"{stem}.mp4\n")
    touch(tmp_path, "source_videos/M101/light_down/happy.mp4")
    rows = read_layout(tmp_path).rows
    assert [(r.name, r.split, r.source, r.group) for r in rows] == [
        ("DF_fake", "train", "000", "M101"),
        ("DF_fake", "val", "001", "M102"),
        ("DF_fake", "test", "002", "W103"),
        ("DF_real", "test", "", "M101"),
    ]
    name = "DeeperForensics-1.0"
    assert str(rows[0].relative) == f"{name}/manipulated_videos/end_to_end/frames/000_M101"
    assert str(rows[3].relative) == f"{name}/source_videos/M101/light_down/frames/happy"


def test_wilddeepfake_is_listed_by_archive(tmp_path: Path) -> None:
    inside = "deepfake_in_the_wild"
    touch(tmp_path, f"{inside}/real_train/1.tar.gz", f"{inside}/fake_test/2.tar.gz")
    layout = read_layout(tmp_path)
    assert layout.sets == {"test_WDF": ("WDF_Real", "WDF_Fake")}
    assert output(layout.rows) == [
        ("2.tar.gz", 1, "WDF_Fake", "test"),
        ("1.tar.gz", 0, "WDF_Real", "train"),
    ]
    assert str(layout.rows[0].relative) == "WildDeepfake/fake_test/frames/2"


def test_uadfvs_forgeries_are_named_after_their_originals(tmp_path: Path) -> None:
    rows = read_layout(touch(tmp_path, "real/0000.mp4", "fake/0000_fake.mp4")).rows
    assert output(rows) == [
        ("0000.mp4", 0, "UADFV_Real", "test"),
        ("0000_fake.mp4", 1, "UADFV_Fake", "test"),
    ]
    assert [row.source for row in rows] == ["0000", "0000"]


def test_any_folders_real_and_fake_hold_what_they_say(tmp_path: Path) -> None:
    mine = touch(tmp_path / "mine", "real/a.mov", "fake/deep/a.mp4", "fake/notes.txt")
    layout = read_layout(mine)
    assert layout.sets == {"mine": ("mine_real", "mine_fake")}
    assert output(layout.rows) == [("a.mov", 0, "mine_real", ""), ("a.mp4", 1, "mine_fake", "")]
    assert str(layout.rows[1].relative) == "mine/fake/deep/frames/a"
    uadfv = read_layout(touch(tmp_path / "UADFV", "real/0000.mp4", "fake/0000.mp4"))
    assert output(uadfv.rows) == [
        ("0000.mp4", 0, "UADFV_Real", "test"),
        ("0000.mp4", 1, "UADFV_Fake", "test"),
    ]


# --- the user's own --------------------------------------------------------------------------------


def test_a_csv_lists_videos_stills_and_masks(tmp_path: Path) -> None:
    text = (
        "\ufeffpath,label,method,split,mask,source,group\n"  # as spreadsheets write it
        "a.mp4,real,,train,,a,anna\n"
        "swaps/a.mp4,1,roop,train,swaps/a_mask.mp4,a,anna\n"
        "../some/other/face.jpg,FAKE,,,,,\n"
    )
    layout = read_layout(write(tmp_path, "mine.csv", text) / "mine.csv")
    assert layout.sets == {"mine": ("mine_real", "mine_fake")}
    real, fake, still = layout.rows
    assert real == VideoRow(
        tmp_path / "a.mp4", 0, "mine_real", "real", "train", real.relative, source="a", group="anna"
    )
    assert (fake.method, fake.mask) == ("roop", tmp_path / "swaps/a_mask.mp4")
    assert (still.label, still.method, still.split) == (1, "mine_fake", "")
    assert [str(row.relative) for row in layout.rows] == [
        "mine/frames/a",
        "mine/swaps/frames/a",
        "mine/other/frames/face",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\na.mp4,1\n", "no column path; it needs path, label"),
        ("path,label\na.mp4,2\n", "line 2: label '2' is not one of 0, 1, real, fake"),
        ("path,label\n,1\n", "line 2: no path"),
        ("path,label,split\na.mp4,1,dev\n", "line 2: split 'dev' is not one of train, val, test"),
        ("path,label\na.mp4,1\na.jpg,0\n", r"a\.jpg and .*a\.mp4: the crops of both would go to"),
        ("path,label\n..,1\n", "is outside the data set"),
        ("path,label\n", "name no videos"),
    ],
)
def test_a_bad_csv_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_layout(write(tmp_path, "mine.csv", text) / "mine.csv")


def test_both_halves_of_a_pair_are_videos_and_singles_stay_out(tmp_path: Path) -> None:
    text = "name,kind,source_group\nb,pair,7\nalone,single,8\n"
    layout = read_layout(write(tmp_path / "pairs", "pairs.csv", text))
    assert layout.sets == {"pairs": ("pairs_real", "pairs_fake")}
    assert [(r.path.name, r.half, r.label, r.method, r.split) for r in layout.rows] == [
        ("b.mp4", 0, 0, "real", "train"),
        ("b.mp4", 1, 1, "pairs_fake", "train"),
    ]
    assert {(r.source, r.group) for r in layout.rows} == {("b", "7")}
    assert str(layout.rows[1].relative) == "pairs/fake/frames/b"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,kind\na,pair\n", "no column source_group"),
        ("name,kind,source_group\nalone,single,8\n", "no clip of kind pair"),
        ("name,kind,source_group\na,pair,1\na,pair,2\n", "list each once"),
        ("name,kind,source_group\na,pair,\n", "needs a plain name and a source_group"),
        ("name,kind,source_group\n../a,pair,1\n", "needs a plain name and a source_group"),
    ],
)
def test_a_bad_listing_of_pairs_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_layout(write(tmp_path, "pairs.csv", text))


def test_what_is_unknown_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_layout(tmp_path)
    for words in ("original_sequences", "List_of_testing_videos.txt", "dataset.json", "pairs.csv"):
        assert words in str(caught.value)
    with pytest.raises(DataError, match=r"gone: no such folder or CSV"):
        read_layout(tmp_path / "gone")


@pytest.mark.shared
def test_the_shared_pairs_are_as_their_readme_says(shared: Path) -> None:
    rows = read_layout(shared / "pairs").rows
    assert len(rows) == 2 * 53
    assert not {"Dean_Wiesel_2", "Nicola_Badge_2"} & {row.source for row in rows}
