import numpy as np
import pytest

from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.rebalance.sampling import SAMPLERS, WEIGHTINGS

LABELS = np.repeat([0, 1, 3], [5, 4, 1])  # class 2 has no example


def _shares(text):
    p = bind(text, SAMPLERS, "sampler").probabilities(LABELS, 4)
    assert p.shape == (10,) and np.isclose(p.sum(), 1, rtol=0, atol=1e-12)
    return np.bincount(LABELS, p, minlength=4)


def test_uniform_is_a_permutation():
    assert bind("uniform()", SAMPLERS, "sampler").probabilities(LABELS, 4) is None


def test_shares_of_the_classes_by_hand():
    np.testing.assert_allclose(_shares("class_balanced()"), [1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-12)
    np.testing.assert_allclose(_shares("square_root()"), np.sqrt([5, 4, 0, 1]) / np.sqrt([5, 4, 1]).sum(), rtol=1e-12)
    # An example of a class of n weighs (1 - b) / (1 - b^n): with b = 1/2 1/(2 - 2^-4), 1/(2 - 2^-3), 1.
    expected = np.array([5 * 16 / 31, 4 * 8 / 15, 0, 1])
    np.testing.assert_allclose(_shares("effective_number(beta=0.5)"), expected / expected.sum(), rtol=1e-12)


def test_effective_number_between_its_limits():
    np.testing.assert_allclose(_shares("effective_number(beta=0.0)"), [0.5, 0.4, 0, 0.1], rtol=1e-12)
    np.testing.assert_allclose(_shares("effective_number(beta=0.99999999)"), _shares("class_balanced()"), rtol=1e-6)


def test_weights_by_hand():
    """LDAM-DRW on CIFAR-10-LT: (1 - b) / (1 - b^n), normalised to sum to C."""
    counts = np.array([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50])
    raw = (1 - 0.9999) / (1 - 0.9999**counts)
    weights = bind("effective_number(beta=0.9999)", WEIGHTINGS, "reweight").weights(counts)
    np.testing.assert_allclose(weights, raw / raw.sum() * 10, rtol=1e-9)
    np.testing.assert_allclose(weights.sum(), 10, rtol=1e-12)
    np.testing.assert_allclose(
        bind("inverse_frequency()", WEIGHTINGS, "reweight").weights(np.array([4, 0, 1])), [0.6, 0, 2.4], rtol=1e-12
    )
    np.testing.assert_array_equal(bind("none()", WEIGHTINGS, "reweight").weights(counts), np.ones(10))


def test_what_the_weighted_sum_is_divided_by():
    """As its stage reads it, through `deferred` too."""
    assert bind("effective_number(beta=0.9)", WEIGHTINGS, "reweight").over == "weights"
    for text in ("effective_number(beta=0.9, over=batch)", "deferred(effective_number(over=batch), start=0.5)"):
        assert bind(text, WEIGHTINGS, "reweight").over == "batch"


def test_one_size_is_no_rebalancing():
    counts = np.full(3, 7)
    for text in ("inverse_frequency(power=0.5)", "effective_number(beta=0.9)"):
        np.testing.assert_allclose(bind(text, WEIGHTINGS, "reweight").weights(counts), 1, rtol=1e-12)


def test_deferred_keeps_the_rule_and_its_start():
    sampler = bind("deferred(class_balanced(), start=0.5)", SAMPLERS, "sampler")
    weighting = bind("deferred(effective_number(beta=0.9))", WEIGHTINGS, "reweight")
    assert (sampler.start, weighting.start) == (0.5, 0.8)
    assert bind("class_balanced()", SAMPLERS, "sampler").start == 0
    np.testing.assert_allclose(sampler.probabilities(LABELS, 4)[:5], 1 / 15, rtol=1e-12)


@pytest.mark.parametrize(
    ("table", "text", "said"),
    [
        (SAMPLERS, "effective_number(beta=1.0)", r"beta must be in \[0, 1\)"),
        (SAMPLERS, "deferred(class_balanced(), start=1.0)", r"start is a fraction"),
        (SAMPLERS, "deferred(deferred(class_balanced(), start=0.9), start=0.1)", "it is deferred already"),
        (WEIGHTINGS, "deferred(deferred(effective_number()))", "it is deferred already"),
        (WEIGHTINGS, "inverse_frequency(power=-1)", r"power is in"),
        (WEIGHTINGS, "deferred(class_balanced())", "unknown name 'class_balanced'"),
    ],
)
def test_bad_input(table, text, said):
    with pytest.raises(UserError, match=said):
        bind(text, table, "config.finetune.sampler")
