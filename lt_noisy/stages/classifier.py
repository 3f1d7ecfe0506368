"""Stage `classifier`: a finished classifier re-balanced after training, on its own cached features."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from sklearn.preprocessing import normalize

from lt_noisy import processes
from lt_noisy.config.fields import spec, stage_ref
from lt_noisy.data.dataset import Dataset
from lt_noisy.errors import UserError
from lt_noisy.evaluation.classification import classification, label_noise
from lt_noisy.evaluation.selection import balanced_accuracy
from lt_noisy.models.heads import Cosine
from lt_noisy.rebalance.base import Head, Known, Rebalancing
from lt_noisy.rebalance.posthoc import CLASSIFIERS, tune
from lt_noisy.stages import supervised, transition
from lt_noisy.stages.base import WITH_HEAD, Input, Job, Kind, check_on_manifest, observed_labels
from lt_noisy.stages.prediction import part_variables
from lt_noisy.stages.representation import encoder_features
from lt_noisy.stages.rows import Rows, percent, test_rows, train_rows


@dataclasses.dataclass(frozen=True)
class Section:
    """The fields of a `classifier` stage."""

    init: str = stage_ref("finetune", WITH_HEAD)  # the stage whose classifier is re-balanced
    method: Rebalancing = spec("tau_normalised()", CLASSIFIERS)
    # A `transition` stage: what `posthoc(prior="corrected")` takes the prior from.
    transition: str = stage_ref("none()", ("transition",), optional=True)


def check(job: Job, section: Section) -> dict[str, int]:
    """Refuses a classifier of other data than the manifest, a missing prior, and one that nothing reads."""
    check_on_manifest(job)
    if section.method.reads_clean_counts and "transition" not in job.inputs:
        raise UserError(f"config.{job.name}.transition: posthoc(prior='corrected') needs a `transition` stage")
    if "transition" in job.inputs and not section.method.reads_clean_counts:
        raise UserError(f"config.{job.name}.transition: only posthoc(prior='corrected') reads it; set it to 'none()'")
    if len(job.dataset.ids) < section.method.least:
        raise UserError(
            f"config.{job.name}.method: it takes {section.method.least} training examples or more, there are "
            f"{len(job.dataset.ids)}; set a smaller k_max, or leave {job.name!r} out of config.stages"
        )
    return {}


def run(job: Job, section: Section) -> dict[str, Any]:
    """Re-balances and evaluates; returns the summary. The test set is only looked at, it selects nothing.

    The headline `test` has the method as it was asked for. Where the run holds out a validation split and the method
    has a tau, `tuned` stands beside it: the tau that is best on that split's observed labels (see `tune`). Counts,
    class means and scales are of the manifest's observed labels, even where the classifier has seen pseudo-labelled
    images too.
    """
    dataset, base = job.dataset, job.inputs["init"]
    features = encoder_features(job, base)
    test_features, train_features = features(dataset.test_images), features(dataset.train_images)
    clean_counts = transition.read(job.inputs["transition"].directory)[1] if "transition" in job.inputs else None
    known = Known(read_head(job, base), train_features, dataset.observed, clean_counts)
    held_out = dataset.validation if section.method.with_tau is not None else None
    held_features = None if held_out is None else features(held_out.images)
    return processes.once(lambda: _rebalanced(dataset, section.method, known, test_features, held_features))


def _rebalanced(
    dataset: Dataset, method: Rebalancing, known: Known, test_features: np.ndarray, held_features: np.ndarray | None
) -> dict[str, Any]:
    """The summary; `held_features` are those of the held-out images to choose tau by, None where none is chosen."""
    groups = np.bincount(dataset.clean, minlength=dataset.num_classes)

    def on_test(logits: np.ndarray) -> dict[str, Any]:
        return classification(logits, dataset.test_labels, groups, dataset.class_names)

    rebalanced, before = method.fit(known), on_test(known.head.logits(test_features))
    summary = {
        "classifier": rebalanced.details,
        "base_test": {name: before[name] for name in ("balanced_accuracy", "last_three_classes")},
        "test": on_test(rebalanced.logits(test_features)),
        "train": label_noise(rebalanced.logits(known.features), dataset.observed, dataset.clean),
    }
    held_out = dataset.validation
    if held_out is not None and method.with_tau is not None and held_features is not None:
        tau, accuracy = tune(method.with_tau, known, held_features, held_out.observed, balanced_accuracy)
        tuned = method.with_tau(tau).fit(known).logits(test_features)
        summary["tuned"] = {"tau": tau, "validation_balanced_accuracy": accuracy, "test": on_test(tuned)}
    return summary


def read_head(job: Job, stage: Input) -> Head:
    """The head of a finished classifier; a cosine one as a linear one on features of length 1."""
    net = supervised.classifier(job, stage.section.head)
    params = part_variables(job, net, stage.directory, stage.section.augment, ("head",))["params"]["head"]
    if isinstance(net.head, Cosine):
        # scikit-learn's is a pair only with `return_norm`.
        kernel = net.head.scale * cast(np.ndarray, normalize(params["kernel"].astype(np.float64), axis=0))
        return Head(kernel, np.zeros(kernel.shape[1]), unit_features=True)
    return Head(params["dense"]["kernel"].astype(np.float64), params["dense"]["bias"].astype(np.float64))


def rows(summary: Mapping[str, Any]) -> Rows:
    """Before, as asked for, and at the tau that is best on noisy validation."""
    base, tuned = summary["base_test"], summary.get("tuned")
    found = [
        ("before: balanced accuracy", percent(base["balanced_accuracy"])),
        ("  last three classes", percent(base["last_three_classes"]["accuracy"])),
        *test_rows(summary["test"]),
    ]
    if tuned is not None:
        there = percent(tuned["validation_balanced_accuracy"]).strip()
        found += [
            ("best tau on noisy validation", f"{tuned['tau']:g} ({there} there)"),
            ("  its balanced accuracy", percent(tuned["test"]["balanced_accuracy"])),
        ]
    return found + train_rows(summary["train"])


KIND = Kind(Section, run, rows, check, observed_labels)
