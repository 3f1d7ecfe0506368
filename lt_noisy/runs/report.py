"""What a run shows of itself: the header before the first stage and the table after the last."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy.config.resolve import Resolved
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.manifest import Manifest
from lt_noisy.stages.base import Job


def _counts(counts: np.ndarray) -> str:
    shown = [str(c) for c in counts]
    if len(shown) > 20:
        shown = [*shown[:8], "...", *shown[-8:]]
    return " ".join(shown)


def header(
    config_name: str,
    resolved: Resolved,
    manifest: Manifest,
    dataset: Dataset,
    job: Job,
    workdir: pathlib.Path,
) -> str:
    """The data, its counts by class and realised noise, the model, the devices and the stages."""
    texts, classes = resolved.texts, dataset.num_classes
    clean = np.bincount(manifest.clean_labels, minlength=classes)
    observed = np.bincount(manifest.observed_labels, minlength=classes)
    wrong = float(np.mean(manifest.clean_labels != manifest.observed_labels))
    shape = "x".join(str(n) for n in dataset.train_images.shape[1:])
    held = 0 if dataset.validation is None else len(dataset.validation.ids)
    recipe = f"{texts['longtail']}, noise {texts['noise']}"
    if resolved.fields.manifest is not None:
        recipe = texts["manifest"]
    rows = {
        "config": f"{config_name}, seed {texts['seed']}",
        "data": f"{texts['dataset']}: {len(dataset.source.train.labels)} training and {len(dataset.test_labels)} "
        f"test images {shape}, {classes} classes",
        "train set": f"{len(manifest.ids)} images{f' ({held} of them held out)' if held else ''}: {recipe}",
        "clean": f"{_counts(clean)} images per class",
        "observed": f"{_counts(observed)}",
        "wrong": f"{100 * wrong:.1f} % of the labels ({round(wrong * len(manifest.ids))})",
        "model": f"{texts['model']}, {texts['precision']}, BatchNorm over {texts['batch_norm']} batch",
        "devices": f"{job.devices.num_devices} ({texts['parallel']}), {job.steps_per_call} step(s) per call",
        "stages": " -> ".join(stage.name for stage in resolved.stages),
        "workdir": str(workdir),
    }
    return "\n".join(f"{name:<10}{value}" for name, value in rows.items())


def final_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """One block of results per stage, in percent where it is a share."""
    lines = []
    for name, summary in summaries.items():
        if "steps" in summary:
            lines.append(f"{name}: {summary['parameters']:,} parameters, {summary['steps']} steps, ")
            lines[-1] += f"{summary['train_seconds']:.0f} s, {summary['images_per_second']:.0f} images/s"
        else:
            lines.append(f"{name}: {summary['wall_seconds']:.0f} s")
        for block, rows in _BLOCKS.items():
            if block in summary:
                lines += [f"  {title:<40}{value}" for title, value in rows(summary[block])]
    return "\n".join(lines)


Rows = list[tuple[str, str]]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:6.2f} %"


def _collapse(figures: Mapping[str, Any]) -> Rows:
    std = f"{figures['channel_std']:.4f} of {figures['channel_std_ideal']:.4f}"
    return [
        ("channel std (1/sqrt(D) is healthy)", f"{std}{', COLLAPSED' if figures['collapsed'] else ''}"),
        ("effective rank", f"{figures['effective_rank']:.1f}"),
    ]


def _representation(figures: Mapping[str, Any]) -> Rows:
    return [
        ("kNN accuracy, balanced bank", _percent(figures["knn_balanced_bank"])),
        ("  before training", _percent(figures["knn_initial"])),
        ("  on the pixels", _percent(figures["knn_pixels"])),
        ("kNN accuracy, long-tailed bank", _percent(figures["knn_longtailed_bank"])),
        *_collapse(figures),
    ]


def _density(figures: Mapping[str, Any]) -> Rows:
    correlation = figures["spearman"]
    return [
        *([("weights by true class frequency", "an oracle")] if figures["oracle"] else []),
        ("rank correlation with class frequency", "-" if correlation is None else f"{correlation:.3f}"),
        ("largest weight over smallest", f"{figures['range']:.1f}"),
        ("effective sample size", _percent(figures["effective_share"])),
    ]


def _clusters(figures: Mapping[str, Any]) -> Rows:
    return [
        ("cluster sizes", " ".join(str(n) for n in figures["sizes"])),
        ("purity", _percent(figures["purity"])),
        ("adjusted mutual information", f"{figures['adjusted_mutual_information']:.3f}"),
    ]


def _experts(experts: list[Mapping[str, Any]]) -> Rows:
    return [
        (
            f"expert {k}: {e['images']} images",
            f"batch {e['batch_size']}, {e['steps']} steps{', COLLAPSED' if e['collapsed'] else ''}",
        )
        for k, e in enumerate(experts)
    ]


def _transition(figures: Mapping[str, Any]) -> Rows:
    return [
        *([("transition matrix from the clean labels", "an oracle")] if figures["oracle"] else []),
        ("wrong labels, estimated", _percent(figures["estimated_rate"])),
        ("  in truth", _percent(figures["realised_rate"])),
        ("transition matrix, mean absolute error", f"{figures['mean_absolute_error']:.4f}"),
        ("  total variation of a row", _percent(figures["total_variation"])),
        ("clean prior, total variation", _percent(figures["clean_prior_total_variation"])),
        ("  of the observed prior", _percent(figures["observed_prior_total_variation"])),
    ]


def _probes(probes: Mapping[str, Any]) -> Rows:
    rows = []
    for shots, by_probe in probes.items():
        for probe in ("linear", "knn"):
            figures = by_probe[probe]
            if shots == "all":
                rows.append((f"{probe} probe, balanced accuracy", _percent(figures["balanced_accuracy"])))
                rows += _groups(figures)
            else:
                spread = "" if figures["std"] is None else f" +- {100 * figures['std']:.2f}"
                rows.append((f"{probe} probe, {shots} per class", _percent(figures["mean"]) + spread))
    return rows


def _groups(figures: Mapping[str, Any]) -> Rows:
    return [
        (f"  {group} ({values['num_classes']} classes)", _percent(values["accuracy"]))
        for group, values in figures["groups"].items()
        if values["num_classes"]
    ]


def _test(test: Mapping[str, Any]) -> Rows:
    return [
        ("test accuracy", _percent(test["accuracy"])),
        ("balanced accuracy", _percent(test["balanced_accuracy"])),
        *_groups(test),
        ("NLL, ECE", f"{test['nll']:.3f}, {test['ece']:.3f}"),
    ]


def _base_test(base: Mapping[str, Any]) -> Rows:
    return [
        ("before: balanced accuracy", _percent(base["balanced_accuracy"])),
        ("  last three classes", _percent(base["last_three_classes"]["accuracy"])),
    ]


def _tuned(tuned: Mapping[str, Any]) -> Rows:
    there = _percent(tuned["validation_balanced_accuracy"]).strip()
    return [
        ("best tau on noisy validation", f"{tuned['tau']:g} ({there} there)"),
        ("  its balanced accuracy", _percent(tuned["test"]["balanced_accuracy"])),
    ]


def _selection(selection: Mapping[str, Any]) -> Rows:
    rules = {
        "best_on_validation": "best on noisy validation",
        "oracle_best_on_test": "best on test, an oracle",
    }
    return [
        (f"{title}: balanced, step {selection[rule]['step']}", _percent(selection[rule]["test_balanced_accuracy"]))
        for rule, title in rules.items()
        if rule in selection and selection[rule]["step"] != selection["last"]["step"]
    ]


def _correction(correction: Mapping[str, Any]) -> Rows:
    auroc = correction["clean_auroc"]
    return [
        ("wrong labels repaired", _percent(correction["repaired"])),
        ("right labels broken", _percent(correction["broken"])),
        ("AUROC of the clean probability", "-" if auroc is None else f"{auroc:.3f}"),
    ]


def _train(train: Mapping[str, Any]) -> Rows:
    auroc = train["auroc"]
    return [
        ("wrong labels memorised", _percent(train["memorised"])),
        ("AUROC of the loss for wrong labels", "-" if auroc is None else f"{auroc:.3f}"),
    ]


def _pseudo_labels(figures: Mapping[str, Any]) -> Rows:
    labels, irrelevant, known = figures["labels"], figures["irrelevant"], figures["relevant"]
    leaks = [(name, figures.get(f"in_{name}")) for name in ("training", "validation", "test")]
    leaks = [(name, number) for name, number in leaks if number]
    return [
        ("unlabelled images", f"{figures['images']}, {_percent(figures['images_kept']).strip()} of them kept"),
        *((f"  that are {name} images too", str(number)) for name, number in leaks),
        *([("irrelevant ones kept", f"{_percent(figures['irrelevant_kept'])} of {irrelevant}")] if irrelevant else []),
        ("pseudo-labels per class", _counts(np.array(figures["counts"]))),
        *([("accuracy of the relevant kept ones", _percent(labels and labels["accuracy"]))] if known else []),
        *([("  mean over true classes", _percent(labels["balanced_accuracy"])), *_groups(labels)] if labels else []),
    ]


def _label_quality(figures: Mapping[str, Any]) -> Rows:
    where = "out of sample" if figures["out_of_sample"] else "in sample"
    estimated, true = _percent(figures["estimated_rate"]), _percent(figures["true_rate"]).strip()
    if not figures["wrong_labels"]:  # a folder's labels are the only ones there are
        told = f"{estimated} (no clean labels to compare with, or none wrong)"
        return [(f"wrong labels, estimated {where}", told), ("  the ones to look at", "suspects.csv")]
    aurocs = [figures[name]["auroc"] for name in ("wrong_probability", "loss", "margin")]
    rows = [
        (f"wrong labels, estimated {where}", f"{estimated} (true {true})"),
        ("  found at that rate", _found(figures, figures["flagged"])),
        ("  AUROC of mixture, loss, margin", ", ".join("-" if a is None else f"{a:.3f}" for a in aurocs)),
        ("  right class suggested for those found", _percent(figures["suggested_accuracy"])),
    ]
    other = figures["confident_learning"]
    return rows + ([] if other is None else [("  found by confident learning", _found(other, other["issues"]))])


def _found(figures: Mapping[str, Any], number: int) -> str:
    precision, recall = (_percent(figures[name]) for name in ("precision", "recall"))
    return f"{precision} precision, {recall.strip()} recall ({number} images)"


# What each block of a summary is shown as, in this order.
_BLOCKS = {
    "representation": _representation,
    "density": _density,
    "clusters": _clusters,
    "pseudo_labels": _pseudo_labels,
    "experts": _experts,
    "transition": _transition,
    "probes": _probes,
    "collapse": _collapse,
    "base_test": _base_test,
    "test": _test,
    "tuned": _tuned,
    "selection": _selection,
    "correction": _correction,
    "train": _train,
    "label_quality": _label_quality,
}
