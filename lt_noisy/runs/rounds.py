"""Rounds of one run: what an earlier state of the data made is set aside, and what reads the data runs again.

A label is corrected, a file is added, a pool is exchanged, and the same command is given in the same workdir. A stage
whose identity differs in nothing but what the data has a part in moves to `earlier/<n>/<stage>`, whole, and beside it
goes a copy of the manifest of that time; nothing is deleted. A stage that did not read what changed stays and is
skipped. A difference in the config's own text is refused: that is another run.

Identities say what a stage has read, not what in the config chose it: whether other images are of another `dataset` or
of the same one, changed on the disk. So `data.json` in the workdir holds those fields of the config for every stage.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lt_noisy.config.identity import of_data
from lt_noisy.config.resolve import Resolved
from lt_noisy.data import manifest as manifests
from lt_noisy.errors import say
from lt_noisy.files import write_json
from lt_noisy.hashing import json_sha256
from lt_noisy.runs.jobs import Work
from lt_noisy.runs.workdir import differences, read_json, refusal

EARLIER = "earlier"  # no stage can be called so
# Fields of the run that are in no identity, but have a part in what is in every one: the data, and lengths in steps.
_CHOOSING = ("dataset", "longtail", "noise", "manifest", "validation", "steps_per_call")


def begin(works: Sequence[Work], resolved: Resolved, manifest: manifests.Manifest, directory: pathlib.Path) -> None:
    """Sets aside, saying so, the stages and the manifest in a workdir that other data made.

    Killed at any moment it leaves what the next call goes on from: stages move before those that they read, so that
    every one that is still there can be traced, and a manifest is copied first and removed last.

    Raises:
      UserError: a stage there is of another config; nothing has been moved then.
    """
    asked = {name: resolved.texts[name] for name in _CHOOSING}
    before = read_json(directory / "data.json") or {}
    outdated = _outdated(works, asked, before, directory)
    stored = _manifest(directory)
    replaced = stored is not None and _state(stored) != _state(manifest)
    if outdated or replaced:
        place = _round(directory, stored, [work.stage.name for work, _ in outdated])
        if stored is not None:
            manifests.save(stored, place)
        for work, _ in reversed(outdated):
            _move(work.job.directory, place / work.stage.name)
        if replaced:
            (directory / "manifest.json").unlink()
        for work, keys in outdated:
            name = work.stage.name
            say(f"{name}: the data has changed ({', '.join(keys)}); the earlier one is in {place / name}", always=True)
        if not outdated:
            say(f"the training set has changed; the earlier manifest is in {place}", always=True)
    record = {**before, **{work.stage.name: asked for work in works}}
    if record != before:
        write_json(directory / "data.json", record)


def _outdated(
    works: Sequence[Work], asked: Mapping[str, Any], before: Mapping[str, Any], directory: pathlib.Path
) -> list[tuple[Work, list[str]]]:
    """The stages in the workdir that other data made, each with the keys that differ; refuses one of another config."""
    found, by_name = [], {work.stage.name: work for work in works}
    for work in works:
        stored = read_json(work.job.directory / "identity.json")
        keys = [] if stored is None else differences(stored, work.identity)
        if stored is None or not keys:
            continue
        name = work.stage.name
        if before.get(name) != asked or not _by_data(stored, work, by_name, directory):
            chosen = {f"config.{key}": value for key, value in asked.items()}
            chosen_before = {f"config.{key}": value for key, value in before.get(name, asked).items()}
            raise refusal(work.job.directory, {**chosen_before, **stored}, {**chosen, **work.identity})
        found.append((work, [key.removeprefix(f"{name}.") for key in keys]))
    return found


def _by_data(stored: Mapping[str, Any], work: Work, by_name: Mapping[str, Work], directory: pathlib.Path) -> bool:
    """Whether a stored identity differs from that of `work` only in what the data has a part in.

    The hash of a stage that it read may differ in more: that stage's identity of the time is looked for and told apart
    in the same way.
    """
    keys = differences(stored, work.identity)
    if not of_data(work.stage.name, work.measured, keys).issuperset(keys):
        return False
    for key in keys:
        kind, _, name = key.partition(".")
        if kind == "inputs":
            read = _identity(directory, name, stored.get(key))
            if read is None or name not in by_name or not _by_data(read, by_name[name], by_name, directory):
                return False
    return True


def _identity(directory: pathlib.Path, name: str, sha256: str | None) -> dict[str, Any] | None:
    """The identity of this hash that stage `name` has, or had in an earlier round."""
    for place in (directory, *_rounds(directory)):
        found = read_json(place / name / "identity.json")
        if found is not None and json_sha256(found) == sha256:
            return found
    return None


def _round(directory: pathlib.Path, stored: manifests.Manifest | None, names: Sequence[str]) -> pathlib.Path:
    """The directory of a round, made: a new one, or that of one which a killed process began."""
    rounds = _rounds(directory)
    if rounds and not any(os.path.lexists(rounds[-1] / name) for name in names):
        begun = _manifest(rounds[-1])
        if begun is None or (stored is not None and _state(begun) == _state(stored)):
            return rounds[-1]
    fresh = directory / EARLIER / str(int(rounds[-1].name) + 1 if rounds else 1)
    fresh.mkdir(parents=True)
    return fresh


def _rounds(directory: pathlib.Path) -> list[pathlib.Path]:
    """The directories of earlier rounds, oldest first."""
    found = [path for path in (directory / EARLIER).glob("*") if path.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name))


def _manifest(directory: pathlib.Path) -> manifests.Manifest | None:
    return manifests.load(directory) if (directory / "manifest.json").exists() else None


def _state(manifest: manifests.Manifest) -> tuple[str, list[str]]:
    """What of a manifest the data decides."""
    return manifests.digest(manifest), manifest.recipe["class_names"]


def _move(stage: pathlib.Path, target: pathlib.Path) -> None:
    """Moves the directory of a stage; of a link into a store only the link, which leads to the same place."""
    if not stage.is_symlink():
        os.replace(stage, target)
        return
    target.symlink_to(os.path.relpath(stage.resolve(), target.parent.resolve()))
    stage.unlink()
