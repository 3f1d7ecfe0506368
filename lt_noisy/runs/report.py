"""What a run shows of itself: the header before the first stage and the table after the last."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from lt_noisy.config.resolve import Resolved, Stage
from lt_noisy.config.spec import bind, parse
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.longtail import LONGTAILS, by_size
from lt_noisy.data.manifest import Manifest
from lt_noisy.data.sources.base import Source
from lt_noisy.errors import UserError, first_line
from lt_noisy.files import os_error_line
from lt_noisy.stages.base import Job
from lt_noisy.stages.rows import counts
from lt_noisy.training import parallel


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
        "clean": f"{counts(clean)} images per class",
        "observed": f"{counts(observed)}",
        **_order_note(resolved, dataset.source, len(manifest.ids)),
        "wrong": f"{100 * wrong:.1f} % of the labels ({round(wrong * len(manifest.ids))})",
        "model": f"{texts['model']}, BatchNorm over {texts['batch_norm']} batch",
        "devices": f"{parallel.describe(job.devices.num_devices)}, {texts['parallel']}, {texts['precision']}, "
        f"{job.steps_per_call} step(s) per call",
        "stages": " -> ".join(stage.name for stage in resolved.stages),
        "workdir": str(workdir),
    }
    return "\n".join(f"{name:<10}{value}" for name, value in rows.items())


def _order_note(resolved: Resolved, source: Source, kept: int) -> dict[str, str]:
    """A row where the order of the classes costs more than half of the images; {} elsewhere.

    A long tail keeps few of them in any case, a quarter at ratio 100, so it is held against the same profile with the
    largest class as its head: of a set with classes of one size that is as many, and there is no note.
    """
    if resolved.fields.noise.before_longtail:  # the profile is of labels that are not the source's
        return {}
    select = bind(by_size(parse(resolved.texts["longtail"])), LONGTAILS, "config.longtail")
    try:
        most = len(select(source.train.labels, source.train.ids, source.num_classes, resolved.fields.seed))
    except UserError:  # a balanced control of so many has too few of a small class
        return {}
    if 2 * kept >= most:
        return {}
    return {"note": f"with the largest class as its head the profile would keep {most} images: set its order=by_size"}


def final_table(stages: Iterable[Stage], summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """One block of results per stage, in percent where it is a share."""
    lines = []
    for stage in stages:
        summary = summaries[stage.name]
        if "steps" in summary:
            lines.append(f"{stage.name}: {summary['parameters']:,} parameters, {summary['steps']} steps, ")
            lines[-1] += f"{summary['train_seconds']:.0f} s, {summary['images_per_second']:.0f} images/s"
        else:
            lines.append(f"{stage.name}: {summary['wall_seconds']:.0f} s")
        lines += [f"  {title:<40}{value}" for title, value in stage.kind.rows(summary)]
    return "\n".join(lines)


def surroundings(error: Exception) -> str | None:
    """One line for what the machine could not give: room on a disk, memory; None for an error of another kind."""
    if isinstance(error, OSError):
        return os_error_line(error)
    if isinstance(error, MemoryError):
        return f"out of memory: {first_line(error)}; {_LESS}"
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return f"out of memory on {jax.local_devices()[0].device_kind}: {first_line(error)[:300]}; {_LESS}"
    return None


_LESS = "a smaller batch_size, smaller images or more devices take less"
