"""Stage `transition`: the noise transition matrix and the clean class counts, from a finished stage's predictions."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy import files, processes
from lt_noisy.config.fields import spec, stage_ref
from lt_noisy.errors import prefixed
from lt_noisy.estimate.transition import TRANSITIONS, TransitionEstimator, describe
from lt_noisy.stages.base import WITH_HEAD, Job, Kind, check_on_manifest, read_arrays
from lt_noisy.stages.rows import Rows, decimals, percent


@dataclasses.dataclass(frozen=True)
class Section:
    """The fields of a `transition` stage."""

    # The stage whose predictions for the training set are used.
    init: str = stage_ref("base", (*WITH_HEAD, "cross_fit"))
    estimator: TransitionEstimator = spec("confident()", TRANSITIONS)


def labels(section: Section) -> tuple[str, ...]:
    """The labels that the estimate depends on: the clean ones too, if the estimator is an oracle."""
    return ("observed", "clean") if section.estimator.oracle else ("observed",)


def check(job: Job, section: Section) -> dict[str, int]:
    """Refuses the predictions of a stage that was trained on other data than the run's."""
    check_on_manifest(job)
    return {}


def run(job: Job, section: Section) -> dict[str, Any]:
    """Writes `transition.npz` (ids [N], matrix [C, C], clean_counts [C]); returns how good the estimate is.

    Clean labels go to the figures only, unless the estimator is an oracle.
    """
    dataset = job.dataset
    probabilities = read_arrays(job, job.inputs["init"].directory, "label_quality", "probabilities")
    with prefixed(f"config.{job.name}.estimator"):
        estimate = processes.once(lambda: section.estimator.estimate(probabilities, dataset.observed, dataset.clean))
    files.write_arrays(
        job.directory / "transition.npz", ids=dataset.ids, matrix=estimate.matrix, clean_counts=estimate.clean_counts
    )
    figures = describe(estimate, dataset.observed, dataset.clean)
    return {
        "transition": {"oracle": section.estimator.oracle, **figures},
    }


def read(directory: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """The matrix float64 [C, C] and clean counts float64 [C] of a finished stage.

    Raises:
      UserError: the file is missing or damaged.
    """
    matrix, clean_counts = files.load_arrays(directory / "transition.npz", "matrix", "clean_counts")
    return matrix, clean_counts


def rows(summary: Mapping[str, Any]) -> Rows:
    """How far the estimate is from the truth."""
    figures = summary["transition"]
    return [
        *([("transition matrix from the clean labels", "an oracle")] if figures["oracle"] else []),
        ("wrong labels, estimated", percent(figures["estimated_rate"])),
        ("  in truth", percent(figures["realised_rate"])),
        ("transition matrix, mean absolute error", decimals(figures["mean_absolute_error"], 4)),
        ("  total variation of a row", percent(figures["total_variation"])),
        ("clean prior, total variation", percent(figures["clean_prior_total_variation"])),
        ("  of the observed prior", percent(figures["observed_prior_total_variation"])),
    ]


KIND = Kind(Section, run, rows, check, labels)
