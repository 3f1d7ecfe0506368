"""Neighbours, banks and collapse of features by hand on small cases, and by brute force."""

import json

import numpy as np
import pytest

from lt_noisy.errors import UserError
from lt_noisy.evaluation.representation import balanced_bank, collapse, effective_rank, knn_predict

RNG = np.random.default_rng(0)

# --- nearest neighbours ---------------------------------------------------------------------------


def vote(query, bank, bank_labels, num_classes, k, temperature):
    """The class with the most votes by the definition, and how far from another one: in similarity or in votes."""
    scored = sorted(
        (
            (float(query @ row / np.linalg.norm(query) / np.linalg.norm(row)), label)
            for row, label in zip(bank, bank_labels, strict=True)
        ),
        reverse=True,
    )
    votes = [0.0] * num_classes
    for similarity, label in scored[:k]:
        votes[label] += np.exp(similarity / temperature)
    second, first = sorted(votes)[-2:]
    at_rank_k = scored[k - 1][0] - scored[k][0] if k < len(scored) else 1.0
    return int(np.argmax(votes)), min((first - second) / first, at_rank_k)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (7, 5.0), (200, 0.5)])
@pytest.mark.parametrize("dimensions", [4, 100])
def test_knn_against_brute_force_wherever_rounding_decides_nothing(k, temperature, dimensions):
    """Not decided by rounding: who is among the k nearest, and who has the most votes, in float64 by a margin."""
    bank, queries = RNG.normal(size=(50, dimensions)), RNG.normal(size=(60, dimensions))
    bank_labels = RNG.integers(3, size=50)
    got = knn_predict(bank, bank_labels, queries, 3, k, temperature)
    expected, margins = zip(*(vote(query, bank, bank_labels, 3, k, temperature) for query in queries), strict=True)
    clear = np.array(margins) > 1e-4
    assert got.dtype == np.int64 and clear.mean() > 0.8
    np.testing.assert_array_equal(got[clear], np.array(expected)[clear])


def test_knn_ignores_length_and_survives_zero_vectors_and_low_temperatures():
    bank, labels = np.array([[100.0, 0], [0, 0.01], [0, 0]]), np.array([0, 1, 2])
    assert knn_predict(bank, labels, np.array([[1e-3, 1e-4], [1, 50], [0, 0]]), 3, 1).tolist()[:2] == [0, 1]
    assert knn_predict(bank, labels, np.array([[1, 0.1]]), 3, 3, temperature=1e-5).tolist() == [0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"bank_labels": np.array([0])}, "2 features and 1 labels"),
        ({"bank_labels": np.array([0, 5])}, "span 0 to 5"),
        ({"queries": np.array([[np.inf, 0]])}, "1 of 1 rows of features are not finite"),
    ],
)
def test_bad_input_to_knn(change, says):
    arguments = {
        "bank_features": np.eye(2),
        "bank_labels": np.array([0, 1]),
        "queries": np.eye(2),
        "num_classes": 2,
    }
    with pytest.raises(UserError, match=says):
        knn_predict(**(arguments | change))


@pytest.mark.parametrize(
    ("counts", "size", "expected"),
    [
        ([100, 50, 30], 30, {10}),  # enough of all
        ([100, 2, 50, 0], 42, {20, 2, 0}),  # class 1 gives all, the others share its lack
        ([9, 3, 5], 17, {9, 3, 5}),  # everything
        ([40, 40, 40], 20, {6, 7}),
    ],
)
def test_balanced_bank_counts(counts, size, expected):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = balanced_bank(labels, len(counts), size, seed=0)
    assert len(np.unique(rows)) == size
    assert set(np.bincount(labels[rows], minlength=len(counts)).tolist()) == expected


def test_balanced_bank_is_a_function_of_the_seed():
    labels = np.arange(300) % 3
    rows = balanced_bank(labels, 3, 60, seed=4)
    np.testing.assert_array_equal(rows, balanced_bank(labels, 3, 60, seed=4))
    assert set(rows) != set(balanced_bank(labels, 3, 60, seed=5))


