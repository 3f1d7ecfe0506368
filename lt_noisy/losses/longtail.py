"""Losses that know how many examples each class has."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.errors import UserError, check_not_negative, check_positive
from lt_noisy.losses.common import at_target, log_complement, log_softmax
from lt_noisy.losses.factory import from_formula
from lt_noisy.losses.plain import cross_entropy
from lt_noisy.method import Context, Method, State
from lt_noisy.precision import to_float


def logit_adjusted(logits: jax.Array, targets: jax.Array, log_prior: jax.Array, tau: float = 1.0) -> jax.Array:
    """Logit-adjusted cross-entropy: l = -log softmax(f + tau log pi)_y, pi a class prior.

    Predict with plain f. tau = 0, or a uniform prior, is `cross_entropy` bit for bit.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C].
      log_prior: [C], log pi up to a constant, finite: `log_prior(counts)`.
      tau: strength, finite and at least 0. 1 is the consistent choice; it scales the logarithm of the prior.

    Returns:
      float32 [B].

    References:
      Menon et al., "Long-tail learning via logit adjustment" (2021), eq. 10.
    """
    logits = to_float(logits)
    return cross_entropy(logits + tau * jnp.asarray(log_prior, logits.dtype)[None], targets)


def balanced_softmax(logits: jax.Array, targets: jax.Array, counts: jax.Array) -> jax.Array:
    """Balanced softmax: l = -log( n_y exp f_y / sum_c n_c exp f_c ).

    As softmax ignores a shift, f + log n and f + log pi are one loss: this is `logit_adjusted` with tau = 1 under the
    name the field also knows it by.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C].
      counts: n, [C], examples of each class; a class without any counts as having one.

    Returns:
      float32 [B].

    References:
      Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition" (2020).
    """
    return logit_adjusted(logits, targets, jnp.log(jnp.maximum(to_float(jnp.asarray(counts)), 1.0)))


def ldam(logits: jax.Array, targets: jax.Array, margins: jax.Array, scale: float = 30.0) -> jax.Array:
    """Label-distribution-aware margin loss: l = -log softmax(f - scale m_y onehot(y))_y.

    Predict with plain f. Without margins it is cross-entropy.

    Args:
      logits: [B, C], of any float dtype: cosines times `scale`.
      targets: int [B], or soft [B, C] (class c's loss has the margin on c alone).
      margins: m, [C], in cosines, at least 0: `ldam_margins(counts)`.
      scale: of the logits, above 0.

    Returns:
      float32 [B].

    References:
      Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss" (2019). Deviation in form
      only: the paper's loss multiplies cosines by its scale. Here the logits come scaled, and the margin is scaled to
      fit.
    """
    log_p = log_softmax(logits)
    # softmax(f - d e_c)_c has odds p_c exp(-d) / (1 - p_c): every class's loss without a [B, C, C] tensor.
    shift = scale * jnp.asarray(margins, log_p.dtype)[None]
    return at_target(jax.nn.softplus(shift + log_complement(log_p) - log_p), targets)


def log_prior(counts: np.ndarray) -> np.ndarray:
    """log pi up to a constant: log(n_c / max n).

    Softmax ignores the constant; taking the largest as 0 makes a uniform prior exactly zero. A class without
    observed examples counts as having one: its log prior is finite, no class is rarer, and as only the ratios
    of counts matter the other classes are as they were. (With -inf it would leave the softmax, so that
    nothing would ever push its logit down, and plain f could predict it.)

    Args:
      counts: [C], examples of each class, or estimates of them; on the host.

    Returns:
      float64 [C], at most 0.
    """
    counts = np.maximum(np.asarray(counts, np.float64), 1)
    return np.log(counts / counts.max())


def ldam_margins(counts: np.ndarray, max_margin: float = 0.5) -> np.ndarray:
    """LDAM's margins: m_c = max_margin n_c^(-1/4) / max_k n_k^(-1/4), the maximum over classes with examples.

    Args:
      counts: n, [C], examples of each class; on the host. A class without any has max_margin.
      max_margin: margin of the rarest class that there is, in cosines; finite, at least 0.

    Returns:
      float32 [C].

    References:
      Cao et al. (2019), as in the authors' code; the paper leaves the constant open.
    """
    counts = np.asarray(counts)
    margins = np.maximum(counts, 1).astype(np.float64) ** -0.25
    largest = margins[counts > 0].max(initial=0.0) or 1.0
    return (max_margin * np.minimum(margins / largest, 1)).astype(np.float32)


def make_logit_adjusted(tau: float = 1.0, prior: Literal["observed", "corrected"] = "observed") -> Method:
    """`logit_adjusted`; keeps the log prior.

    Args:
      tau: as there.
      prior: what pi is. `observed`: the share of each *observed* class, wrong labels included, as in the paper, which
        knows no wrong ones. `corrected` (ours): the share of each *true* class, as estimated by the `transition` stage
        that the stage's field `transition` names; without one, `init` raises UserError.
    """
    check_not_negative(tau=tau)

    def constants(context: Context) -> State:
        return {"log_prior": jnp.asarray(log_prior(_PRIORS[prior](context)), jnp.float32)}

    return from_formula(logit_adjusted, constants, tau=tau)._replace(transition=prior == "corrected")


def make_balanced_softmax() -> Method:
    """`balanced_softmax` with the *observed* counts, as `logit_adjusted` with their log prior, which it keeps."""
    return make_logit_adjusted(tau=1.0)


def make_ldam(max_margin: float = 0.5, scale: float = 30.0) -> Method:
    """`ldam` with the margins of the *observed* counts, which it keeps.

    Args:
      max_margin: as of `ldam_margins`; 0 is cross-entropy.
      scale: as there: the one given to the head `cosine`.
    """
    check_not_negative(max_margin=max_margin)
    check_positive(scale=scale)
    made = from_formula(ldam, lambda context: {"margins": ldam_margins(context.counts, max_margin)}, scale=scale)
    return made._replace(cosines=scale)


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
