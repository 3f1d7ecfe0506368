"""A run as it stands on the disk: what was asked for, and the summaries of its finished stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lt_noisy.errors import UserError, did_you_mean
from lt_noisy.files import user_path
from lt_noisy.runs.workdir import read_json

DESCRIPTION = "run.json"  # in the workdir; `runs.run` writes it


class FinishedStage(NamedTuple):
    """One stage of a run.

    Attributes:
      name: in the run.
      directory: of its artefacts.
      texts: its section of the config, {field: canonical text}.
      summary: what its `summary.json` says.
    """

    name: str
    directory: Path
    texts: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """A key of `stages.STAGES`."""
        return self.texts["kind"]

    @property
    def of_other_data(self) -> bool:
        """Whether it learnt from another data set than the run's, with classes of its own."""
        return self.texts.get("data", "manifest()") not in ("manifest()", "full()")


class FinishedRun(NamedTuple):
    """What a run's directory says of it.

    Attributes:
      directory: its workdir.
      config: canonical texts: the fields of the run, and a section for each stage.
      class_names: C names.
      image_shape: (H, W, C) of the data set's images, (D,) of vectors.
      stages: those that stand finished, in the order in which they ran.
    """

    directory: Path
    config: Mapping[str, Any]
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    stages: tuple[FinishedStage, ...]

    def stage(self, name: str) -> FinishedStage:
        """The finished stage of this name."""
        by_name = {stage.name: stage for stage in self.stages}
        if name not in by_name:
            known = ", ".join(by_name) or "none yet"
            raise UserError(f"{self.directory} has no finished stage {name!r}{did_you_mean(name, by_name)} ({known})")
        return by_name[name]


def read_run(directory: Path) -> FinishedRun:
    """The run that a workdir holds.

    Raises:
      UserError: there is none, or it is one of several seeds, of which each has a directory of its own.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: there is no such directory of a run (they are in runs/ unless --workdir says)")
    if (found := read_json(directory / DESCRIPTION)) is None:
        if seeds := sorted(path.parent.name for path in directory.glob(f"seed_*/{DESCRIPTION}")):
            raise UserError(f"{directory} holds a run for each seed: name one, such as {directory / seeds[0]}")
        raise UserError(f"{directory} is no directory of a run: it has no {DESCRIPTION}, which a run's start writes")
    config = found["config"]
    stages = []
    for name in config["stages"]:
        if (summary := read_json(directory / name / "summary.json")) is not None:
            stages.append(FinishedStage(name, directory / name, config[name], summary))
    return FinishedRun(directory, config, tuple(found["class_names"]), tuple(found["image_shape"]), tuple(stages))


def named(text: str) -> tuple[FinishedRun, str]:
    """The run that a user named as `RUN` or `RUN/STAGE`, and the stage, or the network in it (`folds/fold_0`).

    The stage is the empty string where none is named.
    """
    path = user_path(text)
    for place in (path, *list(path.parents)[:2]):
        if (place / DESCRIPTION).exists():
            return read_run(place), path.relative_to(place).as_posix().removeprefix(".")
    return read_run(path), ""
