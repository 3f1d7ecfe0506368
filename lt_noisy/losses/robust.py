"""Losses that bound what a wrong label can cost."""

import math

import jax
import jax.numpy as jnp

from lt_noisy.errors import UserError, check_not_negative
from lt_noisy.losses.common import at_target, log_softmax
from lt_noisy.losses.factory import check_start, first_step, from_formula
from lt_noisy.method import Context, Method, State

LOG_ZERO = math.log(1e-4)  # of symmetric cross-entropy, as released


def mae(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean absolute error: l = |onehot(y) - p|_1 = 2 (1 - p_y), twice `gce` with q = 1.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C] (the expected loss, not |t - p|_1).

    Returns:
      float32 [B].

    References:
      Ghosh, Kumar & Sastry, "Robust Loss Functions under Label Noise for Deep Neural Networks" (2017).
    """
    return at_target(-2 * jnp.expm1(log_softmax(logits)), targets)


def gce(
    logits: jax.Array, targets: jax.Array, q: float = 0.7, truncate: float = 0.0, begun: bool | jax.Array = True
) -> jax.Array:
    """Generalised cross-entropy: l = (1 - p_y^q) / q; truncated, l = (1 - k^q) / q where p_y <= k.

    q -> 0 is cross-entropy; q = 1 is 1 - p_y, half the mean absolute error. The gradient is p_y^q times that of
    cross-entropy: an example that the model contradicts counts little, and under truncation, while p_y <= k, not at
    all.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C] (the expected loss, not a loss of the expected probability; each class truncates
        by itself).
      q: in (0, 1]. 0.7 is the paper's.
      truncate: k, in [0, 1), not traced. 0 never truncates. Above p_y of an untrained network, 1/C, truncation has to
        begin later: nothing would train.
      begun: bool [], whether truncation has begun.

    Returns:
      float32 [B].

    References:
      Zhang & Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels" (2018).
      Deviation: the paper trains its truncated loss by alternation, deciding for the whole set which examples to leave
      out, then training on the rest for a while. Here the same condition, p_y <= k, is evaluated in every batch by the
      network in training. An example left out has no gradient of its own, but comes back when others raise its p_y.
    """
    log_p = log_softmax(logits)
    log_k = math.log(truncate) if truncate else -math.inf
    cut = (log_p <= log_k) & begun
    # 1 - p**q cancels as q -> 0, and p**q has no gradient where p underflows; expm1 has neither fault.
    return at_target(-jnp.expm1(q * jnp.where(cut, log_k, log_p)) / q, targets)


def symmetric_cross_entropy(
    logits: jax.Array, targets: jax.Array, alpha: float = 0.1, beta: float = 1.0, log_zero: float = LOG_ZERO
) -> jax.Array:
    """Symmetric cross-entropy: l = alpha (-log p_y) + beta (-A) (1 - p_y).

    The second term is the reverse cross-entropy -sum_c p_c log t_c of a one-hot t, with log 0 defined as A. alpha = 1,
    beta = 0 is cross-entropy.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C] (the expected loss of a label drawn from t: the reverse term is linear in t, not
        log t).
      alpha: weight of the cross-entropy, finite and at least 0. As released with the A below: alpha 0.1 and beta 1 on
        CIFAR-10, 6 and 0.1 on CIFAR-100.
      beta: weight of the reverse one, likewise; not both are 0.
      log_zero: A, finite and below 0. log(1e-4) = -9.21 is what the released code has, which clips the one-hot target
        at 1e-4. Another value in use is -4. beta and A only matter as a product.

    Returns:
      float32 [B].

    References:
      Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels" (2019).
    """
    log_p = log_softmax(logits)
    return at_target(-alpha * log_p + beta * log_zero * jnp.expm1(log_p), targets)


def make_mae() -> Method:
    """`mae`; keeps nothing."""
    return from_formula(mae)


def make_gce(q: float = 0.7, truncate: float = 0.0, start: float = 0.0) -> Method:
    """`gce`; keeps the step where truncation begins.

    Args:
      q: as there.
      truncate: as there.
      start: fraction of the stage, 0 to 1, after which truncation begins.
    """
    if not 0 < q <= 1:
        raise UserError(f"q must be in (0, 1], not {q!r} (as q -> 0 the loss is cross_entropy())")
    if not 0 <= truncate < 1:
        raise UserError(f"truncate must be a probability in [0, 1), not {truncate!r}")
    check_start(start)
    if start and not truncate:
        raise UserError(f"start={start} says when truncation begins, and truncate=0 never truncates")

    def init(context: Context) -> State:
        return {"start": first_step(start, context)}

    def apply(state: State, outputs, targets, rows, step):
        return gce(outputs, targets, q, truncate, begun=step >= state["start"]), state

    return Method(init, apply)


def make_symmetric_cross_entropy(alpha: float = 0.1, beta: float = 1.0, log_zero: float = LOG_ZERO) -> Method:
    """`symmetric_cross_entropy`, with its arguments; keeps nothing."""
    check_not_negative(alpha=alpha, beta=beta)
    if not alpha and not beta:
        raise UserError("alpha and beta are both 0: nothing would be learnt")
    if not -math.inf < log_zero < 0:
        raise UserError(f"log_zero must be a finite number below 0, not {log_zero!r}")
    return from_formula(symmetric_cross_entropy, alpha=alpha, beta=beta, log_zero=log_zero)
