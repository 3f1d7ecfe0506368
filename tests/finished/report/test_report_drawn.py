"""What the figures of a report show, by hand: the numbers, not the pixels."""

import json
import sys
import types

import numpy as np
import pytest
from sklearn.decomposition import PCA

from lt_noisy.data.noise import transition_matrix
from lt_noisy.errors import UserError
from lt_noisy.evaluation.classification import class_groups, classification
from lt_noisy.finished.report import drawn

RNG = np.random.default_rng(0)


def test_curves_by_panel():
    """The norm of the gradient has none; a value that is not there at a step leaves no point."""
    lines = [
        {"step": 10, "loss": 3.0, "accuracy": 0.1, "grad_norm": 7.0, "seconds": 1.0},
        {"step": 20, "loss": 2.0, "test_nll": 1.5, "validation_balanced_accuracy": 0.3, "knn_balanced_bank": None},
        {"step": 30, "loss": float("nan"), "knn_balanced_bank": 0.5},
    ]
    assert drawn.curves(lines) == {
        "loss": {"loss": ([10, 20], [3.0, 2.0])},
        "NLL": {"test nll": ([20], [1.5])},
        "share": {
            "accuracy": ([10], [0.1]),
            "validation balanced accuracy": ([20], [0.3]),
            "knn balanced bank": ([30], [0.5]),
        },
    }
    assert list(drawn.curves(lines)) == ["loss", "NLL", "share"]
    assert drawn.curves([{"step": 1, "grad_norm": 1.0}]) == {}


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1}', '{"step": "first"}'])
def test_a_line_that_is_no_line_of_metrics(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps({'step': 1, 'loss': 2.0})}\n{line}\n")
    with pytest.raises(UserError, match="line 2: that is no line of metrics"):
        drawn.read_metrics(path)


def test_accuracy_by_frequency_leaves_out_what_is_not_on_the_axis():
    """Class 1 has no test example, class 3 no training example; a group is as wide as its classes with examples."""
    counts = np.array([200, 50, 30, 0, 5])
    labels, predictions = np.array([0, 0, 2, 2, 3, 4]), np.array([0, 0, 2, 0, 3, 0])
    test = classification(5.0 * np.eye(5)[predictions], labels, counts, list("abcde"))
    found = drawn.by_frequency(test, counts, class_groups(counts))
    assert found.classes.tolist() == [0, 2, 4]
    assert found.counts.tolist() == [200, 30, 5]
    assert found.accuracy.tolist() == [1.0, 0.5, 0.0]
    assert found.groups == [("many", 200, 200, 1.0), ("medium", 30, 50, 0.5), ("few", 5, 5, 0.5)]
    fewer = class_groups(np.array([100, 50, 30, 0, 5]))  # with as many held out, class 0 is in another group
    assert [part[0] for part in drawn.by_frequency(test, counts, fewer).groups] == ["few"]


def test_the_trend_of_classes_by_rising_count():
    counts, accuracy = drawn.trend(np.array([40, 10, 30, 20]), np.array([0.8, 0.2, 0.6, 0.4]), parts=2)
    assert counts.tolist() == [15, 35] and accuracy == pytest.approx([0.3, 0.7])
    assert len(drawn.trend(np.array([3]), np.array([0.5]))[0]) == 1


