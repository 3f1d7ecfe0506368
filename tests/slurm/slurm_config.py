"""Two stages on vectors, of which twelve cells share the first by seed; whose vectors is an override.

With `:slow` the first start in a job rests for seconds at every step after the first few, until it is told to stop.
"""

import os
import time

from lt_noisy.config.resolve import default, section
from lt_noisy.runs.sweeps.cells import axis, product
from lt_noisy.training import loop

REST_SECONDS = 5.0
TRAIN = {
    "length": "steps(60)",
    "batch_size": 8,
    "augment": "none()",
    "schedule": "cosine(lr=0.1)",
    "log_every": "steps(5)",
    "save_every": "steps(30)",
    "eval_every": "steps(60)",
}


def get_config(variant=""):
    """A classifier on vectors, then another on its frozen encoder."""
    if variant == "slow" and "SLURM_PROCID" in os.environ and "SLURM_RESTART_COUNT" not in os.environ:
        _rest_after(7)
    c = default()
    c.model = "mlp(hidden=8)"
    c.stages = ("base", "finetune")
    c.base = section("supervised", **TRAIN)
    c.finetune = section("supervised", init="base", freeze_encoder=True, **TRAIN)
    return c


def sweep(variant):
    """Three seeds by four losses."""
    losses = {"CE": "cross_entropy()", "GCE": "gce(q=0.7)", "focal": "focal()", "LA": "logit_adjusted()"}
    loss = axis("loss", {label: {"finetune.loss": loss} for label, loss in losses.items()})
    return product(loss, axis("seed", range(3)))


def _rest_after(step):
    original = loop.grouped

    def rested(batch_of, at, steps_per_call):
        time.sleep(REST_SECONDS if at > step else 0.0)
        return original(batch_of, at, steps_per_call)

    loop.grouped = rested
