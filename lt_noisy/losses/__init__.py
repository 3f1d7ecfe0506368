"""Supervised losses: logits and targets -> one loss per example, as pure functions for any JAX loop.

    from lt_noisy.losses import gce

    def mean_loss(params):
        return gce(network(params, images), labels, q=0.7).mean()

Every loss here is a matrix of per-class losses `l [B, C]`, where `l[i, c]` is what example i costs if its
label is c, read at the target: `l[i, y_i]` for integer targets, the expectation `sum_c t[i, c] l[i, c]` for
soft ones. So every loss takes both kinds, and a soft target that is one-hot gives the integer's value. (`superloss`
transforms the loss of an example, whatever its target is, so it alone is not linear in the target.)

All of it is float32 from log-softmax, whatever dtype the logits come in, and finite in value and gradient at
logits of +-200. Notation: f logits, p = softmax(f), y the target, n_c the observed count of class c.

What a config names is in `losses.table`. A new loss is a formula and a factory `make_...` in one file here, named in
`__all__` and in the table.
"""

from lt_noisy.losses.correction import forward
from lt_noisy.losses.longtail import balanced_softmax, ldam, ldam_margins, log_prior, logit_adjusted
from lt_noisy.losses.memory import elr, elr_prediction, selc
from lt_noisy.losses.plain import cross_entropy, focal
from lt_noisy.losses.robust import gce, mae, symmetric_cross_entropy
from lt_noisy.losses.targets import bootstrapping, label_smoothing
from lt_noisy.losses.weighting import lambertw0, superloss, superloss_weight

__all__ = [
    "balanced_softmax",
    "bootstrapping",
    "cross_entropy",
    "elr",
    "elr_prediction",
    "focal",
    "forward",
    "gce",
    "label_smoothing",
    "lambertw0",
    "ldam",
    "ldam_margins",
    "log_prior",
    "logit_adjusted",
    "mae",
    "selc",
    "superloss",
    "superloss_weight",
    "symmetric_cross_entropy",
]
