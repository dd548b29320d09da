"""Rules and measures on predictions small enough to be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepscan.benchmark import evaluation, predictions
from deepscan.benchmark.evaluation import auc, gain, measures, pooled, videos
from deepscan.benchmark.predictions import Scored, match, read_foreign
from deepscan.benchmark.results import Rule, foreign_answers, views_table
from deepscan.errors import DataError

LONG = "s/{label}/{method}/FF/{method}/c23/frames/{name}"


def row(
    name: str,
    label: int,
    frame: int | None,
    logit: float | None,
    method: str = "",
    **more: Any,
) -> dict[str, Any]:
    method = method or ("DF" if label else "real")
    facts = {
        "set": "s", "video": LONG.format(label=label, method=method, name=name), "label": label,
        "method": method, "split": "test", "state": "scored", "frame": frame, "time": None, "track": None,
        "logit": logit, "face_size": None, "detector": "d", "seed": None, "weights": "00", "threshold": None,
        "view": "", "crop": None if frame is None else f"{name}{frame}",
    }  # fmt: skip
    return facts | more


def store(folder: Path, *rows: dict[str, Any]) -> Path:
    predictions.append(folder, {name: [r[name] for r in rows] for name in rows[0]})
    return folder


def listed(folder: Path, *rows: dict[str, Any]) -> Scored:
    found = predictions.scored(predictions.read(store(folder, *rows)), "s", "d")
    assert found is not None
    return found


# --- the two protocols -----------------------------------------------------------------------------


def ramp(name: str, label: int, logits: list[float]) -> list[dict[str, Any]]:
    return [row(name, label, i, value) for i, value in enumerate(logits)]


def test_uniform_frames_and_the_first_ones_are_told_apart(tmp_path: Path) -> None:
    """A forgery that begins late: of 6 frames 0, 2 and 5 see it at the end, the first 3 do not."""
    late, real = [-1.0, -1, -1, -1, 5, 5], [0.0] * 6
    scored = listed(tmp_path, *ramp("a", 0, real), *ramp("b", 1, late))
    uniform = evaluation.chosen(scored, "deepscan", 3)[6:]
    first = evaluation.chosen(scored, "deepfakebench", 3)[6:]
    assert (np.flatnonzero(uniform).tolist(), np.flatnonzero(first).tolist()) == (
        [0, 2, 5],
        [0, 1, 2],
    )
    assert videos(scored, "deepscan", 3).scores.tolist() == [0, 1]  # (-1 - 1 + 5) / 3
    assert videos(scored, "deepfakebench", 3).scores[1] == pytest.approx(1 / (1 + np.e))
    assert auc(videos(scored, "deepscan", 3)).value == 1
    assert auc(videos(scored, "deepfakebench", 3)).value == 0


def test_a_video_with_fewer_crops_gives_all_it_has(tmp_path: Path) -> None:
    scored = listed(tmp_path, *ramp("a", 0, [0.0]), *ramp("b", 1, [1.0, 2.0]))
    for protocol in ("deepscan", "deepfakebench"):
        assert evaluation.chosen(scored, protocol, 32).all()


def test_videos_of_one_name_merge_under_deepfakebench_alone(tmp_path: Path) -> None:
    rows = [row("000_003", 1, 0, 2.0, m) for m in ("DF", "F2F")] + [row("000", 0, 0, -1.0)]
    scored = listed(tmp_path, *rows)
    assert len(videos(scored).names) == 3
    merged = videos(scored, "deepfakebench")
    assert (merged.names, merged.labels.tolist()) == (["000", "000_003"], [0, 1])


def test_a_video_merged_of_both_labels_is_real_there(tmp_path: Path) -> None:
    """As in UADFV's 0000 and a forgery of the same folder name: int(1/2) is 0."""
    rows = [row("0000", 0, 0, -1.0), row("0000", 1, 0, 3.0), row("0001", 1, 0, 3.0)]
    merged = videos(listed(tmp_path, *rows), "deepfakebench")
    assert merged.labels.tolist() == [0, 1]
    assert merged.scores[0] == pytest.approx((1 / (1 + np.e) + 1 / (1 + np.exp(-3))) / 2)


