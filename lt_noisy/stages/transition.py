"""Stage `transition`: the noise transition matrix and the clean class counts, from a finished stage's predictions."""

import pathlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from lt_noisy import files
from lt_noisy.config.fields import Field, Fields
from lt_noisy.errors import UserError
from lt_noisy.estimate.transition import TRANSITIONS, describe
from lt_noisy.stages.base import Job, read_arrays

FIELDS: Fields = {
    "init": Field("base"),  # the stage whose predictions for the training set are used
    "estimator": Field("confident()", TRANSITIONS),
}


def labels(section: SimpleNamespace) -> tuple[str, ...]:
    """The labels that the estimate depends on: the clean ones too, if the estimator is an oracle."""
    return ("observed", "clean") if section.estimator.oracle else ("observed",)


def check(job: Job, section: SimpleNamespace) -> dict[str, int]:
    """Refuses the predictions of a stage that was trained on other data than the run's."""
    data = job.inputs["init"].texts.get("data", "manifest()")
    if data != "manifest()":
        raise UserError(f"config.{job.name}.init: that stage trains on {data}, not on the run's training set")
    return {}


def run(job: Job, section: SimpleNamespace) -> dict[str, Any]:
    """Writes `transition.npz` (ids [N], matrix [C, C], clean_counts [C]); returns how good the estimate is.

    Clean labels go to the figures only, unless the estimator is an oracle.
    """
    dataset = job.dataset
    probabilities = read_arrays(job, job.inputs["init"].directory, "label_quality", "probabilities")
    try:
        estimate = section.estimator.estimate(probabilities, dataset.observed, dataset.clean)
    except UserError as error:
        raise UserError(f"config.{job.name}.estimator: {error}") from None
    files.write_arrays(
        job.directory / "transition.npz", ids=dataset.ids, matrix=estimate.matrix, clean_counts=estimate.clean_counts
    )
    figures = describe(estimate, dataset.observed, dataset.clean)
    return {
        "stage": job.name,
        "seed": job.seed,
        "transition": {"oracle": section.estimator.oracle, **figures},
    }


def read(directory: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The matrix float64 [C, C] and clean counts float64 [C] of a finished stage.

    Raises:
      UserError: the file is missing or damaged.
    """
    matrix, clean_counts = files.load_arrays(directory / "transition.npz", "matrix", "clean_counts")
    return matrix, clean_counts
