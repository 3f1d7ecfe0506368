"""Mixing examples of a batch before the forward pass: images, targets and weights, all alike.

A mix is `mix(key, images, targets, weights) -> (images, targets, weights)`, per-device, on float32 images [B, H, W, C],
soft targets [B, C] and weights [B]. Partners come from the global batch and `key` is the same on every device, so the
device count changes nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lt_noisy.collectives import gather, global_size, positions
from lt_noisy.config.spec import table
from lt_noisy.errors import UserError

Mix = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


def none() -> None:
    """Examples as they are."""
    return None


def mixup(alpha: float = 1.0) -> Mix:
    """Mixup: x = lam x_i + (1 - lam) x_j, one lam ~ Beta(alpha, alpha) a batch, j a permutation.

    For a loss that is linear in its target, as all of `losses` are but `superloss`, training on the mixed target is lam
    l(y_i) + (1 - lam) l(y_j). Weights mix alike, and the target by weighted shares, so that an example of weight 0
    leaves nothing of its label.

    Args:
      alpha: above 0; 1 draws lam uniformly.

    References:
      Zhang et al. (2018).
    """
    if not 0 < alpha < 1e6:
        raise UserError(f"alpha is above 0 and below 1e6, not {alpha}")

    def mix(key, images, targets, weights):
        partner = permutation(jax.random.fold_in(key, 0), len(images))
        lam = jax.random.beta(jax.random.fold_in(key, 1), alpha, alpha)
        own, other = lam * weights, (1 - lam) * gather(weights)[partner]
        total = own + other
        share = (own / jnp.where(total > 0, total, 1.0))[:, None]
        mixed = lam * images + (1 - lam) * gather(images)[partner]
        return mixed, share * targets + (1 - share) * gather(targets)[partner], total

    return mix


def permutation(key: jax.Array, local_size: int) -> jax.Array:
    """This device's part int32 [local_size] of a permutation of the global batch."""
    return jax.random.permutation(key, global_size(local_size))[positions(local_size)]


MIXES = table({"none": none, "mixup": mixup})
