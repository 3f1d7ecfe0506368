"""Nearest neighbours: one blocked matrix product, of which each query keeps the best.

Everything here is a search for the largest scores q . b + offset. Of vectors of length 1 they are cosines; with 2 q and
-|b|^2 they are |q|^2 less the squared Euclidean distance. Products are float32, on JAX's default device; at most
`BLOCK` by `TILE` scores are held at once, whatever the size of the bank, and of `Vectors`, which are made as they are
needed, at most `HELD` bytes. Ties go to the first row.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.preprocessing import normalize

from lt_noisy import processes
from lt_noisy.progress import Progress

PyTree = Any
Best = tuple[jax.Array, jax.Array]  # scores float32 [Q, k], largest first, and their rows int32 [Q, k]
BLOCK, TILE = 512, 16384  # queries and rows of the bank whose scores are held at once: 32 MiB
HELD = 2**27  # bytes of float32 vectors that are made at a time


@dataclasses.dataclass(frozen=True)
class Vectors:
    """N vectors that are not in memory.

    Attributes:
      size: N.
      width: D.
      read: rows int [n], ascending and one after another -> float [n, D], finite.
    """

    size: int
    width: int
    read: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return self.size

    @property
    def held(self) -> int:
        """How many are made at a time."""
        return max(min(HELD // (4 * self.width), self.size), 1)


def fold(
    visit: Callable[[PyTree, jax.Array, jax.Array], PyTree],
    initial: PyTree,
    queries: jax.Array,
    bank: jax.Array,
    offsets: jax.Array,
    own: jax.Array | None = None,
) -> PyTree:
    """`result = visit(result, scores float32 [Q, T], first int32 [])` over a bank, in tiles of at most `TILE` rows.

    Args:
      visit: is given the scores of rows first, first + 1, ...; -inf for those that an earlier tile held.
      initial: the result before the first tile.
      queries: float32 [Q, D].
      bank: float32 [N, D].
      offsets: float32 [N].
      own: int32 [Q], where each query stands in the bank, so that its score with itself is -inf; None elsewhere.
    """
    size = len(bank)
    count = -(-size // TILE)
    tile = -(-size // count)

    def visit_tile(result: PyTree, next_row: jax.Array) -> tuple[PyTree, None]:
        # The last tile reaches back where it would reach past the end: padding would copy the bank.
        first = jnp.minimum(next_row, size - tile)
        rows, offset = (jax.lax.dynamic_slice_in_dim(array, first, tile) for array in (bank, offsets))
        scores = jnp.matmul(queries, rows.T, precision="highest") + offset[None, :]
        columns = (first + jnp.arange(tile, dtype=jnp.int32))[None, :]
        if count > 1:
            scores = jnp.where(columns < next_row, -jnp.inf, scores)
        if own is not None:
            scores = jnp.where(columns == jnp.asarray(own, jnp.int32)[:, None], -jnp.inf, scores)
        return visit(result, scores, first), None

    if count == 1:  # within a training step: a loop, even of length one, is slow on the CPU
        return visit_tile(initial, jnp.int32(0))[0]
    return jax.lax.scan(visit_tile, initial, tile * jnp.arange(count, dtype=jnp.int32))[0]


def search(queries: jax.Array, bank: jax.Array, offsets: jax.Array, k: int, own: jax.Array | None = None) -> Best:
    """The k largest scores float32 [Q, k] of each query, largest first, and their rows int32 [Q, k]; see `fold`.

    The bank holds k rows or more, beside the query itself where `own` is given.
    """

    def keep_best(best: Best, scores: jax.Array, first: jax.Array) -> Best:
        found, columns = jax.lax.top_k(scores, min(k, scores.shape[1]))
        scores = jnp.concatenate([best[0], found], 1)
        rows = jnp.concatenate([best[1], first + columns.astype(jnp.int32)], 1)
        scores, places = jax.lax.top_k(scores, k)  # earlier rows stand before later ones
        return scores, jnp.take_along_axis(rows, places, 1)

    shape = len(queries), k
    nothing = jnp.full(shape, -jnp.inf, queries.dtype), jnp.zeros(shape, jnp.int32)
    return fold(keep_best, nothing, queries, bank, offsets, own)


def nearest(queries: jax.Array, own: jax.Array, bank: jax.Array, k: int) -> jax.Array:
    """The k rows of a bank at the smallest Euclidean distance, without the query itself: int32 [Q, k], nearest first.

    Args:
      queries: float32 [Q, D].
      own: int32 [Q], where each query stands in the bank.
      bank: float32 [N, D], N above k.
    """
    return search(2 * queries, bank, -(bank**2).sum(-1), k, own)[1]


def nearest_in_set(features: np.ndarray, k: int) -> np.ndarray:
    """The same for every row of float32 features [N, D] among the others: int32 [N, k]."""
    bank = jax.device_put(features)
    return in_blocks(lambda own: _nearest_others(bank, jax.device_put(own), k=k), len(features))


def most_similar(queries: np.ndarray | Vectors, bank: np.ndarray | Vectors, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of a bank at the largest cosine: cosines float32 [Q, k], largest first, and rows int32 [Q, k].

    Args:
      queries: float [Q, D], finite; a zero vector is at cosine 0 to everything.
      bank: float [N, D], finite, N at least k. Vectors of it are made once for every `held` queries.
    """
    found = []
    for asked in _portions(queries):
        own = _read(queries, asked)
        best = np.empty((len(own), 0), np.float32), np.empty((len(own), 0), np.int32)
        for rows in _portions(bank):
            best = _best_of(best, _most_similar(own, unit(_read(bank, rows)), rows[0], k), k)
        found.append(best)
    return np.concatenate([scores for scores, _ in found]), np.concatenate([rows for _, rows in found])


