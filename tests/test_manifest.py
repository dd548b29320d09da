from pathlib import Path

import pytest

from deepscan.errors import DataError
from deepscan.manifest import read_crops, read_pairs

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
COLUMNS = "name,kind,source_group\n"


def listing(folder: Path, text: str, *clips: str) -> Path:
    (folder / "pairs.csv").write_text(text, encoding="utf-8")
    for clip in clips:
        (folder / f"{clip}.mp4").touch()
    return folder


def crops(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_pairs_come_in_the_listing_order_and_singles_stay_out(tmp_path: Path) -> None:
    text = COLUMNS + "b,pair,7\nalone,single,8\na,pair,9\n"
    rows = read_pairs(listing(tmp_path, text, "a", "b"))
    assert [(r.name, r.source_group, r.path) for r in rows] == [
        ("b", "7", tmp_path / "b.mp4"),
        ("a", "9", tmp_path / "a.mp4"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,kind\na,pair\n", "no column source_group"),
        (COLUMNS + "alone,single,8\n", "no clip of kind pair"),
        (COLUMNS + "a,pair,1\na,pair,2\n", "listed twice"),
        (COLUMNS + "a,pair,\n", "without a name or a source_group"),
        (COLUMNS + "a,pair,1\ngone,pair,2\n", "1 of 2 listed clips are not there, first gone.mp4"),
    ],
)
def test_a_bad_listing_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_pairs(listing(tmp_path, text, "a"))


def test_a_missing_listing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pairs\.csv: no such file"):
        read_pairs(tmp_path)


def test_crops_have_label_video_and_group(tmp_path: Path) -> None:
    names = ("real/000_0.jpg", "real/003_10.jpg", "real/003_2.jpg", "real/555_0.jpg")
    fakes = ("fake/003_000_4.jpg", "fake/000_003_4.jpg")
    rows = read_crops(crops(tmp_path, *names, *fakes))
    assert [(r.path.name, r.label, r.video, r.group) for r in rows] == [
        ("000_0.jpg", 0, "real/000", "000"),
        ("003_2.jpg", 0, "real/003", "000"),
        ("003_10.jpg", 0, "real/003", "000"),
        ("555_0.jpg", 0, "real/555", "555"),
        ("000_003_4.jpg", 1, "fake/000_003", "000"),
        ("003_000_4.jpg", 1, "fake/003_000", "000"),
    ]


def test_groups_join_through_others(tmp_path: Path) -> None:
    fakes = ("fake/004_003_0.jpg", "fake/001_002_0.jpg", "fake/003_002_0.jpg")
    rows = read_crops(crops(tmp_path, "real/004_0.jpg", "real/005_0.jpg", *fakes))
    assert {r.video: r.group for r in rows} == {
        "real/004": "001",
        "real/005": "005",
        "fake/001_002": "001",
        "fake/003_002": "001",
        "fake/004_003": "001",
    }


def test_crops_of_one_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fake: no such folder"):
        read_crops(crops(tmp_path, "real/000_0.jpg"))


def test_a_crop_of_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"000_0\.jpg: not named like <target>_<source>_<frame>"):
        read_crops(crops(tmp_path, "real/000_0.jpg", "fake/000_0.jpg"))


@pytest.mark.shared
def test_the_shared_sets_are_as_their_readme_says() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    pairs = read_pairs(SHARED / "pairs")
    assert len(pairs) == 53
    assert not {"Dean_Wiesel_2", "Nicola_Badge_2"} & {row.name for row in pairs}
    rows = read_crops(SHARED / "ffpp-crops")
    videos = {(row.label, row.video) for row in rows}
    assert [sum(label == wanted for label, _ in videos) for wanted in (0, 1)] == [140, 140]
    assert len({row.group for row in rows}) == 70
