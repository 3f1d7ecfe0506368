"""How common each training image is, and the weights that rwSAM makes of it.

Liu et al., "Self-supervised Learning is More Robust to Dataset Imbalance" (2022), weigh example j by
phat(x_j)^-alpha, with phat a kernel density on the frozen representations of a first run, made without labels.

An estimator's `estimate(features, clean_labels) -> Density` takes features float32 [N, D] and clean labels int [N]
to log densities float64 [N] up to a common constant, which `importance` cancels, and a JSON-ready dict of what
was chosen on the way.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from sklearn.preprocessing import normalize

from lt_noisy.config.spec import table
from lt_noisy.errors import UserError, check_finite, check_not_negative, check_range
from lt_noisy.estimate.neighbours import fold, in_blocks, search

_EPSILON, _LARGEST = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).max)


class Density(NamedTuple):
    """`log_density` float64 [N], in nats and up to a constant; `details`, a JSON-ready dict."""

    log_density: np.ndarray
    details: dict[str, Any]


class DensityEstimator(NamedTuple):
    """A bound entry of `ESTIMATORS`.

    Attributes:
      estimate: `estimate(features, clean_labels) -> Density`.
      least: examples it wants at least.
      oracle: whether it reads the clean labels, which no real run knows.
    """

    estimate: Callable[[np.ndarray, np.ndarray], Density]
    least: int = 1
    oracle: bool = False


def gaussian(neighbour: int = 50, bandwidth: float = 0.0) -> DensityEstimator:
    """Gaussian kernel density on L2-normalised features: log mean_{j != i} exp(-|z_i - z_j|^2 / (2 h^2)).

    Liu et al. (2022) take a Gaussian kernel density; their bandwidth and alpha were not found. Ours: features
    scaled to length 1 (a zero vector stays zero), an example left out of its own density, and h.

    Args:
      neighbour: h is the median over examples of the distance to this nearest other example, 1 to N - 1.
      bandwidth: h itself where above 0 (unit features are at most 2 apart); `neighbour` then plays no part,
        but must still be below N.

    The estimator ignores the labels; its details are {"bandwidth": h}. It works in float32 on JAX's default
    device, in the blocks of `neighbours.fold`: time is O(N^2 D). Rounding is below 1e-5 nats at a usual h, and
    about 0.02 nats at the smallest it takes (measured on 1500 x 512).

    Raises (the estimator):
      UserError: features not [N, D] or not finite, neighbour not below N, or an h so small that float32 does
        not resolve it, as where half of the examples have `neighbour` duplicates.

    References:
      Liu et al., "Self-supervised Learning is More Robust to Dataset Imbalance" (2022).
    """
    if neighbour < 1:
        raise UserError(f"neighbour must be at least 1, not {neighbour!r}")
    if not 0 <= bandwidth < math.inf:
        raise UserError(f"bandwidth must be a finite number above 0, or 0 for the median, not {bandwidth!r}")

    def estimate(features: np.ndarray, clean_labels: np.ndarray) -> Density:
        points = _centred_unit(features)
        n = len(points)
        if neighbour >= n:
            raise UserError(f"neighbour must be below the number of examples, {n}, not {neighbour}")
        squares = np.einsum("nd,nd->n", points, points, dtype=np.float64)
        # Rounding moves a squared distance by some eps * max |z|^2, and the inputs' own by some eps^2.
        resolved = 10 * math.sqrt(_EPSILON * (squares.max() + _EPSILON))
        points, squares = jax.device_put((points, squares.astype(np.float32)))
        h, source = bandwidth, "the bandwidth"
        if bandwidth == 0:
            distances = in_blocks(lambda rows: _neighbour_square(points, squares, jax.device_put(rows), k=neighbour), n)
            h = float(np.median(np.sqrt(distances.astype(np.float64))))
            source = f"the median distance to neighbour {neighbour}"
        if h < resolved:
            raise UserError(
                f"{source}, {h:.2g}, is below what float32 resolves in these features, {resolved:.2g}: "
                "give a larger bandwidth or neighbour, or features with fewer duplicates"
            )
        # Not 0, which times the infinite distance to itself is NaN.
        scale = jax.device_put(np.float32(max(0.5 / h / h, 1e-30)))
        log_sums = in_blocks(lambda rows: _log_kernel_sum(points, squares, jax.device_put(rows), scale), n)
        return Density(log_sums.astype(np.float64) - math.log(n - 1), {"bandwidth": h})

    return DensityEstimator(estimate, least=neighbour + 1)


def class_oracle() -> DensityEstimator:
    """The frequency of an example's clean class: log(n_c / N).

    `importance` makes n_c^-alpha of it, what the kernel density of Liu et al. (2022) stands in for; this variant
    is ours. An oracle: no real run knows these labels. It ignores the features; its details are {}.

    Raises (the estimator):
      UserError: labels that are not [N] with N at least 1.
    """

    def estimate(features: np.ndarray, clean_labels: np.ndarray) -> Density:
        if np.ndim(clean_labels) != 1 or len(clean_labels) == 0:
            raise UserError(f"clean_labels must be [N] with N at least 1, not {list(np.shape(clean_labels))}")
        _, rows, counts = np.unique(clean_labels, return_inverse=True, return_counts=True)
        return Density(np.log(counts[rows] / len(rows)), {})

    return DensityEstimator(estimate, oracle=True)


def importance(log_density: np.ndarray, alpha: float, clip: float) -> np.ndarray:
    """Example weights p^-alpha over their minimum, clipped to [1, clip]: float64 [N] -> float32 [N].

    p^-alpha is from Liu et al. (2022); the scaling and the clip are ours (rwSAM does not see a common factor).
    It works in logarithms, so that no density underflows.

    Args:
      log_density: float [N], finite; a constant added to it changes nothing.
      alpha: at least 0; 0 gives ones.
      clip: the largest weight, at least 1.

    Raises:
      UserError: an argument out of range, or log densities that are not [N] or not finite.
    """
    check_not_negative(alpha=alpha)
    if not 1 <= clip <= _LARGEST:
        raise UserError(f"clip must be at least 1 and finite in float32, not {clip!r}")
    log_density = np.asarray(log_density, np.float64)
    if log_density.ndim != 1 or len(log_density) == 0 or not np.isfinite(log_density).all():
        raise UserError("log_density must be [N] with N at least 1, and finite")
    log_weights, limit = alpha * (log_density.max() - log_density), math.log(clip)
    weights = np.where(log_weights < limit, np.exp(np.minimum(log_weights, limit)), clip)
    return weights.astype(np.float32)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation: Pearson's, of the ranks. (SciPy's works out a p-value too, and warns of two examples.)"""
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def describe(
    weights: np.ndarray, log_density: np.ndarray, clean_labels: np.ndarray, num_classes: int, clip: float
) -> dict:
    """What the weights make of the long tail: JSON-ready.

    Args:
      weights: float [N], above 0, from `importance`.
      log_density: float [N], what they were made of.
      clean_labels: int [N] in [0, num_classes).
      num_classes: C.
      clip: as given to `importance`.

    Returns:
      `spearman`, the rank correlation of the density with the frequency of each example's clean class (None
      where either is constant); `range`, largest weight over smallest; `quantiles` of the weights, a dict of
      5%, 50%, 95%; `clipped`, the share of weights at the clip; `effective_share`, the effective sample size
      (sum w)^2 / sum w^2 over N; `class_weights` [C], the mean weight per class, None without examples.

    Raises:
      UserError: shapes that do not fit, no examples, a label outside [0, C), a weight that is not above 0, a
        weight or density that is not finite.
    """
    weights, log_density = np.asarray(weights, np.float64), np.asarray(log_density, np.float64)
    clean_labels = np.asarray(clean_labels)
    shapes = [list(array.shape) for array in (weights, log_density, clean_labels)]
    if weights.ndim != 1 or len(weights) == 0 or shapes != shapes[:1] * 3:
        shown = ", ".join(map(str, shapes))
        raise UserError(f"weights, log_density and clean_labels must be [N] with N at least 1, not {shown}")
    if not ((weights > 0) & np.isfinite(weights) & np.isfinite(log_density)).all():
        raise UserError("weights must be finite and above 0, and log_density finite")
    check_range(clean_labels, num_classes, "clean_labels")

    counts = np.bincount(clean_labels, minlength=num_classes)
    totals = np.bincount(clean_labels, weights=weights, minlength=num_classes)
    frequency = counts[clean_labels]
    constant = np.ptp(log_density) == 0 or np.ptp(frequency) == 0
    quantiles = np.quantile(weights, [0.05, 0.5, 0.95])
    return {
        "spearman": None if constant else _spearman(log_density, frequency),
        "range": float(weights.max() / weights.min()),
        "quantiles": dict(zip(("5%", "50%", "95%"), quantiles.tolist(), strict=True)),
        "clipped": float((weights >= np.float32(clip)).mean()),
        "effective_share": float(weights.sum() ** 2 / (len(weights) * (weights**2).sum())),
        "class_weights": [float(t / n) if n else None for t, n in zip(totals, counts, strict=True)],
    }


