"""Densities against an explicit float64 [N, N] matrix; weights and their description by hand."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.estimate import density
from lt_noisy.estimate.density import ESTIMATORS, class_oracle, describe, gaussian, importance

RNG = np.random.default_rng(0)
NO_LABELS = np.zeros(0, int)


def rectified(n, d=6):
    """Features as a ReLU network gives them: they share a direction, and their lengths differ."""
    return (np.maximum(RNG.normal(size=(n, d)), 0.05) * RNG.uniform(0.1, 20, (n, 1))).astype(np.float32)


def reference(features, neighbour, bandwidth=0.0):
    """Log densities and bandwidth by the definition, in float64."""
    z = features.astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    squares = ((z[:, None] - z) ** 2).sum(-1)
    others = ~np.eye(len(z), dtype=bool)
    squares = squares[others].reshape(len(z), -1)
    h = bandwidth or np.median(np.sqrt(np.sort(squares, 1)[:, neighbour - 1]))
    exponents = -squares / (2 * h**2)
    top = exponents.max(1)
    return top + np.log(np.exp(exponents - top[:, None]).mean(1)), h


# --- gaussian -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "block", "tile", "neighbour"),
    [
        (23, 8, 10, 3),  # the last block and the last tile are padded
        (24, 8, 12, 3),  # no padding
        (17, 8, 5, 16),  # a block with one row; every other example is a neighbour
        (23, 512, 512, 1),  # one block and one tile, larger than N
        (3, 1, 1, 1),  # a tile with nothing but the example itself
    ],
)
def test_gaussian_against_the_explicit_matrix_in_blocks(n, block, tile, neighbour, blocks):
    blocks(block, tile)
    features = rectified(n)
    log_density, details = gaussian(neighbour).estimate(features, NO_LABELS)
    expected, bandwidth = reference(features, neighbour)
    json.dumps(details, allow_nan=False)
    assert log_density.dtype == np.float64 and log_density.shape == (n,)
    assert details == {"bandwidth": pytest.approx(bandwidth, rel=1e-5)}
    np.testing.assert_allclose(log_density, expected, rtol=1e-5, atol=2e-5)


def test_a_given_bandwidth_is_taken_and_nothing_underflows():
    """At h = 0.01 the kernels are far below the smallest float32, and below the smallest float64."""
    features = rectified(23)
    log_density, details = gaussian(3, bandwidth=0.01).estimate(features, NO_LABELS)
    expected, _ = reference(features, 3, 0.01)
    assert details == {"bandwidth": 0.01}
    assert expected.min() < -800
    np.testing.assert_allclose(log_density, expected, rtol=0, atol=5e-3)


def test_gaussian_with_the_largest_of_bandwidths():
    log_density, _ = gaussian(1, bandwidth=1e200).estimate(rectified(5), NO_LABELS)
    np.testing.assert_allclose(log_density, 0, atol=1e-6)


def test_features_close_to_one_direction_keep_their_digits():
    """Distances of 1e-3: from 1 - cos in float32 the squares would have one digit."""
    features = (RNG.normal(size=64) + 1e-3 * RNG.normal(size=(40, 64))).astype(np.float32)
    log_density, details = gaussian(5).estimate(features, NO_LABELS)
    expected, bandwidth = reference(features, 5)
    assert bandwidth < 2e-3
    assert details["bandwidth"] == pytest.approx(bandwidth, rel=1e-5)
    np.testing.assert_allclose(log_density, expected, rtol=0, atol=1e-4)


def test_near_duplicates_among_spread_features():
    """Pairs 0.01 apart set the bandwidth: the squares have three digits left, the density two decimals."""
    features = np.repeat(RNG.normal(size=(15, 64)), 2, axis=0) + 1e-2 * RNG.normal(size=(30, 64))
    log_density, details = gaussian(1).estimate(features.astype(np.float32), NO_LABELS)
    expected, bandwidth = reference(features.astype(np.float32), 1)
    assert 0.005 < bandwidth < 0.03
    assert details["bandwidth"] == pytest.approx(bandwidth, rel=5e-3)
    np.testing.assert_allclose(log_density, expected, rtol=0, atol=1e-2)


def test_some_duplicates_and_a_zero_vector_are_no_trouble():
    """A zero vector is at distance 1 from every direction, and another of them is its duplicate."""
    features = np.array([[1, 0], [2, 0], [0, 3], [0, 0], [0, 0]], np.float32)
    log_density, _ = gaussian(1, bandwidth=1.0).estimate(features, NO_LABELS)
    one, two = np.exp(-0.5), np.exp(-1)  # kernels at squared distances 1 and 2
    expected = np.array([1 + two + 2 * one] * 2 + [2 * two + 2 * one] + [1 + 3 * one] * 2) / 4
    np.testing.assert_allclose(log_density, np.log(expected), rtol=0, atol=1e-6)


def test_gaussian_ignores_row_order_and_length(blocks):
    blocks(8, 10)
    features = rectified(21)
    order = RNG.permutation(21)
    plain, details = gaussian(3).estimate(features, NO_LABELS)
    permuted, permuted_details = gaussian(3).estimate(features[order] * np.float32(7), NO_LABELS)
    assert np.ptp(plain) > 0.1
    np.testing.assert_allclose(permuted, plain[order], rtol=0, atol=2e-5)
    assert permuted_details["bandwidth"] == pytest.approx(details["bandwidth"], rel=1e-5)


def test_a_crowd_is_denser_than_a_loner():
    features = np.concatenate([[1.0, 0, 0] + 0.1 * RNG.normal(size=(20, 3)), [[0, -1.0, 0]]]).astype(np.float32)
    log_density, _ = gaussian(5).estimate(features, NO_LABELS)
    assert log_density.argmin() == 20
    assert importance(log_density, 0.9, 70.0)[20] == 70


@pytest.mark.parametrize(
    ("function", "keywords"), [("_neighbour_square", {"k": 2}), ("_log_kernel_sum", {"scale": 1.0})]
)
def test_no_array_grows_with_the_square_or_the_row(function, keywords, blocks):
    blocks(8, 32)
    points, rows = jnp.zeros((96, 5)), jnp.arange(8, dtype=jnp.int32)
    program = getattr(density, function).lower(points, jnp.zeros(96), rows, **keywords).as_text()
    assert "8x32x" in program and "96x96x" not in program and "8x96x" not in program


@pytest.mark.parametrize(
    ("features", "arguments", "says"),
    [
        (np.eye(4), {"neighbour": 4}, "neighbour must be below the number of examples, 4, not 4"),
        (np.eye(4), {"neighbour": 4, "bandwidth": 1.0}, "neighbour must be below the number of examples"),
        (np.zeros((0, 3)), {}, r"features must be \[N, D\] with N at least 1, not \[0, 3\]"),
        (np.zeros(3), {}, r"features must be \[N, D\]"),
        (np.array([[1, 0], [np.nan, 1]]), {"neighbour": 1}, "1 of 2 rows of features are not finite .* row 1"),
        (np.eye(4), {"neighbour": 1, "bandwidth": 1e-5}, "^the bandwidth, 1e-05, is below what float32 resolves"),
    ],
)
def test_bad_input_to_gaussian(features, arguments, says):
    with pytest.raises(UserError, match=says):
        gaussian(**arguments).estimate(features.astype(np.float32), NO_LABELS)


@pytest.mark.parametrize("lengths", [np.ones(20), RNG.uniform(0.1, 9, 20)])
@pytest.mark.parametrize("directions", [1, 4])
def test_a_median_of_duplicates_is_refused(directions, lengths):
    """Five or more copies of each direction; copies of another length are equal up to rounding."""
    features = np.repeat(RNG.normal(size=(directions, 8)), 20 // directions, axis=0) * lengths[:, None]
    with pytest.raises(UserError, match=r"the median distance to neighbour 4, .* duplicates$"):
        gaussian(4).estimate(features.astype(np.float32), NO_LABELS)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("gaussian(neighbour=0)", "neighbour must be at least 1, not 0"),
        ("gaussian(bandwidth=-0.1)", "bandwidth must be a finite number above 0, or 0 for the median, not -0.1"),
        ("gaussian(bandwidth=1e999)", "not inf"),
    ],
)
def test_bad_arguments_in_a_config(spec, says):
    with pytest.raises(UserError, match=says):
        bind(spec, ESTIMATORS, "config.weights.estimator")


# --- class_oracle ---------------------------------------------------------------------------------


def test_class_oracle_in_closed_form():
    """Counts 6, 3, 0, 1: importance is (6 / n_c)^alpha, clipped."""
    labels = np.array([0, 0, 3, 0, 1, 1, 0, 0, 1, 0])
    log_density, details = bind("class_oracle()", ESTIMATORS, "x").estimate(np.full((10, 2), np.nan), labels)
    assert details == {} and log_density.dtype == np.float64
    counts = np.array([6, 3, 0, 1])[labels]
    np.testing.assert_allclose(log_density, np.log(counts / 10), rtol=1e-15)
    np.testing.assert_allclose(importance(log_density, 0.5, 2.0), np.minimum((6 / counts) ** 0.5, 2), rtol=1e-6)


@pytest.mark.parametrize("labels", [np.zeros(0, int), np.zeros((2, 2), int)])
def test_bad_input_to_class_oracle(labels):
    with pytest.raises(UserError, match=r"clean_labels must be \[N\] with N at least 1"):
        class_oracle().estimate(np.zeros((2, 2)), labels)


# --- importance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.3, 0.9, 2.0])
def test_importance_is_the_power_over_its_minimum_clipped(alpha):
    p = RNG.permutation(np.geomspace(0.01, 1, 50))
    weights = importance(np.log(p), alpha, 3.0)
    power = p**-alpha
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, np.clip(power / power.min(), 1, 3), rtol=1e-6)
    assert weights.min() == 1 and weights.max() == 3


def test_alpha_zero_or_clip_one_gives_ones():
    log_density = RNG.normal(size=20) * 1e4
    for alpha, clip in ((0.0, 70.0), (0.9, 1.0)):
        np.testing.assert_array_equal(importance(log_density, alpha, clip), np.ones(20, np.float32))


def test_importance_of_densities_far_below_the_smallest_float():
    shifted = importance(np.array([-1e6, -1e6 - 1, -1e9]), 1.0, 70.0)
    np.testing.assert_allclose(shifted, [1, np.e, 70], rtol=1e-6)


@pytest.mark.parametrize("clip", [1.1, 10 / 3, 70.0, 1e30])
def test_clipped_weights_are_the_clip_in_float32_and_counted_so(clip):
    log_density = np.array([0.0, -1e4])
    weights = importance(log_density, 1.0, clip)
    assert weights.tolist() == [1.0, float(np.float32(clip))]
    assert describe(weights, log_density, np.array([0, 0]), 1, clip)["clipped"] == 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"alpha": -0.1}, "alpha must be a finite number, at least 0, not -0.1"),
        ({"alpha": np.nan}, "alpha must be"),
        ({"clip": 0.5}, "clip must be at least 1 and finite in float32, not 0.5"),
        ({"clip": 1e39}, "clip must be"),
        ({"log_density": np.array([0, -np.inf])}, r"log_density must be \[N\] with N at least 1, and finite"),
        ({"log_density": np.zeros(0)}, r"log_density must be \[N\]"),
        ({"log_density": np.zeros((2, 2))}, r"log_density must be \[N\]"),
    ],
)
def test_bad_input_to_importance(change, says):
    with pytest.raises(UserError, match=says):
        importance(**({"log_density": np.zeros(2), "alpha": 0.9, "clip": 70.0} | change))


# --- describe -------------------------------------------------------------------------------------


def test_describe_by_hand():
    """Frequencies 3, 3, 3, 1, ranks 3, 3, 3, 1; densities rank 4, 2, 3, 1."""
    weights = np.array([1, 2, 1, 4], np.float32)
    report = describe(weights, np.array([-1.0, -3, -2, -9]), np.array([0, 0, 0, 2]), 3, clip=4.0)
    json.dumps(report, allow_nan=False)
    # Of the rank deviations (1.5, -.5, .5, -1.5) and (.5, .5, .5, -1.5): 3 / sqrt(5 * 3).
    assert report["spearman"] == pytest.approx(3 / np.sqrt(15))
    assert report["range"] == 4.0
    assert report["quantiles"] == {"5%": 1.0, "50%": 1.5, "95%": pytest.approx(3.7)}
    assert report["clipped"] == 0.25
    assert report["effective_share"] == pytest.approx(8**2 / (4 * 22))
    assert report["class_weights"] == [pytest.approx(4 / 3), None, 4.0]


def test_the_oracle_is_in_rank_what_it_is_an_oracle_of():
    labels = np.repeat(np.arange(4), [40, 20, 7, 2])
    log_density, _ = class_oracle().estimate(np.zeros((69, 1)), labels)
    report = describe(importance(log_density, 1.0, 10.0), log_density, labels, 4, clip=10.0)
    assert report["spearman"] == pytest.approx(1)
    assert report["class_weights"] == pytest.approx([1, 2, 40 / 7, 10])
    assert report["clipped"] == pytest.approx(2 / 69)


@pytest.mark.parametrize(
    ("log_density", "labels"), [([-1.0, -1.0, -1.0], [0, 0, 1]), ([-1.0, -2.0, -3.0], [0, 1, 2]), ([-1.0], [0])]
)
def test_no_rank_correlation_where_a_side_is_constant(log_density, labels):
    report = describe(np.ones(len(labels)), np.array(log_density), np.array(labels), 3, clip=2.0)
    assert report["spearman"] is None
    assert (report["range"], report["clipped"], report["effective_share"]) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": np.ones(3)}, r"must be \[N\] with N at least 1, not \[3\], \[2\], \[2\]"),
        ({"clean_labels": np.array([0])}, r"not \[2\], \[2\], \[1\]"),
        ({"clean_labels": np.array([0, 3])}, r"clean_labels must be in \[0, 3\), but they span 0 to 3"),
        ({"clean_labels": np.array([-1, 1])}, "span -1 to 1"),
        ({"weights": np.array([0.0, 1])}, "weights must be finite and above 0"),
        ({"log_density": np.array([np.nan, 1])}, "log_density finite"),
    ],
)
def test_bad_input_to_describe(change, says):
    arguments = {
        "weights": np.ones(2),
        "log_density": np.zeros(2),
        "clean_labels": np.array([0, 1]),
        "num_classes": 3,
        "clip": 70.0,
    }
    with pytest.raises(UserError, match=says):
        describe(**(arguments | change))
