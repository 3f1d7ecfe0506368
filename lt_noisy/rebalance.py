"""Rebalancing by sampling: how often each training example is drawn in an epoch.

A sampler is `sampler(labels, num_classes) -> None | probabilities`: observed labels int [N] in [0, C) to None
(an epoch is a permutation, every example once) or to float64 [N] summing to 1 (an epoch is N draws with
replacement).
"""

from collections.abc import Callable

import numpy as np

Sampler = Callable[[np.ndarray, int], np.ndarray | None]


def uniform() -> Sampler:
    """Every example once an epoch, without replacement (instance-balanced sampling)."""
    return lambda labels, num_classes: None


def class_balanced() -> Sampler:
    """Every observed class equally often: p_i = 1 / (K n_{y_i}), K the number of non-empty classes.

    Kang et al., "Decoupling representation and classifier" (2020), eq. 1 with q = 0. Classes without examples
    are ignored.
    """

    def sampler(labels: np.ndarray, num_classes: int) -> np.ndarray:
        counts = np.bincount(labels, minlength=num_classes)
        return 1 / (np.count_nonzero(counts) * counts[labels].astype(np.float64))

    return sampler


SAMPLERS = {"uniform": uniform, "class_balanced": class_balanced}
