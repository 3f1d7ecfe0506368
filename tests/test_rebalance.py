"""Samplers: probabilities by hand, and that every table entry keeps the contract."""

import numpy as np
import pytest

from lt_noisy.rebalance import SAMPLERS, class_balanced, uniform

LABELS = np.array([0, 0, 0, 3, 0, 1])  # class 2 is empty


def test_uniform_is_a_permutation():
    assert uniform()(LABELS, 4) is None


def test_class_balanced_gives_every_observed_class_the_same_chance():
    probabilities = class_balanced()(LABELS, 4)
    np.testing.assert_allclose(probabilities, [1 / 12, 1 / 12, 1 / 12, 1 / 3, 1 / 12, 1 / 3], rtol=1e-15)
    drawn = LABELS[np.random.default_rng(0).choice(len(LABELS), 30_000, p=probabilities)]
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 30_000, [1 / 3, 1 / 3, 0, 1 / 3], atol=0.015)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_gives_none_or_probabilities(name):
    probabilities = SAMPLERS[name]()(LABELS, 4)
    if probabilities is not None:
        assert probabilities.dtype == np.float64 and probabilities.shape == LABELS.shape
        assert (probabilities >= 0).all()
        np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-12)
