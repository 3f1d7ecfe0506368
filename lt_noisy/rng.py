"""Randomness as a pure function of (seed, purpose, step, position): nothing stores a key.

Two worlds, one rule. On the device, `stream` gives a JAX key and `per_example` folds in each
example's position in the *global* batch, so that a draw does not depend on the number of devices. On
the host, `generator` gives a NumPy Philox generator, for data sets and batch order.
"""

import hashlib

import jax
import numpy as np


def _number(text: str, bits: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[: bits // 8], "little")


def stream(seed: jax.Array | int, purpose: str, step: jax.Array | int = 0) -> jax.Array:
    """A JAX key for one purpose at one step (`seed`, uint32, and `step` may be traced)."""
    key = jax.random.fold_in(jax.random.key(seed), _number(purpose, 32))
    return jax.random.fold_in(key, step)


def per_example(key: jax.Array, positions: jax.Array) -> jax.Array:
    """One key per example: key array [B] for int positions [B] in the global batch."""
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)


def generator(seed: int, purpose: str, epoch: int = 0) -> np.random.Generator:
    """A NumPy generator (Philox) for one purpose and epoch, independent of any call made before."""
    entropy = [seed, _number(purpose, 64), epoch]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
