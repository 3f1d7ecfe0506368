"""What a method of re-balancing a finished classifier is given, and what it gives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.preprocessing import normalize

from lt_noisy.errors import check_finite


class Head(NamedTuple):
    """A classifier on features: f = x W + b, `x` of length 1 where `unit_features` (zero vectors stay zero).

    Attributes:
      kernel: float64 [D, C].
      bias: float64 [C].
      unit_features: whether features are L2-normalised first, as under a cosine classifier.
    """

    kernel: np.ndarray
    bias: np.ndarray
    unit_features: bool = False

    def logits(self, features: np.ndarray) -> np.ndarray:
        """features [M, D] -> float64 [M, C]; raises `UserError` where a feature is not finite."""
        features = checked(features)
        return (normalize(features) if self.unit_features else features) @ self.kernel + self.bias


class Known(NamedTuple):
    """What a method may know: the classifier and its training set. Never a clean label.

    Attributes:
      head: the finished classifier.
      features: [N, D], of the training images, in evaluation mode.
      observed: int [N] in [0, C).
      clean_counts: float [C], a `transition` stage's estimate of how many examples are truly of each class; or None.
    """

    head: Head
    features: np.ndarray
    observed: np.ndarray
    clean_counts: np.ndarray | None = None

    @property
    def counts(self) -> np.ndarray:
        """Examples per observed class, int [C]."""
        return np.bincount(self.observed, minlength=len(self.head.bias))


class Rebalanced(NamedTuple):
    """A re-balanced classifier.

    Attributes:
      logits: features [M, D] -> float64 [M, C], finite.
      details: what was set or learnt, JSON-ready.
    """

    logits: Callable[[np.ndarray], np.ndarray]
    details: dict[str, Any]


class Rebalancing(NamedTuple):
    """A bound entry of `CLASSIFIERS`.

    Attributes:
      fit: `fit(known) -> Rebalanced`.
      with_tau: the same method at another tau, `with_tau(tau) -> Rebalancing`; None where it has no tau.
      reads_clean_counts: whether it needs `Known.clean_counts`.
      least: training examples that it takes.
    """

    fit: Callable[[Known], Rebalanced]
    with_tau: Callable[[float], "Rebalancing"] | None = None
    reads_clean_counts: bool = False
    least: int = 1


def checked(features: np.ndarray) -> np.ndarray:
    """Features float64; `UserError` where one is not finite."""
    features = np.asarray(features, np.float64)
    check_finite(features, "features")
    return features
