"""Stage `density`: per-example weights for rwSAM, from how crowded a finished stage's representation is.

References:
  Liu et al., "Self-supervised Learning is More Robust to Dataset Imbalance" (2022).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy import files, processes
from lt_noisy.config.fields import plain, spec, stage_ref
from lt_noisy.errors import UserError, prefixed
from lt_noisy.estimate.density import ESTIMATORS, DensityEstimator, describe, importance
from lt_noisy.stages.base import ENCODERS, Job, Kind
from lt_noisy.stages.origin import required, weights_read
from lt_noisy.stages.representation import encoder_features
from lt_noisy.stages.rows import Rows, decimals, percent
from lt_noisy.weights.pretrained import PRETRAINED, Pretrained


@dataclasses.dataclass(frozen=True)
class Section:
    """The fields of a `density` stage."""

    init: str | Pretrained = stage_ref("pretrain", ENCODERS, table=PRETRAINED)  # whose features are used
    estimator: DensityEstimator = spec("gaussian()", ESTIMATORS)
    alpha: float = plain(0.9)  # weights are density^-alpha
    clip: float = plain(70.0)  # the largest weight, the smallest being 1


def labels(section: Section) -> tuple[str, ...]:
    """The labels that the weights depend on: the clean ones, if the estimator is an oracle."""
    return ("clean",) if section.estimator.oracle else ()


def check(job: Job, section: Section) -> dict[str, str]:
    """Refuses weights that make no sense, and an estimator that wants more images than there are."""
    with prefixed(f"config.{job.name}"):
        importance(np.zeros(1), section.alpha, section.clip)
    if section.estimator.least > len(job.dataset.ids):
        raise UserError(
            f"config.{job.name}.estimator: wants {section.estimator.least} images or more, not {len(job.dataset.ids)}"
        )
    return weights_read(job, section)


def run(job: Job, section: Section) -> dict[str, Any]:
    """Writes `weights.npz` (ids [N], log_density [N], weights [N]); returns what they look like.

    Weights are density^-alpha, divided by their minimum and clipped to [1, clip]. Clean labels go to the figures
    only, unless the estimator is an oracle.
    """
    dataset = job.dataset
    features = encoder_features(job, required(job, section))(dataset.train_images)
    with prefixed(f"config.{job.name}.estimator"):
        estimate = processes.once(lambda: section.estimator.estimate(features, dataset.clean))
    weights = importance(estimate.log_density, section.alpha, section.clip)
    files.write_arrays(
        job.directory / "weights.npz", ids=dataset.ids, log_density=estimate.log_density, weights=weights
    )
    figures = describe(weights, estimate.log_density, dataset.clean, dataset.num_classes, section.clip)
    return {
        "density": {"oracle": section.estimator.oracle, **estimate.details, **figures},
    }


def rows(summary: Mapping[str, Any]) -> Rows:
    """What the weights have to do with the classes, and how uneven they are."""
    figures = summary["density"]
    return [
        *([("weights by true class frequency", "an oracle")] if figures["oracle"] else []),
        ("rank correlation with class frequency", decimals(figures["spearman"])),
        ("largest weight over smallest", decimals(figures["range"], 1)),
        ("effective sample size", percent(figures["effective_share"])),
    ]


KIND = Kind(Section, run, rows, check, labels)
