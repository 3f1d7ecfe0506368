"""Stage `classifier`: a finished classifier re-balanced after training, on its own cached features."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.preprocessing import normalize

from lt_noisy.config.fields import Field, Fields
from lt_noisy.errors import UserError
from lt_noisy.evaluation.classification import classification, label_noise
from lt_noisy.models.heads import Cosine
from lt_noisy.rebalance.posthoc import CLASSIFIERS, Head, Known, tune
from lt_noisy.stages import supervised, transition
from lt_noisy.stages.base import Input, Job
from lt_noisy.stages.features import encoder_features, part_variables

FIELDS: Fields = {
    "init": Field("finetune"),  # the stage whose classifier is re-balanced
    "method": Field("tau_normalised()", CLASSIFIERS),
    "transition": Field("none()"),  # or a `transition` stage: what `posthoc(prior="corrected")` takes the prior from
}


def check(job: Job, section: SimpleNamespace) -> dict[str, int]:
    """Refuses a classifier of other data than the manifest, a missing prior, and one that nothing reads."""
    data = job.inputs["init"].texts.get("data", "manifest()")
    if data != "manifest()":
        raise UserError(f"config.{job.name}.init: that stage is trained on {data}, not on the run's manifest()")
    if section.method.reads_clean_counts and "transition" not in job.inputs:
        raise UserError(f"config.{job.name}.transition: posthoc(prior='corrected') needs a `transition` stage")
    if "transition" in job.inputs and not section.method.reads_clean_counts:
        raise UserError(f"config.{job.name}.transition: only posthoc(prior='corrected') reads it; set it to 'none()'")
    return {}


def run(job: Job, section: SimpleNamespace) -> dict[str, Any]:
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
    groups = np.bincount(dataset.clean, minlength=dataset.num_classes)

    def on_test(logits: np.ndarray) -> dict[str, Any]:
        return classification(logits, dataset.test_labels, groups, dataset.class_names)

    rebalanced, before = section.method.fit(known), on_test(known.head.logits(test_features))
    summary = {
        "stage": job.name,
        "seed": job.seed,
        "classifier": rebalanced.details,
        "base_test": {name: before[name] for name in ("balanced_accuracy", "last_three_classes")},
        "test": on_test(rebalanced.logits(test_features)),
        "train": label_noise(rebalanced.logits(train_features), dataset.observed, dataset.clean),
    }
    held_out = dataset.validation
    if held_out is not None and section.method.at is not None:
        tau, accuracy = tune(section.method.at, known, features(held_out.images), held_out.observed)
        tuned = section.method.at(tau).fit(known).logits(test_features)
        summary["tuned"] = {"tau": tau, "validation_balanced_accuracy": accuracy, "test": on_test(tuned)}
    return summary


def read_head(job: Job, stage: Input) -> Head:
    """The head of a finished classifier; a cosine one as a linear one on features of length 1."""
    net = supervised.classifier(job, stage.section)
    params = part_variables(job, net, stage.directory, ("head",))["params"]["head"]
    if isinstance(net.head, Cosine):
        kernel = net.head.scale * normalize(params["kernel"].astype(np.float64), axis=0)
        return Head(kernel, np.zeros(kernel.shape[1]), unit_features=True)
    return Head(params["dense"]["kernel"].astype(np.float64), params["dense"]["bias"].astype(np.float64))
