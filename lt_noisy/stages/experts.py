"""Stage `experts`: one self-supervised network per cluster, from scratch, in place of one for all images.

References:
  Tian et al., "Divide and Contrast" (2021).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy.config.fields import choice, stage_ref
from lt_noisy.errors import UserError
from lt_noisy.evaluation.representation import collapse
from lt_noisy.stages import self_supervised, training
from lt_noisy.stages.base import Job, Kind, read_arrays
from lt_noisy.stages.prediction import compile_predict, features_of
from lt_noisy.stages.rows import Rows
from lt_noisy.training.schedules import BuildSchedule, Schedule


@dataclasses.dataclass(frozen=True)
class Section(self_supervised.Objectives):
    """The fields of an `experts` stage."""

    clusters: str = stage_ref("cluster", ("cluster",))
    train_on: str = choice("cluster", ("cluster", "all"))  # all: a control


def check(job: Job, section: Section) -> dict[str, int]:
    """Refuses what does not fit the whole training set; returns the length that the experts share.

    Each takes a multiple of steps_per_call, which is therefore part of the identity.
    """
    return {"steps": self_supervised.check_objective(job, section).total, "steps_per_call": job.steps_per_call}


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
    images = sizes if section.train_on == "cluster" else np.full_like(sizes, len(clusters))
    per_step = []
    for n, batch in zip(images, batches, strict=True):
        epoch = training.check_epoch(job, dataclasses.replace(section, batch_size=batch), int(n))
        per_step.append(epoch.examples(batch) / epoch.steps)
    seen = training.make_plan(job, section).examples_seen
    experts = []
    for k, (size, batch) in enumerate(zip(sizes, batches, strict=True)):
        steps = seen * size / len(clusters) / per_step[k]
        multiples = max(round(steps / job.steps_per_call), 1)
        experts.append(_train(job, section, clusters, k, batch, multiples * job.steps_per_call))
    return {
        **training.summed(experts),
        "experts": experts,
    }


def _scaled(build: BuildSchedule, rate: float) -> BuildSchedule:
    def scaled(total_steps: int, epoch_steps: int) -> Schedule:
        schedule = build(total_steps, epoch_steps)
        return lambda step: rate * schedule(step)

    return scaled


def _train(job: Job, section: Section, clusters: np.ndarray, k: int, batch: int, steps: int) -> dict[str, Any]:
    """Expert k: trained on its cluster or, as a control, on all images; described on its cluster."""
    on_all = job._replace(name=f"{job.name}/expert_{k}", directory=job.directory / f"expert_{k}")
    on_cluster = on_all._replace(dataset=job.dataset.rows(np.flatnonzero(clusters == k)))
    own_section = dataclasses.replace(
        section,
        batch_size=batch,
        length=lambda clock, where: steps,
        schedule=_scaled(section.schedule, batch / section.batch_size),
    )
    own_job = on_cluster if section.train_on == "cluster" else on_all
    ready = self_supervised.prepare_objective(own_job, own_section, ascent=None)
    own_job.directory.mkdir(exist_ok=True)
    trained = training.run_training(own_job, ready, lambda state: {})
    predict = compile_predict(on_cluster.devices, features_of(ready.net, section.augment))
    features = predict(trained.device_state.variables, on_cluster.dataset.train_images)
    figures = {"images": len(on_cluster.dataset.ids), **collapse(features)}
    return {**training.summarise(own_job, trained, ready.plan, figures), "stage": f"expert_{k}"}


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
