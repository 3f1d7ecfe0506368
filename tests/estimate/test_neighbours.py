"""Nearest neighbours against scikit-learn and float64 brute force, in blocks and tiles that do not fit."""

import jax
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from lt_noisy.estimate import neighbours
from lt_noisy.estimate.neighbours import Vectors, in_blocks, most_similar, nearest, nearest_in_set, search, unit

RNG = np.random.default_rng(0)
SIZES = [(512, 16384), (10, 17), (53, 20), (1, 1)]  # one block and tile; padding in both; in tiles alone; one by one


@pytest.mark.parametrize(("block", "tile"), SIZES)
def test_neighbours_in_a_set_are_scikit_learns(block, tile, blocks):
    blocks(block, tile)
    features = RNG.normal(size=(53, 6)).astype(np.float32)
    reference = NearestNeighbors(n_neighbors=4).fit(features).kneighbors(features, return_distance=False)[:, 1:]
    found = nearest_in_set(features, 3)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, reference)
    np.testing.assert_array_equal(nearest(features[5:9], np.arange(5, 9), features, 3), reference[5:9])


@pytest.mark.parametrize(
    ("block", "tile", "k"), [(*size, k) for at, size in enumerate(SIZES) for k in {7, (1, 40)[at % 2]}]
)
def test_the_most_similar_are_those_of_float64(block, tile, k, blocks):
    blocks(block, tile)
    bank = RNG.normal(size=(40, 5)) * RNG.uniform(1e-9, 1e3, (40, 1))  # lengths that float32 squares would lose
    queries = RNG.normal(size=(23, 5))
    cosines, rows = most_similar(queries, bank.astype(np.float32), k)
    exact = unit(queries).astype(np.float64) @ unit(bank.astype(np.float32)).astype(np.float64).T
    expected = np.argsort(-exact, axis=1)[:, :k]
    np.testing.assert_allclose(cosines, np.take_along_axis(exact, expected, 1), rtol=0, atol=1e-6)
    # Two that rounding may swap are as similar as those that stand there.
    np.testing.assert_allclose(np.take_along_axis(exact, rows, 1), cosines, rtol=0, atol=1e-6)
    assert all(len(set(row)) == k for row in rows)


@pytest.mark.parametrize("held", [1, 7, 1000])
def test_vectors_made_in_portions_are_found_as_those_of_an_array(held, monkeypatch):
    bank, queries = RNG.normal(size=(40, 5)).astype(np.float32), RNG.normal(size=(23, 5)).astype(np.float32)
    bank[[3, 30]] = bank[17]  # ties across portions
    expected = most_similar(queries, bank, 9)
    monkeypatch.setattr(neighbours, "HELD", 4 * 5 * held)
    found = most_similar(*(Vectors(len(a), 5, lambda rows, a=a: a[rows]) for a in (queries, bank)), 9)
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[1].dtype == np.int32


@pytest.mark.parametrize("tile", [16384, 3, 1])
def test_ties_go_to_the_first(tile, blocks):
    blocks(512, tile)
    bank = np.array([[0, 1], [1, 0], [1, 0], [0, 1], [1, 0], [0, 1], [1, 0]], np.float32)
    cosines, rows = most_similar(np.array([[5.0, 0.0], [0.0, 0.0]]), bank, 5)
    assert rows.tolist() == [[1, 2, 4, 6, 0], [0, 1, 2, 3, 4]]
    assert cosines.tolist() == [[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize("tile", [16384, 2])
def test_of_two_equal_images_each_has_the_other(tile, blocks):
    blocks(512, tile)
    features = np.array([[1.0, 0], [1.0, 0], [0, 1.0]], np.float32)
    np.testing.assert_array_equal(nearest_in_set(features, 1)[:2, 0], [1, 0])


def test_no_array_holds_more_scores_than_a_block_by_a_tile(blocks):
    blocks(8, 32)
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((8, 5), (96, 5), (96,))]
    program = jax.jit(search, static_argnums=3).lower(*shapes, 4).as_text()
    assert "8x32x" in program and "8x96x" not in program


def test_blocks_are_of_one_size_and_cut_at_the_end(blocks):
    blocks(4, 1)
    seen = []
    found = in_blocks(lambda rows: (seen.append(rows.tolist()), (rows, np.stack([rows, -rows], 1)))[1], 6)
    assert seen == [[0, 1, 2, 3], [4, 5, 5, 5]]
    np.testing.assert_array_equal(found[0], np.arange(6))
    np.testing.assert_array_equal(found[1], np.stack([np.arange(6), -np.arange(6)], 1))


def test_unit_keeps_zero_rows_and_scales_tiny_ones(blocks):
    blocks(2, 1)
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [3e-12, -4e-12]], np.float32)
    found = unit(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], [0.6, 0.8], rtol=1e-6)
    assert found[1].tolist() == [0, 0]
    np.testing.assert_allclose(found[2], [0.6, -0.8], rtol=1e-6)
