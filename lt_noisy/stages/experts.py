"""Stage `experts`: one self-supervised network per cluster, from scratch, in place of one for all images."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy.config.fields import choice, stage_ref
from lt_noisy.errors import UserError
from lt_noisy.evaluation.representation import collapse
from lt_noisy.stages import self_supervised, training
from lt_noisy.stages.base import Job, Kind, read_arrays
from lt_noisy.stages.features import features_of
from lt_noisy.stages.prediction import compile_predict
from lt_noisy.stages.rows import Rows
from lt_noisy.training.optim import Schedule


@dataclasses.dataclass(frozen=True)
class Section(self_supervised.Objectives):
    """What an `experts` stage is told."""

    clusters: str = stage_ref("cluster", ("cluster",))
    train_on: str = choice("cluster", ("cluster", "all"))  # all: a control


def check(job: Job, section: Section) -> dict[str, int]:
    """Refuses what does not fit the whole training set; returns the length that the experts share.

    Each takes a multiple of steps_per_call, which is therefore part of the identity.
    """
    return {"steps": self_supervised.check_objective(job, section).total, "multiple": job.multiple}


def batch_size(images: int, asked: int) -> int:
    """`asked`, or for a cluster of fewer than four such batches the largest power of two in a quarter of it."""
    quarter = int(images) // 4  # NumPy's integers, of np.bincount, may have no bit_length
    return asked if asked <= quarter else 2 ** (quarter.bit_length() - 1) if quarter else 0


def run(job: Job, section: Section) -> dict[str, Any]:
    """Trains the experts one after the other, each under `expert_<k>/`; returns their sizes and costs.

    The images that one network would see in the stage's length are shared in proportion to cluster size, to the nearest
    step. An expert of n images takes batches of `batch_size(n, ...)`, with the learning rate scaled by as much (ours:
    the template, Divide and Contrast, does not say). With `train_on='all'` an expert takes the same steps, on images of
    all clusters. A killed stage goes on inside the expert it was in.
    """
    clusters = read_arrays(job, job.inputs["clusters"].directory, "clusters")
    sizes = np.bincount(clusters)
    batches = [batch_size(n, section.batch_size) for n in sizes]
    for k, batch in enumerate(batches):
        if batch < 2 or batch % job.devices.num_devices:
            raise UserError(
                f"config.{job.name}: cluster {k} has {sizes[k]} images, too few for batches that "
                f"{job.devices.num_devices} device(s) share; ask for fewer clusters"
            )
    seen = training.make_plan(job, section).total * section.batch_size
    steps = [max(round(seen * n / len(clusters) / b / job.multiple), 1) for n, b in zip(sizes, batches, strict=True)]
    experts = [_train(job, section, clusters, k, batches[k], steps[k] * job.multiple) for k in range(len(sizes))]
    return {
        **training.summed(experts),
        "experts": experts,
    }


def _scaled(schedule: Schedule, rate: float) -> Schedule:
    return lambda step: rate * schedule(step)


def _train(job: Job, section: Section, clusters: np.ndarray, k: int, batch: int, steps: int) -> dict[str, Any]:
    job = job._replace(name=f"{job.name}/expert_{k}", directory=job.directory / f"expert_{k}")
    own = job._replace(dataset=job.dataset.rows(np.flatnonzero(clusters == k)))
    mine = dataclasses.replace(
        section,
        batch_size=batch,
        length=lambda clock, where: steps,
        schedule=lambda total: _scaled(section.schedule(total), batch / section.batch_size),
    )
    trained_on = own if section.train_on == "cluster" else job
    ready = self_supervised.prepare_objective(trained_on, mine, ascent=None)
    job.directory.mkdir(exist_ok=True)
    trained = training.run_training(trained_on, ready, lambda state: {})
    predict = compile_predict(own, features_of(ready.net, mine.augment))
    features = predict(trained.device_state.variables, own.dataset.train_images)
    figures = {"images": len(own.dataset.ids), **collapse(features)}
    return {**training.summarise(job, trained, ready.plan, figures), "stage": f"expert_{k}"}


def rows(summary: Mapping[str, Any]) -> Rows:
    """Size, batch and steps of each expert, and whether it has collapsed."""
    return [
        (
            f"expert {k}: {e['images']} images",
            f"batch {e['batch_size']}, {e['steps']} steps{', COLLAPSED' if e['collapsed'] else ''}",
        )
        for k, e in enumerate(summary["experts"])
    ]


KIND = Kind(Section, run, rows, check)