@pytest.mark.parametrize("size", [0, 4])
def test_balanced_bank_of_impossible_size(size):
    with pytest.raises(UserError, match=f"a bank of {size} rows cannot be drawn from 3: take 1 to 3"):
        balanced_bank(np.array([0, 1, 1]), 2, size, seed=0)


# --- collapse -------------------------------------------------------------------------------------


def test_collapse_tells_spread_from_constant():
    spread = collapse(RNG.normal(size=(500, 16)))
    assert spread["channel_std_ideal"] == 0.25
    assert spread["channel_std"] == pytest.approx(0.25, rel=0.02)
    assert spread["collapsed"] is False

    direction = RNG.normal(size=16)
    one = collapse(RNG.uniform(1, 5, size=(500, 1)) * direction)  # lengths differ, the direction does not
    assert one["channel_std"] == pytest.approx(0, abs=1e-12)
    assert one["collapsed"] is True


def test_collapse_threshold_is_a_tenth():
    """Points +-a on one of three channels each, b on the fourth: channel stds a / sqrt(3) and 0; rank 3."""
    for a, collapsed in ((0.11, True), (0.12, False)):  # the mean over channels is 0.433 a, the ideal 0.5
        points = a * np.concatenate([np.eye(4)[:3], -np.eye(4)[:3]])
        points[:, 3] = np.sqrt(1 - a**2)
        report = collapse(points * 3)
        assert report["effective_rank"] == pytest.approx(3)
        assert report["collapsed"] is collapsed


@pytest.mark.parametrize(
    ("repeats", "rank", "collapsed"),
    [([1], 1.0, True), ([9, 1], 1.755, True), ([9, 1, 1], 2.586, False)],  # entropies of (3, 1) / 4, (3, 1, 1) / 5
)
def test_collapse_to_few_directions_shows_in_the_rank_only(repeats, rank, collapsed):
    axes = np.repeat(np.eye(8)[: len(repeats)], repeats, axis=0)
    report = collapse(np.concatenate([axes, -axes]))
    assert report["channel_std"] > 0.1 * report["channel_std_ideal"]
    assert report["effective_rank"] == pytest.approx(rank, abs=1e-3)
    assert report["collapsed"] is collapsed


def test_collapse_with_zero_vectors():
    report = collapse(np.zeros((5, 4)))
    json.dumps(report, allow_nan=False)
    assert report["channel_std"] == 0.0 and report["collapsed"] is True
    mixed = np.array([[1.0, 0], [0, 0]])
    assert collapse(mixed)["channel_std"] == pytest.approx(0.25)


def test_effective_rank_by_hand():
    """Points +-e_i: the singular value of direction i is the root of its share of the points."""
    axes = np.eye(5)
    equal = np.concatenate([axes, -axes])
    assert effective_rank(equal) == pytest.approx(5, rel=1e-12)
    assert effective_rank(equal[:, :3] * RNG.uniform(1, 9, size=(10, 1))) == pytest.approx(3, rel=1e-12)
    unequal = np.concatenate([axes[:1], -axes[:1]] * 9 + [axes[1:2], -axes[1:2]])  # singular values 3 to 1
    assert effective_rank(unequal) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)), rel=1e-12)


@pytest.mark.parametrize("shape", [(200, 12), (6, 30)])
def test_effective_rank_against_a_singular_value_decomposition(shape):
    features = RNG.normal(size=shape) * np.linspace(0.1, 3, shape[1]) + 1
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    singular = np.linalg.svd(unit - unit.mean(0), compute_uv=False)
    p = singular[singular > 1e-9] / singular.sum()
    assert effective_rank(features) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)


def test_effective_rank_of_one_direction_is_one():
    """Not the rank of the rounding, which has all directions."""
    direction = RNG.normal(size=16)
    lengths = RNG.uniform(1, 5, size=(50, 1))
    for features in (np.tile(direction, (50, 1)), (lengths * direction).astype(np.float32), np.zeros((5, 4))):
        assert effective_rank(features) == 1.0


def test_bad_input_to_collapse():
    with pytest.raises(UserError, match=r"features must be \[N, D\]"):
        collapse(np.zeros((0, 4)))
    with pytest.raises(UserError, match="1 of 2 rows of features are not finite"):
        collapse(np.array([[1.0, 2], [np.nan, 0]]))
