"""Evaluation of classifiers by hand on small cases, against scikit-learn and loops."""

import json

import numpy as np
import pytest
from sklearn import metrics

from lt_noisy.errors import UserError
from lt_noisy.evaluation.classification import (
    accuracies,
    classification,
    expected_calibration_error,
    label_noise,
    reliability,
)

RNG = np.random.default_rng(0)


def logits_for(predictions, num_classes, margin=5.0):
    return margin * np.eye(num_classes)[np.asarray(predictions)]


def names(num_classes):
    return [f"class{c}" for c in range(num_classes)]


# --- classification -------------------------------------------------------------------------------


def test_classification_by_hand():
    """Class 0 is right 2 of 3 times, class 1 0 of 1, class 2 1 of 1, class 3 is not tested; none is many."""
    report = classification(
        logits_for([0, 0, 3, 2, 2], 4), np.array([0, 0, 0, 1, 2]), np.array([100, 19, 20, 5]), names(4)
    )
    json.dumps(report, allow_nan=False)
    assert report["accuracy"] == 3 / 5
    assert report["per_class_accuracy"] == [2 / 3, 0.0, 1.0, None]
    assert report["balanced_accuracy"] == pytest.approx(5 / 9)
    assert report["confusions"] == [[0, 0, 2], [0, 3, 1], [1, 2, 1], [2, 2, 1]]
    assert report["groups"] == {
        "many": {"accuracy": None, "num_classes": 0},
        "medium": {"accuracy": pytest.approx(5 / 6), "num_classes": 2},
        "few": {"accuracy": 0.0, "num_classes": 2},
        "head_third": {"accuracy": pytest.approx(5 / 6), "num_classes": 2},  # 0 and 2
        "middle_third": {"accuracy": 0.0, "num_classes": 1},  # 1
        "tail_third": {"accuracy": None, "num_classes": 1},  # 3
    }
    assert report["last_three_classes"] == {"accuracy": 0.5, "classes": ["class2", "class1", "class3"]}
    right, wrong = -np.log(np.exp(5) / (np.exp(5) + 3)), -np.log(1 / (np.exp(5) + 3))
    assert report["nll"] == pytest.approx((3 * right + 2 * wrong) / 5, rel=1e-12)
    of_predictions = accuracies(
        np.array([0, 0, 3, 2, 2]), np.array([0, 0, 0, 1, 2]), np.array([100, 19, 20, 5]), names(4)
    )
    assert of_predictions == {key: value for key, value in report.items() if key in of_predictions}
    assert report.keys() - of_predictions.keys() == {"nll", "ece", "reliability"}


def test_groups_at_their_boundaries():
    """101 is many, 100 and 20 are medium, 19 is few; with all three groups there are no thirds."""
    predictions = [0, 0, 1, 0, 0, 3]
    labels = np.array([0, 1, 1, 2, 3, 3])
    groups = classification(logits_for(predictions, 4), labels, np.array([101, 100, 20, 19]), names(4))["groups"]
    assert groups == {
        "many": {"accuracy": 1.0, "num_classes": 1},
        "medium": {"accuracy": 0.25, "num_classes": 2},
        "few": {"accuracy": 0.5, "num_classes": 1},
    }


def test_ties_in_training_count_go_by_label():
    report = classification(np.eye(5), np.arange(5), np.array([7, 9, 7, 9, 7]), names(5))
    assert report["last_three_classes"]["classes"] == ["class0", "class2", "class4"]
    sizes = {name: group["num_classes"] for name, group in report["groups"].items()}
    assert sizes == {"many": 0, "medium": 0, "few": 5, "head_third": 2, "middle_third": 2, "tail_third": 1}


