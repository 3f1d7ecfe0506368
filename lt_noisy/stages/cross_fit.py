"""Stage `cross_fit`: every label judged by a classifier that was trained without it, by K folds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy import rng
from lt_noisy.config.fields import plain, stage_ref
from lt_noisy.errors import UserError
from lt_noisy.stages import supervised, training
from lt_noisy.stages.base import ENCODERS, Job, Kind, observed_labels
from lt_noisy.stages.quality import write_quality
from lt_noisy.stages.rows import Rows, label_quality_rows
from lt_noisy.weights.pretrained import PRETRAINED, Pretrained


@dataclasses.dataclass(frozen=True)
class Section(supervised.Learning):
    """The fields of a `cross_fit` stage. Pseudo-labels and transition matrices have seen the labels that it judges."""

    folds: int = plain(5)  # parts of the training set, each judged by a network that is trained on the others
    init: str | Pretrained = stage_ref("none()", ENCODERS, optional=True, label_free=True, table=PRETRAINED)


def assign_folds(observed: np.ndarray, ids: np.ndarray, folds: int, seed: int, purpose: str) -> np.ndarray:
    """A fold for every image, drawn by id whatever the storage order: int32 [N] in [0, folds).

    Stratified by observed label: of each class, and of all images, two folds hold numbers that differ by at most one. A
    class of fewer images than folds is in as many folds as it has images (scikit-learn's `StratifiedKFold` warns); one
    of a single image is unknown to the network that judges it.

    Args:
      observed: int [N].
      ids: int64 [N].
    """
    rank = np.empty(len(ids), np.int64)
    rank[np.argsort(ids, kind="stable")] = rng.generator(seed, purpose).permutation(len(ids))
    assigned = np.empty(len(ids), np.int32)
    assigned[np.lexsort((rank, observed))] = np.arange(len(ids)) % folds
    return assigned


def check(job: Job, section: Section) -> dict[str, int]:
    """Refuses what does not fit the smallest of the training sets; returns the length on it.

    Each network takes the section's length on its own images, in a multiple of steps_per_call, which is therefore part
    of the identity.
    """
    images = len(job.dataset.ids)
    if not 2 <= section.folds <= images:
        raise UserError(f"config.{job.name}.folds is 2 to {images}, the number of images, not {section.folds}")
    smallest = _without(job, _folds(job, section), 0)  # fold 0 holds the spare images
    training.check_epoch(job, section, images - images // section.folds)  # the largest: another last batch
    return {**supervised.check(smallest, section), "steps_per_call": job.steps_per_call}


def run(job: Job, section: Section) -> dict[str, Any]:
    """Trains one network per fold on the other folds, each under `fold_<k>/`; returns how well they find wrong labels.

    A fold's images are predicted, in evaluation mode, by the network that was not trained on them. The predictions of
    all folds then make one `label_quality.npz`; the mixture is fitted to all their losses at once. A killed stage goes
    on inside the fold it was in.
    """
    fold, dataset = _folds(job, section), job.dataset
    logits = np.empty((len(dataset.ids), dataset.num_classes), np.float32)
    networks = []
    for k in range(section.folds):
        logits[fold == k], summary = _train(job, section, fold, k)
        networks.append(summary)
    return {
        **training.summed(networks),
        "networks": networks,
        "label_quality": {**write_quality(job, logits, fold), "folds": section.folds},
    }


def _folds(job: Job, section: Section) -> np.ndarray:
    return assign_folds(job.dataset.observed, job.dataset.ids, section.folds, job.seed, f"{job.name}/folds")


def _without(job: Job, fold: np.ndarray, k: int) -> Job:
    """The job on all images but those of fold k."""
    return job._replace(dataset=job.dataset.rows(np.flatnonzero(fold != k)))


def _train(job: Job, section: Section, fold: np.ndarray, k: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Logits [n, C] of the images of fold k by a network trained on the others, and that network's summary."""
    own = _without(job, fold, k)._replace(name=f"{job.name}/fold_{k}", directory=job.directory / f"fold_{k}")
    held_out = job.dataset.rows(np.flatnonzero(fold == k))
    ready = supervised.prepare(own, section)
    own.directory.mkdir(exist_ok=True)
    trained = training.run_training(own, ready, lambda state: {})
    predict = supervised.predict_logits(own, ready.net, section.augment)
    logits = predict(trained.device_state.evaluated, held_out.train_images)
    figures = {
        "images": len(own.dataset.ids),
        "held_out_images": len(held_out.ids),
        "held_out_accuracy_observed": float((logits.argmax(-1) == held_out.observed).mean()),
    }
    return logits, {**training.summarise(own, trained, ready.plan, figures), "stage": f"fold_{k}"}


def rows(summary: Mapping[str, Any]) -> Rows:
    """How well wrong labels are found out of sample."""
    return label_quality_rows(summary["label_quality"])


KIND = Kind(Section, run, rows, check, observed_labels)
