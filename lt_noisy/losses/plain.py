"""Cross-entropy, and what weighs it by how hard an example is."""

import math

import jax.numpy as jnp

from lt_noisy.errors import UserError
from lt_noisy.losses.common import at_target, log_complement, log_softmax, stateless
from lt_noisy.method import Method, State


def cross_entropy() -> Method:
    """Softmax cross-entropy: l = -log p_y.

    The method takes logits [B, C] and int [B] or soft [B, C] targets; it keeps no state.
    """

    def apply(state: State, outputs, targets, rows, step):
        return at_target(-log_softmax(outputs), targets), state

    return Method(stateless, apply)


def focal(gamma: float = 1.0) -> Method:
    """Focal loss: l = -(1 - p_y)^gamma log p_y.

    Lin et al., "Focal Loss for Dense Object Detection" (2017), on softmax instead of sigmoids, without class weights
    (their alpha). The gradient flows through the factor too. gamma = 0 is cross-entropy.

    Args:
      gamma: finite, at least 0: how much less an example counts that is classified well. Yang & Xu, "Rethinking the
        Value of Labels" (2020), use 1.

    The method takes logits [B, C] and int [B] or soft [B, C] targets (the expected loss); it keeps no state.
    """
    if not 0 <= gamma < math.inf:
        raise UserError(f"gamma must be a finite number, at least 0, not {gamma!r}")

    def apply(state: State, outputs, targets, rows, step):
        log_p = log_softmax(outputs)
        # As a power of 1 - p the gradient would be NaN at p = 1 for gamma below 1.
        return at_target(-jnp.exp(gamma * log_complement(log_p)) * log_p, targets), state

    return Method(stateless, apply)
