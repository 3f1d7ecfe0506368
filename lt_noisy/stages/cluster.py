"""Stage `cluster`: the training images in K groups, by what a finished stage's projector makes of them.

References:
  Tian et al., "Divide and Contrast" (2021).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np

from lt_noisy import files, processes
from lt_noisy.augment.base import evaluate_batch
from lt_noisy.config.fields import spec, stage_ref
from lt_noisy.errors import UserError, prefixed
from lt_noisy.estimate.clusters import PARTITIONS, Partition, describe
from lt_noisy.stages import self_supervised
from lt_noisy.stages.base import Job, Kind
from lt_noisy.stages.prediction import compile_predict, part_variables
from lt_noisy.stages.rows import Rows, decimals, percent
from lt_noisy.training.state import PyTree


@dataclasses.dataclass(frozen=True)
class Section:
    """The fields of a `cluster` stage."""

    init: str = stage_ref("pretrain", ("self_supervised", "features"))  # whose projector's layer, or whose features
    partition: Partition = spec("kmeans()", PARTITIONS)


def check(job: Job, section: Section) -> dict[str, int]:
    """Refuses a base whose projector has no hidden layer, and more clusters than images."""
    base = job.inputs["init"]
    if not base.of_features and len(base.section.objective.projector(job.dtype, job.norm_axis).sizes) < 2:
        raise UserError(f"config.{job.name}.init: the projector of that stage has no hidden layer to cluster on")
    if section.partition.clusters > len(job.dataset.ids):
        raise UserError(
            f"config.{job.name}.partition: {section.partition.clusters} clusters of {len(job.dataset.ids)} images"
        )
    return {}


def run(job: Job, section: Section) -> dict[str, Any]:
    """Writes `clusters.npz` (ids [N], clusters int32 [N]); returns their sizes and purity.

    What is clustered are the outputs of the projector's hidden layer, on un-augmented images (Tian et al. 2021, "Divide
    and Contrast"), or features.
    """
    dataset = job.dataset
    vectors = dataset.train_images[:] if job.inputs["init"].of_features else _hidden_layer(job)
    with prefixed(f"config.{job.name}.partition"):
        clusters = processes.once(lambda: section.partition.assign(vectors, job.seed))
    files.write_arrays(job.directory / "clusters.npz", ids=dataset.ids, clusters=clusters)
    return {
        "clusters": describe(clusters, dataset.clean, dataset.num_classes),
    }


def _hidden_layer(job: Job) -> np.ndarray:
    """Of every training image what the hidden layer of the base's projector gives, float32 [N, D]."""
    base = job.inputs["init"]
    net = self_supervised.build(job.encoder(job.dtype, job.norm_axis), base.section.objective, job.dtype, job.norm_axis)
    augment = base.section.augment
    weights = job.devices.replicate(part_variables(job, net, base.directory, augment, self_supervised.TARGET_PARTS))

    def hidden(variables: PyTree, images: jax.Array) -> jax.Array:
        # A pair only with `mutable`.
        return cast(jax.Array, net.apply(variables, evaluate_batch(augment, images), method=type(net).hidden))

    predict = compile_predict(job.devices, hidden)
    return predict(weights, job.dataset.train_images)


def rows(summary: Mapping[str, Any]) -> Rows:
    """Sizes, and how far the clusters are the classes."""
    figures = summary["clusters"]
    return [
        ("cluster sizes", " ".join(str(n) for n in figures["sizes"])),
        ("purity", percent(figures["purity"])),
        ("adjusted mutual information", decimals(figures["adjusted_mutual_information"])),
    ]


KIND = Kind(Section, run, rows, check)
