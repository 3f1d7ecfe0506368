"""Stage `pseudo_label`: a finished classifier's labels for images without any, to train on beside the labelled ones.

Base classifier -> pseudo-labels -> training from scratch on both. One round; several are several stages of a config.

References:
  Yang & Xu, "Rethinking the Value of Labels for Improving Class-Imbalanced Learning" (2020), sec. 3.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import softmax

from lt_noisy import processes
from lt_noisy.config.fields import choice, plain, stage_ref
from lt_noisy.data import pools
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.images import Images, blocks
from lt_noisy.data.sources.base import identity_of
from lt_noisy.errors import UserError
from lt_noisy.evaluation.classification import accuracies, class_groups, mean_or_none
from lt_noisy.hashing import array_sha256
from lt_noisy.stages import supervised, unlabelled
from lt_noisy.stages.base import WITH_HEAD, Job, Kind, check_on_manifest
from lt_noisy.stages.rows import Rows, counts, groups_rows, percent


@dataclasses.dataclass(frozen=True)
class Section(unlabelled.Pool):
    """The fields of a `pseudo_label` stage."""

    init: str = stage_ref("base", WITH_HEAD)  # the stage whose classifier labels the pool
    targets: str = choice("argmax", ("argmax", "soft"))  # soft: all probabilities
    threshold: float = plain(0.0)  # kept where the largest probability is at least this


def check(job: Job, section: Section) -> dict[str, str]:
    """Refuses a pool that cannot be drawn; returns the hash of its ids, true labels and images.

    Nothing is learnt from the true labels, but the summary reports on them.
    """
    where = f"config.{job.name}"
    if not 0 <= section.threshold <= 1:
        raise UserError(f"{where}.threshold is a probability in [0, 1], not {section.threshold}")
    check_on_manifest(job)
    if processes.count() > 1 and job.inputs["init"].of_features:
        raise UserError(f"{where}.init: that stage works on features, which several processes have of no pool")
    pool = unlabelled.pool(job, section, job.name)
    images = identity_of(pool, np.arange(len(pool.ids)), unlabelled.images(job, pool))
    hashes = [array_sha256(pool.ids), array_sha256(pool.labels), images]
    return {"pool_sha256": hashlib.sha256("".join(hashes).encode()).hexdigest()}


def run(job: Job, section: Section) -> dict[str, Any]:
    """Writes `pseudo_labels.npz` (ids [M], targets, kept, confidence); returns how good the pseudo-labels are.

    The classifier is in evaluation mode, the images un-augmented. True labels go to the figures only.
    """
    pool = unlabelled.pool(job, section, job.name)
    images = unlabelled.images(job, pool)
    logits = supervised.load(job, job.inputs["init"])(images)
    assigned = assign(logits, section.targets, section.threshold)
    if not assigned.kept.any():
        raise UserError(
            f"config.{job.name}.threshold: {section.threshold:g} keeps none of {len(assigned.kept)} images "
            f"(largest confidence {assigned.confidence.max():.9g}); lower it"
        )
    unlabelled.write(job.directory, pool, assigned, job.training_set.class_names)
    figures = describe(logits.argmax(-1), assigned.kept, assigned.confidence, pool.labels, job.training_set)
    seen_before = processes.once(lambda: duplicates(images, job.training_set))
    return {"pseudo_labels": {**figures, **seen_before}}


def assign(logits: np.ndarray, targets: str, threshold: float) -> unlabelled.PseudoLabels:
    """Pseudo-labels from logits float [M, C]: the argmax, or with 'soft' all probabilities.

    Ties go to the first class. The paper has no threshold: 0.0 keeps all.
    """
    probabilities = softmax(logits.astype(np.float64), axis=-1).astype(np.float32)
    confidence = probabilities.max(-1)
    hard = logits.argmax(-1).astype(np.int32)
    return unlabelled.PseudoLabels(hard if targets == "argmax" else probabilities, confidence >= threshold, confidence)


def describe(
    predictions: np.ndarray, kept: np.ndarray, confidence: np.ndarray, labels: np.ndarray, dataset: Dataset
) -> dict[str, Any]:
    """How good pseudo-labels are, by true labels.

    Args:
      predictions: int [M], the pseudo-label of each image.
      kept: bool [M].
      confidence: float [M].
      labels: int [M], the true labels, or what `pools` has in their place.
      dataset: the training set, whose clean counts define head and tail.

    Returns:
      `images`, `relevant` and `irrelevant`, how many there are, the last two where labels are known; of each
      `..._kept`, the share that is kept (None of none); `confidence`, its mean over all images; over the kept ones
      `counts` [C] of pseudo-labels, and `precision` [C], the share of a pseudo-label's images that are truly of its
      class (None without images of known label), irrelevant ones being wrong; `group_precision`, its mean over each of
      `classification.class_groups`; `labels`, what `classification.accuracies` says of the relevant kept ones (None
      without any).
    """
    num_classes, relevant, irrelevant = dataset.num_classes, labels >= 0, labels == pools.NOT_OF_ANY_CLASS
    train_counts = np.bincount(dataset.clean, minlength=num_classes)
    counts = np.bincount(predictions[kept], minlength=num_classes)
    right = np.bincount(predictions[kept & (predictions == labels)], minlength=num_classes)
    known = np.bincount(predictions[kept & (labels != pools.UNKNOWN)], minlength=num_classes)
    precision = [float(r / n) if n else None for r, n in zip(right, known, strict=True)]
    judged = kept & relevant
    return {
        "images": len(labels),
        "images_kept": float(kept.mean()),
        "relevant": int(relevant.sum()),
        "relevant_kept": mean_or_none(kept[relevant]),
        "irrelevant": int(irrelevant.sum()),
        "irrelevant_kept": mean_or_none(kept[irrelevant]),
        "confidence": float(confidence.mean(dtype=np.float64)),
        "counts": counts.tolist(),
        "precision": precision,
        "group_precision": {
            name: mean_or_none(np.array([precision[c] for c in classes], float))
            for name, classes in class_groups(train_counts).items()
        },
        "labels": accuracies(predictions[judged], labels[judged], train_counts, dataset.class_names)
        if judged.any()
        else None,
    }


def duplicates(images: Images, dataset: Dataset) -> dict[str, int]:
    """How many of the images are, byte for byte, training (`in_training`), held-out or test images."""

    def digests(of: Images) -> list[bytes]:
        return [
            hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            for _, block in blocks(of, 1024)
            for image in block
        ]

    pool = digests(images)
    known = {"in_training": set(digests(dataset.train_images)), "in_test": set(digests(dataset.test_images))}
    if dataset.validation is not None:
        known["in_validation"] = set(digests(dataset.validation.images))
    return {name: sum(digest in those for digest in pool) for name, those in known.items()}


def rows(summary: Mapping[str, Any]) -> Rows:
    """How many images are kept, and how right their labels are."""
    figures = summary["pseudo_labels"]
    labels, irrelevant, known = figures["labels"], figures["irrelevant"], figures["relevant"]
    leaks = [(name, figures.get(f"in_{name}")) for name in ("training", "validation", "test")]
    leaks = [(name, number) for name, number in leaks if number]
    return [
        ("unlabelled images", f"{figures['images']}, {percent(figures['images_kept']).strip()} of them kept"),
        *((f"  that are {name} images too", str(number)) for name, number in leaks),
        *([("irrelevant ones kept", f"{percent(figures['irrelevant_kept'])} of {irrelevant}")] if irrelevant else []),
        ("pseudo-labels per class", counts(np.array(figures["counts"]))),
        *([("accuracy of the relevant kept ones", percent(labels and labels["accuracy"]))] if known else []),
        *([("  mean over true classes", percent(labels["balanced_accuracy"])), *groups_rows(labels)] if labels else []),
    ]


KIND = Kind(Section, run, rows, check)