def test_faceless_videos_are_counted_and_count_as_zero(tmp_path: Path) -> None:
    """Real -1 and manipulated 1 are told apart; a faceless forgery at 0 still is, a faceless real too."""
    none = [row("n", 1, None, None, state="faceless"), row("m", 0, None, None, state="failed")]
    scored = listed(tmp_path, row("a", 0, 0, 1.0), row("b", 1, 0, 2.0), *none)
    assert evaluation.counts(scored) == {"scored": 2, "faceless": 1, "failed": 1}
    found = measures(scored)
    assert found["video AUC"].value == 1
    # Real 1, 0 against manipulated 2, 0: wins 2 > 1, 2 > 0, a tie 0 = 0, a loss 0 < 1.
    assert found["video AUC, faceless and failed as 0"].value == 2.5 / 4


def test_a_view_in_which_no_forgery_has_a_face_has_no_auc_and_takes_no_other_ones(
    tmp_path: Path,
) -> None:
    """Noise so strong that faces are found in the real videos alone."""
    both = {"": "scored", "noise:4": "scored", "noise:5": "faceless"}
    rows = [row("a", 0, 0, -1.0, view=view) for view in both]
    rows += [
        row("b", 1, *((0, 1.0) if state == "scored" else (None, None)), view=view, state=state)
        for view, state in both.items()
    ]
    table = predictions.read(store(tmp_path, *rows))
    views = views_table("robustness", "t", table, "d", ["noise:4", "noise:5"], Rule(("s",)))
    cells = dict(views.rows)
    assert [cells[view][0] is None for view in ("as they are", "noise:4", "noise:5")] == [0, 0, 1]
    assert "s: only videos of one class have a face (noise:5); no AUC." in views.notes


# --- measures --------------------------------------------------------------------------------------


def normal(seed: int, n: int = 40, shift: float = 1.0, name: str = "s") -> evaluation.Videos:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n)
    return evaluation.Videos(
        name, [f"{name}{i}" for i in range(2 * n)], labels, rng.normal(labels * shift)
    )


def test_an_interval_is_the_same_each_time_and_holds_the_value() -> None:
    once, again = auc(normal(0)), auc(normal(0))
    assert (once.low, once.high) == (again.low, again.high)
    assert once.low < once.value < once.high


def test_a_pair_is_compared_on_the_same_draws() -> None:
    """A detector that is the other plus a little is told from it although each alone varies much more."""
    one = normal(1)
    better = evaluation.Videos(one.name, one.names, one.labels, one.scores + 0.4 * one.labels)
    difference, n = gain(better, one)
    assert n == 80
    assert 0 < difference.low < difference.value < difference.high
    alone = auc(one)
    assert difference.high - difference.low < (alone.high - alone.low) / 2
    nothing, _ = gain(one, one)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_pairs_are_matched_by_name_not_by_place() -> None:
    one = normal(2)
    turned = evaluation.Videos(one.name, one.names[::-1], one.labels[::-1], one.scores[::-1])
    assert gain(turned, one)[0].value == 0
    few = one.only(np.arange(80) % 2 == 0)
    assert gain(few, one)[1] == 40


def test_the_pooled_auc_sees_that_sets_want_other_thresholds() -> None:
    low, high = normal(3, name="a", shift=3), normal(4, name="b", shift=3)
    high = evaluation.Videos("b", high.names, high.labels, high.scores + 10)
    each = [auc(low), auc(high)]
    assert evaluation.mean(each).value == pytest.approx((each[0].value + each[1].value) / 2)
    assert pooled([low, high]).value < min(e.value for e in each) - 0.1
    assert pooled([low, low]).value == pytest.approx(auc(low).value)


def test_every_measure_has_its_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = [
        row(f"v{i}", i % 2, f, float(rng.normal(i % 2)), threshold=0.5)
        for i in range(30)
        for f in range(3)
    ]
    found = measures(listed(tmp_path, *rows))
    assert set(found) >= {"frame AUC", "AP", "EER", "TPR at FPR 1 %", "ECE", "Brier", "Cllr"}
    assert set(found) >= {"accuracy", "accuracy on real", "accuracy, calibrated"}
    for name, estimate in found.items():
        assert estimate.low <= estimate.high, name
        if name not in ("ECE", "EER"):  # these two lean to one side under resampling
            assert estimate.low <= estimate.value <= estimate.high, name


