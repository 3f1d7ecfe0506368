"""The data of a run: its training set, built from the recipe or loaded, and what it is evaluated against."""

import pathlib
from typing import Any

import numpy as np

from lt_noisy import processes, system
from lt_noisy.config.resolve import Resolved
from lt_noisy.data import manifest as manifests
from lt_noisy.data.dataset import Dataset, hold_out, select
from lt_noisy.data.feed import Feed, stays_resident
from lt_noisy.data.given import Given
from lt_noisy.data.sources.base import Source
from lt_noisy.errors import UserError, printable, removal
from lt_noisy.files import write_table


def load(resolved: Resolved, workdir: pathlib.Path) -> tuple[manifests.Manifest, Dataset]:
    """The run's manifest, and the images and labels that it names; nothing is written.

    Building is a pure function of source and recipe, so it is done again on every start: a manifest that is already in
    the workdir must be of the same recipe, and another one only because the source has changed since.

    Raises:
      UserError: data that cannot be read, a manifest that does not fit it, or another run's in the workdir.
    """
    fields = resolved.fields
    source = fields.dataset()
    if fields.manifest is None:
        recipe = {name: resolved.texts[name] for name in ("dataset", "longtail", "noise")}
        train = source.train
        manifest = manifests.build(
            train.labels,
            train.ids,
            source.num_classes,
            source.class_names,
            fields.longtail,
            fields.noise,
            fields.seed,
            recipe,
            train.clean,
        )
    else:
        manifest = _loaded(resolved, fields.manifest, source)
    _refuse_other(manifest, workdir)
    rows = manifests.verify(manifest, source.train.best_labels, source.train.ids)
    cuts = any(augment.cut for stage in resolved.stages if (augment := getattr(stage.section, "augment", None)))
    stored = not _resident(fields.feed, source, len(rows), cuts)
    dataset = select(source, rows, manifest.observed_labels, manifest.clean_labels, stored)
    return manifest, hold_out(dataset, fields.validation, fields.seed)


def _resident(feed: Feed, source: Source, images: int, cuts: bool) -> bool:
    """Whether so many training images of the source, and its test images, are kept in memory.

    Args:
      cuts: whether a stage cuts whole pictures, which none does in memory.
    """
    if cuts and feed.resident is None:
        return False
    of_one = source.train.images(np.arange(1)).nbytes
    test_bytes = len(source.test.labels) * of_one
    # What is free differs between hosts, and all have to go the same way.
    return processes.once(lambda: stays_resident(feed, images * of_one, test_bytes, system.device_bytes()))


def _loaded(resolved: Resolved, given: Given, source: Source) -> manifests.Manifest:
    """The manifest that is given in place of the recipe."""
    for name in ("longtail", "noise"):
        if resolved.texts[name] != "none()":
            raise UserError(
                f"config.{name}: the manifest of config.manifest already fixes the training set; "
                f"set --config.{name}='none()'"
            )
    train = source.train
    manifest = given(train.ids, train.best_labels, source.class_names)
    if manifest.num_classes != source.num_classes:
        raise UserError(f"config.manifest: made for {manifest.num_classes} classes, the data has {source.num_classes}")
    return manifest


def _refuse_other(manifest: manifests.Manifest, workdir: pathlib.Path) -> None:
    if not (workdir / "manifest.json").exists():
        return
    stored = manifests.load(workdir)
    if manifests.digest(stored) != manifests.digest(manifest) and _asked(stored) != _asked(manifest):
        raise UserError(
            f"{workdir} holds another run: its manifest differs ({_difference(stored, manifest)}); "
            f"choose another --workdir, or remove it: {removal(workdir)}"
        )


def _asked(manifest: manifests.Manifest) -> dict[str, Any]:
    """The recipe without what the source says of itself."""
    return {key: value for key, value in manifest.recipe.items() if key not in ("num_classes", "class_names")}


def _difference(a: manifests.Manifest, b: manifests.Manifest) -> str:
    """`manifests.diff` in a few words: recipe fields, ids by their number."""
    found = manifests.diff(a, b)
    parts = [f"{field}: {_brief(old)} -> {_brief(new)}" for field, (old, new) in found.pop("recipe", {}).items()]
    parts += [key if what is True else f"{key}: {len(what)}" for key, what in found.items()]
    return "; ".join(parts)


def _brief(value: Any) -> str:
    """A recipe field, cut where it is long, such as the names of thousands of classes."""
    text = str(value)
    return text if len(text) <= 200 else f"{text[:150]}..."


def write_skipped(source: Source, workdir: pathlib.Path) -> None:
    """Lists the files that were left out in `skipped_files.csv`, where there are any."""
    if source.skipped:
        rows = ((printable(file), reason) for file, reason in source.skipped)
        write_table(workdir / "skipped_files.csv", ("file", "reason"), rows)
