"""Evaluation on the host: arrays in, JSON-ready dicts out.

NumPy, SciPy and scikit-learn, float64 inside. Accuracies, shares and calibration errors are fractions in
[0, 1]; NLL is in nats. A figure that does not exist (a class without test images, a group without classes) is
None, never NaN. What takes float64 [N, C] takes it a block of rows at a time; nothing is [C, C].
"""

from collections.abc import Iterator

import numpy as np
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from lt_noisy.data.by_class import pair_counts
from lt_noisy.errors import UserError, check_finite, check_range

_ECE_BINS = 15
_BLOCK = 2**21  # numbers, 16 MiB of float64


def classification(
    logits: np.ndarray, labels: np.ndarray, train_counts: np.ndarray, class_names: list[str] | tuple[str, ...]
) -> dict:
    """Exact test evaluation of a classifier trained on a long tail.

    Args:
      logits: float [N, C]; the prediction is the argmax, and ties go to the first class.
      labels: int [N], clean test labels.
      train_counts: int [C], *clean* training counts, which define the groups.
      class_names: C names.

    Returns:
      What `accuracies` does, with `nll`, `ece` (see `expected_calibration_error`) and `reliability`, the bins of the
      latter (see `reliability`).

    Raises:
      UserError: shapes that do not fit, no examples, a label outside [0, C), a logit that is not finite.
    """
    logits, labels = checked_logits(logits, labels)
    if len(class_names) != logits.shape[1]:
        raise UserError(f"class_names has {len(class_names)} entries for {logits.shape[1]} classes of logits")
    predictions = logits.argmax(-1)
    at_label, highest = np.empty(len(labels)), np.empty(len(labels))
    for rows, log_p in log_probabilities(logits):
        at_label[rows] = log_p[np.arange(len(log_p)), labels[rows]]
        highest[rows] = log_p.max(-1)
    confidences, correct = np.exp(highest), predictions == labels
    return {
        **accuracies(predictions, labels, train_counts, class_names),
        "nll": float(-at_label.mean()),
        "ece": expected_calibration_error(confidences, correct),
        "reliability": reliability(confidences, correct),
    }


def accuracies(
    predictions: np.ndarray, labels: np.ndarray, train_counts: np.ndarray, class_names: list[str] | tuple[str, ...]
) -> dict:
    """Exact test accuracies of predicted classes, overall, per class and along the long tail.

    Args:
      predictions: int [N], predicted classes.
      labels: int [N], clean test labels.
      train_counts: int [C], *clean* training counts, which define the groups.
      class_names: C names.

    Returns:
      `accuracy`; `balanced_accuracy`, the mean per-class accuracy (recall) over the classes present in
      `labels`; `per_class_accuracy` [C], `class_names` [C] and `train_counts` [C]; `groups`, for each of
      `class_groups` its {accuracy, num_classes}; `last_three_classes`, {accuracy, classes}: the last by falling
      training count, by name; `confusions`, the entries of the confusion matrix that are not 0: [true class,
      predicted class, number]. A group's accuracy is the mean per-class accuracy.

    Raises:
      UserError: shapes that do not fit, no examples, a prediction or label outside [0, C).
    """
    predictions, labels, train_counts = np.asarray(predictions), np.asarray(labels), np.asarray(train_counts)
    num_classes = len(class_names)
    if predictions.ndim != 1 or predictions.shape != labels.shape or len(labels) == 0:
        shapes = f"{list(predictions.shape)} and {list(labels.shape)}"
        raise UserError(f"predictions and labels must be [N] with N at least 1, not {shapes}")
    if len(train_counts) != num_classes:
        raise UserError(f"train_counts has {len(train_counts)} entries for {num_classes} classes")
    check_range(predictions, num_classes, "predictions")
    check_range(labels, num_classes)

    totals = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels[predictions == labels], minlength=num_classes)
    recalls = np.where(totals > 0, right / np.maximum(totals, 1), np.nan)
    last_three = _falling(train_counts)[-3:]
    return {
        "accuracy": float((predictions == labels).mean()),
        "balanced_accuracy": mean_or_none(recalls),
        "per_class_accuracy": [None if np.isnan(recall) else float(recall) for recall in recalls],
        "class_names": list(class_names),
        "train_counts": train_counts.tolist(),
        "groups": {
            name: {"accuracy": mean_or_none(recalls[classes]), "num_classes": len(classes)}
            for name, classes in class_groups(train_counts).items()
        },
        "last_three_classes": {
            "accuracy": mean_or_none(recalls[last_three]),
            "classes": [class_names[c] for c in last_three],
        },
        "confusions": pair_counts(labels, predictions, num_classes),
    }


