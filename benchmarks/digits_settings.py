"""How the settings of the digits grid were chosen: alternatives for each loss, on other seeds and other test images.

    python launch/sweep.py --config=benchmarks/digits_settings.py --root=runs/digits_settings \\
        --record=results/digits_settings.json

From scratch but for the two that pre-train, symmetric noise 0.4, ratio 10, seeds 100 to 103. The test images are a
quarter of the training images (`development`); those of the grid are in neither split.
"""

import pathlib

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.python_file import read_module
from lt_noisy.runs.sweeps.cells import Cell, axis, product

_DIGITS = read_module(pathlib.Path(__file__).resolve().parent.parent / "configs" / "digits_lt_noise.py")


def get_config(variant: str = "") -> ConfigDict:
    """The grid's, on development images."""
    c = _DIGITS.get_config(variant)
    c.dataset = "development(digits(), percent=25)"
    return c


LOSSES = (
    "cross_entropy()",
    "focal(gamma=1.0)",
    "focal(gamma=2.0)",
    "label_smoothing(cross_entropy(), epsilon=0.1)",
    "label_smoothing(cross_entropy(), epsilon=0.3)",
    "bootstrapping(beta=0.8, hard=True)",
    "bootstrapping(beta=0.95)",
    "gce(q=0.5)",
    "gce(q=0.7)",
    "gce(q=0.7, truncate=0.5, start=0.5)",
    "symmetric_cross_entropy(alpha=0.1, beta=1.0, log_zero=-4.0)",
    "symmetric_cross_entropy(alpha=1.0, beta=1.0, log_zero=-4.0)",
    "elr(beta=0.7, lam=1.0)",
    "elr(beta=0.7, lam=3.0)",
    "selc(momentum=0.9, start=0.25)",
    "selc(momentum=0.9, start=0.5)",
    "mae()",
    "superloss(cross_entropy(), lam=0.25)",
    "superloss(cross_entropy(), lam=1.0)",
    "superloss(cross_entropy(), lam=4.0)",
    "superloss(logit_adjusted(tau=1.0), lam=0.25)",
    "superloss(logit_adjusted(tau=1.0), lam=1.0)",
    "superloss(logit_adjusted(tau=1.0), lam=4.0)",
)


def sweep(variant: str = "") -> list[Cell]:
    """Every alternative."""
    choices = {loss: {**recipes.SCRATCH, "finetune.loss": loss} for loss in LOSSES}
    choices |= {
        "mae(), lr 0.2": {**choices["mae()"], "finetune.schedule": "cosine(lr=0.2, warmup=0.05)"},
        "mixup, alpha 0.2": {**choices["cross_entropy()"], "finetune.mix": "mixup(alpha=0.2)"},
        "mixup, alpha 1": {**choices["cross_entropy()"], "finetune.mix": "mixup(alpha=1.0)"},
        "MixNN, epochs 3 and 12": {"stages": ("mixnn",), "mixnn.warmup": 3, "mixnn.correct_from": 12},
        "MixNN, epochs 6 and 20": {"stages": ("mixnn",), "mixnn.warmup": 6, "mixnn.correct_from": 20},
    }
    for temperature in (0.1, 0.5):
        objective = f"simclr(temperature={temperature}, hidden=128, size=64)"
        choices[f"SSL, temperature {temperature}, then LA+SL"] = {"pretrain.objective": objective}
    return product(axis("choice", choices), axis("seed", (100, 101, 102, 103)))
