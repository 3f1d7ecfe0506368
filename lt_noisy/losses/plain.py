"""Cross-entropy, and what weighs it by how hard an example is."""

import jax
import jax.numpy as jnp

from lt_noisy.losses.common import at_target, log_complement, log_softmax
from lt_noisy.losses.factory import check_not_negative, from_formula
from lt_noisy.method import Method


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Softmax cross-entropy: l = -log p_y.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C].

    Returns:
      float32 [B].
    """
    return at_target(-log_softmax(logits), targets)


def focal(logits: jax.Array, targets: jax.Array, gamma: float = 1.0) -> jax.Array:
    """Focal loss: l = -(1 - p_y)^gamma log p_y.

    The gradient flows through the factor too. gamma = 0 is cross-entropy.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C] (the expected loss).
      gamma: finite, at least 0: how much less an example counts that is classified well. Yang & Xu, "Rethinking the
        Value of Labels" (2020), use 1.

    Returns:
      float32 [B].

    References:
      Lin et al., "Focal Loss for Dense Object Detection" (2017). Deviation: on softmax instead of sigmoids.
    """
    log_p = log_softmax(logits)
    # As a power of 1 - p the gradient would be NaN at p = 1 for gamma below 1.
    return at_target(-jnp.exp(gamma * log_complement(log_p)) * log_p, targets)


def make_cross_entropy() -> Method:
    """`cross_entropy`; keeps nothing."""
    return from_formula(cross_entropy)


def make_focal(gamma: float = 1.0) -> Method:
    """`focal`, with its arguments; keeps nothing."""
    check_not_negative(gamma=gamma)
    return from_formula(focal, gamma=gamma)
