"""Which labels are likely right: a mixture of two Gaussians on the loss of every example."""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from lt_noisy import rng
from lt_noisy.errors import UserError


class LossMixture(NamedTuple):
    """Two Gaussians, that of the right labels, of lower mean, first.

    Attributes:
      weights: float64 [2], they add up to 1.
      means: float64 [2], in the unit of the losses.
      stds: float64 [2], as the means.
    """

    weights: np.ndarray
    means: np.ndarray
    stds: np.ndarray


def clean_probability(losses: np.ndarray, seed: int) -> np.ndarray:
    """The probability that each label is right: the posterior of the mixture's component of lower mean.

    Li et al., "DivideMix" (2020), sec. 3.1, with the settings of its released code, which Lu & He, "Mitigating noisy
    supervision using synthetic samples with soft labels" (2024), take over: losses min-max normalised, at most 10 EM
    iterations, tolerance 1e-2, 5e-4 added to each variance. Stopping at 10 is part of the method, so it is no warning.

    The variances differ, so the posterior falls between the two means but need not fall beyond them: a loss far outside
    belongs to the wider component.

    Args:
      losses: float [N], finite.
      seed: of the k-means that EM starts from. The fit sees the losses in rising order, so the order of the examples
        does not matter.

    Returns:
      float64 [N] in [0, 1]; all 1 where all losses are equal, as nothing tells the labels apart then.

    Raises:
      UserError: not [N] with N at least 1, or a loss that is not finite.
    """
    normalised, _, span = _normalised(losses)
    if span == 0:
        return np.ones(len(normalised))
    mixture = _fitted(normalised, seed)
    return mixture.predict_proba(normalised)[:, np.asarray(mixture.means_).argmin()]


def loss_mixture(losses: np.ndarray, seed: int) -> LossMixture | None:
    """The mixture whose posterior `clean_probability` gives; None where all losses are equal.

    Args:
      losses: as there.
      seed: as there.

    Raises:
      UserError: as there.
    """
    normalised, lowest, span = _normalised(losses)
    if span == 0:
        return None
    mixture = _fitted(normalised, seed)
    means, variances = (np.asarray(found, np.float64).ravel() for found in (mixture.means_, mixture.covariances_))
    order = np.argsort(means, kind="stable")
    return LossMixture(
        np.asarray(mixture.weights_)[order], lowest + span * means[order], span * np.sqrt(variances[order])
    )


def _normalised(losses: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Losses float64 [N, 1] in [0, 1], all 0 where they are equal, with their minimum and their range."""
    losses = np.asarray(losses, np.float64)
    if losses.ndim != 1 or len(losses) == 0:
        raise UserError(f"losses must be [N] with N at least 1, not {list(losses.shape)}")
    if not np.isfinite(losses).all():
        raise UserError(f"{(~np.isfinite(losses)).sum()} of {len(losses)} losses are not finite")
    lowest, span = float(losses.min()), float(np.ptp(losses))
    return ((losses - lowest) / (span or 1))[:, None], lowest, span


def _fitted(normalised: np.ndarray, seed: int) -> GaussianMixture:
    start = int(rng.generator(seed, "mixture").integers(2**32))
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(np.sort(normalised, axis=0))
    return mixture
