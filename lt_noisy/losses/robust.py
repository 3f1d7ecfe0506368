"""Losses that bound what a wrong label can cost."""

import math

import jax.numpy as jnp

from lt_noisy.errors import UserError
from lt_noisy.losses.common import at_target, check_start, first_step, log_softmax, stateless
from lt_noisy.method import Context, Method, State


def mae() -> Method:
    """Mean absolute error: l = |onehot(y) - p|_1 = 2 (1 - p_y).

    Ghosh, Kumar & Sastry, "Robust Loss Functions under Label Noise for Deep Neural Networks" (2017). Twice `gce(q=1)`.

    The method takes logits [B, C] and int [B] or soft [B, C] targets (the expected loss, not |t - p|_1); it keeps no
    state.
    """

    def apply(state: State, outputs, targets, rows, step):
        return at_target(-2 * jnp.expm1(log_softmax(outputs)), targets), state

    return Method(stateless, apply)


def gce(q: float = 0.7, truncate: float = 0.0, start: float = 0.0) -> Method:
    """Generalised cross-entropy: l = (1 - p_y^q) / q; truncated, l = (1 - k^q) / q where p_y <= k.

    Zhang & Sabuncu, "Generalized Cross Entropy Loss" (2018). q -> 0 is cross-entropy; q = 1 is 1 - p_y, half the mean
    absolute error. The gradient is p_y^q times that of cross-entropy: an example that the model contradicts counts
    little, and under truncation, while p_y <= k, not at all.

    Deviation: the paper trains its truncated loss by alternation, deciding for the whole set which examples to leave
    out, then training on the rest for a while. Here the same condition, p_y <= k, is evaluated in every batch by the
    network in training. An example left out has no gradient of its own, but comes back when others raise its p_y.

    Args:
      q: in (0, 1]. 0.7 is the paper's.
      truncate: k, in [0, 1). 0 never truncates. Above p_y of an untrained network, 1/C, it needs a `start`: without
        one nothing would train.
      start: fraction of the stage, 0 to 1, after which truncation begins.

    The method takes logits [B, C] and int [B] or soft [B, C] targets (the expected loss, not a loss of the
    expected probability; each class truncates by itself); it keeps the step where truncation begins.
    """
    if not 0 < q <= 1:
        raise UserError(f"q must be in (0, 1], not {q!r} (as q -> 0 the loss is cross_entropy())")
    if not 0 <= truncate < 1:
        raise UserError(f"truncate must be a probability in [0, 1), not {truncate!r}")
    check_start(start)
    if start and not truncate:
        raise UserError(f"start={start} says when truncation begins, and truncate=0 never truncates")
    log_k = math.log(truncate) if truncate else -math.inf

    def init(context: Context) -> State:
        return {"start": first_step(start, context)}

    def apply(state: State, outputs, targets, rows, step):
        log_p = log_softmax(outputs)
        cut = (log_p <= log_k) & (step >= state["start"])
        # 1 - p**q cancels as q -> 0, and p**q has no gradient where p underflows; expm1 has neither fault.
        per_class = -jnp.expm1(q * jnp.where(cut, log_k, log_p)) / q
        return at_target(per_class, targets), state

    return Method(init, apply)


def symmetric_cross_entropy(alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0) -> Method:
    """Symmetric cross-entropy: l = alpha (-log p_y) + beta (-A) (1 - p_y).

    Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels" (2019). The second term is the reverse
    cross-entropy -sum_c p_c log t_c of a one-hot t, with log 0 defined as A. alpha = 1, beta = 0 is cross-entropy.

    Args:
      alpha, beta: weights, finite and at least 0, not both 0. Settings in use: 0.1 and 1 on CIFAR-10, 6 and 0.1 on
        CIFAR-100.
      log_zero: A, finite and below 0. Values in use: -4, and log(1e-4) = -9.21, what a one-hot target clipped at 1e-4
        gives, as in code that follows the authors'. beta and A only matter as a product.

    The method takes logits [B, C] and int [B] or soft [B, C] targets (the expected loss of a label drawn from t: the
    reverse term is linear in t, not log t); it keeps no state.
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value < math.inf:
            raise UserError(f"{name} must be a finite number, at least 0, not {value!r}")
    if not alpha and not beta:
        raise UserError("alpha and beta are both 0: nothing would be learnt")
    if not -math.inf < log_zero < 0:
        raise UserError(f"log_zero must be a finite number below 0, not {log_zero!r}")

    def apply(state: State, outputs, targets, rows, step):
        log_p = log_softmax(outputs)
        return at_target(-alpha * log_p + beta * log_zero * jnp.expm1(log_p), targets), state

    return Method(stateless, apply)