def _portions(vectors: np.ndarray | Vectors) -> list[np.ndarray]:
    """Their rows int32 in portions that may be in memory together; those of an array are already."""
    held = vectors.held if isinstance(vectors, Vectors) else max(len(vectors), 1)
    return np.array_split(np.arange(len(vectors), dtype=np.int32), -(-len(vectors) // held))


def _read(vectors: np.ndarray | Vectors, rows: np.ndarray) -> np.ndarray:
    return vectors.read(rows) if isinstance(vectors, Vectors) else vectors


def _most_similar(queries: np.ndarray, bank: np.ndarray, first: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """`most_similar` in a portion [n, D] of the bank, unit vectors from its row `first` on; at most n of them."""
    directions, offsets = jax.device_put((bank, np.zeros(len(bank), np.float32)))

    def find(rows: np.ndarray) -> Best:
        return _search(jax.device_put(unit(queries[rows])), directions, offsets, k=min(k, len(bank)))

    scores, rows = in_blocks(find, len(queries))
    return scores, rows + first


def _best_of(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of two lists of scores and rows, where all rows of `a` stand before those of `b`."""
    scores, rows = (np.concatenate(pair, axis=1) for pair in zip(a, b, strict=True))
    if not a[0].size:  # the first, already in order
        return scores, rows
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


# Compiled once for all epochs of a training, all evaluations of a stage.
@functools.partial(jax.jit, static_argnames="k")
def _nearest_others(bank: jax.Array, own: jax.Array, k: int) -> jax.Array:
    return nearest(bank[own], own, bank, k)


@functools.partial(jax.jit, static_argnames="k")
def _search(queries: jax.Array, bank: jax.Array, offsets: jax.Array, k: int) -> Best:
    return search(queries, bank, offsets, k)


def in_blocks(function: Callable[[np.ndarray], PyTree], size: int) -> PyTree:
    """`function(rows int32 [B]) -> leaves [B, ...]` of the rows 0..size-1 in blocks: leaves [size, ...], on the host.

    Every block has the same size, so that one program does; the last repeats the last row. Each is fetched before the
    next starts, so that no two are in memory. Several processes share the blocks out, and all get the whole.
    """
    block, count = min(BLOCK, size), processes.shares()
    blocks, progress = [], Progress("comparing all with all", size)
    for start in range(0, size, count * block):
        first = start + block * (processes.index() if count > 1 else 0)
        rows = np.minimum(np.arange(first, first + block, dtype=np.int32), size - 1)
        blocks.append(jax.device_get(function(rows)))
        progress.add(count * block)
        processes.poll()
    each = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)  # [blocks of this process, block, ...]

    def in_order(leaf: np.ndarray) -> np.ndarray:
        of_all = processes.gather(leaf) if count > 1 else leaf[None]
        return np.swapaxes(of_all, 0, 1).reshape(-1, *leaf.shape[2:])[:size]

    return jax.tree.map(in_order, each)


def unit(features: np.ndarray) -> np.ndarray:
    """Rows float [N, D] scaled to length 1, zero rows (shorter than 2e-15) as they are: float32 [N, D].

    Lengths are float64, of a block of rows at a time: scikit-learn takes a float32 length below 1e-6 for zero.
    """
    directions = np.empty(features.shape, np.float32)
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK].astype(np.float64)
        directions[start : start + BLOCK] = np.asarray(normalize(block, copy=False))
    return directions
