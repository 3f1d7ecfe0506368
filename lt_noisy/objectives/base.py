"""Self-supervised objectives: views of each image in, one loss per image out.

A table entry is a factory that returns an `Objective`: how the views are made and which of them go through the
network and its target, the heads it needs, and the `Method` on their `Outputs`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lt_noisy.augment.base import Augment, views
from lt_noisy.errors import UserError
from lt_noisy.method import Context, Method, State
from lt_noisy.precision import to_float

Build = Callable[..., nn.Module]  # build(dtype, norm_axis) -> module
Targets = Any  # what the views are to be told apart by, such as int32 [B]; None where the task has nothing of the kind
# (augment, key, images uint8 [B, H, W, C], positions [B]) -> (views float32 [B, H, W, C], targets)
Views = Callable[[Augment, jax.Array, jax.Array, jax.Array], tuple[tuple[jax.Array, ...], Targets]]
Decay = Callable[[jax.Array], jax.Array | float]


class Outputs(NamedTuple):
    """What the networks make of the views: tuples of float32 [B, D], in the objective's order of views.

    Attributes:
      projections: of the trained network, for the views `Objective.online`.
      predictions: of its predictor on them; none without one.
      targets: projections of the target network, for the views `Objective.target`; no gradient flows into them.
    """

    projections: tuple[jax.Array, ...]
    predictions: tuple[jax.Array, ...] = ()
    targets: tuple[jax.Array, ...] = ()


def two_views(
    augment: Augment, key: jax.Array, images: jax.Array, positions: jax.Array
) -> tuple[tuple[jax.Array, ...], Targets]:
    """Two independent augmentations of uint8 [B, H, W, C], float32 each, and no targets."""
    return views(augment, key, images, positions), None


def _nothing(state: State, step: int) -> dict[str, float]:
    return {}


class Objective(NamedTuple):
    """A self-supervised objective.

    Attributes:
      method: the loss on `Outputs` and the views' targets.
      projector: builds the head on the encoder's features.
      predictor: builds the head on the projection, or None.
      views: makes the views of a batch, and targets where the task has some.
      draws: how many of them are augmented from the image on their own; the others are made of those.
      online: which views go through the network.
      joint: they go in one pass, sharing BatchNorm statistics; else one by one.
      target: which views go through the target network, one by one; empty where there is none. It trains by no
        gradient: its parameters are an exponential moving average, its BatchNorm uses batch statistics of its own.
      decay: `decay(total_steps) -> (step -> decay of that average)`.
      watch: `watch(method state on the host, step) -> figures` for the metrics file.
    """

    method: Method
    projector: Build
    predictor: Build | None = None
    views: Views = two_views
    draws: int = 2
    online: tuple[int, ...] = (0, 1)
    joint: bool = False
    target: tuple[int, ...] = ()
    decay: Callable[[int], Decay] | None = None
    watch: Callable[[State, int], dict[str, float]] = _nothing


def normalise(x: jax.Array) -> jax.Array:
    """x / ||x|| along the last axis, float32; 0, and with gradient 0, where ||x|| is below 1e-6."""
    x = to_float(x)
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    there = square > 1e-12
    # The square that is not used is 1, or its gradient would be infinite, and 0 times that is NaN.
    return x * jnp.where(there, jax.lax.rsqrt(jnp.where(there, square, 1)), 0)


def stateless(loss: Callable[[Outputs, Targets], jax.Array], least: int = 1) -> Method:
    """The method of a `loss(outputs, targets) -> float32 [B]` that keeps nothing.

    Its `init` raises `UserError` for batches of fewer than `least` images.
    """

    def init(context: Context) -> dict:
        if context.batch_size < least:
            raise UserError(f"it takes batches of at least {least} images, not {context.batch_size}")
        return {}

    def apply(state, outputs, targets, rows, step):
        return loss(outputs, targets), state

    return Method(init, apply)
