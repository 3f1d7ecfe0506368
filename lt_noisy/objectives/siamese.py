"""Objectives without negatives: one view predicts what a network makes of the other (SimSiam, BYOL)."""

import jax
import jax.numpy as jnp

from lt_noisy.errors import check_proportion, check_sizes
from lt_noisy.models.heads import MLP
from lt_noisy.models.initial import MLPInit
from lt_noisy.objectives.base import Decay, Objective, Outputs, Targets, normalise, stateless
from lt_noisy.precision import to_float


def negative_cosine(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """-cos(prediction, stop_gradient(target)) per example: [B, D], [B, D] -> float32 [B] in [-1, 1]."""
    return -jnp.sum(normalise(prediction) * jax.lax.stop_gradient(normalise(target)), axis=-1)


def simsiam(size: int = 2048, hidden: int = 512, layers: int = 2, init: MLPInit = "lecun") -> Objective:
    """SimSiam: L = (D(p1, z2) + D(p2, z1)) / 2, D the negative cosine, z without gradient.

    Projector of `layers` linear layers of `size` with BatchNorm on each, the last without affine (2 layers on CIFAR, 3
    on ImageNet); predictor size-hidden-size with BatchNorm on the hidden layer. One pass per view. `init`: how the
    linear layers start (`MLP`); "torch" is that of Liu et al. 2022. Theirs have a bias before BatchNorm too, which does
    nothing.

    References:
      Chen & He (2021), alg. 1.
    """
    check_sizes(size=size, hidden=hidden, layers=layers)

    def loss(outputs: Outputs, _: Targets) -> jax.Array:
        (z1, z2), (p1, p2) = outputs.projections, outputs.predictions
        return 0.5 * (negative_cosine(p1, z2) + negative_cosine(p2, z1))

    return Objective(
        method=stateless(loss),
        projector=lambda dtype, norm_axis: MLP(
            (size,) * layers, norm=True, norm_last=True, dtype=dtype, norm_axis=norm_axis, start=init
        ),
        predictor=lambda dtype, norm_axis: MLP((hidden, size), norm=True, dtype=dtype, norm_axis=norm_axis, start=init),
    )


def byol(momentum: float = 0.99, hidden: int = 1024, size: int = 256, init: MLPInit = "lecun") -> Objective:
    """BYOL: L = 2 - 2 cos(p1, z2') + 2 - 2 cos(p2, z1'), z' of the target network.

    The sum over both directions, as in the paper. Projector and predictor are hidden-size with BatchNorm on the hidden
    layer, and start as `init` says (`MLP`). The target's decay rises from `momentum` to 1: 1 - (1 - momentum)
    (cos(pi k / K) + 1) / 2 at step k of K.

    References:
      Grill et al. (2020), eq. 2.
    """
    check_proportion(momentum=momentum)
    check_sizes(hidden=hidden, size=size)

    def loss(outputs: Outputs, _: Targets) -> jax.Array:
        (p1, p2), (z1, z2) = outputs.predictions, outputs.targets
        return 4.0 + 2.0 * (negative_cosine(p1, z2) + negative_cosine(p2, z1))

    def decay(total_steps: int) -> Decay:
        return lambda step: 1.0 - (1.0 - momentum) * (jnp.cos(jnp.pi * to_float(step) / total_steps) + 1.0) / 2.0

    head = lambda dtype, norm_axis: MLP((hidden, size), norm=True, dtype=dtype, norm_axis=norm_axis, start=init)  # noqa: E731
    return Objective(method=stateless(loss), projector=head, predictor=head, target=(0, 1), decay=decay)
