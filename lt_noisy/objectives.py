"""Self-supervised objectives: two views of each image in, one loss per image out.

A table entry is a factory that returns an `Objective`: the heads it needs, how the views go through the network,
and the `Method` on their outputs. Outputs are what `outputs` of the stage hold: `projections`, a pair of [B, D]
(one per view), and `predictions`, such a pair where there is a predictor, else None.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from lt_noisy.collectives import gather, positions
from lt_noisy.method import Context, Method
from lt_noisy.models.heads import MLP
from lt_noisy.spec import UserError

Build = Callable[..., nn.Module]  # build(dtype, norm_axis) -> module


class Outputs(NamedTuple):
    """What a network makes of two views: pairs of float32 [B, D], `predictions` None without a predictor."""

    projections: tuple[jax.Array, jax.Array]
    predictions: tuple[jax.Array, jax.Array] | None


class Objective(NamedTuple):
    """A self-supervised objective.

    Attributes:
      method: the loss on `Outputs` (targets are ignored).
      projector: builds the head on the encoder's features.
      predictor: builds the head on the projection, or None.
      joint_views: both views go through the network in one pass, sharing BatchNorm statistics; else one by one.
    """

    method: Method
    projector: Build
    predictor: Build | None
    joint_views: bool


def _normalise(x: jax.Array) -> jax.Array:
    # rsqrt of a clamped square has gradient 0 at the zero vector, where x / ||x|| has NaN.
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def nt_xent(first: jax.Array, second: jax.Array, temperature: float) -> jax.Array:
    """NT-Xent of each image, float32 [B_local]: the mean over its two views as anchors.

    For anchor i with positive j among the 2B normalised projections z of the global batch:
    -log( exp(z_i.z_j / T) / sum_{k != i} exp(z_i.z_k / T) )  (SimCLR, Chen et al. 2020, eq. 1). The similarities are
    one [B_local, 2B] matrix product per view; candidates of other devices are gathered.

    Args:
      first, second: [B_local, D], projections of the two views (normalised here).
      temperature: T.
    """
    first, second = _normalise(first), _normalise(second)
    candidates = jnp.concatenate([gather(first), gather(second)])  # [2B, D]
    half = candidates.shape[0] // 2
    own = positions(first.shape[0])

    def anchor_loss(z: jax.Array, itself: jax.Array, positive: jax.Array) -> jax.Array:
        logits = jnp.matmul(z, candidates.T, precision="highest") / temperature
        columns = jnp.arange(2 * half)
        logits = jnp.where(columns[None] == itself[:, None], -jnp.inf, logits)
        return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, positive[:, None], 1)[:, 0]

    return 0.5 * (anchor_loss(first, own, own + half) + anchor_loss(second, own + half, own))


def negative_cosine(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """-cos(prediction, stop_gradient(target)) per example: [B, D], [B, D] -> float32 [B] in [-1, 1]."""
    return -jnp.sum(_normalise(prediction) * jax.lax.stop_gradient(_normalise(target)), axis=-1)


def _stateless(loss: Callable[[Outputs], jax.Array]) -> Method:
    def init(context: Context) -> dict:
        return {}

    def apply(state, outputs, targets, rows, step):
        return loss(outputs), state

    return Method(init, apply)


def _sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} is at least 1, not {size}")


def simclr(temperature: float = 0.5, hidden: int = 512, size: int = 128) -> Objective:
    """SimCLR (Chen et al. 2020): NT-Xent on a projector features-hidden-size, ReLU, no BatchNorm in it.

    Both views share one pass, so that synchronised BatchNorm sees the whole 2B, as in the authors' code.
    """
    if not temperature > 0:
        raise UserError(f"temperature is positive, not {temperature}")
    _sizes(hidden=hidden, size=size)
    return Objective(
        method=_stateless(lambda outputs: nt_xent(*outputs.projections, temperature)),
        projector=lambda dtype, norm_axis: MLP((hidden, size), norm=False, dtype=dtype, norm_axis=norm_axis),
        predictor=None,
        joint_views=True,
    )


def simsiam(size: int = 2048, hidden: int = 512, layers: int = 2) -> Objective:
    """SimSiam (Chen & He 2021, alg. 1): L = (D(p1, z2) + D(p2, z1)) / 2, D the negative cosine, z without gradient.

    Projector of `layers` linear layers of `size` with BatchNorm on each, the last without affine (2 layers on
    CIFAR, 3 on ImageNet); predictor size-hidden-size with BatchNorm on the hidden layer. One pass per view.
    """
    _sizes(size=size, hidden=hidden, layers=layers)

    def loss(outputs: Outputs) -> jax.Array:
        (z1, z2), (p1, p2) = outputs.projections, outputs.predictions
        return 0.5 * (negative_cosine(p1, z2) + negative_cosine(p2, z1))

    return Objective(
        method=_stateless(loss),
        projector=lambda dtype, norm_axis: MLP(
            (size,) * layers, norm=True, norm_last=True, dtype=dtype, norm_axis=norm_axis
        ),
        predictor=lambda dtype, norm_axis: MLP((hidden, size), norm=True, dtype=dtype, norm_axis=norm_axis),
        joint_views=False,
    )


OBJECTIVES = {"simclr": simclr, "simsiam": simsiam}