# --- predictions from elsewhere --------------------------------------------------------------------


@pytest.fixture
def ours(tmp_path: Path) -> Scored:
    return listed(
        tmp_path / "ours",
        row("000", 0, 0, -1.0),
        row("000_003", 1, 0, 1.0, "DF"),
        row("000_003", 1, 0, 1.0, "F2F"),
    )


def other(folder: Path, text: str) -> predictions.Foreign:
    path = folder / "other.csv"
    path.write_text(text, "utf-8")
    return read_foreign(path, "other")


@pytest.mark.parametrize(
    "name",
    ["DF/c23/000_003", "DF/c23/frames/000_003", "DF\\c23\\000_003.mp4", "s/1/DF/FF/DF/c23/000_003"],
)
def test_a_video_is_matched_by_the_end_of_its_path(ours: Scored, tmp_path: Path, name: str) -> None:
    found = match(other(tmp_path, f"video,score\n000,-2\n{name},3\n"), ours)
    assert found is not None
    assert found.logits.tolist() == [-2, 3]
    assert found.states == ["scored", "scored", "failed"]


def test_a_name_of_two_videos_is_refused(ours: Scored, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'000_003' means 2 videos of s \(.*give more"):
        match(other(tmp_path, "video,score\n000_003,1\n"), ours)
    elsewhere = other(tmp_path, "video,score\nelsewhere,1\n")
    assert match(elsewhere, ours) is None
    with pytest.raises(DataError, match=r"none of its 1 videos is of s.*, as in s/0/real/FF/"):
        foreign_answers(elsewhere, {"s": [ours]})


def test_scores_between_0_and_1_are_probabilities(tmp_path: Path) -> None:
    chances = other(tmp_path, "video,frame,score\na,0,0.5\na,1,1\n")
    assert chances.logits[0] == 0
    assert chances.logits[1] == pytest.approx(np.log((1 - 1e-6) / 1e-6))
    assert "read as a probability" in chances.note
    assert other(tmp_path, "video,logit\na,0.5\n").logits.tolist() == [0.5]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("video,fake\na,1\n", "it needs video and one of logit, probability, score"),
        ("video,score\na,much\n", "could not convert"),
        ("video,score\na,nan\n", "not finite"),
        ("video,score\n", "has no values"),
        ("video,probability\na,1.5\n", r"outside 0\.\.1"),
    ],
)
def test_bad_predictions_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        other(tmp_path, text)


# --- the store -------------------------------------------------------------------------------------


def test_predictions_are_appended_in_parts(tmp_path: Path) -> None:
    store(tmp_path, row("a", 0, 0, -1.0))
    store(tmp_path, row("b", 1, 0, 1.0))
    table = predictions.read(tmp_path)
    assert predictions.done(tmp_path, "00", "s", "") == {
        video: {crop}
        for video, crop in zip(table["video"].to_pylist(), table["crop"].to_pylist(), strict=True)
    }
    assert predictions.done(tmp_path, "01", "s", "") == {}
    assert predictions.distinguished(table)[1] == {"00": "d"}
    assert predictions.scored(table, "s", "nobody") is None


def test_two_checkpoints_of_one_name_are_not_mixed(tmp_path: Path) -> None:
    store(tmp_path, row("a", 0, 0, -1.0), row("a", 0, 0, -2.0, weights="01"))
    table = predictions.read(tmp_path)
    with pytest.raises(DataError, match=r"d on s is of 2 checkpoints \(0[01], 0[01]\)"):
        predictions.scored(table, "s", "d")
    apart, names = predictions.distinguished(table)
    assert names == {"00": "d 00", "01": "d 01"}
    one = predictions.scored(apart, "s", "d 01")
    assert one is not None
    assert one.logits.tolist() == [-2.0]


def test_another_parquet_is_no_predictions(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"x\.parquet: not predictions of deepscan benchmark"):
        predictions.read(tmp_path)
