"""Supervised losses: logits and targets -> one loss per example.

Every loss here is a matrix of per-class losses `l [B, C]`, where `l[i, c]` is what example i costs if its
label is c, read at the target: `l[i, y_i]` for integer targets, the expectation `sum_c t[i, c] l[i, c]` for
soft ones. So every loss takes both kinds, and a soft target that is one-hot gives the integer's value.

All of it is float32 from log-softmax, whatever dtype the logits come in, and finite in value and gradient at
logits of +-200. Notation: f logits, p = softmax(f), y the target, n_c the observed count of class c.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy import collectives
from lt_noisy.method import Context, Method, State
from lt_noisy.spec import UserError, nearest


def cross_entropy() -> Method:
    """Softmax cross-entropy: l = -log p_y.

    The method takes logits [B, C] and int [B] or soft [B, C] targets; it keeps no state.
    """

    def apply(state: State, outputs, targets, rows, step):
        return _at_target(-_log_softmax(outputs), targets), state

    return Method(_stateless, apply)


def logit_adjusted(tau: float = 1.0) -> Method:
    """Logit-adjusted cross-entropy: l = -log softmax(f + tau log pi)_y, pi the *observed* class prior.

    Menon et al., "Long-tail learning via logit adjustment" (2021), eq. 10. Predict with plain f. tau = 0, or
    a uniform prior, is `cross_entropy` bit for bit. Classes without observed examples: see `log_prior`.

    Args:
      tau: strength, finite and at least 0. 1 is the consistent choice; it scales the logarithm of the prior.

    The method takes logits [B, C] and int [B] or soft [B, C] targets; it keeps the log prior.
    """
    if not 0 <= tau < math.inf:
        raise UserError(f"tau must be a finite number, at least 0, not {tau!r}")

    def init(context: Context) -> State:
        return {"log_prior": jnp.asarray(log_prior(context.counts), jnp.float32)}

    def apply(state: State, outputs, targets, rows, step):
        adjusted = outputs.astype(jnp.float32) + tau * state["log_prior"]
        return _at_target(-_log_softmax(adjusted), targets), state

    return Method(init, apply)


def balanced_softmax() -> Method:
    """Balanced softmax: l = -log( n_y exp f_y / sum_c n_c exp f_c ), n the *observed* counts.

    Ren et al., "Balanced Meta-Softmax" (2020). As softmax ignores a shift, f + log n and f + log pi are one
    loss: this is `logit_adjusted(tau=1.0)` under the name the field also knows it by.

    The method takes logits [B, C] and int [B] or soft [B, C] targets; it keeps the log prior.
    """
    return logit_adjusted(tau=1.0)


def gce(q: float = 0.7) -> Method:
    """Generalised cross-entropy: l = (1 - p_y^q) / q.

    Zhang & Sabuncu, "Generalized Cross Entropy Loss" (2018), without truncation. q -> 0 is cross-entropy;
    q = 1 is 1 - p_y, half the mean absolute error. The gradient is p_y^q times that of cross-entropy: an
    example that the model contradicts counts little.

    Args:
      q: in (0, 1]. 0.7 is the paper's.

    The method takes logits [B, C] and int [B] or soft [B, C] targets (the expected loss, not a loss of the
    expected probability); it keeps no state.
    """
    if not 0 < q <= 1:
        raise UserError(f"q must be in (0, 1], not {q!r} (as q -> 0 the loss is cross_entropy())")

    def apply(state: State, outputs, targets, rows, step):
        # 1 - p**q cancels as q -> 0, and p**q has no gradient where p underflows; expm1 has neither fault.
        return _at_target(-jnp.expm1(q * _log_softmax(outputs)) / q, targets), state

    return Method(_stateless, apply)


def superloss(inner: Method, lam: float = 1.0, threshold: str = "log_classes") -> Method:
    """SuperLoss around `inner`: (l - t) s + lam (log s)^2 at the minimising s (`superloss_weight`).

    Castells, Weinzaepfel & Revaud, "SuperLoss" (2020). s is a constant in the backward pass, as in the paper,
    so the derivative with respect to l is s exactly (and would be without that, s being the minimiser).
    Examples with loss above t get less than their gradient, those below more, up to e times. The value is 0
    at l = t and negative below. As lam -> infinity the gradient is `inner`'s.

    Args:
      inner: the loss that gives l.
      lam: above 0; the smaller, the stronger the weighting. A secondary source reports 1 on
        CIFAR-10 and 0.25 on CIFAR-100 for the paper.
      threshold: what t is. `log_classes`: log C, the cross-entropy of a uniform guess, for an `inner` on that
        scale (`gce` is not: it stays below 1/q). `running_mean`: the mean of l over the first global batch,
        then 0.9 t + 0.1 (batch mean), updated *before* it is used (this order is ours, not checked against
        the authors' code). With `logit_adjusted` inside, log C distrusts the tail from the first step on: an
        untrained network's loss there is -log pi_y, above log C.

    The method takes logits [B, C] and what targets `inner` takes; it keeps t, and `inner`'s state under
    "inner". The batch mean weighs every row alike, over devices of equal batch: training batches hold no
    padding.
    """
    if not 0 < lam < math.inf:
        raise UserError(f"lam must be a finite number above 0, not {lam!r}")
    if threshold not in _THRESHOLDS:
        known = " or ".join(_THRESHOLDS)
        raise UserError(f"threshold must be {known}, not {threshold!r}{nearest(threshold, _THRESHOLDS)}")
    init_threshold, update_threshold = _THRESHOLDS[threshold]

    def init(context: Context) -> State:
        return {"inner": inner.init(context), "threshold": init_threshold(context)}

    def apply(state: State, outputs, targets, rows, step):
        losses, inner_state = inner.apply(state["inner"], outputs, targets, rows, step)
        constant = jax.lax.stop_gradient(losses)
        threshold_state = update_threshold(state["threshold"], constant)
        t = threshold_state["value"]
        weight = superloss_weight(constant, t, lam)
        values = (losses - t) * weight + lam * jnp.log(weight) ** 2
        return values, {"inner": inner_state, "threshold": threshold_state}

    return Method(init, apply)


def superloss_weight(losses: jax.Array, threshold: jax.Array | float, lam: float) -> jax.Array:
    """SuperLoss's optimal weight s* = exp(-W0(max(-2/e, (l - t) / lam) / 2)): losses [...] -> [...].

    Castells et al. (2020). In (0, e], decreasing in l, 1 exactly at l = t, e exactly where
    (l - t) / lam <= -2/e. Adds only a few units in the last place to the rounding of
    (l - t) / lam, at the clamp too.
    """
    # The max is lambertw0's own: it gives -1 from -1/e downwards.
    return jnp.exp(-lambertw0((losses - threshold) / (2 * lam)))


# 1/e is not a float32. With it in two parts, x + 1/e is exact near the branch point, where its root is taken.
_INVERSE_E = float(np.float32(math.exp(-1)))
_INVERSE_E_REST = math.exp(-1) - _INVERSE_E


def lambertw0(x: jax.Array) -> jax.Array:
    """The principal branch of Lambert's W, W0(x) exp(W0(x)) = x, in float32: [...] -> [...].

    Corless et al., "On the Lambert W function" (1996): the branch-point series or log1p, then 8 Halley steps.
    Relative error under 1e-6 on [-1/e, 1e37]. Below -1/e, where W0 is not real, it gives -1 = W0(-1/e). NaN
    gives NaN. Not meant to be differentiated (W0' is infinite at -1/e).

    Deviation from the textbook step: near -1/e, w exp(w) - x loses half of float32's digits (3e-4 in w, NaN
    at the end point). There we take the same residual over exp(w) as v + expm1(-v) - p exp(-v) with v = 1 + w
    and p = 1 + e x, which does not cancel; elsewhere as w - x exp(-w), which does not overflow.
    """
    x = jnp.asarray(x, jnp.float32)
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


def log_prior(counts: np.ndarray) -> np.ndarray:
    """log pi up to a constant: observed counts int [C] -> log(n_c / max n) float64 [C], at most 0.

    Softmax ignores the constant; taking the largest as 0 makes a uniform prior exactly zero. A class without
    observed examples counts as having one: its log prior is finite, no class is rarer, and as only the ratios
    of counts matter the other classes are as they were. (With -inf it would leave the softmax, so that
    nothing would ever push its logit down, and plain f could predict it.)
    """
    counts = np.maximum(np.asarray(counts, np.float64), 1)
    return np.log(counts / counts.max())


def _log_softmax(outputs: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(outputs.astype(jnp.float32))


def _at_target(per_class: jax.Array, targets: jax.Array) -> jax.Array:
    """Per-class losses [B, C] at int [B] targets, or expected under soft [B, C] ones: float32 [B]."""
    if targets.ndim == per_class.ndim:
        return (targets.astype(jnp.float32) * per_class).sum(-1)
    return jnp.take_along_axis(per_class, targets[:, None], axis=-1)[:, 0]


def _stateless(context: Context) -> State:
    return {}


def _log_classes(context: Context) -> State:
    return {"value": jnp.float32(math.log(context.num_classes))}


def _keep(state: State, losses: jax.Array) -> State:
    return state


def _not_started(context: Context) -> State:
    return {"value": jnp.float32(0), "started": jnp.zeros((), bool)}


def _running_mean(state: State, losses: jax.Array) -> State:
    mean = jax.lax.pmean(losses.mean(), collectives.AXIS)
    value = jnp.where(state["started"], 0.9 * state["value"] + 0.1 * mean, mean)
    return {"value": value, "started": jnp.ones((), bool)}


_THRESHOLDS = {"log_classes": (_log_classes, _keep), "running_mean": (_not_started, _running_mean)}

LOSSES = {
    "cross_entropy": cross_entropy,
    "logit_adjusted": logit_adjusted,
    "balanced_softmax": balanced_softmax,
    "gce": gce,
    "superloss": superloss,
}
