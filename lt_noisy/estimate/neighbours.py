"""Nearest neighbours by squared Euclidean distance, in a batch and in a whole set."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def nearest(queries: jax.Array, own: jax.Array, bank: jax.Array, k: int) -> jax.Array:
    """The k nearest rows of a bank, without the query itself: int32 [Q, k], nearest first, of equals the first.

    Args:
      queries: [Q, D].
      own: int [Q], where each query stands in the bank.
      bank: [M, D], M above k.
    """
    # |q - b|^2 without |q|^2, which ranks alike; one matrix product, float32.
    scores = 2 * jnp.matmul(queries, bank.T, precision="highest") - (bank**2).sum(-1)
    scores = jnp.where(jnp.arange(len(bank)) == own[:, None], -jnp.inf, scores)
    return jax.lax.top_k(scores, k)[1].astype(jnp.int32)


def nearest_in_set(features: np.ndarray, k: int, block: int = 1024) -> np.ndarray:
    """The same for every row of float32 features [N, D] among the others: int32 [N, k], in blocks of rows."""
    bank = jax.device_put(features)
    find = jax.jit(functools.partial(nearest, k=k))
    found = []
    for begin in range(0, len(features), block):  # every block of one size, so that one program does
        own = np.minimum(np.arange(begin, begin + block), len(features) - 1)
        found.append(jax.device_get(find(*jax.device_put((features[own], own)), bank)))
    return np.concatenate(found)[: len(features)]
