"""SuperLoss: how much each example counts, by its own loss."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy import collectives
from lt_noisy.errors import check_positive
from lt_noisy.method import Context, Method, State
from lt_noisy.precision import to_float

Threshold = Literal["log_classes", "running_mean", "global_mean"]


def superloss(losses: jax.Array, threshold: jax.Array | float, lam: float = 1.0) -> jax.Array:
    """SuperLoss of any losses: (l - t) s + lam (log s)^2 at the minimising s (`superloss_weight`).

    s is a constant in the backward pass, so the derivative with respect to l is s exactly (and would be without that,
    s being the minimiser). Examples with loss above t get less than their gradient, those below more, up to e times.
    The value is 0 at l = t and negative below. As lam -> infinity the gradient is that of l. It is not linear in l.

    Args:
      losses: l, float32 [B].
      threshold: t, []. For cross-entropy log C, the loss of a uniform guess, or a running mean of l.
      lam: above 0; the smaller, the stronger the weighting. A secondary source reports 1 on CIFAR-10 and 0.25 on
        CIFAR-100 for the paper.

    Returns:
      float32 [B].

    References:
      Castells, Weinzaepfel & Revaud, "SuperLoss: A Generic Loss for Robust Curriculum Learning" (2020).
    """
    weight = superloss_weight(jax.lax.stop_gradient(losses), threshold, lam)
    return (losses - threshold) * weight + lam * jnp.log(weight) ** 2


def superloss_weight(losses: jax.Array, threshold: jax.Array | float, lam: float) -> jax.Array:
    """SuperLoss's optimal weight: s = exp(-W0(max(-2/e, (l - t) / lam) / 2)).

    In (0, e], decreasing in l, 1 exactly at l = t, e exactly where (l - t) / lam <= -2/e. Adds only a few units in the
    last place to the rounding of (l - t) / lam, at the clamp too.

    Args:
      losses: l, float32 [...].
      threshold: t, [].
      lam: above 0.

    Returns:
      float32 [...]. Not meant to be differentiated, as `lambertw0` is not.

    References:
      Castells et al. (2020), as of `superloss`.
    """
    # The max is lambertw0's own: it gives -1 from -1/e downwards.
    return jnp.exp(-lambertw0((losses - threshold) / (2 * lam)))


# 1/e is not a float32. With it in two parts, x + 1/e is exact near the branch point, where its root is taken.
_INVERSE_E = float(np.float32(math.exp(-1)))
_INVERSE_E_REST = math.exp(-1) - _INVERSE_E


def lambertw0(x: jax.Array) -> jax.Array:
    """The principal branch of Lambert's W: W0(x) exp(W0(x)) = x.

    The branch-point series or log1p, then 8 Halley steps. Relative error under 1e-6 on [-1/e, 1e37].

    Args:
      x: float [...]. Below -1/e, where W0 is not real, the result is -1 = W0(-1/e). NaN gives NaN.

    Returns:
      float32 [...]. Not meant to be differentiated (W0' is infinite at -1/e).

    References:
      Corless et al., "On the Lambert W function" (1996). Deviation from the textbook step: near -1/e, w exp(w) - x
      loses half of float32's digits (3e-4 in w, NaN at the end point). There we take the same residual over exp(w) as
      v + expm1(-v) - p exp(-v) with v = 1 + w and p = 1 + e x, which does not cancel; elsewhere as w - x exp(-w), which
      does not overflow.
    """
    x = to_float(x)
    # Not e * (x + a + b): XLA folds the two constants into one, and the low part is lost.
    p = math.e * (x + _INVERSE_E) + math.e * _INVERSE_E_REST
    below = p <= 0
    x, p = jnp.where(below, 0.0, x), jnp.where(below, 1.0, p)
    q = jnp.sqrt(2 * p)
    w = jnp.where(x < 0, -1 + q - q**2 / 3 + 11 * q**3 / 72, jnp.log1p(x))
    near = x < -0.25
    for _ in range(8):
        v = 1 + w
        residual = jnp.where(near, v + jnp.expm1(-v) - p * jnp.exp(-v), w - x * jnp.exp(-w))
        w = w - residual / (v - residual * (v + 1) / (2 * v))
    return jnp.where(below, -1.0, w)


def make_superloss(inner: Method, lam: float = 1.0, threshold: Threshold = "log_classes") -> Method:
    """`superloss` of `inner`'s losses; keeps t, and `inner`'s state under "inner".

    The batch mean weighs every row alike, over devices of equal batch: training batches hold no padding and no image
    that is not trained on. As it is not linear in the target, with `mixup` it weighs the mixed loss.

    Args:
      inner: the loss that gives l.
      lam: as there.
      threshold: what t is. `log_classes`: log C, the cross-entropy of a uniform guess, for an `inner` on that
        scale (`gce` is not: it stays below 1/q). `running_mean`: the mean of l over the first global batch,
        then 0.9 t + 0.1 (batch mean). `global_mean`: the mean of l over every batch so far, this one included. Both
        are updated *before* they are used (this order is ours, not checked against the authors' code).
        With `logit_adjusted` inside, log C distrusts the tail from the first step on: an untrained network's loss
        there is -log pi_y, above log C.
    """
    check_positive(lam=lam)
    init_threshold, update_threshold = _THRESHOLDS[threshold]

    def init(context: Context) -> State:
        return {"inner": inner.init(context), "threshold": init_threshold(context)}

    def apply(state: State, outputs, targets, rows, step):
        losses, inner_state = inner.apply(state["inner"], outputs, targets, rows, step)
        threshold_state = update_threshold(state["threshold"], jax.lax.stop_gradient(losses))
        values = superloss(losses, threshold_state["value"], lam)
        return values, {"inner": inner_state, "threshold": threshold_state}

    return inner._replace(init=init, apply=apply)


def _log_classes(context: Context) -> State:
    return {"value": jnp.float32(math.log(context.num_classes))}


def _keep(state: State, losses: jax.Array) -> State:
    return state


def _not_started(context: Context) -> State:
    return {"value": jnp.float32(0), "started": jnp.zeros((), bool)}


def _running_mean(state: State, losses: jax.Array) -> State:
    mean = collectives.mean(losses)
    value = jnp.where(state["started"], 0.9 * state["value"] + 0.1 * mean, mean)
    return {"value": value, "started": jnp.ones((), bool)}


def _no_batches(context: Context) -> State:
    return {"value": jnp.float32(0), "batches": jnp.int32(0)}


def _mean_so_far(state: State, losses: jax.Array) -> State:
    batches = state["batches"] + 1
    mean = collectives.mean(losses)
    value = state["value"] + (mean - state["value"]) / batches.astype(mean.dtype)
    return {"value": value, "batches": batches}


_THRESHOLDS = {
    "log_classes": (_log_classes, _keep),
    "running_mean": (_not_started, _running_mean),
    "global_mean": (_no_batches, _mean_so_far),
}
