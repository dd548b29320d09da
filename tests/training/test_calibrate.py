"""What video scores mean: a map to probabilities and two thresholds, fitted and held to by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders import toy
from builders.reports import CALIBRATED
from deepscan.cli import run
from deepscan.errors import DataError
from deepscan.model import tower, weights
from deepscan.model.header import read_header
from deepscan.training.calibrate import bounds, fit, platt, rungs, tail


def drawn(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose log-likelihood ratio is 3 s: normal around -1.5 and 1.5 with deviation 1."""
    labels = np.arange(count) % 2
    return labels, rng.normal(3.0 * labels - 1.5, 1.0)


def test_the_map_finds_the_odds_that_scores_were_drawn_from(rng: np.random.Generator) -> None:
    """log N(s; 1.5, 1) - log N(s; -1.5, 1) = 3 s, and 3 (s / 2 - 1) for scores twice as wide, moved by 2."""
    labels, scores = drawn(20_000, rng)
    slope, intercept = platt(labels, scores)
    assert slope == pytest.approx(3, rel=0.05)
    assert intercept == pytest.approx(0, abs=0.1)
    slope, intercept = platt(labels, 2 * scores + 4)
    assert slope == pytest.approx(1.5, rel=0.05)
    assert intercept == pytest.approx(-6, abs=0.3)


def test_the_map_does_not_follow_how_many_of_each_there_are(rng: np.random.Generator) -> None:
    labels, scores = drawn(20_000, rng)
    few = (labels == 0) | (rng.random(len(labels)) < 0.1)
    assert platt(labels[few], scores[few])[1] == pytest.approx(0, abs=0.2)


def test_classes_that_do_not_overlap_give_no_certainty() -> None:
    """Platt's targets: with 10 of each, the farthest are 11 / 12 sure at most, as 10 right ones make it."""
    labels = np.repeat([0, 1], 10)
    slope, intercept = platt(labels, np.where(labels == 1, 5.0, -5.0))
    assert 1 / (1 + math.exp(-(slope * 5 + intercept))) == pytest.approx(11 / 12, abs=1e-3)


def test_thresholds_by_hand() -> None:
    """Of 39 real scores 2 may be reached: 2 / 40 = 5 %; of 19 manipulated ones 1: 1 / 20 = 5 %."""
    scores = np.concatenate([np.arange(39), np.arange(10, 29)]).astype(float)
    labels = np.repeat([0, 1], [39, 19])
    assert bounds(labels, scores) == (10.0, 37.0)


def test_thresholds_keep_the_rates_they_promise(rng: np.random.Generator) -> None:
    """Over many draws of 40 videos, 5 % of new real ones are at or above the upper threshold on average."""
    alarms, misses = [], []
    for _ in range(400):
        low, high = bounds(*drawn(80, rng))
        labels, scores = drawn(400, rng)
        alarms.append((scores[labels == 0] >= high).mean())
        misses.append((scores[labels == 1] <= low).mean())
    assert np.mean(alarms) == pytest.approx(2 / 41, abs=0.008)
    assert np.mean(misses) == pytest.approx(2 / 41, abs=0.008)


def test_between_classes_far_apart_nothing_is_concluded() -> None:
    labels = np.repeat([0, 1], 20)
    scores = np.where(labels == 1, 8.0, -8.0)
    low, high = bounds(labels, scores)
    assert (low, high) == (-8.0, 8.0)


