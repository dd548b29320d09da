"""Material for evidence maps, of made-up crops: packed, read, drawn; pseudo-fakes, codecs and views of it."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from builders import evidence_material as made
from deepscan.data.crops import read_crops
from deepscan.faces.alignment import TEMPLATE
from tools.evidence import codecs, folds, geometry, held, pack, sampling, views
from tools.evidence.entries import SETS, read_entries
from tools.evidence.material import Material
from tools.evidence.pseudo_fakes import Kind, pseudo_fakes
from tools.evidence.recipes import LORA


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return made.material(tmp_path_factory.mktemp("pack") / "pack.zip")


# --- the archive -------------------------------------------------------------------------------------


def test_an_archive_says_what_its_crops_are_and_is_the_same_each_time(tmp_path: Path) -> None:
    mask = np.zeros((256, 256), bool)
    mask[64:128, 64:128] = True
    crops = [made.crop("pairs", 0), made.crop("pairs", 1, mask=mask), made.crop("page/a", 1)]
    sizes = pack.write(tmp_path / "a.zip", crops)
    pack.write(tmp_path / "b.zip", crops)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert sizes == {"pairs": 2 * len(crops[0].data), "methods": len(crops[0].data)}
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        entries = read_entries(archive)
        bits = np.unpackbits(np.load(io.BytesIO(archive.read("masks.npy"))), axis=1)
        assert archive.read(entries[0].name) == crops[0].data
    assert [(entry.source, entry.label, entry.mask) for entry in entries] == [
        ("pairs", 0, -1), ("pairs", 1, 0), ("page/a", 1, -1),
    ]  # fmt: skip
    (kept,) = bits.reshape(-1, 64, 64)
    assert kept.sum() == 16 * 16  # of 64 x 64 pixels, four of which become one
    assert kept[16:32, 16:32].all()


def test_a_person_is_always_in_the_same_fold() -> None:
    found = [pack.fold_of(f"person {i}") for i in range(500)]
    assert found == [pack.fold_of(f"person {i}") for i in range(500)]
    assert min(np.bincount(found, minlength=5)) > 70  # of five folds, all of a similar size


def test_crops_that_are_framed_loosely_are_aligned_and_others_left_as_they_are(
    tmp_path: Path,
) -> None:
    """On FaceForensics++'s crop the face is half as large, and elsewhere: a mark on its nose is found."""
    pixels = np.full((256, 256, 3), 100, np.uint8)
    nose = (TEMPLATE[2] / 2 + (20, 30)).round().astype(int)
    pixels[nose[1] - 2 : nose[1] + 3, nose[0] - 2 : nose[0] + 3] = 255
    loose = made.crop("ffpp", 0, pixels=pixels, points=TEMPLATE / 2 + (20, 30))
    as_is = made.crop("pairs", 0, pixels=pixels)
    found = made.material(tmp_path / "pack.zip", [loose, as_is])
    np.testing.assert_allclose(found.points[0], TEMPLATE, atol=0.02)
    brightest = found.crops[0, 0].float().argmax()
    where = np.array([brightest % 256, brightest // 256])
    assert np.abs(where - TEMPLATE[2]).max() < 7  # the mark is 10 pixels wide now
    assert (found.crops[1].permute(1, 2, 0).numpy() == made.decoded(as_is.data)).all()


def test_what_is_manipulated_for_sure_is_the_inner_face_and_in_lip_sync_its_lower_part(
    tmp_path: Path,
) -> None:
    crops = [made.crop("page/a", 1, kind=kind) for kind in ("face_swap", "lip_sync")]
    crops.append(made.crop("faces", 0))
    swapped, lips, _ = made.material(tmp_path / "pack.zip", crops).core
    eyes, mouth = (30, 32), (48, 32)  # row and column of 64
    assert (swapped[eyes], swapped[mouth]) == (255, 255)
    assert (lips[eyes], lips[mouth]) == (0, 255)


def test_no_source_is_in_two_folds_and_dfdc_is_judged_by_a_choice(material: Material) -> None:
    sources = sorted({name for pages in folds.METHODS.values() for name in pages})
    for source in sources:
        assert sum(source.startswith(pages) for pages in folds.METHODS.values()) == 1, source
    assert sorted(fold for run in folds.RUNS.values() for fold in run) == sorted(folds.FOLDS)
    assert set(material.source[folds.of_fold(material, "M1")]) == {"cxcx1996/a"}
    for fold in ("M1", "dfdc"):  # no more than 400 of a class here: all are judged
        assert (folds.judged(material, fold) == np.flatnonzero(folds.of_fold(material, fold))).all()


# --- what a step shows -------------------------------------------------------------------------------


def test_what_was_redrawn_is_drawn_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "redrawn.npz"
    first = made.material(tmp_path / "pack.zip", kept=kept).redrawn
    monkeypatch.setattr(made.Decoders, "redraw", None)  # would fail
    again = made.material(tmp_path / "pack.zip", kept=kept).redrawn
    assert torch.equal(first.crops, again.crops)
    assert first.of.tolist() == again.of.tolist()
    assert first.decoder.tolist() == again.decoder.tolist()


def test_held_crops_are_written_for_the_benchmark_one_of_each_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [
        replace(made.crop("pairs", label, person="p", video="a"), frame=frame)
        for label in (0, 1)
        for frame in range(3)
    ]
    crops = made.material(tmp_path / "pack.zip", some)
    assert set(crops.fold) == {crops.fold[0]}  # one person
    monkeypatch.setattr(held, "HELD_FOLD", crops.fold[0])
    rows = held.middles(crops, "pairs")
    assert crops.label[rows].tolist() == [0, 1]
    folder = tmp_path / "out" / "pairs"
    held.write(crops, rows, folder)
    read = {(row.label, row.path.name) for row in read_crops(folder, None, "c23")}
    assert read == {(0, "0_0.jpg"), (1, "1_0_0.jpg")}
    with Image.open(folder / "real" / "0_0.jpg") as image:
        assert image.size == (256, 256)


def test_a_method_is_drawn_by_the_root_of_its_number(tmp_path: Path) -> None:
    """Two thirds are for pairs; of the rest, one crop of a method and four of another have 1 : 2 in all."""
    crops = [made.crop("pairs", 1, method="x")]
    crops += [made.crop("page/a", 1, method="one")]
    crops += [made.crop("page/a", 1, method="four") for _ in range(4)]
    found = sampling.probabilities(
        made.material(tmp_path / "pack.zip", [*crops, made.crop("faces", 0)]),
        np.arange(6),
        {
            "pairs": 2.0,
            "dfdc": 5.0,
            "methods": 1.0,
        },  # there is nothing of dfdc: its share is the others'
    )
    np.testing.assert_allclose(found, [2 / 3, 1 / 9, *[2 / 9 / 4] * 4])


def test_what_is_left_out_is_never_drawn(material: Material) -> None:
    keep = ~folds.of_fold(material, "M1")
    sampler = sampling.Sampler(material, keep, LORA, 0)
    for _ in range(20):
        drawn = sampler.draw(16)
        rows = [drawn.fakes, drawn.reals, drawn.bases, drawn.others.ravel()]
        assert keep[np.concatenate(rows)].all()
        assert (material.label[drawn.fakes] == 1).all()
        assert (material.label[np.concatenate(rows[1:])] == 0).all()
        whole = drawn.kinds >= Kind.REDRAWN
        assert (material.redrawn.of[drawn.copies[whole]] == drawn.bases[whole]).all()
        assert (material.redrawn.of[drawn.around_copies] == drawn.reals[drawn.around]).all()


def test_draws_depend_on_the_seed_alone(material: Material) -> None:
    keep = np.ones(len(material), bool)
    first, again, other = (
        sampling.Sampler(material, keep, LORA, seed).draw(16) for seed in (0, 0, 1)
    )
    assert (first.fakes == again.fakes).all()
    assert (first.others == again.others).all()
    assert (first.others != other.others).any()


def test_a_batch_is_half_real_and_says_what_is_known(material: Material) -> None:
    """A manipulated crop's mask is known for pairs alone here; real crops have none, and that is known."""
    recipe = replace(LORA, kinds=(0.5, 0.0, 0.0, 0.5))
    drawn = sampling.Sampler(material, np.ones(len(material), bool), recipe, 0).draw(8)
    found = sampling.batch(material, drawn, recipe)
    assert found.images.shape == (16, 3, 224, 224)
    assert found.labels.tolist() == [1] * 8 + [0] * 8
    known = [*(material.group[drawn.fakes] == "pairs"), *(drawn.kinds != Kind.REDRAWN_WHOLE)]
    assert found.known.tolist() == [*known, *[True] * 8]
    assert (found.truth[8:] == 0).all()
    assert (found.truth[:8][torch.tensor(known)].amax(1) > 0.5).all()
    assert (found.face.amax(1) > 0.9).all()  # of real ones as well: it is where a face is
    of_pairs = [drawn.fakes, drawn.bases, drawn.reals, drawn.bases]
    assert found.rows[:, 0].tolist() == np.concatenate(of_pairs).tolist()
    assert found.kind.tolist() == 2 * [*[sampling.PLAIN] * 4, *drawn.kinds]


def test_a_batch_says_whose_face_is_laid_over(material: Material) -> None:
    recipe = replace(LORA, pseudo=1.0, kinds=(0.0, 1.0, 0.0, 0.0))
    drawn = sampling.Sampler(material, np.ones(len(material), bool), recipe, 0).draw(8)
    found = sampling.batch(material, drawn, recipe)
    fakes, reals = found.rows.chunk(2)
    assert all(int(other) in drawn.others[i] for i, (_, other) in enumerate(fakes))
    assert torch.equal(reals, reals[:, :1].expand(-1, 2))


# --- pseudo-fakes ------------------------------------------------------------------------------------


def random_crops(count: int) -> Tensor:
    return (255 * torch.rand(count, 3, 256, 256)).round()


def test_a_pseudo_fake_is_its_real_twin_where_the_mask_is_empty() -> None:
    """Also where it is redrawn, another's or its own face; the mask lies in the middle, where the face is."""
    crops, others, redrawn = random_crops(4), random_crops(4), random_crops(4)
    points = geometry.TEMPLATE.expand(4, -1, -1)
    kinds = torch.tensor([Kind.SELF, Kind.SWAP, Kind.REDRAWN, Kind.REDRAWN])
    found = pseudo_fakes(crops, points, others, points, redrawn, kinds, (0.3, 0.3, 0.15, 0.2, 0.05))
    apart = (found.fakes - found.twins).abs()
    clean = (found.weights < 1e-4).expand_as(apart)
    assert clean.float().mean() > 0.3
    assert (apart * clean).max() <= 0.55  # the fake is rounded, its twin need not be
    assert (apart * (found.weights > 0.9)).amax((1, 2, 3)).min() > 2


def test_what_is_redrawn_whole_changes_everywhere() -> None:
    crops, redrawn = random_crops(2), random_crops(2)
    points = geometry.TEMPLATE.expand(2, -1, -1)
    kinds = torch.full((2,), Kind.REDRAWN_WHOLE)
    found = pseudo_fakes(crops, points, crops, points, redrawn, kinds, (1.0, 0.0, 0.0, 0.0, 0.0))
    assert found.weights.min() == 1
    assert found.visible.all()


# --- geometry, codecs, views -------------------------------------------------------------------------


def test_a_square_holds_the_pixels_whose_centres_it_holds() -> None:
    square = torch.tensor([[(64.0, 32.0), (192.0, 32.0), (192.0, 96.0), (64.0, 96.0)]])
    assert geometry.inside(square, 256).sum() == 128 * 64
    small = geometry.inside(square, 64)[0]
    assert small.sum() == 32 * 16
    assert small[8:24, 16:48].all()


def test_fits_find_the_map_that_points_were_moved_by() -> None:
    """Turned by a right angle, twice as large, moved by 10 and 20: x' = 10 - 2 y, y' = 20 + 2 x."""
    wanted = torch.tensor([[(0.0, 2.0), (-2.0, 0.0), (10.0, 20.0)]])
    points = geometry.TEMPLATE[None]
    moved = geometry.with_ones(points) @ wanted
    for fit in (geometry.affine_fit, geometry.similarity_fit):
        torch.testing.assert_close(fit(points, moved), wanted, atol=1e-2, rtol=0)


def test_grey_is_coded_by_its_mean_alone() -> None:
    """131 of a block of 8 x 8 is 3 above 128: a coefficient of 8 x 3 = 24.

    JPEG of quality 50 has steps of 16, 24 / 16 = 1.5 becomes 2, and 2 x 16 / 8 = 4 gives 132. At a QP of 24
    H.264's step is 10, 2.4 becomes 2 and 2 x 10 / 8 = 2.5 gives 130.5, rounded to 130.
    """
    grey = torch.full((2, 3, 16, 16), 131.0)
    film = torch.tensor([False, True])
    found = codecs.compressed(grey, film, torch.tensor([50.0, 50.0]), torch.tensor([24.0, 24.0]))
    assert (found[0] == 132).all()
    assert (found[1] == 130).all()


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_changes_grey_pixels_as_libjpeg_does(quality: int) -> None:
    """Colours may differ by more: decoders bring them back from half the resolution in their own ways."""
    at = torch.arange(64.0)
    image = (128 + 60 * torch.sin((at[:, None] + 2 * at) / 6)).round().byte()
    file = io.BytesIO()
    Image.fromarray(image.numpy()).save(file, "JPEG", quality=quality)
    libjpeg = torch.tensor(made.decoded(file.getvalue()))[..., 0].float()
    off = torch.zeros(1)
    ours = codecs.compressed(image.float().expand(1, 3, -1, -1), off.bool(), off + quality, off)[0]
    assert (ours - libjpeg).abs().mean() < (libjpeg - image).abs().mean() / 3


@pytest.mark.parametrize("margin", [1.0, 0.6])
def test_a_view_moves_picture_and_mask_alike(margin: float) -> None:
    """The mask is a disc, the picture the same disc; without codecs and light they remain one."""
    at = torch.arange(256.0)
    disc = ((at[:, None] - 140) ** 2 + (at[None] - 110) ** 2 < 45**2).float()[None, None]
    disc = disc.expand(8, -1, -1, -1)
    seen, mask = views.viewed(255 * disc.expand(-1, 3, -1, -1), disc, margin, 0.0, 0.0)
    assert seen.shape == (8, 3, 224, 224)
    shown = seen.sum(1) > 0  # but for the black of a frame that ends
    assert ((seen[:, 0] / 255 - mask[:, 0]).abs() * shown).max() < 0.01
    assert shown.float().mean((1, 2)).min() > 0.02
    assert len({round(float(m), 4) for m in mask.mean((1, 2, 3))}) == 8  # each is seen differently


def test_a_change_is_made_with_its_chance() -> None:
    crops = random_crops(4)
    for change in (
        lambda p: views.coloured(crops, p, (0.75, 1.25), 4.0),
        lambda p: views.sharpened(crops, p, 0.5, 1.0),
        lambda p: views.resampled(crops, p, 0.25, 0.5),
        lambda p: views.recompressed(crops, p / 2, p / 2, (18, 40), (35, 98)),
    ):
        assert (change(0.0) == crops).all()
        assert (change(1.0) != crops).any(3).any(2).any(1).all()


def test_sets_are_no_pages() -> None:
    assert not any(name.startswith(pages) for name in SETS for pages in folds.METHODS.values())
