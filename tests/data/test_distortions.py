"""Distortions in fixed strengths: by hand where a pixel can be worked out, by their effect otherwise."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import clips, footage
from deepscan.data.crops import read_crops
from deepscan.data.distortions import CROP_LEVELS, LEVELS, Distortion, every, parse, recompress
from deepscan.data.prepare import PrepareSettings, prepare
from deepscan.errors import SettingsError
from deepscan.media.video import VideoSource
from deepscan.records import Frame

FLAT = np.full((64, 96, 3), (200, 100, 50), np.uint8)
GREY_OF_FLAT = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


def test_all_levels_are_the_protocols() -> None:
    assert [len(levels) for levels in LEVELS.values()] == [5] * 7
    assert [str(d) for d in every("resize")] == ["resize:224", "resize:112", "resize:64"]
    assert [d.strength for d in every("h264")] == [30, 32, 35, 38, 40]
    for wrong in ("blurr:1", "blur:0", "blur:6", "blur", "jpeg:35"):
        with pytest.raises(SettingsError, match=r"saturation:1 to 5, .*jpeg:100 90"):
            parse(wrong)
    with pytest.raises(SettingsError, match=r"'rain' is not one of .*, all"):
        every("rain")


def test_colours_by_hand() -> None:
    grey = parse("saturation:5")(FLAT)
    assert (grey == GREY_OF_FLAT).all()  # no chroma left
    assert parse("contrast:3")(FLAT)[0, 0].tolist() == [120, 60, 30]  # x 0.6


def test_blocks_are_counted_by_the_shorter_side() -> None:
    black = np.zeros((512, 600, 3), np.uint8)
    changed = (parse("blocks:1")(black) == 128).all(2)
    assert 0.9 * 32 * 64 < changed.sum() <= 32 * 64  # 16 x 512 / 256 patches of 8 x 8; few overlap


def test_noise_has_its_variance(rng: np.random.Generator) -> None:
    grey = np.full((256, 256, 3), 128, np.uint8)
    luma = parse("noise:4")(grey) @ (0.299, 0.587, 0.114)
    assert (luma.std() / 255) ** 2 == pytest.approx(0.01, rel=0.05)


def test_blur_and_pixelation_keep_the_mean_and_lose_detail() -> None:
    picture = footage.portrait()
    for kind in ("blur", "pixelation"):
        left = [parse(f"{kind}:{level}")(picture) for level in range(1, 6)]
        assert all(abs(p.mean() - picture.mean()) < 1 for p in left)
        detail = [float(np.abs(np.diff(p.astype(int), axis=0)).mean()) for p in left]
        assert detail == sorted(detail, reverse=True) or kind == "pixelation"
        assert detail[-1] < np.abs(np.diff(picture.astype(int), axis=0)).mean() / 1.5
    cell = parse("pixelation:2")(picture)[:2, :2].reshape(-1, 3)
    assert (cell == cell[0]).all()


@pytest.mark.parametrize("kind", [*LEVELS, *CROP_LEVELS])
def test_the_same_seed_distorts_alike(kind: str) -> None:
    picture = footage.portrait()[:256, :256]
    weakest = every(kind)[0]
    once = weakest(picture, 1)
    assert once.shape == picture.shape
    assert once.dtype == np.uint8
    assert (weakest(picture, 1) == once).all()
    if kind in ("blocks", "noise"):
        a, b = (weakest.frame(Frame(i, Fraction(0), picture)).pixels for i in (0, 1))
        assert (a != b).any()  # each frame has its own


def test_h264_loses_more_at_a_higher_rate_factor() -> None:
    picture = footage.portrait()[:256, :256]
    lost = [np.abs(d(picture).astype(float) - picture).mean() for d in every("h264")]
    assert 0 < lost[0] < lost[1] < lost[2] < lost[3] < lost[4] < 25


def test_h264_keeps_frames_and_times(tmp_path: Path) -> None:
    times = [Fraction(i * i, 100) for i in range(8)]  # uneven
    source = clips.write(tmp_path / "a.mp4", 8, times=times)
    recompress(source, tmp_path / "b.mp4", 30)
    a, b = VideoSource(source), VideoSource(tmp_path / "b.mp4")
    shown = [
        [(clips.number(f.pixels), f.time) for f in v.decode(range(8)) if isinstance(f, Frame)]
        for v in (a, b)
    ]
    assert [n for n, _ in shown[1]] == list(range(8))
    assert [t - shown[1][0][1] for _, t in shown[1]] == times


def test_a_distorted_set_is_prepared_under_the_same_names(tmp_path: Path) -> None:
    footage.film(tmp_path / "in/a.mp4", footage.portrait())
    (tmp_path / "in/s.csv").write_text("path,label\na.mp4,0\n", "utf-8")
    crops = {}
    for name, distortion in (
        ("plain", None),
        ("grey", parse("saturation:5")),
        ("h", parse("h264:5")),
    ):
        settings = PrepareSettings(frames=2, jobs=1, distortion=distortion)
        summary = prepare(tmp_path / "in/s.csv", tmp_path / name, settings)
        assert summary.total("ready") == 1
        crops[name] = [row.video for row in read_crops(tmp_path / name)]
    grey = np.asarray(Image.open(next((tmp_path / "grey").rglob("*.png")))).astype(int)
    assert np.ptp(grey, axis=2).max() <= 2
    assert crops["plain"] == crops["grey"] == crops["h"]
    head = (tmp_path / "grey/.prepare/s.jsonl").read_text("utf-8").splitlines()[0]
    assert json.loads(head)["distortion"] == "saturation:5"
    with pytest.raises(SettingsError, match="started with"):
        prepare(tmp_path / "in/s.csv", tmp_path / "grey", PrepareSettings(frames=2, jobs=1))
    with pytest.raises(SettingsError, match="applies to crops, not to frames"):
        PrepareSettings(distortion=Distortion("jpeg", 30, 30))
