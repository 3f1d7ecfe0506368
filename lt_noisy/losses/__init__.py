"""Supervised losses: logits and targets -> one loss per example.

Every loss here is a matrix of per-class losses `l [B, C]`, where `l[i, c]` is what example i costs if its
label is c, read at the target: `l[i, y_i]` for integer targets, the expectation `sum_c t[i, c] l[i, c]` for
soft ones. So every loss takes both kinds, and a soft target that is one-hot gives the integer's value. (`superloss`
transforms the loss of an example, whatever its target is, so it alone is not linear in the target.)

All of it is float32 from log-softmax, whatever dtype the logits come in, and finite in value and gradient at
logits of +-200. Notation: f logits, p = softmax(f), y the target, n_c the observed count of class c.
"""

from lt_noisy.config.spec import table
from lt_noisy.losses.correction import forward
from lt_noisy.losses.longtail import balanced_softmax, ldam, log_prior, logit_adjusted
from lt_noisy.losses.memory import elr, selc
from lt_noisy.losses.plain import cross_entropy, focal
from lt_noisy.losses.robust import gce, mae, symmetric_cross_entropy
from lt_noisy.losses.targets import bootstrapping, label_smoothing
from lt_noisy.losses.weighting import lambertw0, superloss, superloss_weight

LOSSES = table(
    {
        "cross_entropy": cross_entropy,
        "focal": focal,
        "logit_adjusted": logit_adjusted,
        "balanced_softmax": balanced_softmax,
        "ldam": ldam,
        "mae": mae,
        "gce": gce,
        "symmetric_cross_entropy": symmetric_cross_entropy,
        "label_smoothing": label_smoothing,
        "bootstrapping": bootstrapping,
        "elr": elr,
        "selc": selc,
        "forward": forward,
        "superloss": superloss,
    }
)

__all__ = [
    "LOSSES",
    "balanced_softmax",
    "bootstrapping",
    "cross_entropy",
    "elr",
    "focal",
    "forward",
    "gce",
    "label_smoothing",
    "lambertw0",
    "ldam",
    "log_prior",
    "logit_adjusted",
    "mae",
    "selc",
    "superloss",
    "superloss_weight",
    "symmetric_cross_entropy",
]
