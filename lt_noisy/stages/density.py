"""Stage `density`: per-example weights for rwSAM, from how crowded a finished stage's representation is."""

from types import SimpleNamespace
from typing import Any

from lt_noisy import files
from lt_noisy.config.fields import Field, Fields
from lt_noisy.errors import UserError
from lt_noisy.estimate.density import ESTIMATORS, describe, importance
from lt_noisy.stages.base import Job
from lt_noisy.stages.features import encoder_features

FIELDS: Fields = {
    "init": Field("pretrain"),  # the stage whose features are used
    "estimator": Field("gaussian()", ESTIMATORS),
    "alpha": Field(0.9),
    "clip": Field(70.0),
}


def labels(section: SimpleNamespace) -> tuple[str, ...]:
    """The labels that the weights depend on: the clean ones, if the estimator is an oracle."""
    return ("clean",) if section.estimator.oracle else ()


def check(job: Job, section: SimpleNamespace) -> dict[str, int]:
    """Refuses weights that make no sense, and an estimator that wants more images than there are."""
    if not section.alpha >= 0 or not section.clip >= 1:
        raise UserError(
            f"config.{job.name}: alpha is at least 0 and clip at least 1, not {section.alpha} and {section.clip}"
        )
    if section.estimator.least > len(job.dataset.ids):
        raise UserError(
            f"config.{job.name}.estimator: wants {section.estimator.least} images or more, not {len(job.dataset.ids)}"
        )
    return {}


def run(job: Job, section: SimpleNamespace) -> dict[str, Any]:
    """Writes `weights.npz` (ids [N], log_density [N], weights [N]); returns what they look like.

    Weights are density^-alpha, divided by their minimum and clipped to [1, clip]. Clean labels go to the figures
    only, unless the estimator is an oracle.
    """
    dataset = job.dataset
    features = encoder_features(job, job.inputs["init"])(dataset.train_images)
    try:
        estimate = section.estimator.estimate(features, dataset.clean)
    except UserError as error:
        raise UserError(f"config.{job.name}.estimator: {error}") from None
    weights = importance(estimate.log_density, section.alpha, section.clip)
    files.write_arrays(
        job.directory / "weights.npz", ids=dataset.ids, log_density=estimate.log_density, weights=weights
    )
    figures = describe(weights, estimate.log_density, dataset.clean, dataset.num_classes, section.clip)
    return {
        "stage": job.name,
        "seed": job.seed,
        "density": {"oracle": section.estimator.oracle, **estimate.details, **figures},
    }
