"""Cross-entropy, and what weighs it by how hard an example is."""

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.errors import UserError, check_below_one, check_not_negative
from lt_noisy.losses.common import at_target, class_balanced_weights, log_complement, log_softmax
from lt_noisy.losses.factory import check_start, first_step, from_formula
from lt_noisy.method import Context, Method, State


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Softmax cross-entropy: l = -log p_y.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C].

    Returns:
      float32 [B].
    """
    return at_target(-log_softmax(logits), targets)


def focal(
    logits: jax.Array, targets: jax.Array, gamma: float = 1.0, weights: jax.Array | np.ndarray | None = None
) -> jax.Array:
    """Focal loss: l = -(1 - p_y)^gamma log p_y; with class weights l = -(1 - p_y^w_y)^gamma w_y log p_y.

    The gradient flows through the factor too. gamma = 0 is cross-entropy. The weights are inside the factor as in the
    program of Yang & Xu, which puts weighted cross-entropy into the formula and takes the plain mean over the batch. (A
    weighted mean of the loss without weights, what a stage's `reweight` makes of it, is another loss.)

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C] (the expected loss).
      gamma: finite, at least 0: how much less an example counts that is classified well. Yang & Xu, "Rethinking the
        Value of Labels" (2020), use 1.
      weights: w, [C], above 0; None for 1.

    Returns:
      float32 [B].

    References:
      Lin et al., "Focal Loss for Dense Object Detection" (2017). Deviation: on softmax instead of sigmoids.
    """
    log_p = log_softmax(logits)
    log_q = log_complement(log_p)
    if weights is None:
        # As a power of 1 - p the gradient would be NaN at p = 1 for gamma below 1.
        return at_target(-jnp.exp(gamma * log_q) * log_p, targets)
    w, q = jnp.asarray(weights, log_p.dtype)[None], jnp.exp(log_q)
    # log p has no digits left where p is nearly 1; q has all of its.
    log_p = jnp.where(q < 0.5, jnp.log1p(-jnp.where(q < 0.5, q, 0.0)), log_p)
    gone = q < 1e-30
    ratio = jnp.where(gone, w, -jnp.expm1(w * log_p) / jnp.where(gone, 1.0, q))  # (1 - p^w) / (1 - p)
    return at_target(-jnp.exp(gamma * (log_q + jnp.log(ratio))) * w * log_p, targets)


def make_cross_entropy() -> Method:
    """`cross_entropy`; keeps nothing."""
    return from_formula(cross_entropy)


def make_focal(gamma: float = 1.0, beta: float = 0.0, start: float = 0.0) -> Method:
    """`focal`; keeps its class weights, where it has some.

    Args:
      gamma: as there.
      beta: of class weights by effective number (`class_balanced_weights`) inside the loss; 0 for none. Yang & Xu have
        0.9999. The stage's `reweight` is then `none()`.
      start: fraction of the stage, 0 to 1, after which they hold: 0.8 is their deferred re-weighting.
    """
    check_not_negative(gamma=gamma)
    check_start(start)
    check_below_one(beta=beta)
    if not beta:
        if start:
            raise UserError(f"start={start} says when class weights begin, and beta=0 has none")
        return from_formula(focal, gamma=gamma)

    def init(context: Context) -> State:
        weights = class_balanced_weights(context.counts, beta).astype(np.float32)
        return {"weights": weights, "start": first_step(start, context)}

    def apply(state: State, outputs, targets, rows, step):
        weights = jnp.where(step >= state["start"], state["weights"], 1.0)
        return focal(outputs, targets, gamma, weights), state

    return Method(init, apply, weighs=True)
