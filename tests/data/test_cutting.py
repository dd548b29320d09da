"""What is cut out of one video, picture, pair or archive, and what its masks show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import clips, footage
from deepscan.data.cutting import MIN_CHANGE, changed_region, cut_archive, cut_pair, cut_video
from deepscan.errors import InputError, UnreadableInput
from deepscan.faces.alignment import TEMPLATE
from deepscan.faces.finder import FaceFinder


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder(40, 0.9, 960)


# --- videos and stills -----------------------------------------------------------------------------


def test_frames_are_spread_evenly_and_numbered_as_in_the_video(
    tmp_path: Path, finder: FaceFinder
) -> None:
    path = footage.film(tmp_path / "a.mp4", footage.portrait(), frames=9)
    cuts = cut_video(path, None, 3, finder)
    assert [cut.index for cut in cuts.crops] == [0, 4, 8]
    assert (cuts.damaged, cuts.faceless) == (0, 0)
    for cut in cuts.crops:
        assert cut.pixels.shape == (256, 256, 3)
        assert cut.landmarks is not None
        assert np.abs(cut.landmarks - TEMPLATE).max() < 12  # one similarity cannot meet all five
        assert cut.mask is None


def test_frames_without_a_face_are_counted(tmp_path: Path, finder: FaceFinder) -> None:
    pictures = [footage.portrait(), footage.wall(), footage.wall()]
    cuts = cut_video(clips.write(tmp_path / "a.mp4", pictures), None, 3, finder)
    assert ([cut.index for cut in cuts.crops], cuts.faceless) == ([0], 2)


def test_a_still_is_one_frame_and_the_largest_face_is_taken(
    tmp_path: Path, finder: FaceFinder
) -> None:
    colour = Image.fromarray(footage.portrait())
    grey = np.asarray(colour.convert("L").convert("RGB").resize((128, 150)))
    both = footage.wall().repeat(2, axis=1)
    both[:150, :128], both[:, 256:] = grey, colour
    Image.fromarray(both).save(tmp_path / "a.png")
    (cut,) = cut_video(tmp_path / "a.png", None, 32, finder).crops
    skin = cut.pixels[100:200, 80:180].mean((0, 1))
    assert cut.index == 0
    assert skin[0] > skin[2] + 30  # red over blue


@pytest.mark.parametrize("size", [(300, 256), (150, 128)])
def test_a_mask_is_cut_as_its_face(
    tmp_path: Path, finder: FaceFinder, size: tuple[int, int]
) -> None:
    """What is painted green in the picture is what its mask shows, at whatever size that comes."""
    painted = footage.portrait().copy()
    painted[150:230, 60:200] = (0, 255, 0)
    forged = np.zeros((300, 256, 3), np.uint8)
    forged[150:230, 60:200] = 255
    forged = np.asarray(Image.fromarray(forged).resize(size[::-1]))
    video = footage.film(tmp_path / "a.mp4", painted)
    cuts = cut_video(video, footage.film(tmp_path / "mask.mp4", forged), 2, finder)
    assert [cut.index for cut in cuts.crops] == [0, 3]
    for cut in cuts.crops:
        assert cut.mask is not None
        green = (cut.pixels[..., 1] > 150) & (cut.pixels[..., 0] < 100)
        assert 0.1 < green.mean() < 0.5
        assert (green ^ cut.mask).mean() < 0.03  # its outline only


def test_a_still_takes_a_picture_for_its_mask_and_a_short_mask_ends(
    tmp_path: Path, finder: FaceFinder
) -> None:
    mask = np.full((300, 256, 3), 255, np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(footage.portrait()).save(tmp_path / "a.jpg")
    (cut,) = cut_video(tmp_path / "a.jpg", tmp_path / "mask.png", 1, finder).crops
    assert cut.mask is not None
    assert cut.mask[60:200, 60:200].all()
    video = footage.film(tmp_path / "a.mp4", footage.portrait(), frames=3)
    first, second = cut_video(video, tmp_path / "mask.png", 2, finder).crops
    assert first.mask is not None
    assert second.mask is None


def test_of_several_faces_the_one_under_the_mask_is_cut(tmp_path: Path, finder: FaceFinder) -> None:
    large, small = footage.portrait(), footage.portrait()[::2, ::2]
    picture = np.full((300, 400, 3), 128, np.uint8)
    picture[:, :256], picture[150:, 260:388] = large, small
    forged = np.zeros_like(picture)
    forged[180:280, 280:370] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(forged).save(tmp_path / "mask.png")
    (cut,) = cut_video(tmp_path / "a.png", tmp_path / "mask.png", 1, finder).crops
    (largest,) = cut_video(tmp_path / "a.png", None, 1, finder).crops
    assert cut.mask is not None
    assert cut.mask.mean() > 0.2
    assert cut.face_size < 0.7 * largest.face_size
    Image.fromarray(np.zeros_like(picture)).save(tmp_path / "nothing.png")
    cuts = cut_video(tmp_path / "a.png", tmp_path / "nothing.png", 1, finder)
    assert (cuts.crops, cuts.unchanged) == ((), 1)  # no forged crop without a mask of it


def test_a_mask_that_cannot_be_read_fails_its_video(tmp_path: Path, finder: FaceFinder) -> None:
    video = footage.film(tmp_path / "a.mp4", footage.portrait())
    with pytest.raises(InputError, match=r"mask\.mp4: no such file"):
        cut_video(video, tmp_path / "mask.mp4", 2, finder)


# --- pairs -----------------------------------------------------------------------------------------


def test_both_halves_are_cut_at_the_same_place(tmp_path: Path, finder: FaceFinder) -> None:
    one = footage.portrait()
    real, fake = cut_pair(footage.pair(tmp_path / "a.mp4", one, footage.swapped(one)), 2, finder)
    assert [c.index for c in real.crops] == [c.index for c in fake.crops] == [0, 2]
    left, right = real.crops[0], fake.crops[0]
    change = right.pixels[64:224, 48:208].astype(int) - left.pixels[64:224, 48:208]
    assert change[..., 1].mean() > 30 > abs(change[..., 0].mean())
    # Beside the face both halves show the same.
    assert np.abs(right.pixels[:20].astype(int) - left.pixels[:20]).mean() < MIN_CHANGE
    assert np.array_equal(left.landmarks, right.landmarks)


def test_the_mask_of_a_pair_is_what_was_changed(tmp_path: Path, finder: FaceFinder) -> None:
    one = footage.portrait()
    real, fake = cut_pair(footage.pair(tmp_path / "a.mp4", one, footage.swapped(one)), 1, finder)
    assert real.crops[0].mask is None
    mask = fake.crops[0].mask
    assert mask is not None
    green = fake.crops[0].pixels[..., 1].astype(int) - real.crops[0].pixels[..., 1] > 30
    assert (green & mask).sum() / (green | mask).sum() > 0.8


def test_frames_of_pairs_that_fail_are_counted(tmp_path: Path, finder: FaceFinder) -> None:
    one = footage.portrait()
    same, _ = cut_pair(footage.pair(tmp_path / "same.mp4", one, one), 2, finder)
    assert (same.crops, same.unchanged, same.faceless) == ((), 2, 0)
    empty, _ = cut_pair(footage.pair(tmp_path / "empty.mp4", footage.wall(), one), 2, finder)
    assert (empty.crops, empty.unchanged, empty.faceless) == ((), 0, 2)


def test_a_changed_region_is_one_piece_without_holes() -> None:
    """Gaps of a face that look alike before and after are closed, and specks elsewhere left out."""
    rng = np.random.default_rng(0)
    real = rng.integers(100, 120, (256, 256, 3), np.uint8)
    fake = real.copy()
    fake[60:200, 60:120] += 40
    fake[60:200, 140:200] += 40  # 20 pixels between the two are alike
    fake[230:250, 5:25] += 40
    mask = changed_region(real, fake)
    assert mask[80:180, 70:190].all()
    assert not mask[225:].any()
    assert 0.9 < mask.sum() / (140 * 140) < 1.3


def test_a_changed_region_is_found_above_what_encoding_leaves() -> None:
    rng = np.random.default_rng(0)
    real = np.full((256, 256, 3), 120, np.uint8)
    fake = (real + rng.integers(-15, 16, real.shape)).astype(np.uint8)  # noise all over
    fake[80:180, 80:180] += 40
    mask = changed_region(real, fake)
    assert mask[90:170, 90:170].all()
    assert mask.sum() < 1.5 * 100 * 100


@pytest.mark.shared
def test_of_two_people_the_swapped_one_is_cut(shared: Path, finder: FaceFinder) -> None:
    """In Tim_Chrys_2 two faces are seen, and the larger one is nobody's swap."""
    _, fake = cut_pair(shared / "pairs" / "Tim_Chrys_2.mp4", 4, finder)
    assert (len(fake.crops), fake.unchanged) == (4, 0)
    assert all(0.15 < np.mean(c.mask) < 0.5 for c in fake.crops if c.mask is not None)


