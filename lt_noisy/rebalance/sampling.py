"""Rebalancing by class: how often each training example is drawn, and how much it weighs.

A sampler turns observed labels int [N] in [0, C) into None (an epoch is a permutation, every example once) or
float64 [N] summing to 1 (an epoch is N draws with replacement). A weighting turns observed counts int [C] into class
weights float64 [C] that sum to C. Either may be `deferred`: plain until late in training, when the representation has
been learnt from the data as they are. Only observed labels are read.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from lt_noisy.config.spec import table
from lt_noisy.errors import UserError, check_below_one
from lt_noisy.losses.common import inverse_effective_number

Over = Literal["weights", "batch"]


class Sampler(NamedTuple):
    """How often examples are drawn.

    Attributes:
      probabilities: `probabilities(labels int [N], num_classes) -> None | float64 [N]`.
      start: the fraction of the stage from which on they hold; before it every example is drawn once an epoch.
    """

    probabilities: Callable[[np.ndarray, int], np.ndarray | None]
    start: float = 0.0


class Weighting(NamedTuple):
    """How much examples weigh.

    Attributes:
      weights: `weights(counts int [C]) -> float64 [C]`, summing to C over the classes that have examples.
      start: the fraction of the stage from which on they hold; before it all weigh 1.
      over: what a batch's weighted sum is divided by: the sum of its "weights", or the size of the "batch".
    """

    weights: Callable[[np.ndarray], np.ndarray]
    start: float = 0.0
    over: Over = "weights"


def uniform() -> Sampler:
    """Every example once an epoch, without replacement (instance-balanced sampling)."""
    return Sampler(lambda labels, num_classes: None)


def class_balanced() -> Sampler:
    """Every observed class equally often: p_i = 1 / (K n_{y_i}), K the number of non-empty classes.

    Classes without examples are ignored.

    References:
      Kang et al., "Decoupling representation and classifier" (2020), eq. 1 with q = 0.
    """
    return _by_count(lambda n: np.ones_like(n))


def square_root() -> Sampler:
    """A class as often as the square root of its size: p_i proportional to n_{y_i}^(-1/2).

    References:
      Mahajan et al. (2018); Kang et al., "Decoupling representation and classifier" (2020), eq. 1 with q = 1/2.
    """
    return _by_count(np.sqrt)


def effective_number(beta: float = 0.9999) -> Sampler:
    """p_i proportional to (1 - beta) / (1 - beta^{n_{y_i}}), the inverse effective number of its class.

    As a sampler it is "CE (balanced)" of Yang & Xu (2020). beta = 0 is uniform sampling with replacement, beta -> 1 is
    `class_balanced`.

    References:
      Cui et al., "Class-balanced loss based on effective number of samples" (2019), as a sampler.
    """
    check_below_one(beta=beta)
    return _by_count(lambda n: n * inverse_effective_number(n, beta))


def deferred_sampler(sampler: Sampler, start: float = 0.8) -> Sampler:
    """`uniform` until the fraction `start` of the stage, `sampler` from there on (DRS).

    References:
      Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss" (2019).
    """
    return sampler._replace(start=_fraction(start, sampler.start))


def no_weighting() -> Weighting:
    """Every example weighs the same."""
    return Weighting(lambda counts: np.ones(len(counts)))


def inverse_frequency(power: float = 1.0) -> Weighting:
    """w_c proportional to n_c^(-power): 1 is inverse class frequency, 1/2 its square root."""
    if not 0 <= power <= 2:
        raise UserError(f"power is in [0, 2], not {power}")
    return _weighting(lambda n: n**-power)


def effective_number_weighting(beta: float = 0.9999, over: Over = "weights") -> Weighting:
    """w_c proportional to (1 - beta) / (1 - beta^{n_c}) (class-balanced loss).

    Normalised to sum to C, as there and in LDAM-DRW. over=weights: the weighted mean divides by the sum of the batch's
    weights, as PyTorch's weighted cross-entropy does and so LDAM-DRW and its followers. over=batch: by the images of
    the batch, as the softmax loss of Cui et al.'s program does; as most images weigh less than 1 its gradient is
    smaller (almost 6 times on CIFAR-10-LT at ratio 100).

    References:
      Cui et al., "Class-balanced loss based on effective number of samples" (2019), eq. 12.
    """
    check_below_one(beta=beta)
    return _weighting(lambda n: inverse_effective_number(n, beta))._replace(over=over)


def deferred_weighting(weighting: Weighting, start: float = 0.8) -> Weighting:
    """All 1 until the fraction `start` of the stage, `weighting` from there on (DRW).

    LDAM-DRW is 0.8 of 200 epochs.

    References:
      Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss" (2019).
    """
    return weighting._replace(start=_fraction(start, weighting.start))


def _fraction(start: float, inner: float) -> float:
    if inner:
        raise UserError("it is deferred already")
    if not 0 <= start < 1:
        raise UserError(f"start is a fraction of the stage in [0, 1), not {start}")
    return start


def _by_count(share: Callable[[np.ndarray], np.ndarray]) -> Sampler:
    """A sampler that gives a class of n examples a share in proportion to `share(n)` of all draws."""

    def probabilities(labels: np.ndarray, num_classes: int) -> np.ndarray:
        counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
        present = np.maximum(counts, 1)
        shares = np.where(counts > 0, share(present), 0.0)
        return (shares / shares.sum() / present)[labels]

    return Sampler(probabilities)


def _weighting(weight: Callable[[np.ndarray], np.ndarray]) -> Weighting:
    def weights(counts: np.ndarray) -> np.ndarray:
        values = weight(np.maximum(np.asarray(counts, np.float64), 1))
        return np.where(np.asarray(counts) > 0, values, 0.0) * len(values) / values[np.asarray(counts) > 0].sum()

    return Weighting(weights)


SAMPLERS = table(
    {
        "uniform": uniform,
        "class_balanced": class_balanced,
        "square_root": square_root,
        "effective_number": effective_number,
        "deferred": deferred_sampler,
    }
)

WEIGHTINGS = table(
    {
        "none": no_weighting,
        "inverse_frequency": inverse_frequency,
        "effective_number": effective_number_weighting,
        "deferred": deferred_weighting,
    }
)
