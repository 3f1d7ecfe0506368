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
        lines.append(f"{name}: {summary['parameters']:,} parameters, {summary['steps']} steps, ")
        lines[-1] += f"{summary['train_seconds']:.0f} s, {summary['images_per_second']:.0f} images/s"
        for title, value in _results(summary):
            lines.append(f"  {title:<36}{value}")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:6.2f} %"


def _results(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if "representation" in summary:
        r = summary["representation"]
        rows += [
            ("kNN accuracy, balanced bank", _percent(r["knn_balanced_bank"])),
            ("kNN accuracy, long-tailed bank", _percent(r["knn_longtailed_bank"])),
            (
                "channel std (1/sqrt(D) is healthy)",
                f"{r['channel_std']:.4f} of {r['channel_std_ideal']:.4f}{', COLLAPSED' if r['collapsed'] else ''}",
            ),
        ]
    if "test" in summary:
        test, train = summary["test"], summary["train"]
        rows += [
            ("test accuracy", _percent(test["accuracy"])),
            ("balanced accuracy", _percent(test["balanced_accuracy"])),
        ]
        for group, values in test["groups"].items():
            if values["num_classes"]:
                rows.append((f"  {group} ({values['num_classes']} classes)", _percent(values["accuracy"])))
        rows += [
            ("NLL, ECE", f"{test['nll']:.3f}, {test['ece']:.3f}"),
            ("wrong labels memorised", _percent(train["memorised"])),
            (
                "AUROC of the loss for wrong labels",
                "-" if train["auroc"] is None else f"{train['auroc']:.3f}",
            ),
        ]
    return rows
