"""The command that corrects a training set: `lt-noisy apply RUN DECISIONS.csv [--out=DIR]`.

Decisions come from the page of `lt-noisy review`, or from any CSV with the columns `id`, `decision` (keep, relabel or
drop) and `new_label` (the class of a relabelled image). The corrected set is a manifest, which the same config trains
on: `--config.manifest="file(path='DIR')"`. No file of the user's is touched.
"""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lt_noisy.config.arguments import Parser
from lt_noisy.data import manifest as manifests
from lt_noisy.data.manifest import Manifest
from lt_noisy.data.sources.base import Source
from lt_noisy.errors import UserError, did_you_mean, say
from lt_noisy.files import cell_text, exit_status, path_argument, write_table
from lt_noisy.finished.network import resolved_again
from lt_noisy.finished.run import FinishedRun, named

_DECISIONS = ("keep", "relabel", "drop")
_LISTING = "corrected.csv"


class Decisions(NamedTuple):
    """What somebody decided: ids of images that stay as they are, {id: new class}, ids of images that go."""

    kept: frozenset[int]
    relabelled: Mapping[int, int]
    dropped: frozenset[int]


def read_decisions(
    path: Path, class_names: Sequence[str], ids: Collection[int] = (), files: Mapping[str, int] = {}
) -> Decisions:
    """The decisions in a CSV.

    Args:
      ids: of the training set. One that is not among them, as a spreadsheet leaves it that rounds long numbers, is
        looked for by the column `file`.
      files: the id of each file.

    Raises:
      UserError: no such file or column, an id twice, an unknown decision or class; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num + 1}, cannot be read as a table: {error}") from None
    if missing := {"id", "decision", "new_label"} - set(reader.fieldnames or ()):
        raise UserError(f"{path} has no column {', '.join(sorted(missing))}: it is no list of decisions")
    number = {name: label for label, name in enumerate(class_names)}
    found: dict[int, tuple[str, int]] = {}
    for line, row in rows:
        where, decision, name = f"{path}, line {line}", row["decision"], cell_text(row["new_label"] or "")
        key = _id(row["id"] or "")
        if key is None or (ids and key not in ids):
            key = files.get(cell_text(row.get("file") or ""), key)
        if key is None:
            raise UserError(f"{where}: {row['id']!r} is no id (a spreadsheet keeps ids in a column of the kind text)")
        if key in found:
            raise UserError(f"{where}: id {key} has a decision already")
        if decision not in _DECISIONS:
            raise UserError(f"{where}: a decision is {', '.join(_DECISIONS)}, not {decision!r}")
        if decision == "relabel" and name not in number:
            raise UserError(f"{where}: {name!r} is no class{did_you_mean(name, number)}")
        found[key] = decision, number.get(name, -1)
    return Decisions(
        frozenset(key for key, (decision, _) in found.items() if decision == "keep"),
        {key: label for key, (decision, label) in found.items() if decision == "relabel"},
        frozenset(key for key, (decision, _) in found.items() if decision == "drop"),
    )


def _id(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def corrected(manifest: Manifest, decisions: Decisions, truth_known: bool) -> Manifest:
    """The training set after the decisions.

    Where nobody knows the truth (a folder) a corrected label is the cleanest that there is, and counts as clean from
    now on; the recipe lists those ids (`corrected`), at which the manifest may differ from the source.

    Args:
      truth_known: whether clean labels are those of another authority, which no decision changes.

    Raises:
      UserError: an id that the training set does not have, or a class that loses its last image.
    """
    named_ids = {*decisions.kept, *decisions.relabelled, *decisions.dropped}
    if strange := named_ids - set(manifest.ids.tolist()):
        raise UserError(f"{len(strange)} ids of the decisions are not in the training set, such as {min(strange)}")
    rows = np.array([row for row, key in enumerate(manifest.ids.tolist()) if key not in decisions.dropped], np.int64)
    ids, observed, clean = manifest.ids[rows], manifest.observed_labels[rows].copy(), manifest.clean_labels[rows].copy()
    for row, key in enumerate(ids.tolist()):
        observed[row] = decisions.relabelled.get(key, observed[row])
    recipe = dict(manifest.recipe)
    if truth_known:
        recipe["truth_known"] = True  # even once every label is right
    else:
        changed = ids[observed != clean].tolist()
        clean = observed.copy()
        recipe["corrected"] = sorted({*recipe.get("corrected", ()), *changed} & set(ids.tolist()))
    recipe["corrections"] = recipe.get("corrections", 0) + len(decisions.relabelled) + len(decisions.dropped)
    before = np.bincount(manifest.observed_labels, minlength=manifest.num_classes)
    lost = np.flatnonzero((np.bincount(observed, minlength=manifest.num_classes) == 0) & (before > 0))
    if len(lost):
        names = manifest.recipe["class_names"]
        raise UserError(f"the decisions leave no training image of {', '.join(names[c] for c in lost[:8])}")
    return Manifest(ids, clean, observed, recipe)


def apply_decisions(run: FinishedRun, decisions: Path, out: Path) -> Manifest:
    """Writes the corrected manifest of a run into `out`, and `corrected.csv` where images are files.

    That lists all images with their labels now, and their split: a data set for `table(...)`.

    Raises:
      UserError: `out` holds a manifest or a `corrected.csv`, and what `read_decisions` and `corrected` refuse.
    """
    for name in ("manifest.json", _LISTING):
        if (out / name).exists():
            raise UserError(f"{out} holds a {name} already; name another directory, or remove it")
    manifest = manifests.load(run.directory)
    source = resolved_again(run).fields.dataset()
    train = source.train
    files = dict(zip(train.files, train.ids.tolist(), strict=True)) if train.files else {}
    found = read_decisions(decisions, run.class_names, set(manifest.ids.tolist()), files)
    new = corrected(manifest, found, manifests.truth_known(manifest, train.clean))
    manifests.verify(new, source.train.best_labels, source.train.ids)
    out.mkdir(parents=True, exist_ok=True)
    if source.train.files:
        _write_listing(out / _LISTING, new, source)
    manifests.save(new, out)  # last: where it stands, all does
    return new


def _write_listing(path: Path, manifest: Manifest, source: Source) -> None:
    names, train, test = source.class_names, source.train, source.test
    file = dict(zip(train.ids.tolist(), train.files, strict=True))
    rows = [
        (file[key], names[label], "train")
        for key, label in zip(manifest.ids.tolist(), manifest.observed_labels, strict=True)
    ]
    rows += [(name, names[label], "test") for name, label in zip(test.files, test.labels, strict=True)]
    write_table(path, ("image", "label", "split"), rows)


def _quoted(text: str) -> str:
    """For a shell, in double quotes: specs have single ones."""
    return '"' + re.sub(r'(["$`\\])', r"\\\1", text) + '"'


def apply(argv: Sequence[str]) -> int:
    """Applies the decisions that the arguments (those after `apply`) name; returns the exit status."""
    return exit_status(lambda: _apply(argv))


def _apply(argv: Sequence[str]) -> int:
    parser = Parser("apply", description="A corrected training set from the decisions of a review.")
    parser.add_argument("run", help="the directory of the run that was reviewed")
    parser.add_argument("decisions", type=path_argument, help="the CSV that the review page exported")
    parser.add_argument("--out", type=path_argument, help="where the manifest goes (RUN/corrected)")
    given = parser.parse_args(argv)
    run, stage = named(given.run)
    if stage:
        run.stage(stage)  # or the name is mistyped
    out = given.out or run.directory / "corrected"
    before = manifests.load(run.directory)
    new = apply_decisions(run, given.decisions, out)
    common = np.isin(before.ids, new.ids)
    changed = int((before.observed_labels[common] != new.observed_labels).sum())
    say(f"{out}: {len(new.ids)} images, {changed} relabelled, {len(before.ids) - len(new.ids)} dropped")
    fixed = "".join(f" --config.{name}='none()'" for name in ("longtail", "noise") if run.config[name] != "none()")
    say(
        "train on it: the same command with another --workdir and",
        f"  --config.manifest={_quoted(f'file(path={str(out)!r})')}{fixed}",
    )
    return 0