@functools.partial(jax.jit, static_argnames="k")
def _neighbour_square(points: jax.Array, squares: jax.Array, rows: jax.Array, k: int) -> jax.Array:
    """The squared distance of `rows` int32 [B] to the kth nearest other point: [B]. `squares` are |z|^2 [N]."""
    scores, _ = search(2 * points[rows], points, -squares, k, rows)
    # Not scores[:, -1]: XLA's CPU backend merges that slice into top_k's own and then sorts whole rows.
    return _squared_distance(scores.min(1), squares[rows])


@jax.jit
def _log_kernel_sum(points: jax.Array, squares: jax.Array, rows: jax.Array, scale: jax.Array) -> jax.Array:
    """log sum_j exp(-scale d_ij^2) over the other points j, of `rows` i int32 [B]: [B]."""

    def add(log_sum: jax.Array, scores: jax.Array, first: jax.Array) -> jax.Array:
        distances = _squared_distance(scores, squares[rows][:, None])
        return jnp.logaddexp(log_sum, jax.nn.logsumexp(-scale * distances, axis=1))

    return fold(add, jnp.full(len(rows), -jnp.inf, points.dtype), 2 * points[rows], points, -squares, rows)


def _squared_distance(scores: jax.Array, squares: jax.Array) -> jax.Array:
    """From scores 2 q . b - |b|^2 and |q|^2; rounding may put near duplicates at a distance below 0."""
    return jnp.maximum(squares - scores, 0)


def _centred_unit(features: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1 (zero rows stay zero), then less their mean: float32 [N, D], or a `UserError`.

    Distances do not change with the origin, but |a|^2 + |b|^2 - 2 a.b loses fewer digits the nearer it is: the
    features of a deep network share much of their direction, and 2 - 2 cos would cancel.
    """
    if np.ndim(features) != 2 or len(features) == 0:
        raise UserError(f"features must be [N, D] with N at least 1, not {list(np.shape(features))}")
    points = np.array(features, np.float64)
    check_finite(points, "features")
    normalize(points, copy=False)
    points -= points.mean(0)
    return points.astype(np.float32)


ESTIMATORS = table({"gaussian": gaussian, "class_oracle": class_oracle})