def class_groups(train_counts: np.ndarray) -> dict[str, np.ndarray]:
    """The classes of each part of the long tail, by *clean* training counts int [C].

    many (above 100 training images), medium (20 to 100), few (below 20; Liu et al., "OLTR", 2019), and where
    one of them has no class also head_third, middle_third, tail_third: classes by falling training count, ties
    by rising label, cut in three with the spare classes in the first thirds.
    """
    groups = {
        "many": np.flatnonzero(train_counts > 100),
        "medium": np.flatnonzero((train_counts >= 20) & (train_counts <= 100)),
        "few": np.flatnonzero(train_counts < 20),
    }
    if any(len(classes) == 0 for classes in groups.values()):
        thirds = np.array_split(_falling(train_counts), 3)
        groups |= zip(("head_third", "middle_third", "tail_third"), thirds, strict=True)
    return groups


def expected_calibration_error(confidences: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: sum_b |b| / N * |accuracy(b) - mean confidence(b)|.

    Guo et al., "On calibration of modern neural networks" (2017), eq. 3. 15 bins of equal width,
    bin b being ((b - 1) / 15, b / 15].

    Args:
      confidences: float [N], the largest class probability.
      correct: bool [N], whether that class is the label.
    """
    # |b| * |accuracy - confidence| is the size of the bin's summed difference.
    differences = np.asarray(correct, np.float64) - confidences
    gaps = np.bincount(_bins(confidences), weights=differences, minlength=_ECE_BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def reliability(confidences: np.ndarray, correct: np.ndarray) -> dict[str, list]:
    """The bins of the expected calibration error, as a reliability diagram shows them.

    Niculescu-Mizil & Caruana, "Predicting good probabilities with supervised learning" (2005); the bins are those of
    `expected_calibration_error`, whose value they give: sum_b count / N * |accuracy - confidence|.

    Args:
      confidences: float [N], the largest class probability.
      correct: bool [N], whether that class is the label.

    Returns:
      JSON-ready, a list [15] each: `count`, the examples of a bin, their mean `confidence` and their `accuracy`, None
      where there are none.
    """
    bins = _bins(confidences)
    counts = np.bincount(bins, minlength=_ECE_BINS)

    def means(values: np.ndarray) -> list[float | None]:
        sums = np.bincount(bins, weights=values, minlength=_ECE_BINS)
        return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]

    return {
        "count": counts.tolist(),
        "confidence": means(confidences),
        "accuracy": means(np.asarray(correct, np.float64)),
    }


def _bins(confidences: np.ndarray) -> np.ndarray:
    """The bin int [N] in [0, 15) of each confidence float [N]; bin b holds its upper edge."""
    inner_edges = np.arange(1, _ECE_BINS) / _ECE_BINS
    return np.digitize(confidences, inner_edges, right=True)


def label_noise(logits: np.ndarray, observed: np.ndarray, clean: np.ndarray) -> dict:
    """What a model made of the wrong labels it was trained on.

    Args:
      logits: float [N, C] on the training images.
      observed: int [N], the labels it was trained on.
      clean: int [N], the true labels.

    Returns:
      `wrong_labels`, their number; of these, `memorised`, the share predicted as the observed (wrong) label,
      and `corrected`, the share predicted as the clean label; `auroc` of the cross-entropy to the observed
      label as a detector of wrong ones (ties count half; None unless there are right and wrong labels);
      `train_accuracy_observed`, `train_accuracy_clean`.

    Raises:
      UserError: as `classification`.
    """
    logits, observed = checked_logits(logits, observed)
    _, clean = checked_logits(logits, clean)
    predictions = logits.argmax(-1)
    wrong, losses = observed != clean, np.empty(len(observed))
    for rows, log_p in log_probabilities(logits):
        losses[rows] = -log_p[np.arange(len(log_p)), observed[rows]]
    return {
        "wrong_labels": int(wrong.sum()),
        "memorised": mean_or_none((predictions == observed)[wrong]),
        "corrected": mean_or_none((predictions == clean)[wrong]),
        "auroc": auroc_or_none(wrong, losses),
        "train_accuracy_observed": float((predictions == observed).mean()),
        "train_accuracy_clean": float((predictions == clean).mean()),
    }


def checked_logits(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, C] and labels int [N] as they are, or a `UserError`."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        shapes = f"{list(logits.shape)} and {list(labels.shape)}"
        raise UserError(f"logits must be [N, C] and labels [N] with N at least 1, not {shapes}")
    check_finite(logits, "logits")
    check_range(labels, logits.shape[1])
    return logits, labels


def log_probabilities(logits: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """log softmax of logits [N, C], a block of rows at a time: which rows, and theirs in float64."""
    size = max(_BLOCK // logits.shape[1], 1)
    for start in range(0, len(logits), size):
        rows = slice(start, start + size)
        yield rows, log_softmax(logits[rows].astype(np.float64), axis=-1)


def _falling(train_counts: np.ndarray) -> np.ndarray:
    """Classes by falling training count, ties by rising label."""
    return np.argsort(-train_counts, kind="stable")


def mean_or_none(values: np.ndarray) -> float | None:
    """The mean of those values that are not NaN, or None where there is none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def auroc_or_none(positive: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve of `scores` [N] for `positive` bool [N]; None where all are of one kind."""
    return float(roc_auc_score(positive, scores)) if 0 < positive.sum() < len(positive) else None
