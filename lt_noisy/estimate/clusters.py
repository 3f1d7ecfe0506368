"""Cutting a training set into K parts, one for each expert, and what the parts have to do with the classes.

A partition's `assign(features, seed)` takes features float32 [N, D] to a cluster in [0, k) per example, int32 [N].
No cluster is empty.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.preprocessing import normalize

from lt_noisy import rng
from lt_noisy.config.spec import table
from lt_noisy.errors import UserError, check_finite, check_range


class Partition(NamedTuple):
    """`assign(features, seed) -> int32 [N]` and the number of clusters it makes."""

    assign: Callable[[np.ndarray, int], np.ndarray]
    clusters: int


def kmeans(k: int = 5, restarts: int = 10) -> Partition:
    """Cosine k-means, the clustering of Divide and Contrast.

    Ours is scikit-learn's `KMeans` on L2-normalised features. It approximates spherical k-means: between unit
    vectors |a - b|^2 = 2 - 2 cos, but a centroid is a mean and is not scaled back to length 1, so that
    loose clusters have shorter centroids. A zero vector stays zero.

    Args:
      k: clusters, at least 2. The default is ours.
      restarts: k-means++ starts, at least 1; the one with the lowest inertia counts.

    Raises (the partition):
      UserError: features not [N, D] or not finite, k above N, or fewer than k distinct points.

    References:
      Tian et al., "Divide and Contrast" (2021), arXiv:2105.08054.
    """
    _check_k(k)
    if restarts < 1:
        raise UserError(f"restarts must be at least 1, not {restarts!r}")

    def assign(features: np.ndarray, seed: int) -> np.ndarray:
        features = _checked(features, k)
        start = int(rng.generator(seed, "partition").integers(2**32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it found fewer clusters: refused below
            # scikit-learn's stubs know the default of n_init, a text, alone.
            means = KMeans(k, n_init=restarts, random_state=start)  # pyright: ignore[reportArgumentType]
            clusters = means.fit_predict(normalize(features))
        found = len(np.unique(clusters))
        if found < k:
            raise UserError(
                f"k-means found {found} distinct clusters for k = {k}: the normalised features have fewer distinct "
                f"points than k; take k at most {found}, or features that have not collapsed"
            )
        return clusters.astype(np.int32)

    return Partition(assign, k)


def random(k: int = 5) -> Partition:
    """A control: a uniformly random partition into k parts whose sizes differ by at most one.

    Divide and Contrast's control that tells what clustering adds to mere splitting. Of the features only their
    number counts.

    Args:
      k: parts, at least 2.

    Raises (the partition):
      UserError: as `kmeans`, for features and k.

    References:
      Tian et al., "Divide and Contrast" (2021).
    """
    _check_k(k)

    def assign(features: np.ndarray, seed: int) -> np.ndarray:
        parts = np.arange(len(_checked(features, k)), dtype=np.int32) % k
        return rng.generator(seed, "partition").permutation(parts)

    return Partition(assign, k)


def describe(assignment: np.ndarray, clean_labels: np.ndarray, num_classes: int) -> dict:
    """How far the clusters are the classes: JSON-ready.

    Args:
      assignment: int [N] in [0, K), every cluster in use.
      clean_labels: int [N] in [0, num_classes).
      num_classes: C.

    Returns:
      `sizes` [K]; `cluster_purity` [K], the share of a cluster's largest clean class; `purity`, that share
      over all examples (the mean of `cluster_purity` weighted by size); `adjusted_mutual_information` of
      clusters and classes, 1 where they are the same and about 0 for a random partition (scikit-learn,
      arithmetic mean of the entropies); `class_counts` [K, C].

    Raises:
      UserError: shapes that do not fit, no examples, a label outside [0, C), an empty cluster.
    """
    assignment, clean_labels = np.asarray(assignment), np.asarray(clean_labels)
    if assignment.ndim != 1 or assignment.shape != clean_labels.shape or len(assignment) == 0:
        shapes = f"{list(assignment.shape)} and {list(clean_labels.shape)}"
        raise UserError(f"assignment and clean_labels must be [N] with N at least 1, not {shapes}")
    check_range(clean_labels, num_classes, "clean_labels")
    clusters = np.unique(assignment)
    if not np.array_equal(clusters, np.arange(len(clusters))):
        raise UserError(f"assignment must use every cluster from 0 to its largest, not {clusters.tolist()}")

    cells = np.bincount(assignment * num_classes + clean_labels, minlength=len(clusters) * num_classes)
    class_counts = cells.reshape(len(clusters), num_classes)
    sizes, largest = class_counts.sum(1), class_counts.max(1)
    return {
        "sizes": sizes.tolist(),
        "purity": float(largest.sum() / sizes.sum()),
        "cluster_purity": (largest / sizes).tolist(),
        "adjusted_mutual_information": float(adjusted_mutual_info_score(clean_labels, assignment)),
        "class_counts": class_counts.tolist(),
    }


def _check_k(k: int) -> None:
    if k < 2:
        raise UserError(f"k must be at least 2, not {k!r}")


def _checked(features: np.ndarray, k: int) -> np.ndarray:
    """Features as float64 [N, D] with N at least k, or a `UserError`."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise UserError(f"features must be [N, D], not {list(features.shape)}")
    if len(features) < k:
        raise UserError(f"k must be at most the number of examples, {len(features)}, not {k}")
    check_finite(features, "features")
    return features


PARTITIONS = table({"kmeans": kmeans, "random": random})
