import numpy as np
import pytest

from deepscan.errors import DataError
from deepscan.metrics import (
    auc,
    bootstrap_interval,
    eer,
    roc,
    summary,
    tpr_at_fpr,
    video_scores,
)

# Real 1, 2, 3, 4; manipulated 2, 3.5, 5, 6. Of 16 comparisons the manipulated wins 1 + 3 + 4 + 4 = 12
# and ties once (2 with 2): 12.5 / 16.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
SCORES = np.array([1.0, 2.0, 3.0, 4.0, 2.0, 3.5, 5.0, 6.0])


def test_auc_by_hand_with_a_tie() -> None:
    assert auc(LABELS, SCORES) == 12.5 / 16
    assert auc(LABELS, -SCORES) == 1 - 12.5 / 16
    assert auc(LABELS, np.ones(8)) == 0.5


def test_roc_moves_ties_together() -> None:
    fpr, tpr = roc(LABELS, SCORES)
    # thresholds: inf, 6, 5, 4, 3.5, 3, 2, 1
    assert fpr.tolist() == [0, 0, 0, 0.25, 0.25, 0.5, 0.75, 1]
    assert tpr.tolist() == [0, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1]
    assert np.trapezoid(tpr, fpr) == auc(LABELS, SCORES)


def test_eer_by_hand() -> None:
    # At threshold 3.5 FPR = FNR = 1/4 exactly.
    assert eer(LABELS, SCORES) == 0.25
    assert eer(np.array([0, 1]), np.array([0.0, 1.0])) == 0
    assert eer(np.array([0, 1]), np.array([1.0, 0.0])) == 1
    # One step from (0, 0) to (1, 1): halfway.
    assert eer(np.array([0, 1]), np.array([1.0, 1.0])) == 0.5


def test_tpr_at_fpr_takes_no_more_alarms_than_allowed() -> None:
    assert tpr_at_fpr(LABELS, SCORES, 0.05) == 0.5
    assert tpr_at_fpr(LABELS, SCORES, 0.25) == 0.75
    assert tpr_at_fpr(LABELS, np.ones(8), 0.05) == 0


@pytest.mark.parametrize("labels", [np.zeros(3, int), np.ones(3, int), np.array([0, 1, 2])])
def test_one_class_or_a_third_is_refused(labels: np.ndarray) -> None:
    for measure in (auc, eer, roc):
        with pytest.raises(DataError, match="both classes are needed"):
            measure(labels, np.arange(3.0))


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 scores are not finite"):
        auc(np.array([0, 1]), np.array([0.0, np.nan]))


def test_video_scores_are_means_of_frame_logits() -> None:
    videos = ["fake/b", "real/a", "fake/b", "real/a", "real/c"]
    names, labels, scores = video_scores(
        videos, np.array([1, 0, 1, 0, 0]), np.array([3.0, -1.0, 1.0, 0.0, -4.0])
    )
    assert names == ["fake/b", "real/a", "real/c"]
    assert labels.tolist() == [1, 0, 0]
    assert scores.tolist() == [2.0, -0.5, -4.0]


def test_a_video_of_both_labels_is_refused() -> None:
    with pytest.raises(DataError, match="video a: its frames carry both labels"):
        video_scores(["b", "a", "a"], np.array([0, 0, 1]), np.zeros(3))


def test_the_interval_holds_the_value_repeats_and_narrows() -> None:
    def interval(n: int, seed: int) -> tuple[float, float]:
        rng = np.random.default_rng(1)
        labels = np.repeat([0, 1], n)
        scores = rng.normal(labels.astype(float))
        videos = [str(i) for i in range(2 * n)]
        return bootstrap_interval(auc, labels, scores, videos, np.random.default_rng(seed), 300)

    low, high = interval(30, 0)
    assert low < 0.76 < high  # Phi(1 / sqrt 2), the AUC of normals one deviation apart
    assert interval(30, 0) == (low, high) != interval(30, 1)
    narrow = interval(300, 0)
    assert narrow[1] - narrow[0] < (high - low) / 2


def test_the_interval_draws_videos_not_frames() -> None:
    """Copies of the same frames are no further evidence; taken for videos they would narrow it."""
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 20)
    scores = rng.normal(labels.astype(float))
    videos = [str(i) for i in range(40)]
    once = bootstrap_interval(auc, labels, scores, videos, np.random.default_rng(0), 300)
    copied = [np.tile(values, 5) for values in (labels, scores)]
    five = bootstrap_interval(auc, *copied, videos * 5, np.random.default_rng(0), 300)
    assert five == once


def test_summary_counts_and_measures() -> None:
    videos = ["r1", "r1", "r2", "f1", "f2", "f2", "f2"]
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    logits = np.array([-1.0, 2.0, -3.0, 1.0, 0.0, 4.0, 5.0])
    told = summary(videos, labels, logits, np.random.default_rng(0))
    assert told["videos"] == {"real": 2, "manipulated": 2}
    assert told["frames"] == {"real": 3, "manipulated": 4}
    assert told["video_auc"]["value"] == 1  # means 0.5, -3 and 1, 3
    assert told["frame_auc"]["value"] == 10 / 12
    assert told["eer"]["value"] == 0
    assert told["tpr_at_fpr_5"] == {"value": 1, "low": 1, "high": 1}
