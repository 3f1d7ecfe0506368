"""What a run shows of itself: the header before the first stage and the table after the last."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lt_noisy.config import Resolved
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.manifest import Manifest
from lt_noisy.stages.common import Job


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
    recipe = f"{texts['longtail']}, noise {texts['noise']}"
    if resolved.fields.manifest is not None:
        recipe = texts["manifest"]
    rows = {
        "config": f"{config_name}, seed {texts['seed']}",
        "data": f"{texts['dataset']}: {len(dataset.source.train.labels)} training and {len(dataset.test_labels)} "
        f"test images {shape}, {classes} classes",
        "train set": f"{len(manifest.ids)} images: {recipe}",
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


def _train(train: Mapping[str, Any]) -> Rows:
    auroc = train["auroc"]
    return [
        ("wrong labels memorised", _percent(train["memorised"])),
        ("AUROC of the loss for wrong labels", "-" if auroc is None else f"{auroc:.3f}"),
    ]


# What each block of a summary is shown as, in this order.
_BLOCKS = {
    "representation": _representation,
    "density": _density,
    "clusters": _clusters,
    "experts": _experts,
    "probes": _probes,
    "collapse": _collapse,
    "test": _test,
    "train": _train,
}
