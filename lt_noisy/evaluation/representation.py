"""What a representation is worth without a classifier: nearest neighbours, and whether it has collapsed."""

import numpy as np
from sklearn.preprocessing import normalize

from lt_noisy import rng
from lt_noisy.data.by_class import rows_by_class, votes
from lt_noisy.errors import UserError, check_finite, check_range
from lt_noisy.estimate.neighbours import Vectors, most_similar

_MIN_RANK = 2  # effective rank below this is a collapse
_VOTES = 2**21  # held at once, 16 MiB of float64
_ROUNDING = 1e-12  # variance of unit vectors along a direction that float32 rounding alone may give


def knn_predict(
    bank_features: np.ndarray | Vectors,
    bank_labels: np.ndarray,
    queries: np.ndarray | Vectors,
    num_classes: int,
    k: int = 200,
    temperature: float = 0.1,
) -> np.ndarray:
    """Weighted k-nearest-neighbour classification by cosine similarity.

    Wu et al., "Unsupervised feature learning via non-parametric instance discrimination" (2018), sec. 3.4:
    the k nearest vote with weight exp(similarity / temperature). Similarities are float32, on JAX's default device.

    Args:
      bank_features: float [M, D], features of labelled images; a zero vector is similar to nothing.
      bank_labels: int [M] in [0, num_classes).
      queries: float [Q, D].
      num_classes: C.
      k: neighbours, at least 1; all of the bank where it holds fewer.
      temperature: above 0.

    Returns:
      Predicted classes int64 [Q]. Ties go to the lowest class, and at rank k to the first rows of the bank. Beyond the
      inputs in float32 memory is bounded by `neighbours.BLOCK`, and Q k.

    Raises:
      UserError: k or temperature out of range, an empty bank, a label outside [0, C), a feature not finite.
    """
    if k < 1:
        raise UserError(f"k must be at least 1, not {k!r}")
    if not temperature > 0:
        raise UserError(f"temperature must be above 0, not {temperature!r}")
    if len(bank_features) == 0 or len(bank_features) != len(bank_labels):
        raise UserError(f"the bank has {len(bank_features)} features and {len(bank_labels)} labels")
    bank_labels = np.asarray(bank_labels)
    check_range(bank_labels, num_classes)
    for features in (bank_features, queries):
        if not isinstance(features, Vectors):
            check_finite(features, "features")
    similarity, rows = most_similar(queries, bank_features, min(k, len(bank_features)))
    # The largest weight as 1: the vote is the same, and no temperature overflows.
    weights = np.exp((similarity - similarity[:, :1]) / np.float64(temperature))
    block = max(_VOTES // num_classes, 1)
    elected = [
        votes(bank_labels[rows[start : start + block]], weights[start : start + block], num_classes).argmax(-1)
        for start in range(0, len(rows), block)
    ]
    return np.concatenate(elected)


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
    members = sorted(rows_by_class(labels, np.arange(len(labels)), num_classes), key=len)
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


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float64; zero rows stay zero."""
    check_finite(features, "features")
    return np.asarray(normalize(np.asarray(features, np.float64)))