def test_shares_in_the_order_of_the_classes():
    """By hand: rows divided by their sums, a class without a number has none."""
    pairs, order = [[0, 0, 3], [0, 2, 1], [2, 2, 2]], np.array([2, 0, 1])
    expected = [[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [np.nan] * 3]
    np.testing.assert_array_equal(drawn.shares(pairs, order), expected)


def test_matrices_of_many_classes_in_blocks(monkeypatch):
    """Four classes in two blocks: the mean of the rows, the sum of the columns; a matrix and its counts agree."""
    clean = np.repeat(np.arange(4), 30)
    observed = np.where(RNG.random(120) < 0.4, RNG.integers(4, size=120), clean)
    whole, order = transition_matrix(clean, observed, 4), np.array([3, 1, 0, 2])
    pairs = [[i, k, int(30 * whole[i, k] + 0.5)] for i in range(4) for k in range(4)]
    np.testing.assert_allclose(drawn.in_order(whole, order), whole[np.ix_(order, order)])
    np.testing.assert_allclose(drawn.shares(pairs, order), whole[np.ix_(order, order)])
    monkeypatch.setattr(drawn, "MOST_CELLS", 2)
    blocks = whole[np.ix_(order, order)].reshape(2, 2, 2, 2).sum(axis=3).mean(axis=1)
    np.testing.assert_allclose(drawn.in_order(whole, order), blocks)
    np.testing.assert_allclose(drawn.shares(pairs, order), blocks)
    assert drawn.in_order(whole, order).sum(axis=1) == pytest.approx(1)


def test_the_largest_confusions():
    pairs = [[0, 0, 5], [0, 1, 3], [1, 0, 4], [1, 1, 4], [2, 0, 3]]
    assert drawn.largest_confusions(pairs, 2) == [(1, 0, 4, 0.5), (0, 1, 3, 0.375)]
    assert drawn.largest_confusions([[0, 0, 2]], 5) == []


def test_losses_by_bin_count_every_label_and_the_mixture_has_as_many():
    loss = np.concatenate([RNG.normal(1, 0.2, 300), RNG.normal(5, 0.5, 100)])
    wrong = np.arange(400) >= 300
    found = drawn.losses_by_bin(loss, wrong, 0)
    assert {name: int(counts.sum()) for name, counts in found.counts.items()} == {
        "right labels": 300,
        "wrong labels": 100,
    }
    assert found.counts["right labels"][found.edges[:-1] > 3].sum() == 0
    assert found.means == pytest.approx([1, 5], abs=0.2)
    width = found.edges[1] - found.edges[0]
    areas = np.trapezoid(found.components, found.places, axis=1) / width  # of a curve in examples a bin
    assert areas == pytest.approx([300, 100], rel=0.05)
    assert list(drawn.losses_by_bin(loss, None, 0).counts) == ["labels"]


def test_equal_losses_have_no_mixture():
    found = drawn.losses_by_bin(np.full(5, 2.0), None, 0)
    assert found.counts["labels"].sum() == 5 and not len(found.means) and found.components.shape == (2, 0)


def test_a_map_by_principal_components_against_those_of_all_rows():
    features = (RNG.normal(size=(60, 5)) * [5, 3, 1, 0.5, 0.1]).astype(np.float16)
    found = drawn.embedded(features, "pca", 0, "features")
    expected = PCA(2).fit_transform(features.astype(np.float64))
    signs = np.sign((found.points * expected).sum(axis=0))
    np.testing.assert_allclose(found.points * signs, expected, atol=0.02)
    assert found.axes[0].startswith("component 1 (") and found.rows.tolist() == list(range(60))


def test_a_large_map_shows_a_part_that_the_seed_draws(monkeypatch):
    monkeypatch.setattr(drawn, "_MOST_POINTS", 20)
    features = RNG.normal(size=(50, 3))
    first, again, other = (drawn.embedded(features, "pca", seed, "features") for seed in (0, 0, 1))
    assert len(set(first.rows.tolist())) == 20 and first.rows.tolist() == sorted(first.rows.tolist())
    assert first.rows.tolist() == again.rows.tolist() != other.rows.tolist()


def test_a_collapsed_network_has_a_map_of_one_point():
    found = drawn.embedded(np.ones((4, 3)), "pca", 0, "features")
    assert not found.points.any() and found.axes == ("component 1 (0 %)", "component 2 (0 %)")


def test_umap_is_given_the_rows_that_are_shown(monkeypatch):
    """A stand-in: what its program makes of them is its own affair."""

    class Stand:
        def __init__(self, **keywords):
            assert keywords == {"random_state": 3, "n_jobs": 1}

        def fit_transform(self, rows):
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Stand))
    features = RNG.normal(size=(10, 4)).astype(np.float32)
    found = drawn.embedded(features, "umap", 3, "features")
    np.testing.assert_allclose(found.points, features[:, :2])
    assert found.axes == ("UMAP 1", "UMAP 2")


@pytest.mark.parametrize("features", [np.zeros((2, 4)), np.zeros((5, 1)), np.zeros(5)])
def test_features_that_have_no_map(features):
    with pytest.raises(UserError, match=r"reference.npz: a map takes features \[n, D\]"):
        drawn.embedded(features, "pca", 0, "reference.npz")


def test_features_that_are_not_finite_are_named():
    features = np.ones((4, 3))
    features[2, 1] = np.inf
    with pytest.raises(UserError, match=r"1 of 4 rows of reference\.npz are not finite"):
        drawn.embedded(features, "pca", 0, "reference.npz")
