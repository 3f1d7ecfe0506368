"""Re-balancing a finished classifier: its features stay, what weighs the classes changes (`CLASSIFIERS`).

Everything is NumPy in float64 on cached features, deterministic and without a schedule. N training examples, M
queries, D features, C classes; f logits, w_j and b_j the weights and bias of class j, n_j its *observed* count.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from lt_noisy.config.spec import table
from lt_noisy.errors import UserError, check_not_negative, check_positive
from lt_noisy.losses import log_prior
from lt_noisy.rebalance.base import Head, Known, Rebalanced, Rebalancing
from lt_noisy.rebalance.nearest import ncm, prototypes, wann

TAUS = tuple(i / 10 for i in range(21))  # what `tune` tries: the grid of the code of Kang et al. (2020)


def tau_normalised(tau: float = 1.0) -> Rebalancing:
    """tau-normalised classifier: f_j = x . w_j / |w_j|^tau.

    As in the authors' released code (`tau_norm.py`) the bias is dropped, for every tau above 0. At tau = 0 we
    keep it, so that this is the classifier itself exactly; their code drops it there too. A class with zero weights
    keeps them. A cosine classifier has equal norms already: its predictions stay, only their scale changes.

    Args:
      tau: finite and at least 0; 1 makes all norms 1.

    References:
      Kang et al., "Decoupling representation and classifier" (2020).
    """
    check_not_negative(tau=tau)

    def fit(known: Known) -> Rebalanced:
        kernel, bias, unit_features = known.head
        norms = np.linalg.norm(kernel, axis=0)
        scales = np.where(norms > 0, norms, 1) ** -tau
        head = Head(kernel * scales, bias if tau == 0 else np.zeros_like(bias), unit_features)
        return Rebalanced(head.logits, {"tau": tau, "scales": scales.tolist()})

    return Rebalancing(fit, with_tau=tau_normalised)


def lws(weight_decay: float = 5e-4) -> Rebalancing:
    """Learnable weight scaling: f_j -> s_j f_j, one scale a class, all else frozen.

    s minimises the cross-entropy to the observed labels, averaged within each class and then over the classes that
    have examples, plus weight_decay / 2 * |s|^2: what the authors' SGD with class-balanced sampling and weight decay
    descends. As in their code s starts from 1, scales the bias too, and may turn negative. Deviations: the minimum
    itself, by L-BFGS on cached un-augmented features, in place of a few epochs of SGD; the problem is strictly
    convex, so there is one. And the features are those of evaluation, where the authors' frozen encoder, left in
    training mode, normalises by the batch (cRT can do that: `frozen_norm="batch"` of a stage). Without weight
    decay there may be no minimum: a classifier that has memorised its training set is the better the larger its scale.

    Args:
      weight_decay: above 0. 5e-4 is the value in the authors' ImageNet-LT configuration.

    References:
      Kang et al., "Decoupling representation and classifier" (2020).
    """
    check_positive(weight_decay=weight_decay)

    def fit(known: Known) -> Rebalanced:
        logits, classes = known.head.logits(known.features), len(known.head.bias)
        rows = np.arange(len(logits))
        weights = 1 / np.count_nonzero(known.counts) / known.counts[known.observed]  # each class as much

        def objective(scales: np.ndarray) -> tuple[float, np.ndarray]:
            log_p = log_softmax(scales * logits, axis=-1)
            error = np.exp(log_p)
            error[rows, known.observed] -= 1
            loss = -weights @ log_p[rows, known.observed] + weight_decay / 2 * scales @ scales
            return loss, weights @ (error * logits) + weight_decay * scales

        solved = minimize(
            objective,
            np.ones(classes),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 1000, "maxcor": 30, "ftol": 0.0, "gtol": 1e-7},
        )
        scales = solved.x
        details = {"scales": scales.tolist(), "largest_gradient": float(np.abs(solved.jac).max())}
        return Rebalanced(lambda features: scales * known.head.logits(features), details)

    return Rebalancing(fit)


def posthoc(tau: float = 1.0, prior: Literal["observed", "corrected"] = "observed") -> Rebalancing:
    """Post-hoc logit adjustment: f_j - tau log pi_j.

    For a classifier trained with a plain loss; one trained with `logit_adjusted` is balanced already. A uniform prior
    changes no logit. Classes without examples: see `losses.log_prior`.

    Args:
      tau: finite and at least 0; 1 is the consistent choice, 0 the classifier itself exactly.
      prior: `observed`, the counts of observed labels; `corrected` (ours), a `transition` stage's estimate of the
        clean counts.

    References:
      Menon et al., "Long-tail learning via logit adjustment" (2021).
    """
    check_not_negative(tau=tau)
    corrected = prior == "corrected"

    def fit(known: Known) -> Rebalanced:
        counts = known.clean_counts if corrected else known.counts
        if counts is None:
            raise UserError("prior=corrected takes an estimate of the true class counts")
        offsets = -tau * log_prior(counts)
        details = {"tau": tau, "offsets": offsets.tolist()}
        return Rebalanced(lambda features: known.head.logits(features) + offsets, details)

    return Rebalancing(fit, with_tau=lambda tau: posthoc(tau, prior), reads_clean_counts=corrected)


CLASSIFIERS = table(
    {
        "tau_normalised": tau_normalised,
        "ncm": ncm,
        "lws": lws,
        "posthoc": posthoc,
        "wann": wann,
        "prototypes": prototypes,
    }
)


def tune(
    with_tau: Callable[[float], Rebalancing],
    known: Known,
    features: np.ndarray,
    observed: np.ndarray,
    score: Callable[[np.ndarray, np.ndarray], float],
) -> tuple[float, float]:
    """The tau of `TAUS` with the largest score on held-out examples with noisy labels. Ties go to the smallest.

    These labels are as noisy as those of the training set: where rare classes have gained wrong labels from frequent
    ones, their recall is measured on images of frequent ones, and a balanced accuracy may lean towards too little
    re-balancing.

    Args:
      with_tau: of the method.
      features: [V, D], of the held-out images, in evaluation mode.
      observed: int [V], their observed labels.
      score: `score(logits [V, C], observed) -> float`.

    Returns:
      tau, and its score.
    """
    scores = [score(with_tau(tau).fit(known).logits(features), observed) for tau in TAUS]
    best = int(np.argmax(scores))
    return TAUS[best], scores[best]