# --- archives --------------------------------------------------------------------------------------


def test_an_archives_crops_are_taken_over_by_sequence(tmp_path: Path) -> None:
    def crop(level: int) -> bytes:
        return footage.png(np.full((224, 224, 3), level, np.uint8))

    members = {f"./7/fake/0/{i}.png": crop(i) for i in (2, 10, 100)} | {"./7/fake/3/5.png": crop(5)}
    found = cut_archive(footage.archive(tmp_path / "7.tar.gz", members), 2)
    assert {s: [c.index for c in cuts.crops] for s, cuts in found.items()} == {
        "0": [2, 100],
        "3": [5],
    }
    assert found["0"].crops[1].pixels.shape == (224, 224, 3)
    assert found["0"].crops[1].pixels[0, 0, 0] == 100


def test_nothing_odd_is_taken_out_of_an_archive(tmp_path: Path) -> None:
    crop = footage.png(np.zeros((224, 224, 3), np.uint8))
    bomb = clips.huge_png(tmp_path / "bomb.png").read_bytes()
    members = {
        "../../7/real/0/1.png": crop,
        "/7/real/0/1.png": crop,
        "./7/real/../1.png": crop,
        "./7/real/0/1.png": crop,
        "./7/real/0/2.png": crop[:100],
        "./7/real/0/3.png": bomb,
    }
    links = {"./7/real/0/4.png": "/etc/hostname"}
    found = cut_archive(footage.archive(tmp_path / "7.tar.gz", members, links), 32)
    assert [cut.index for cut in found["0"].crops] == [1]
    assert (found.keys(), found["0"].damaged) == ({"0"}, 2)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = footage.archive(tmp_path / "7.tar.gz", {"notes.txt": b"none"})
    with pytest.raises(UnreadableInput, match="holds no crops named"):
        cut_archive(path, 2)
    crop = footage.png(np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8))
    clips.cut(footage.archive(path, {"./7/real/0/1.png": crop}), 0.5)
    with pytest.raises(UnreadableInput, match=r"7\.tar\.gz: not a readable archive"):
        cut_archive(path, 2)
