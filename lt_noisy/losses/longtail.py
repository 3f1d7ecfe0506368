"""Losses that know how many examples each class has."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.errors import UserError
from lt_noisy.losses.common import at_target, log_complement, log_softmax
from lt_noisy.method import Context, Method, State


def logit_adjusted(tau: float = 1.0, prior: Literal["observed", "corrected"] = "observed") -> Method:
    """Logit-adjusted cross-entropy: l = -log softmax(f + tau log pi)_y, pi a class prior.

    Menon et al., "Long-tail learning via logit adjustment" (2021), eq. 10. Predict with plain f. tau = 0, or
    a uniform prior, is `cross_entropy` bit for bit. Classes without examples: see `log_prior`.

    Args:
      tau: strength, finite and at least 0. 1 is the consistent choice; it scales the logarithm of the prior.
      prior: what pi is. `observed`: the share of each *observed* class, wrong labels included, as in the paper, which
        knows no wrong ones. `corrected` (ours): the share of each *true* class, as estimated by the `transition` stage
        that the stage's field `transition` names; without one it is a UserError.

    The method takes logits [B, C] and int [B] or soft [B, C] targets; it keeps the log prior.
    """
    if not 0 <= tau < math.inf:
        raise UserError(f"tau must be a finite number, at least 0, not {tau!r}")

    def init(context: Context) -> State:
        return {"log_prior": jnp.asarray(log_prior(_PRIORS[prior](context)), jnp.float32)}

    def apply(state: State, outputs, targets, rows, step):
        adjusted = outputs.astype(jnp.float32) + tau * state["log_prior"]
        return at_target(-log_softmax(adjusted), targets), state

    return Method(init, apply, transition=prior == "corrected")


def balanced_softmax() -> Method:
    """Balanced softmax: l = -log( n_y exp f_y / sum_c n_c exp f_c ), n the *observed* counts.

    Ren et al., "Balanced Meta-Softmax" (2020). As softmax ignores a shift, f + log n and f + log pi are one
    loss: this is `logit_adjusted(tau=1.0)` under the name the field also knows it by.

    The method takes logits [B, C] and int [B] or soft [B, C] targets; it keeps the log prior.
    """
    return logit_adjusted(tau=1.0)


def ldam(max_margin: float = 0.5, scale: float = 30.0) -> Method:
    """Label-distribution-aware margin loss: l = -log softmax(f - scale m_y onehot(y))_y.

    Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss" (2019). The margins are
    m_c = max_margin n_c^(-1/4) / max_k n_k^(-1/4), n the *observed* counts, the maximum over classes with examples; one
    without has max_margin. Predict with plain f. max_margin = 0 is cross-entropy.

    Deviation in form only: the paper's loss multiplies cosines by its scale. Here the head does (`cosine(scale=30)`),
    so the logits come scaled, and the margin is scaled to fit.

    Args:
      max_margin: margin of the rarest class that there is, in cosines; finite, at least 0.
      scale: of the logits, above 0: the one given to the head `cosine`.

    The method takes logits [B, C] and int [B] or soft [B, C] targets (class c's loss has the margin on c alone); it
    keeps the margins.
    """
    if not 0 <= max_margin < math.inf:
        raise UserError(f"max_margin must be a finite number, at least 0, not {max_margin!r}")
    if not 0 < scale < math.inf:
        raise UserError(f"scale must be a finite number above 0, not {scale!r}")

    def init(context: Context) -> State:
        margins = np.maximum(context.counts, 1).astype(np.float64) ** -0.25
        largest = margins[context.counts > 0].max(initial=0.0) or 1.0
        return {"margins": (max_margin * np.minimum(margins / largest, 1)).astype(np.float32)}

    def apply(state: State, outputs, targets, rows, step):
        log_p = log_softmax(outputs)
        # softmax(f - d e_c)_c has odds p_c exp(-d) / (1 - p_c): every class's loss without a [B, C, C] tensor.
        per_class = jax.nn.softplus(scale * state["margins"] + log_complement(log_p) - log_p)
        return at_target(per_class, targets), state

    return Method(init, apply)


def log_prior(counts: np.ndarray) -> np.ndarray:
    """log pi up to a constant: class counts (or estimates of them) [C] -> log(n_c / max n) float64 [C], at most 0.

    Softmax ignores the constant; taking the largest as 0 makes a uniform prior exactly zero. A class without
    observed examples counts as having one: its log prior is finite, no class is rarer, and as only the ratios
    of counts matter the other classes are as they were. (With -inf it would leave the softmax, so that
    nothing would ever push its logit down, and plain f could predict it.)
    """
    counts = np.maximum(np.asarray(counts, np.float64), 1)
    return np.log(counts / counts.max())


def _observed(context: Context) -> np.ndarray:
    return context.counts


def _corrected(context: Context) -> np.ndarray:
    if context.clean_counts is None:
        raise UserError(
            "logit_adjusted: prior=corrected needs an estimate of the true class counts: "
            "name a `transition` stage in the stage's field `transition`"
        )
    return context.clean_counts


_PRIORS = {"observed": _observed, "corrected": _corrected}
