import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as oracle

from deepscan.errors import DataError
from deepscan.judgement.metrics import (
    accuracies,
    auc,
    auc_interval,
    aucs,
    average_precision,
    bootstrap_interval,
    brier,
    calibration_error,
    cllr,
    eer,
    resample,
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


@pytest.mark.parametrize("count", [10, 20, 45])
@pytest.mark.parametrize("apart", [0.5, 1.5, 3.5])
def test_of_few_scores_95_intervals_of_100_hold_the_value(count: int, apart: float) -> None:
    """Normals `apart` deviations apart have the AUC Phi(apart / sqrt 2): 0.64, 0.86 and 0.993.

    The percentile bootstrap held the last in 26 of 100 draws of ten and ten.
    """
    rng = np.random.default_rng(0)
    labels, value = np.repeat([0, 1], count), norm.cdf(apart / 2**0.5)
    held = 0
    for _ in range(400):
        low, high = auc_interval(labels, rng.normal(apart * labels))
        held += low <= value <= high
    assert held / 400 >= 0.93


def test_an_interval_of_few_is_delongs_in_a_summary() -> None:
    labels, scores = np.repeat([0, 1], 10), np.repeat([-1.0, 1.0], 10)
    found = summary([str(i) for i in range(20)], labels, scores, np.random.default_rng(0))
    assert found["video_auc"]["value"] == 1
    assert (found["video_auc"]["low"], found["video_auc"]["high"]) == auc_interval(labels, scores)
    # Ten and ten that agree: with an AUC of 0.69 ten pairs do so once in 40 times.
    assert found["video_auc"]["low"] == pytest.approx(0.025**0.1)
    assert auc_interval(labels, -scores) == pytest.approx((0, 1 - 0.025**0.1))


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
    output = summary(videos, labels, logits, np.random.default_rng(0))
    assert output["videos"] == {"real": 2, "manipulated": 2}
    assert output["frames"] == {"real": 3, "manipulated": 4}
    assert output["video_auc"]["value"] == 1  # means 0.5, -3 and 1, 3
    assert output["frame_auc"]["value"] == 10 / 12
    assert output["eer"]["value"] == 0
    assert output["tpr_at_fpr_5"] == {"value": 1, "low": 1, "high": 1}


# --- held against scikit-learn ---------------------------------------------------------------------


def drawn(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits with many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return labels, np.round(rng.normal(labels * 0.8, 1.0), 1)


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_scikit_learns(seed: int) -> None:
    labels, logits = drawn(seed)
    chances = 1 / (1 + np.exp(-logits))
    assert auc(labels, logits) == pytest.approx(oracle.roc_auc_score(labels, logits), abs=1e-12)
    assert average_precision(labels, logits) == pytest.approx(
        oracle.average_precision_score(labels, logits), abs=1e-12
    )
    assert brier(labels, logits) == pytest.approx(oracle.brier_score_loss(labels, chances))
    whole, real, fake = accuracies(labels, logits, 0.3)
    judged = (logits >= 0.3).astype(int)
    assert whole == pytest.approx(oracle.accuracy_score(labels, judged))
    assert (real + fake) / 2 == pytest.approx(oracle.balanced_accuracy_score(labels, judged))
    even = np.concatenate([labels, 1 - labels]), np.concatenate([logits, -logits])
    bits = oracle.log_loss(even[0], 1 / (1 + np.exp(-even[1]))) / np.log(2)
    assert cllr(*even) == pytest.approx(
        bits
    )  # with as many of each class Cllr is the mean log loss
    fpr, tpr = roc(labels, logits)
    alarms, hits, _ = oracle.roc_curve(labels, logits, drop_intermediate=False)
    assert (fpr.tolist(), tpr.tolist()) == (alarms.tolist(), hits.tolist())


def test_calibration_by_hand() -> None:
    """Two stated 0.5, one of them manipulated: no gap. Two stated 0.9, one manipulated: a gap of 0.4."""
    labels, logits = np.array([0, 1, 0, 1]), np.array([0, 0, np.log(9), np.log(9)])
    assert calibration_error(labels, logits) == pytest.approx((0 + 2 * 0.4) / 4)
    assert brier(labels, logits) == pytest.approx((0.25 + 0.25 + 0.81 + 0.01) / 4)
    assert cllr(np.array([0, 1]), np.array([0.0, 0.0])) == 1
    assert cllr(np.array([0, 1]), np.array([-50.0, 50.0])) == pytest.approx(0)


# --- rounds of a bootstrap -------------------------------------------------------------------------


def test_a_round_is_the_auc_of_what_was_drawn(rng: np.random.Generator) -> None:
    labels, logits = drawn(0, 40)
    counts = resample(labels, rng, 20)
    repeated = [(np.repeat(labels, c), np.repeat(logits, c)) for c in counts]
    assert aucs(labels, logits, counts) == pytest.approx([auc(*pair) for pair in repeated])
    for label in (0, 1):
        assert (counts[:, labels == label].sum(1) == (labels == label).sum()).all()


@pytest.mark.slow
def test_intervals_cover_the_true_auc() -> None:
    """Normals one deviation apart have the AUC Phi(1 / sqrt 2); 95 % intervals hold it about that often."""
    rng, true, held = np.random.default_rng(0), 0.7602, 0
    labels = np.repeat([0, 1], 60)
    for _ in range(200):
        found = aucs(labels, rng.normal(labels.astype(float)), resample(labels, rng, 300))
        low, high = np.quantile(found, [0.025, 0.975])
        held += low <= true <= high
    assert 180 <= held <= 198
