"""Evaluation on the host: arrays in, JSON-ready dicts out.

Pure NumPy and scikit-learn, float64 inside. Accuracies, shares and calibration errors are fractions in
[0, 1]; NLL is in nats. A figure that does not exist (a class without test images, a group without classes) is
None, never NaN.
"""

import numpy as np
from sklearn.metrics import confusion_matrix, roc_auc_score

from lt_noisy import rng
from lt_noisy.errors import UserError, check_finite, check_range

_ECE_BINS = 15
_BLOCK = 2**24  # similarities held at once: 128 MiB
_MIN_RANK = 2  # effective rank below this is a collapse
_ROUNDING = 1e-12  # variance of unit vectors along a direction that float32 rounding alone may give


def classification(
    logits: np.ndarray, labels: np.ndarray, train_counts: np.ndarray, class_names: list[str] | tuple[str, ...]
) -> dict:
    """Exact test evaluation of a classifier trained on a long tail.

    Args:
      logits: float [N, C]; the prediction is the argmax, the first of equals.
      labels: int [N], clean test labels.
      train_counts: int [C], *clean* training counts, which define the groups.
      class_names: C names.

    Returns:
      What `accuracies` does, with `nll` and `ece` (see `expected_calibration_error`).

    Raises:
      UserError: shapes that do not fit, no examples, a label outside [0, C), a logit that is not finite.
    """
    logits, labels = checked_logits(logits, labels)
    if len(class_names) != logits.shape[1]:
        raise UserError(f"class_names has {len(class_names)} entries for {logits.shape[1]} classes of logits")
    predictions, log_p = logits.argmax(-1), _log_softmax(logits)
    return {
        **accuracies(predictions, labels, train_counts, class_names),
        "nll": float(-_at(log_p, labels).mean()),
        "ece": expected_calibration_error(np.exp(log_p.max(-1)), predictions == labels),
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
      `labels`; `per_class_accuracy` [C] and `class_names` [C]; `groups`, for each of `class_groups` its
      {accuracy, num_classes}; `last_three_classes`, {accuracy, classes}: the last by falling training count,
      by name; `confusion_matrix` [C][C], counts, rows the true class. A group's accuracy is the mean
      per-class accuracy.

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

    matrix = confusion_matrix(labels, predictions, labels=np.arange(num_classes))
    totals = matrix.sum(1)
    recalls = np.where(totals > 0, matrix.diagonal() / np.maximum(totals, 1), np.nan)
    last_three = _falling(train_counts)[-3:]
    return {
        "accuracy": float((predictions == labels).mean()),
        "balanced_accuracy": _mean(recalls),
        "per_class_accuracy": [None if np.isnan(recall) else float(recall) for recall in recalls],
        "class_names": list(class_names),
        "groups": {
            name: {"accuracy": _mean(recalls[classes]), "num_classes": len(classes)}
            for name, classes in class_groups(train_counts).items()
        },
        "last_three_classes": {
            "accuracy": _mean(recalls[last_three]),
            "classes": [class_names[c] for c in last_three],
        },
        "confusion_matrix": matrix.tolist(),
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
    inner_edges = np.arange(1, _ECE_BINS) / _ECE_BINS
    bins = np.digitize(confidences, inner_edges, right=True)
    # |b| * |accuracy - confidence| is the size of the bin's summed difference.
    gaps = np.bincount(bins, weights=np.asarray(correct, np.float64) - confidences, minlength=_ECE_BINS)
    return float(np.abs(gaps).sum() / len(confidences))


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
    wrong = observed != clean
    losses = -_at(_log_softmax(logits), observed)
    return {
        "wrong_labels": int(wrong.sum()),
        "memorised": _mean((predictions == observed)[wrong]),
        "corrected": _mean((predictions == clean)[wrong]),
        "auroc": float(roc_auc_score(wrong, losses)) if 0 < wrong.sum() < len(wrong) else None,
        "train_accuracy_observed": float((predictions == observed).mean()),
        "train_accuracy_clean": float((predictions == clean).mean()),
    }


def knn_predict(
    bank_features: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> np.ndarray:
    """Weighted k-nearest-neighbour classification by cosine similarity.

    Wu et al., "Unsupervised feature learning via non-parametric instance discrimination" (2018), sec. 3.4:
    the k nearest vote with weight exp(similarity / temperature).

    Args:
      bank_features: float [M, D], features of labelled images; a zero vector is similar to nothing.
      bank_labels: int [M] in [0, num_classes).
      queries: float [Q, D].
      num_classes: C.
      k: neighbours, at least 1; all of the bank where it holds fewer.
      temperature: above 0.

    Returns:
      Predicted classes int64 [Q]; the lowest of equals. Queries go in blocks, so memory beyond the inputs is
      bounded. Which of several bank images equally near at rank k vote is not defined.

    Raises:
      UserError: k or temperature out of range, an empty bank, a label outside [0, C), a feature not finite.
    """
    if k < 1:
        raise UserError(f"k must be at least 1, not {k!r}")
    if not temperature > 0:
        raise UserError(f"temperature must be above 0, not {temperature!r}")
    if len(bank_features) == 0 or len(bank_features) != len(bank_labels):
        raise UserError(f"the bank has {len(bank_features)} features and {len(bank_labels)} labels")
    bank, bank_labels = _unit(bank_features), np.asarray(bank_labels)
    check_range(bank_labels, num_classes)
    k = min(k, len(bank))
    block = max(1, _BLOCK // len(bank))
    predictions = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), block):
        similarity = _unit(queries[start : start + block]) @ bank.T
        nearest = np.argpartition(similarity, -k, axis=1)[:, -k:]
        similarity = np.take_along_axis(similarity, nearest, axis=1)
        # The largest weight as 1: the vote is the same, and no temperature overflows.
        weights = np.exp((similarity - similarity.max(1, keepdims=True)) / temperature)
        cells = np.arange(len(weights))[:, None] * num_classes + bank_labels[nearest]
        votes = np.bincount(cells.ravel(), weights=weights.ravel(), minlength=len(weights) * num_classes)
        predictions[start : start + block] = votes.reshape(-1, num_classes).argmax(-1)
    return predictions


def balanced_bank(labels: np.ndarray, num_classes: int, size: int, seed: int) -> np.ndarray:
    """`size` rows of `labels` int [N], as equal per class as the data allows: int64 [size], ascending.

    A class with too few gives all it has, and the others share the rest: their counts differ by at most one.
    Within a class the rows are drawn without replacement.

    Raises:
      UserError: size outside [1, N], or a label outside [0, num_classes).
    """
    labels = np.asarray(labels)
    if not 1 <= size <= len(labels):
        raise UserError(f"a bank of {size} rows cannot be drawn from {len(labels)}: take 1 to {len(labels)}")
    check_range(labels, num_classes)
    generator = rng.generator(seed, "balanced_bank")
    members = sorted((np.flatnonzero(labels == c) for c in range(num_classes)), key=len)
    rows = []
    left = size
    for done, candidates in enumerate(members):  # the small classes first: what they lack goes to the larger
        quota = min(len(candidates), left // (num_classes - done))
        rows.append(generator.choice(candidates, quota, replace=False))
        left -= quota
    return np.sort(np.concatenate(rows))


def collapse(features: np.ndarray) -> dict:
    """Whether a representation has collapsed to one direction or to a few.

    Chen & He, "Exploring simple Siamese representation learning" (2021), sec. 4.1: the standard deviation of
    each channel of z / |z| is about 1 / sqrt(D) where directions spread, and 0 where all are one. Our
    threshold is a tenth of that: with equal channels a mean cosine of 0.99 between two images. That misses
    features that are all on one line; so, our rule too, an `effective_rank` below 2 is a collapse as well
    (1 or 2 channels, or up to 3 rows, cannot exceed 2).

    Args:
      features: float [N, D]; zero vectors stay zero.

    Returns:
      `channel_std`, the mean over channels; `channel_std_ideal`, 1 / sqrt(D); `effective_rank`; `collapsed`.

    Raises:
      UserError: not [N, D], no rows, or a feature that is not finite.
    """
    rank = effective_rank(features)
    std = float(_unit(features).std(0).mean())
    ideal = 1 / np.sqrt(np.shape(features)[1])
    return {
        "channel_std": std,
        "channel_std_ideal": float(ideal),
        "effective_rank": rank,
        "collapsed": bool(std < 0.1 * ideal or rank < _MIN_RANK),
    }


def effective_rank(features: np.ndarray) -> float:
    """How many directions the features use: exp of the entropy of the normalised singular values.

    Roy & Vetterli, "The effective rank" (2007). Our choices: rows are L2-normalised, as kNN and the
    contrastive losses see them, then centred, as what all images share tells none apart. The singular values
    are taken from the [D, D] covariance, and variances that rounding alone may give (below 1e-12) as zero.

    Args:
      features: float [N, D]; zero vectors stay zero.

    Returns:
      1, where all directions are equal or lie on a line, up to min(D, N - 1), where all variances are equal.

    Raises:
      UserError: not [N, D], no rows or channels, or a feature that is not finite.
    """
    if np.ndim(features) != 2 or 0 in np.shape(features):
        raise UserError(f"features must be [N, D] with N and D at least 1, not {list(np.shape(features))}")
    unit = _unit(features)
    mean = unit.mean(0)
    variances = np.linalg.eigvalsh(unit.T @ unit / len(unit) - np.outer(mean, mean))
    singular = np.sqrt(variances[variances > _ROUNDING])
    if len(singular) == 0:
        return 1.0
    p = singular / singular.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def checked_logits(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits as float64 [N, C] and labels int [N], or a `UserError`."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        shapes = f"{list(logits.shape)} and {list(labels.shape)}"
        raise UserError(f"logits must be [N, C] and labels [N] with N at least 1, not {shapes}")
    check_finite(logits, "logits")
    check_range(labels, logits.shape[1])
    return logits, labels


def _falling(train_counts: np.ndarray) -> np.ndarray:
    """Classes by falling training count, ties by rising label."""
    return np.argsort(-train_counts, kind="stable")


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _at(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return matrix[np.arange(len(matrix)), columns]


def _mean(values: np.ndarray) -> float | None:
    """The mean of those values that are not NaN, or None where there is none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float64; zero rows stay zero."""
    features = np.asarray(features, np.float64)
    check_finite(features, "features")
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(norms > 0, norms, 1)
