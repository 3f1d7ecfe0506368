"""The data of a run: its training set, built from the recipe or loaded, and what it is evaluated against."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lt_noisy import processes
from lt_noisy.config.resolve import Resolved
from lt_noisy.config.spec import parse
from lt_noisy.data import manifest as manifests
from lt_noisy.data.dataset import Dataset, hold_out, select
from lt_noisy.data.feed import Room, room_here, stays_resident
from lt_noisy.data.given import Given
from lt_noisy.data.sources.base import Source
from lt_noisy.errors import UserError, printable, removal
from lt_noisy.files import write_table


def _refuse_noisy_subset(texts: Mapping[str, Any]) -> None:
    """Refuses a conventional subset that noisy labels would draw: other images than the published."""
    if parse(texts["longtail"]).kwargs.get("subset") != "conventional":
        return
    dataset = parse(texts["dataset"]).kwargs
    if parse(texts["noise"]).name == "before_longtail":
        before, instead = "noise", "noise without before_longtail()"
    elif dataset.get("label") and re.match("cifar100?_n", dataset.get("name", "")):
        before, instead = dataset["name"], "human(...) noise on CIFAR itself"
    else:
        return
    raise UserError(
        f"config.longtail: the conventional subset is drawn by the true labels, and {before} comes before the long "
        f"tail; take {instead}, or subset=seeded"
    )


class Made(NamedTuple):
    """The training set of a run before its images.

    Attributes:
      manifest: of the run.
      source: what it is of.
      rows: int64 [N], those of the manifest's examples in the source's training split.
    """

    manifest: manifests.Manifest
    source: Source
    rows: np.ndarray


def load(resolved: Resolved, workdir: pathlib.Path, room: Room | None = None) -> tuple[manifests.Manifest, Dataset]:
    """The run's manifest, and the images and labels that it names; nothing is written.

    Args:
      resolved: its config.
      workdir: its directory.
      room: by which `feed=auto()` is settled; None: what this machine has.

    Raises:
      UserError: as `make`.
    """
    made = make(resolved, workdir)
    return made.manifest, dataset_of(resolved, made, is_resident(resolved, [made], [0], room))


def make(resolved: Resolved, workdir: pathlib.Path) -> Made:
    """The run's manifest, and which examples of its source are in it.

    Building is a pure function of source and recipe, so it is done again on every start: a manifest that is already in
    the workdir must be of the same recipe, and another one only because the source has changed since.

    Raises:
      UserError: data that cannot be read, a manifest that does not fit it, or another run's in the workdir.
    """
    fields = resolved.fields
    _refuse_noisy_subset(resolved.texts)
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
    return Made(manifest, source, rows)


def is_resident(resolved: Resolved, each: Sequence[Made], places: Sequence[object], room: Room | None = None) -> bool:
    """Whether the images of runs of one config, whose sources are the same, are all kept in memory.

    Args:
      resolved: of any of them.
      each: their training sets; images that several have in common are held once.
      places: for each of them the devices that it is on.
      room: as in `load`.
    """
    feed, source = resolved.fields.feed, each[0].source
    cuts = any(augment.cut for stage in resolved.stages if (augment := getattr(stage.section, "augment", None)))
    if cuts and feed.resident is None:  # whole pictures, of which none is in memory
        return False
    of_one = source.train.images(np.arange(1)).nbytes
    apart = resolved.fields.validation > 0  # each holds out others, and has copies of the rest
    by_place = [[made for made, at in zip(each, places, strict=True) if at == place] for place in {*places}]
    on_device = max(_images(own, apart) for own in by_place)
    on_host = _images(each, apart) + len(source.test.labels)
    # What is free differs between hosts, and all have to go the same way.
    return processes.once(lambda: stays_resident(feed, of_one * on_host, of_one * on_device, room or room_here()))


def _images(each: Sequence[Made], apart: bool) -> int:
    """How many images these sets hold: all of each, or unless they are `apart` equal sets once."""
    return sum({i if apart else made.rows.tobytes(): len(made.rows) for i, made in enumerate(each)}.values())


def dataset_of(resolved: Resolved, made: Made, resident: bool) -> Dataset:
    """Images and labels of a training set, with what `config.validation` holds out apart."""
    manifest, source, rows = made
    dataset = select(source, rows, manifest.observed_labels, manifest.clean_labels, stored=not resident)
    return hold_out(dataset, resolved.fields.validation, resolved.fields.seed)


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
    """Lists the files that were left out in `skipped_files.csv`; without any there is none."""
    path = workdir / "skipped_files.csv"
    if not source.skipped:
        path.unlink(missing_ok=True)
        return
    rows = ((printable(file), reason) for file, reason in source.skipped)
    write_table(path, ("file", "reason"), rows)
