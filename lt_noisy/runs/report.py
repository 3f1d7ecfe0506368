"""What a run shows of itself: the header before the first stage and the table after the last."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy import processes, system
from lt_noisy.config.resolve import Resolved, Stage
from lt_noisy.config.spec import bind, parse
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.images import Stored, kind_of
from lt_noisy.data.longtail import LONGTAILS, by_size
from lt_noisy.data.manifest import Manifest, truth_known
from lt_noisy.data.sources.base import Source
from lt_noisy.errors import UserError, printable
from lt_noisy.runs.jobs import Work
from lt_noisy.stages.rows import counts
from lt_noisy.training import parallel, parameters


def header(
    config_name: str,
    resolved: Resolved,
    manifest: Manifest,
    dataset: Dataset,
    works: Sequence[Work],
    workdir: pathlib.Path,
) -> str:
    """The data, its counts by class and realised noise, the model, the devices, the memory and the stages."""
    job = works[0].job
    texts, classes = resolved.texts, dataset.num_classes
    clean = np.bincount(manifest.clean_labels, minlength=classes)
    observed = np.bincount(manifest.observed_labels, minlength=classes)
    shape = dataset.train_images.shape[1:]
    kind = kind_of(shape)
    held = 0 if dataset.validation is None else len(dataset.validation.ids)
    recipe = f"{texts['longtail']}, noise {texts['noise']}"
    if resolved.fields.manifest is not None:
        recipe = texts["manifest"]
    rows = {
        "config": f"{config_name}, seed {texts['seed']}",
        "data": f"{texts['dataset']}: {len(dataset.source.train.labels)} training and {len(dataset.test_labels)} "
        f"test {kind} {'x'.join(map(str, shape))}, {classes} classes",
        "train set": f"{len(manifest.ids)} {kind}{f' ({held} of them held out)' if held else ''}: {recipe}",
        "clean": f"{counts(clean)} {kind} per class",
        "observed": f"{counts(observed)}",
        **_order_note(resolved, dataset.source, len(manifest.ids)),
        "wrong": _wrong(manifest, dataset.source),
        "model": f"{texts['model']}, BatchNorm over {texts['batch_norm']} batch",
        "": _encoder(resolved, dataset),
        "devices": f"{parallel.describe(job.devices.num_devices)}{processes.describe()}, {texts['parallel']}, "
        f"{texts['precision']}, {job.steps_per_call} step(s) per call",
        "memory": _memory(dataset, works, resolved.fields.feed.workers),
        "stages": " -> ".join(stage.name for stage in resolved.stages),
        "workdir": str(workdir),
    }
    return "\n".join(f"{name:<10}{printable(value)}" for name, value in rows.items())


def _wrong(manifest: Manifest, source: Source) -> str:
    """How many observed labels are wrong, where that is known."""
    if not truth_known(manifest, source.train.clean):
        return "not known: no noise was put on the labels of the source"
    wrong = manifest.clean_labels != manifest.observed_labels
    return f"{100 * wrong.mean():.1f} % of the labels ({wrong.sum()})"


def _encoder(resolved: Resolved, dataset: Dataset) -> str:
    """Parameters of the encoder by part; those of heads and projectors each stage says when it starts."""
    image = jax.ShapeDtypeStruct((1, *dataset.train_images.shape[1:]), jnp.float32)
    net = resolved.fields.model(resolved.fields.precision, resolved.fields.batch_norm)
    variables = jax.eval_shape(lambda key, x: net.init(key, x, train=False), jax.random.key(0), image)
    return parameters.line(dict(variables.get("params", {})))


def _memory(dataset: Dataset, works: Iterable[Work], workers: int) -> str:
    """What the images take, on the host and again on each device, and beside them the dearest monitor."""
    held = dataset.validation
    images = sum(
        a.nbytes for a in (dataset.train_images, dataset.test_images, *([] if held is None else [held.images]))
    )
    kind = kind_of(dataset.train_images.shape[1:])
    if isinstance(dataset.train_images, Stored):
        readers = workers or system.cores() or 1
        text = f"{_size(images)} of {kind}, read from their source step by step by {readers} thread(s) (config.feed)"
    else:
        text = f"{_size(images)} of {kind}, {_size(dataset.train_images.nbytes)} of them on each device too"
    dearest, name = max((work.stage.kind.watch_bytes(work.job, work.stage.section), work.stage.name) for work in works)
    more = f"; {_size(dearest)} more to watch {name} (--config.{name}.monitor='none()' does without)"
    kept = f"; freed memory is kept for the next step ({system.KEEP_MEMORY}=0 gives it back)"
    return text + (more if dearest else "") + (kept if system.keeps_memory() else "")


def _size(number: int) -> str:
    """Bytes in MB."""
    return f"{number / 1e6:,.0f} MB" if number >= 1e6 else f"{number / 1e6:.1f} MB"


def _order_note(resolved: Resolved, source: Source, kept: int) -> dict[str, str]:
    """A row where the order of the classes costs more than half of the images; {} elsewhere.

    A long tail keeps few of them in any case, a quarter at ratio 100, so it is held against the same profile with the
    largest class as its head: of a set with classes of one size that is as many, and there is no note.
    """
    fields = resolved.fields
    if fields.manifest is not None or fields.noise.before_longtail:  # no profile, or one of other labels
        return {}
    select = bind(by_size(parse(resolved.texts["longtail"])), LONGTAILS, "config.longtail")
    try:
        most = len(select(source.train.labels, source.train.ids, source.num_classes, fields.seed))
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
            if early := summary.get("stopped_early"):
                more = f"no better on validation in {early['evaluations_without_a_better_one']} evaluations"
                lines[-1] += f"; stopped early, {early['planned_steps']} were planned: {more}"
        else:
            lines.append(f"{stage.name}: {summary['wall_seconds']:.0f} s")
        lines += [f"  {title:<40}{value}" for title, value in stage.kind.rows(summary)]
    return "\n".join(lines)
