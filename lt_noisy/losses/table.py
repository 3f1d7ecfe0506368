"""The losses that a config may name: factories of `Method`s around the formulas."""

from lt_noisy.config.spec import table
from lt_noisy.losses import correction, longtail, memory, plain, robust, targets, weighting

LOSSES = table(
    {
        "cross_entropy": plain.make_cross_entropy,
        "focal": plain.make_focal,
        "logit_adjusted": longtail.make_logit_adjusted,
        "balanced_softmax": longtail.make_balanced_softmax,
        "ldam": longtail.make_ldam,
        "mae": robust.make_mae,
        "gce": robust.make_gce,
        "symmetric_cross_entropy": robust.make_symmetric_cross_entropy,
        "label_smoothing": targets.make_label_smoothing,
        "bootstrapping": targets.make_bootstrapping,
        "elr": memory.make_elr,
        "selc": memory.make_selc,
        "forward": correction.make_forward,
        "superloss": weighting.make_superloss,
    }
)
