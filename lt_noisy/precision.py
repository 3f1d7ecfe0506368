"""The precision of losses, statistics, features and pixels, whatever the network computes in: float32.

Where this package says float32 of what is computed on the device, it means this: in JAX's x64 mode it is float64, so
that two ways of computing the same can be compared without rounding.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def float_dtype() -> jnp.dtype:
    """float32, or float64 in x64 mode."""
    return jnp.result_type(float)


def sum_dtype(x: jax.Array) -> jnp.dtype:
    """What the numbers of an array are added up in: float32, or their own type where that is wider."""
    return x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.dtype(jnp.float32)


def to_float(x: ArrayLike | Sequence[float]) -> jax.Array:
    """Numbers of any dtype [...] in that precision: [...]."""
    return jnp.asarray(x, float_dtype())