def test_a_group_is_judged_by_the_others(rng: np.random.Generator) -> None:
    """Scores that carry nothing: a map fitted on all would still look a little informed."""
    labels = np.tile([0, 1], 40)
    scores = rng.normal(size=80)
    people = [str(i // 2) for i in range(80)]
    found = fit(labels, scores, [people], [scores + 1, scores - 3], "drawn")
    assert found is not None
    assert found.cllr >= 1
    assert found.widening == pytest.approx(3)
    assert (found.real, found.manipulated, found.prior) == (40, 40, 0.5)


def test_a_tail_by_hand() -> None:
    """Of 50 scores the highest five exceed the sixth by 3 on average; 1 + 2 / sqrt(5) is 1.894."""
    scores = np.concatenate([np.zeros(44), np.arange(5.0, 11.0)])
    assert tail(scores) == pytest.approx(3 * 1.894, abs=1e-2)


@pytest.mark.parametrize("faces", [5, 20])
def test_a_threshold_raised_by_the_tail_holds_the_rate_for_many_faces(
    faces: int, rng: np.random.Generator
) -> None:
    """Normal real scores, 100 to calibrate on; unraised, 5 would alarm in 23 % of videos, 20 in 64 %."""
    alarms = []
    for _ in range(300):
        labels, scores = drawn(200, rng)
        _, high = bounds(labels, scores)
        raised = high + math.log(faces) * tail(scores[labels == 0])
        alarms.append((rng.normal(-1.5, 1, (20, faces)).max(1) >= raised).mean())
    assert np.mean(alarms) < 0.05


def test_steps_for_few_frames_lie_further_apart(rng: np.random.Generator) -> None:
    """Four frames a video, which scatter around it by 2: one frame says less than the mean of four."""
    labels, scores = drawn(400, rng)
    frames = [score + rng.normal(0, 2, 4) for score in scores]
    one, two, four = rungs(labels, frames)
    assert [step.frames for step in (one, two, four)] == [1, 2, 4]
    assert one.low < two.low < four.low
    assert four.high < two.high < one.high
    assert one.slope < two.slope < four.slope


def test_what_was_measured_on_unseen_sources_says_so(rng: np.random.Generator) -> None:
    labels, scores = drawn(80, rng)
    found = fit(labels, scores, [[str(i) for i in range(80)]], [], "elsewhere", unseen=True)
    assert found is not None
    assert found.unseen
    assert found.indicated == pytest.approx((scores[labels == 1] >= found.high).mean())
    assert found.cleared == pytest.approx((scores[labels == 0] <= found.low).mean())


def test_few_videos_give_no_calibration() -> None:
    labels = np.repeat([0, 1], [50, 9])
    assert fit(labels, np.zeros(59), [["a"] * 59], [], "few") is None


def test_the_rate_stated_is_the_one_that_so_few_videos_can_keep(rng: np.random.Generator) -> None:
    """Ten real videos: a new one is above all of them once in 11 times, not once in 20."""
    labels = np.repeat([0, 1], [10, 30])
    found = fit(labels, rng.normal(labels), [[str(i) for i in range(40)]], [], "few")
    assert found is not None
    assert (found.fpr, found.fnr) == (1 / 11, 0.05)


def test_people_who_chain_into_one_group_are_judged_by_other_videos(
    rng: np.random.Generator,
) -> None:
    """As Celeb-DF's do: without them half of the videos, or a class, would be left to fit a map on."""
    labels, scores = drawn(80, rng)
    chained = ["id0"] * 60 + [f"id{i}" for i in range(1, 21)]
    videos = [str(i // 2) for i in range(80)]
    found = fit(labels, scores, [chained, videos], [], "celeb")
    expected = fit(labels, scores, [videos], [], "celeb")
    assert found is not None
    assert expected is not None
    assert (found.ece, found.cllr) == (expected.ece, expected.cllr)
    assert "people tied together in one group" in found.data
    assert "tied" not in expected.data
    with pytest.raises(DataError, match="all of one group of people"):
        fit(labels, scores, [["id0"] * 80], [], "celeb")


@pytest.mark.parametrize(
    "change", [{"slope": -1.0}, {"low": 3.0}, {"intercept": math.nan}, {"widening": math.inf}]
)
def test_a_calibration_that_means_nothing_is_refused(change: dict[str, float]) -> None:
    """A checkpoint's header may say anything; reading it turns this into WeightsMismatch."""
    with pytest.raises(ValueError, match="no calibration"):
        replace(CALIBRATED, **change)


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> Iterator[Path]:
    """A detector trained on a few made-up people, too few to be calibrated on those held out."""
    before = toy.install(tmp_path / "base")
    data = toy.crops(tmp_path / "few")
    asked = {"data": data, "out": tmp_path / "run", "epochs": 2, "batch": 8, "workers": 0}
    config = tmp_path / "toy.toml"
    config.write_text(
        'base = "toy"\nheads = 4\nlr = 3e-3\nvalidation = 0.34\nprecision = "float32"\n', "utf-8"
    )
    flags = [f"--{name}={value}" for name, value in asked.items()]
    assert run(["train", f"--config={config}", *flags, "-q"]) == 0
    yield tmp_path / "run" / "detector.safetensors"
    tower.tower_size, weights.catalogue = before  # type: ignore[assignment]


@pytest.mark.slow
def test_a_detector_is_calibrated_on_material_of_ones_own(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_header(trained).calibration is None
    own, out = toy.crops(tmp_path / "own", people=12, signal=50), tmp_path / "mine.safetensors"
    asked = ["calibrate", str(trained), f"--data={own}", f"--out={out}", "--precision=float32"]
    assert run(asked) == 0
    assert "(12 real, 12 manipulated videos)" in capsys.readouterr().out
    header = read_header(out)
    assert header.name == "mine"
    assert header.calibration is not None
    assert (header.calibration.real, header.calibration.manipulated) == (12, 12)
    assert header.calibration.data == header.training["test"] == "own"
    assert header.training["results"]["test"]["videos"] == {"real": 12, "manipulated": 12}
    assert run(asked) == 1
    assert "already exists; --force" in capsys.readouterr().err


def test_what_a_detector_learnt_from_calibrates_nothing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.safetensors"
    assert run(["calibrate", str(trained), f"--data={tmp_path / 'few'}", f"--out={out}", "-q"]) == 1
    assert "detector.safetensors was trained on 36 of these 36 crops" in capsys.readouterr().err
    other = toy.crops(tmp_path / "other", people=9, signal=50)
    assert run(["calibrate", str(trained), f"--data={other}", f"--out={out}", "-q"]) == 1
    assert "other: fewer than 10 real or manipulated videos" in capsys.readouterr().err
    assert not out.exists()
