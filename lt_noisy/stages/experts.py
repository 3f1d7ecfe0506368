"""Stage `experts`: one self-supervised network per cluster, from scratch, in place of one for all images."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from lt_noisy import evaluate
from lt_noisy.fields import Field, Fields
from lt_noisy.optim import Schedule
from lt_noisy.spec import UserError, nearest
from lt_noisy.stages import cluster, common, self_supervised
from lt_noisy.stages.features import features_of

FIELDS: Fields = {
    "clusters": Field("cluster"),  # a `cluster` stage
    "train_on": Field("cluster"),  # or 'all': a control, every expert sees all images
    **{k: f for k, f in self_supervised.FIELDS.items() if k not in ("ascent", "ascent_weights", "monitor")},
}

TRAIN_ON = ("cluster", "all")


def check(job: common.Job, section: SimpleNamespace) -> int:
    """Steps that all experts take together, about; refuses what does not fit the whole training set."""
    if section.train_on not in TRAIN_ON:
        raise UserError(
            f"config.{job.name}.train_on: {section.train_on!r}{nearest(section.train_on, list(TRAIN_ON))} "
            f"(known: {', '.join(TRAIN_ON)})"
        )
    return self_supervised.check(job, as_self_supervised(section)).total


def as_self_supervised(section: SimpleNamespace, **changed: Any) -> SimpleNamespace:
    """The section of one expert's training: plain descent, and `changed`."""
    return SimpleNamespace(**{**vars(section), "ascent": None, "ascent_weights": "none()", **changed})


def run(job: common.Job, section: SimpleNamespace) -> dict[str, Any]:
    """Trains the experts one after the other, each under `expert_<k>/`; returns their sizes and costs.

    The budget is shared in proportion: the stage's length is counted in passes over each expert's own cluster, so that
    together they see as many images as one network would. An expert of n images takes batches of min(batch_size, n //
    4), with the learning rate scaled by as much (ours: the template, Divide and Contrast, does not say). With
    `train_on='all'` an expert takes the same number of the same steps, on images of all clusters. A killed stage goes
    on inside the expert it was in.
    """
    clusters = cluster.read(job, "clusters")
    experts = [_train(job, section, clusters, k) for k in range(clusters.max() + 1)]
    total = {name: sum(e[name] for e in experts) for name in ("parameters", "steps", "examples_seen", "train_seconds")}
    return {
        "stage": job.name,
        "seed": job.seed,
        **total,
        "images_per_second": total["examples_seen"] / max(total["train_seconds"], 1e-9),
        "experts": experts,
    }


def _scaled(schedule: Schedule, rate: float) -> Schedule:
    return lambda step: rate * schedule(step)


def _train(job: common.Job, section: SimpleNamespace, clusters: np.ndarray, k: int) -> dict[str, Any]:
    job = job._replace(name=f"{job.name}/expert_{k}", directory=job.directory / f"expert_{k}")
    own = job._replace(dataset=job.dataset.rows(np.flatnonzero(clusters == k)))
    size, devices = len(own.dataset.ids), job.devices.num_devices
    batch = min(section.batch_size, size // 4) // devices * devices
    if batch < 2:
        raise UserError(
            f"config.{job.name}: cluster {k} has {size} images, too few to train on {devices} device(s); "
            "ask for fewer clusters"
        )
    rate = batch / section.batch_size
    mine = as_self_supervised(
        section,
        batch_size=batch,
        schedule=lambda total: _scaled(section.schedule(total), rate),
    )
    steps = common.make_plan(own, mine).total
    mine.length = lambda clock, where: steps
    trained_on = own if section.train_on == "cluster" else job
    ready = self_supervised.prepare(trained_on, mine)
    job.directory.mkdir(exist_ok=True)
    trained = common.run_training(trained_on, ready, lambda state: {})
    predict = common.compile_predict(own, features_of(ready.net, mine.augment))
    features = predict(common.variables(trained.device_state), own.dataset.train_images)
    summary = common.summarise(job, trained, ready.plan, {"images": size, **evaluate.collapse(features)})
    return {**summary, "stage": f"expert_{k}"}
