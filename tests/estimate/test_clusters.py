"""Partitions: planted clusters, balance and chance, and the description by hand."""

import json

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.estimate.clusters import PARTITIONS, describe, kmeans, random

RNG = np.random.default_rng(0)


def planted(sizes, noise=0.05, d=8):
    """Directions with noise, in lengths from 0.1 to 100: the clusters are in the angles alone."""
    labels = RNG.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = np.eye(d)[labels] + noise * RNG.normal(size=(len(labels), d))
    return (rows * 10 ** RNG.uniform(-1, 2, (len(labels), 1))).astype(np.float32), labels


def inertia(features, clusters):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return sum(((unit[clusters == c] - unit[clusters == c].mean(0)) ** 2).sum() for c in np.unique(clusters))


# --- every partition ------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 20])
@pytest.mark.parametrize("name", PARTITIONS)
def test_every_partition_gives_k_clusters_and_is_a_function_of_the_seed(name, k):
    features = RNG.normal(size=(20, 4)).astype(np.float32)
    before = features.copy()
    clusters = bind(f"{name}(k={k})", PARTITIONS, "x").assign(features, 3)
    assert clusters.dtype == np.int32 and clusters.shape == (20,)
    assert set(clusters.tolist()) == set(range(k))
    np.testing.assert_array_equal(clusters, PARTITIONS[name](k).assign(features, 3))
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (np.ones((2, 3)), "k must be at most the number of examples, 2, not 3"),
        (np.ones(5), r"features must be \[N, D\], not \[5\]"),
        (np.array([[1, 0], [0, 1], [np.inf, 0]]), r"1 of 3 rows of features are not finite \(the first: row 2\)"),
    ],
)
@pytest.mark.parametrize("name", PARTITIONS)
def test_bad_features(name, features, says):
    with pytest.raises(UserError, match=says):
        PARTITIONS[name](3).assign(features.astype(np.float32), 0)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("kmeans(k=1)", "k must be at least 2, not 1"),
        ("random(k=1)", "k must be at least 2, not 1"),
        ("kmeans(restarts=0)", "restarts must be at least 1, not 0"),
    ],
)
def test_bad_arguments_in_a_config(spec, says):
    with pytest.raises(UserError, match=says):
        bind(spec, PARTITIONS, "config.cluster.partition")


# --- k-means --------------------------------------------------------------------------------------


def test_kmeans_finds_planted_directions_whatever_the_lengths():
    features, labels = planted([60, 25, 10, 5])
    for seed in range(3):
        assert adjusted_mutual_info_score(labels, kmeans(4).assign(features, seed)) == pytest.approx(1)


def test_restarts_keep_the_best():
    """Without structure single starts end in different places; every best of 40 is better than most of them."""
    features = RNG.normal(size=(80, 6)).astype(np.float32)
    once, often = (
        [inertia(features, kmeans(8, restarts).assign(features, seed)) for seed in range(9)] for restarts in (1, 40)
    )
    assert max(often) < np.median(once)


def test_kmeans_with_duplicates_enough_and_too_few():
    features = np.repeat(np.eye(3), 7, axis=0).astype(np.float32)
    assert np.bincount(kmeans(3).assign(features, 0)).tolist() == [7, 7, 7]
    with pytest.raises(UserError, match=r"k-means found 3 distinct clusters for k = 4: .* take k at most 3"):
        kmeans(4).assign(features, 0)
    with pytest.raises(UserError, match="found 1 distinct clusters for k = 2"):
        kmeans(2).assign(np.ones((9, 4), np.float32), 0)
    with pytest.raises(UserError, match="found 2 distinct clusters for k = 3"):  # a zero vector is a point
        kmeans(3).assign(np.array([[0, 0], [0, 0], [2, 0], [4, 0]], np.float32), 0)


# --- the random control ---------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(20, 5), (23, 5), (7, 7), (9, 2)])
def test_random_sizes_differ_by_at_most_one(n, k):
    sizes = np.bincount(random(k).assign(np.zeros((n, 1), np.float32), 0), minlength=k)
    assert sizes.sum() == n and np.ptp(sizes) == (n % k > 0)


def test_random_is_uniform_over_examples():
    """Over 4000 seeds each of 5 examples is in part 0 (of size 3) 3/5 of the time: 5 standard errors are 0.039."""
    features = np.zeros((5, 1), np.float32)
    assign = random(2).assign
    drawn = np.array([assign(features, seed) for seed in range(4000)])
    np.testing.assert_allclose((drawn == 0).mean(0), 3 / 5, atol=0.039)
    together = (drawn[:, :1] == drawn[:, 1:]).mean(0)  # (3 * 2 + 2 * 1) / (5 * 4)
    np.testing.assert_allclose(together, 0.4, atol=0.039)


def test_random_ignores_the_features():
    features = RNG.normal(size=(30, 4)).astype(np.float32)
    np.testing.assert_array_equal(random(4).assign(features, 1), random(4).assign(features[::-1] * 3, 1))


# --- describe -------------------------------------------------------------------------------------


def test_describe_by_hand():
    assignment = np.array([0, 0, 0, 1, 1, 1, 1, 2], np.int32)
    labels = np.array([0, 0, 1, 1, 1, 3, 0, 3])
    report = describe(assignment, labels, 4)
    json.dumps(report, allow_nan=False)
    assert report["sizes"] == [3, 4, 1]
    assert report["class_counts"] == [[2, 1, 0, 0], [1, 2, 0, 1], [0, 0, 0, 1]]
    assert report["cluster_purity"] == [2 / 3, 0.5, 1.0]
    assert report["purity"] == 5 / 8
    assert report["adjusted_mutual_information"] == adjusted_mutual_info_score(labels, assignment)


def test_describe_of_the_classes_themselves_and_of_chance():
    labels = np.repeat(np.arange(4), [400, 200, 100, 50])
    same = describe(3 - labels, labels, 4)
    assert (same["purity"], same["adjusted_mutual_information"]) == (1.0, pytest.approx(1))
    chance = describe(random(5).assign(np.zeros((750, 1), np.float32), 0), labels, 4)
    assert chance["adjusted_mutual_information"] == pytest.approx(0, abs=0.02)
    assert chance["purity"] == pytest.approx(400 / 750, abs=0.05)  # the head everywhere: purity alone misleads


@pytest.mark.parametrize(
    ("assignment", "labels", "says"),
    [
        ([0, 1], [0], r"must be \[N\] with N at least 1, not \[2\] and \[1\]"),
        ([], [], "N at least 1"),
        ([0, 1], [0, 3], r"clean_labels must be in \[0, 3\), but they span 0 to 3"),
        ([0, 1], [-1, 0], "span -1 to 0"),
        ([0, 2], [0, 1], r"must use every cluster from 0 to its largest, not \[0, 2\]"),
        ([-1, 0], [0, 1], r"not \[-1, 0\]"),
    ],
)
def test_bad_input_to_describe(assignment, labels, says):
    with pytest.raises(UserError, match=says):
        describe(np.array(assignment, int), np.array(labels, int), 3)
