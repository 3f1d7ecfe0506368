"""Stage `probe`: what a finished stage's frozen representation is worth, by probes on cached features."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy import processes
from lt_noisy.config.fields import plain, spec, stage_ref
from lt_noisy.data.dataset import DATA, Part
from lt_noisy.data.sources.base import Load
from lt_noisy.errors import UserError
from lt_noisy.evaluation.oracle_probe import ORACLES, Liu
from lt_noisy.evaluation.probes import LINEAR, Linear, evaluate_probes
from lt_noisy.evaluation.representation import collapse
from lt_noisy.stages import training
from lt_noisy.stages.base import ENCODERS, Job, Kind, observed_labels
from lt_noisy.stages.origin import augmentation, required, weights_read
from lt_noisy.stages.representation import NEAREST, Knn, encoder_features
from lt_noisy.stages.rows import Rows, collapse_rows, groups_rows, percent
from lt_noisy.weights.pretrained import PRETRAINED, Pretrained


@dataclasses.dataclass(frozen=True)
class Section:
    """The fields of a `probe` stage."""

    init: str | Pretrained = stage_ref("pretrain", ENCODERS, table=PRETRAINED)  # whose encoder is probed
    # What the probes learn on: the full split, the manifest, or another source.
    data: Part | Load = spec("full()", DATA)
    linear: Linear = spec("logistic()", LINEAR)
    knn: Knn = spec("knn()", NEAREST)
    shots: tuple[int, ...] = plain((0,))  # training images per class; 0 for all there are
    repeats: int = plain(5)  # draws of each few-shot training set
    oracle: Liu | None = spec("none()", ORACLES)  # a published protocol beside them, which selects by the test set


def check(job: Job, section: Section) -> dict[str, str]:
    """Refuses shots that cannot be drawn, and images that the encoder cannot take."""
    whole = all(type(n) is int and n >= 0 for n in section.shots)
    if not section.shots or not whole or len(set(section.shots)) < len(section.shots):
        raise UserError(f"config.{job.name}.shots are different whole numbers, 0 for all images: not {section.shots}")
    if section.repeats < 1:
        raise UserError(f"config.{job.name}.repeats is at least 1, not {section.repeats}")
    read, start = weights_read(job, section), required(job, section)
    training.check_images(job, augmentation(start).evaluate, f"config.{job.name}.data")
    if section.oracle is not None:
        training.check_images(job, section.oracle.shown, f"config.{job.name}.oracle")
    return read


def run(job: Job, section: Section) -> dict[str, Any]:
    """Evaluates the probes on the test set of their data; returns the summary. Only an oracle selects by it."""
    dataset = job.dataset
    features = encoder_features(job, required(job, section))
    test = features(dataset.test_images)
    # Groups by how often the encoder saw a class; another source has classes of its own.
    trained_on = job.training_set if isinstance(section.data, Part) else dataset
    counts = np.bincount(trained_on.clean, minlength=dataset.num_classes)
    train = features(dataset.train_images)
    probes = processes.once(
        lambda: evaluate_probes(
            section.linear,
            section.knn,
            section.shots,
            section.repeats,
            train,
            dataset.observed,
            test,
            dataset.test_labels,
            counts,
            dataset.class_names,
            job.seed,
        )
    )
    summary = {
        "train_images": len(dataset.ids),
        "train_classes": len(np.unique(dataset.observed)),
        "probes": probes,
        "collapse": collapse(test),
    }
    if section.oracle is not None:
        train_images, test_images = dataset.train_images[:], dataset.test_images[:]  # stored ones are read
        data = train_images, dataset.observed, test_images, dataset.test_labels
        summary["oracle"] = section.oracle(features, *data, dataset.num_classes, job.seed)
    return summary


def rows(summary: Mapping[str, Any]) -> Rows:
    """Each probe on all images and on a few of every class, and whether the features have collapsed."""
    found = []
    for shots, by_probe in summary["probes"].items():
        for probe in ("linear", "knn"):
            figures = by_probe[probe]
            if shots == "all":
                found.append((f"{probe} probe, balanced accuracy", percent(figures["balanced_accuracy"])))
                found += groups_rows(figures)
            else:
                spread = "" if figures["std"] is None else f" +- {100 * figures['std']:.2f}"
                found.append((f"{probe} probe, {shots} per class", percent(figures["mean"]) + spread))
    if "oracle" in summary:
        oracle = summary["oracle"]
        found.append((f"oracle: best of {len(oracle['by_epoch'])} epochs on test", percent(oracle["best_on_test"])))
    return found + collapse_rows(summary["collapse"])


KIND = Kind(Section, run, rows, check, observed_labels)
