"""The mixture on the losses against a known mixture, and what must not change it."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from lt_noisy.errors import UserError
from lt_noisy.estimate.clean_probability import clean_probability, loss_mixture

WEIGHTS, MEANS, SCALES = np.array([0.7, 0.3]), np.array([1.0, 5.0]), np.array([0.5, 1.0])


def _sample(size=4000):
    """(losses, component) of the known mixture."""
    generator = np.random.default_rng(0)
    component = (generator.random(size) >= WEIGHTS[0]).astype(int)
    return generator.normal(MEANS[component], SCALES[component]), component


def _density(x, scales):
    return WEIGHTS * np.exp(-0.5 * ((x[:, None] - MEANS) / scales) ** 2) / scales


def test_posterior_is_that_of_the_mixture_that_was_drawn_from():
    losses, component = _sample()
    found = clean_probability(losses, seed=0)
    # 5e-4 is added to the variance of the normalised losses.
    density = _density(losses, np.sqrt(SCALES**2 + 5e-4 * np.ptp(losses) ** 2))
    expected = density[:, 0] / density.sum(1)
    assert found.dtype == np.float64 and found.shape == losses.shape
    assert np.abs(found - expected).mean() < 0.005 and np.abs(found - expected).max() < 0.12
    assert found.mean() == pytest.approx(WEIGHTS[0], abs=0.01)
    assert ((found < 0.5) == component).mean() > 0.98
    # The means, weighted by the posteriors.
    assert (found @ losses) / found.sum() == pytest.approx(MEANS[0], abs=0.03)
    assert ((1 - found) @ losses) / (1 - found).sum() == pytest.approx(MEANS[1], abs=0.05)


def test_posterior_falls_between_the_means():
    losses, _ = _sample()
    found = clean_probability(losses, seed=0)
    between = np.flatnonzero((losses > MEANS[0]) & (losses < MEANS[1]))
    rising = between[np.argsort(losses[between])]
    assert np.all(np.diff(found[rising]) <= 0)
    assert found[rising[0]] > 0.99 and found[rising[-1]] < 0.01


def test_neither_order_nor_unit_of_the_losses_matters():
    losses, _ = _sample(500)
    found = clean_probability(losses, seed=3)
    mixed = np.random.default_rng(1).permutation(500)
    np.testing.assert_array_equal(clean_probability(losses[mixed], seed=3), found[mixed])
    np.testing.assert_allclose(clean_probability(4 * losses + 7, seed=3), found, rtol=1e-6, atol=1e-9)


def test_stopping_at_ten_iterations_is_no_warning():
    losses = np.linspace(0, 1, 100) ** 4
    with pytest.warns(ConvergenceWarning):
        GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(losses[:, None])
    found = clean_probability(losses, seed=0)
    assert found[0] > 0.9 and found[-1] < 0.1


def test_equal_losses_tell_nothing():
    for losses in (np.full(5, 2.5), np.zeros(1)):
        np.testing.assert_array_equal(clean_probability(losses, seed=0), np.ones(len(losses)))
    np.testing.assert_allclose(clean_probability(np.array([0.0, 1.0]), seed=0), [1, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (np.zeros((3, 1)), r"losses must be \[N\] with N at least 1, not \[3, 1\]"),
        (np.zeros(0), r"not \[0\]"),
        (np.array([0.0, np.nan, np.inf]), "2 of 3 losses are not finite"),
    ],
)
def test_bad_losses_are_one_line(losses, message):
    with pytest.raises(UserError, match=message) as error:
        clean_probability(losses, seed=0)
    assert "\n" not in str(error.value)


def test_the_mixture_is_the_one_whose_posterior_is_the_probability():
    """In the unit of the losses: Bayes' rule on its two densities gives `clean_probability`; equal losses have none."""
    losses, _ = _sample()
    mixture = loss_mixture(losses, seed=3)
    assert mixture is not None
    assert mixture.weights == pytest.approx(WEIGHTS, abs=0.05)
    assert mixture.means == pytest.approx(MEANS, abs=0.3)
    scaled = (losses[:, None] - mixture.means) / mixture.stds
    joint = mixture.weights / mixture.stds * np.exp(-0.5 * scaled**2)
    assert joint[:, 0] / joint.sum(1) == pytest.approx(clean_probability(losses, seed=3), abs=1e-9)
    assert loss_mixture(np.full(5, 2.0), seed=0) is None
