"""The runs that a report is of: which a user named, which of them differ in their seed alone, what they are called."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lt_noisy.config.identity import identity_texts
from lt_noisy.config.resolve import RunFields
from lt_noisy.data.by_class import rows_of
from lt_noisy.data.manifest import Manifest, load, truth_known
from lt_noisy.errors import UserError, printable
from lt_noisy.files import user_path
from lt_noisy.finished.run import DESCRIPTION, FinishedRun, FinishedStage, read_run
from lt_noisy.stages import STAGES


class Reported(NamedTuple):
    """A run and its training set.

    Attributes:
      run: as it stands.
      manifest: its training set; None where the directory has none.
      names: of its C classes, each on one line.
    """

    run: FinishedRun
    manifest: Manifest | None
    names: tuple[str, ...]

    @property
    def seed(self) -> int:
        """Of data, noise and training."""
        return self.run.config["seed"]

    @property
    def clean_counts(self) -> np.ndarray | None:
        """Training examples of each class by clean label, int [C]."""
        return None if self.manifest is None else _counts(self.manifest.clean_labels, len(self.names))

    @property
    def observed_counts(self) -> np.ndarray | None:
        """The same by observed label."""
        return None if self.manifest is None else _counts(self.manifest.observed_labels, len(self.names))

    @property
    def order(self) -> np.ndarray:
        """Classes int [C] by falling clean training count, ties by rising label; as they are where it is not known."""
        counts = self.clean_counts
        return np.arange(len(self.names)) if counts is None else np.argsort(-counts, kind="stable")

    @property
    def truth_known(self) -> bool:
        """Whether its manifest says which labels are wrong."""
        return self.manifest is not None and truth_known(self.manifest)

    def wrong(self, ids: np.ndarray) -> np.ndarray | None:
        """Which labels of the examples int64 [n] are wrong, bool [n]; None where the truth of one is not known."""
        rows = self._rows(ids) if self.truth_known else None
        if rows is None or self.manifest is None:
            return None
        return self.manifest.clean_labels[rows] != self.manifest.observed_labels[rows]

    def counts_of(self, ids: np.ndarray) -> np.ndarray | None:
        """Examples of each class by clean label among these int64 [n], int [C]; None where one is not known."""
        rows = self._rows(ids)
        if rows is None or self.manifest is None:
            return None
        return _counts(self.manifest.clean_labels[rows], len(self.names))

    def _rows(self, ids: np.ndarray) -> np.ndarray | None:
        """The rows of the manifest with these ids; None where it lacks one, as of a stage that trains on other data."""
        if self.manifest is None:
            return None
        rows = rows_of(ids, self.manifest.ids)
        return None if (rows < 0).any() else rows

    def with_entry(self, entry: str) -> list[FinishedStage]:
        """The finished stages whose summaries have this entry."""
        return [stage for stage in self.run.stages if isinstance(stage.summary.get(entry), dict)]


class Group(NamedTuple):
    """Runs that differ in their seed alone.

    Attributes:
      label: what it is called beside others.
      runs: by rising seed.
    """

    label: str
    runs: tuple[Reported, ...]


def named_runs(texts: Iterable[str]) -> list[Reported]:
    """The runs at these paths; a directory of several seeds stands for all of them.

    Raises:
      UserError: there is no run, or one twice, or a file of it is damaged.
    """
    directories = [directory for text in texts for directory in _directories(user_path(text))]
    places = [directory.resolve() for directory in directories]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise UserError(f"report: {directories[i]} is named twice")
    return [_reported(read_run(directory)) for directory in directories]


def _directories(path: Path) -> list[Path]:
    if not (path / DESCRIPTION).exists() and path.is_dir():
        seeds = [found.parent for found in path.glob(f"seed_*/{DESCRIPTION}")]
        return sorted(seeds, key=lambda found: (len(found.name), found.name)) or [path]
    return [path]


def _reported(run: FinishedRun) -> Reported:
    there = any((run.directory / name).exists() for name in ("manifest.npz", "manifest.json"))
    manifest = load(run.directory) if there else None
    if manifest is not None and manifest.num_classes != len(run.class_names):
        raise UserError(
            f"{run.directory}: its manifest has {manifest.num_classes} classes, its description {len(run.class_names)}"
        )
    return Reported(run, manifest, tuple(map(printable, run.class_names)))


def grouped(runs: Sequence[Reported]) -> list[Group]:
    """Runs that differ in their seed alone together, in the order in which their first ones come.

    What says where and how often something is saved or shown counts for nothing. A seed that comes again, such as by
    another revision of the code, begins another group.
    """
    found: dict[str, list[dict[int, Reported]]] = {}
    for run in runs:
        same = found.setdefault(json.dumps(without_seed(run.run.config), sort_keys=True), [])
        free = next((members for members in same if run.seed not in members), None)
        if free is None:
            same.append(free := {})
        free[run.seed] = run
    members = [[by_seed[seed] for seed in sorted(by_seed)] for same in found.values() for by_seed in same]
    labels = _labels([_place([run.run.directory for run in group]) for group in members])
    return [Group(label, tuple(group)) for label, group in zip(labels, members, strict=True)]


def without_seed(config: dict[str, Any] | Any) -> dict[str, Any]:
    """A run's config without what two runs of one group may differ in, flat: {`field` or `stage.field`: text}."""
    stages = config["stages"]
    own = {name: text for name, text in config.items() if name not in ("seed", "seeds") and not isinstance(text, dict)}
    flat = dict(identity_texts(own, RunFields))
    for name in stages:
        kind = STAGES[config[name]["kind"]]
        flat |= {f"{name}.{field}": text for field, text in identity_texts(config[name], kind.section).items()}
    return flat


def _place(directories: Sequence[Path]) -> Path:
    """The directory that a group is called by: that of all its seeds where it is one."""
    parents = {directory.absolute().parent for directory in directories}
    if len(parents) == 1 and all(directory.name.startswith("seed_") for directory in directories):
        return parents.pop()
    return directories[0].absolute()


def _labels(places: Sequence[Path]) -> list[str]:
    """As many last parts of each path as tell it from the others; a number where none do."""
    labels = []
    for i, place in enumerate(places):
        others = [other for k, other in enumerate(places) if k != i]
        depth = next(
            (n for n in range(1, len(place.parts)) if all(o.parts[-n:] != place.parts[-n:] for o in others)), 0
        )
        number = f" ({[k for k, other in enumerate(places) if other == place].index(i) + 1})" if not depth else ""
        labels.append(printable("/".join(place.parts[-max(depth, 1) :]) + number))
    return labels


def _counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(labels, minlength=num_classes)
