"""What a per-device function may know of the other devices: one axis name and what is done over it.

Every step, loss and objective runs inside an axis called `AXIS` (shard_map or pmap; one device is an
axis of size one). With these semantics the right gradient of a global loss is: differentiate the *local*
share (local sum over global weight; see `share`), then `psum` the gradients.

Outside of that axis, in another program's loop, a batch is the whole one: so it is under a plain `jit`, whatever
devices its arrays lie on.
"""

import jax
import jax.numpy as jnp

AXIS = "data"


def _inside() -> bool:
    """Whether the axis is there."""
    try:
        jax.lax.axis_size(AXIS)
    except NameError:
        return False
    return True


def positions(local_size: int) -> jax.Array:
    """Positions int32 [local_size] of this device's examples in the global batch."""
    own = jnp.arange(local_size, dtype=jnp.int32)
    return jax.lax.axis_index(AXIS) * local_size + own if _inside() else own


def global_size(local_size: int) -> int:
    """Examples in the global batch, a static number."""
    return local_size * (jax.lax.axis_size(AXIS) if _inside() else 1)


def gather(x: jax.Array) -> jax.Array:
    """[B_local, ...] of every device, in order: [B_global, ...]."""
    return jax.lax.all_gather(x, AXIS, tiled=True) if _inside() else x


def mean(values: jax.Array) -> jax.Array:
    """The mean over the global batch, shape [], of values [B_local] of devices with equally many."""
    return jax.lax.pmean(values.mean(), AXIS) if _inside() else values.mean()


def share(values: jax.Array, weights: jax.Array) -> jax.Array:
    """This device's share of the weighted mean: sum(w v) / psum(sum w), shape [].

    Summed over the devices (`psum`) it is the weighted mean, and so are its gradients. Zero total weight
    gives 0. A weight of 0 removes an example's value exactly, even one that is not finite (its gradient then is not).
    """
    total = jax.lax.psum(weights.sum(), AXIS) if _inside() else weights.sum()
    values = jnp.where(weights > 0, values, 0.0)
    return (weights * values).sum() / jnp.where(total > 0, total, 1.0)
