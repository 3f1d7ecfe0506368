"""How labels were mistaken: estimates of the transition matrix and of the clean class counts.

T [C, C] holds T[i, j] = P(observed = j | true = i), rows that sum to 1. An estimator's `estimate(probabilities,
observed, clean) -> TransitionEstimate` takes the class probabilities float [N, C] of a classifier trained on the
observed labels, those labels int [N] and the clean ones int [N], which only an oracle looks at. It raises `UserError`
where the arrays do not fit one another, hold no example, or are no probabilities and no labels.

Where the data says nothing of a class, its row of T is the identity's: a class is then never taken for another.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from lt_noisy.config.spec import table
from lt_noisy.data.noise import transition_matrix
from lt_noisy.errors import UserError, check_range

_BLOCK = 2**21  # probabilities looked at together
_TOLERANCE = 1e-6  # of a comparison with a mean of float32 probabilities


class TransitionEstimate(NamedTuple):
    """What an estimator says.

    Attributes:
      matrix: float64 [C, C], row-stochastic.
      clean_counts: float64 [C], examples truly of each class; at least 0, N in all.
    """

    matrix: np.ndarray
    clean_counts: np.ndarray


class TransitionEstimator(NamedTuple):
    """An estimator of T; `oracle` says that it reads the clean labels, which no real run knows."""

    estimate: Callable[[np.ndarray, np.ndarray, np.ndarray], TransitionEstimate]
    oracle: bool = False


def anchor(percentile: float = 97.0) -> TransitionEstimator:
    """Anchor points: T[i] = p(. | x^i), x^i the example whose p(i | x) is at this percentile of all examples.

    An example that surely is of class i shows, in a network trained on noisy labels, how that class is mislabelled. The
    percentile in place of the maximum keeps outliers out. It is of *all* N examples, as theirs: a class that has less
    than 100 - percentile % of them gets the row of another class, so take 100 (the maximum) on a long tail.

    Ours: x^i has rank floor(percentile / 100 * (N - 1)) in ascending p(i | x), equal values in row order, and its
    probabilities are normalised to sum to 1; a class that no label names keeps the identity's row; and the clean
    counts, N argmin_pi |T^T pi - s|_2 over the simplex, with s the observed shares.

    Args:
      percentile: 0..100.

    References:
      Patrini et al., "Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach" (2017).
    """
    if not 0 <= percentile <= 100:
        raise UserError(f"percentile={percentile} must lie in 0..100")

    def estimate(probabilities: np.ndarray, observed: np.ndarray, clean: np.ndarray) -> TransitionEstimate:
        p = _checked(probabilities, observed, clean)
        counts = np.bincount(observed, minlength=p.shape[1])
        rank = math.floor(percentile * (len(p) - 1) / 100)
        anchors = [np.argsort(p[:, c], kind="stable")[rank] for c in range(p.shape[1])]
        matrix = np.where(counts[:, None] > 0, p[anchors], np.eye(p.shape[1]))
        matrix /= matrix.sum(axis=1, keepdims=True)
        return TransitionEstimate(matrix, len(p) * clean_prior(matrix, counts / len(p)))

    return TransitionEstimator(estimate)


def confident() -> TransitionEstimator:
    """Confident joint: T and the clean counts from how many examples of each label are surely of each class.

    The `confident_joint`, its rows scaled to the observed counts, then normalised by true class. Its probabilities are
    out of sample (cross-validated); those of a network's own training set understate the noise, as it remembers labels.

    Ours: a label without a confident example counts as right. A class that no example is counted as has count 0, and
    the identity's row of T. `cleanlab` rounds the scaled rows to whole examples, this does not.

    References:
      Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels" (2021).
    """

    def estimate(probabilities: np.ndarray, observed: np.ndarray, clean: np.ndarray) -> TransitionEstimate:
        p = _checked(probabilities, observed, clean)
        joint = confident_joint(p, observed).astype(np.float64)
        found = joint.sum(axis=1, keepdims=True)
        joint = np.where(found > 0, joint / np.maximum(found, 1), np.eye(len(joint)))
        joint *= np.bincount(observed, minlength=len(joint))[:, None]
        counts = joint.sum(axis=0)
        matrix = np.where(counts[:, None] > 0, joint.T / np.where(counts > 0, counts, 1)[:, None], np.eye(len(joint)))
        return TransitionEstimate(matrix, counts)

    return TransitionEstimator(estimate)


def oracle() -> TransitionEstimator:
    """The realised matrix and clean counts, from the clean labels: no estimate, but what one is compared with."""

    def estimate(probabilities: np.ndarray, observed: np.ndarray, clean: np.ndarray) -> TransitionEstimate:
        classes = _checked(probabilities, observed, clean).shape[1]
        counts = np.bincount(clean, minlength=classes).astype(np.float64)
        return TransitionEstimate(transition_matrix(clean, observed, classes), counts)

    return TransitionEstimator(estimate, oracle=True)


def confident_joint(probabilities: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Examples by label and by confident class: int64 [C, C], entry [i, j] those labelled i and confidently j.

    Northcutt et al. (2021): an example is confidently of the class with the largest p among those with p_j >= t_j,
    t_j the mean p_j of the examples labelled j; with no such class it is not counted. As in their `cleanlab` (2.9), t_j
    is at least 2e-6 and compared to within 1e-6. Unlike it: where several classes reach t_j, `cleanlab` takes the
    largest of all p, even one below its own t; and it puts 1 on a diagonal entry that is 0.

    Args:
      probabilities: float [N, C].
      observed: int [N], labels in 0..C-1; a class without any is nobody's.
    """
    classes, rows = probabilities.shape[1], np.arange(len(observed))
    number = np.bincount(observed, minlength=classes)
    total = np.bincount(observed, weights=probabilities[rows, observed], minlength=classes)
    thresholds = np.where(number > 0, np.maximum(total / np.maximum(number, 1), 2 * _TOLERANCE), np.inf)
    joint = np.zeros((classes, classes), np.int64)
    for block in np.array_split(rows, -(-len(rows) * classes // _BLOCK)):
        p = probabilities[block]
        reached = np.where(p >= thresholds - _TOLERANCE, p, -1)
        sure = reached.max(axis=1) >= 0
        np.add.at(joint, (observed[block[sure]], reached[sure].argmax(axis=1)), 1)
    return joint


def clean_prior(matrix: np.ndarray, observed_shares: np.ndarray) -> np.ndarray:
    """argmin_pi |T^T pi - s|_2 over the simplex: float64 [C], for T float [C, C] and observed shares s float [C].

    On the simplex T^T pi - s is (T^T - s 1^T) pi = B pi. Non-negative least squares of |B x|^2 + (1^T x - 1)^2 is
    solved by x = pi / (1 + |B pi|^2), with the pi sought: of length r along pi it is r^2 |B pi|^2 + (r - 1)^2, at
    best |B pi|^2 / (1 + |B pi|^2), which rises with |B pi|.
    """
    system = np.vstack([matrix.T - observed_shares[:, None], np.ones(len(matrix))])
    x, _ = nnls(system, np.eye(len(system))[-1])
    return x / x.sum()


def describe(estimate: TransitionEstimate, observed: np.ndarray, clean: np.ndarray) -> dict[str, Any]:
    """How far an estimate is from what was realised, JSON-ready.

    Args:
      estimate: of C classes.
      observed: int [N], observed labels.
      clean: int [N], true labels.

    Returns:
      `clean_counts`, estimated; `estimated_rate` and `realised_rate`, shares of wrong labels;
      `mean_absolute_error` of the entries, and `total_variation` (half the sum of absolute errors, 0..1) of a row,
      both averaged over the classes that have examples; `clean_prior_total_variation`, of the estimated clean shares
      from the true ones, and `observed_prior_total_variation`, of the observed shares, for comparison.
    """
    classes, size = len(estimate.matrix), len(clean)
    true_counts = np.bincount(clean, minlength=classes)
    present = true_counts > 0
    errors = abs(estimate.matrix - transition_matrix(clean, observed, classes))[present]
    right = (estimate.clean_counts * np.diag(estimate.matrix)).sum()

    def from_true(counts: np.ndarray) -> float:
        return float(abs(counts - true_counts).sum() / (2 * size))

    return {
        "clean_counts": estimate.clean_counts.tolist(),
        "estimated_rate": float(1 - right / size),
        "realised_rate": float((observed != clean).mean()),
        "mean_absolute_error": float(errors.mean()),
        "total_variation": float(errors.sum(axis=1).mean() / 2),
        "clean_prior_total_variation": from_true(estimate.clean_counts),
        "observed_prior_total_variation": from_true(np.bincount(observed, minlength=classes)),
    }


def _checked(probabilities: np.ndarray, observed: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The probabilities in float64, once everything is known to fit."""
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or not p.size or not (observed.shape == clean.shape == p.shape[:1]):
        raise UserError(
            f"probabilities are [N, C] with labels [N], N at least 1, not {list(p.shape)}, {list(observed.shape)} and "
            f"{list(clean.shape)}"
        )
    wrong = np.flatnonzero(~((p >= 0).all(axis=1) & (abs(p.sum(axis=1) - 1) < 1e-3)))
    if len(wrong):
        raise UserError(f"row {wrong[0]} of the probabilities is not a distribution over the {p.shape[1]} classes")
    check_range(observed, p.shape[1], "observed labels")
    check_range(clean, p.shape[1], "clean labels")
    return p


TRANSITIONS = table({"anchor": anchor, "confident": confident, "oracle": oracle})