def test_classification_against_scikit_learn():
    logits, labels = RNG.normal(size=(200, 6)), RNG.integers(6, size=200)
    report = classification(logits, labels, np.array([500, 200, 90, 40, 15, 3]), names(6))
    predictions = logits.argmax(-1)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert report["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predictions))
    assert report["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predictions))
    assert report["per_class_accuracy"] == pytest.approx(metrics.recall_score(labels, predictions, average=None))
    assert report["nll"] == pytest.approx(metrics.log_loss(labels, p, labels=np.arange(6)), rel=1e-9)


def test_nll_and_ece_are_finite_at_extreme_logits():
    report = classification(np.array([[200.0, -200.0], [-200.0, 200.0]]), np.array([0, 0]), np.array([5, 5]), names(2))
    assert report["nll"] == 200.0
    assert report["ece"] == 0.5


def test_ece_against_a_loop():
    confidences = np.concatenate([RNG.uniform(0.1, 1, 400), [1.0, 3 / 15, 1 / 15]])
    correct = RNG.uniform(size=len(confidences)) < confidences**2
    total = 0.0
    for b in range(1, 16):
        inside = [i for i, c in enumerate(confidences) if (b - 1) / 15 < c <= b / 15]
        if inside:
            gap = np.mean([float(correct[i]) for i in inside]) - np.mean([confidences[i] for i in inside])
            total += len(inside) / len(confidences) * abs(gap)
    assert total > 0.05
    assert expected_calibration_error(confidences, correct) == pytest.approx(total, rel=1e-12)


def test_an_ece_bin_holds_its_upper_edge():
    """0.6 = 9/15 is in the bin below that of 0.65, so that their errors do not cancel."""
    got = expected_calibration_error(np.array([0.6, 0.65]), np.array([False, True]))
    assert got == pytest.approx((0.6 + 0.35) / 2)


def test_reliability_by_hand():
    """0.6 = 9/15 is the upper edge of the ninth bin, and 1 that of the last."""
    found = reliability(np.array([0.6, 0.65, 0.62, 1.0]), np.array([False, True, False, True]))
    assert found["count"] == [0] * 8 + [1, 2, 0, 0, 0, 0, 1]
    assert found["confidence"] == [None] * 8 + [0.6, pytest.approx(0.635), None, None, None, None, 1.0]
    assert found["accuracy"] == [None] * 8 + [0.0, 0.5, None, None, None, None, 1.0]


def test_the_ece_follows_from_the_reliability_that_stands_beside_it():
    logits, labels = 2 * RNG.normal(size=(300, 5)), RNG.integers(5, size=300)
    report = classification(logits, labels, np.array([50, 40, 30, 20, 10]), names(5))
    json.dumps(report, allow_nan=False)
    bins = [row for row in zip(*report["reliability"].values(), strict=True) if row[0]]
    assert sum(count for count, _, _ in bins) == 300 and len(bins) > 5
    ece = sum(count / 300 * abs(accuracy - confidence) for count, confidence, accuracy in bins)
    assert report["ece"] == pytest.approx(ece, rel=1e-12)


@pytest.mark.parametrize(
    ("logits", "labels", "counts", "says"),
    [
        (np.zeros((2, 3)), [0, 1, 2], [1, 1, 1], r"not \[2, 3\] and \[3\]"),
        (np.zeros((0, 3)), [], [1, 1, 1], "N at least 1"),
        (np.zeros((2, 3)), [0, 3], [1, 1, 1], r"labels must be in \[0, 3\), but they span 0 to 3"),
        (np.zeros((2, 3)), [0, -1], [1, 1, 1], "span -1 to 0"),
        (np.array([[0, 0, 0], [0, np.nan, 0]]), [0, 1], [1, 1, 1], "1 of 2 rows of logits .* row 1"),
        (np.zeros((2, 3)), [0, 1], [1, 1], "train_counts has 2 entries for 3 classes"),
    ],
)
def test_bad_input_to_classification(logits, labels, counts, says):
    with pytest.raises(UserError, match=says):
        classification(logits, np.array(labels, int), np.array(counts), names(3))


def test_logits_must_have_a_name_for_every_class():
    with pytest.raises(UserError, match="class_names has 2 entries for 3 classes of logits"):
        classification(np.zeros((2, 3)), np.array([0, 1]), np.array([1, 1, 1]), names(2))


@pytest.mark.parametrize(
    ("predictions", "labels", "counts", "says"),
    [
        ([0, 1, 2], [0, 1], [1, 1, 1], r"must be \[N\] with N at least 1, not \[3\] and \[2\]"),
        ([[0.1, 0.2]], [[0, 1]], [1, 1, 1], r"not \[1, 2\] and \[1, 2\]"),
        ([], [], [1, 1, 1], "N at least 1"),
        ([0, 3], [0, 1], [1, 1, 1], r"predictions must be in \[0, 3\), but they span 0 to 3"),
        ([0, 1], [-1, 1], [1, 1, 1], "labels must be .* span -1 to 1"),
        ([0, 1], [0, 1], [1, 1], "train_counts has 2 entries for 3 classes"),
    ],
)
def test_bad_input_to_accuracies(predictions, labels, counts, says):
    with pytest.raises(UserError, match=says):
        accuracies(np.array(predictions), np.array(labels), np.array(counts), names(3))


# --- label noise ----------------------------------------------------------------------------------


def test_label_noise_by_hand():
    """Four wrong labels: two memorised, one corrected, one neither. One of two right labels is missed."""
    clean = np.array([0, 0, 0, 0, 1, 2])
    observed = np.array([1, 1, 2, 1, 1, 2])
    report = label_noise(logits_for([1, 1, 0, 2, 1, 0], 3), observed, clean)
    json.dumps(report, allow_nan=False)
    assert report["wrong_labels"] == 4
    assert (report["memorised"], report["corrected"]) == (0.5, 0.25)
    assert report["train_accuracy_observed"] == 0.5
    assert report["train_accuracy_clean"] == pytest.approx(2 / 6)
    # Losses are low (predicted) or high (not). Wrong: low, low, high, high; right: low, high. Of 8 pairs 2
    # are won and 4 tied.
    assert report["auroc"] == pytest.approx((2 + 0.5 * 4) / 8)


def test_auroc_is_a_half_for_a_model_that_knows_nothing_and_one_for_a_perfect_one():
    observed, clean = np.array([0, 1, 2, 0]), np.array([0, 1, 1, 2])
    assert label_noise(np.zeros((4, 3)), observed, clean)["auroc"] == 0.5
    assert label_noise(logits_for(clean, 3), observed, clean)["auroc"] == 1.0


def test_label_noise_without_wrong_or_without_right_labels():
    clean = np.array([0, 1])
    none_wrong = label_noise(np.eye(2), clean, clean)
    assert (none_wrong["wrong_labels"], none_wrong["memorised"], none_wrong["corrected"]) == (0, None, None)
    assert none_wrong["auroc"] is None
    all_wrong = label_noise(np.eye(2), 1 - clean, clean)
    assert (all_wrong["memorised"], all_wrong["corrected"], all_wrong["auroc"]) == (0.0, 1.0, None)
