"""Where the metrics of a stage go beside `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow, by one field.

Each training is a run of its own there, as its steps begin at 1: it is called by workdir and stage. A resumed one goes
on in the same run, whose id `trackers.json` in the stage's directory holds, and tells no step twice: TensorBoard is
told from which step on what it has is void, the others only of steps after the last that they may have been told of.

The packages are imported where they are named, and not before.
"""

import importlib
import json
import pathlib
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from lt_noisy.config.spec import table
from lt_noisy.errors import UserError, first_line, say
from lt_noisy.files import write_json

_MEMORY = "trackers.json"


class Tracked(NamedTuple):
    """The training that a tracker is opened for.

    Attributes:
      name: of the stage, or of one of its networks, such as "experts/expert_0".
      directory: its own.
      config: texts of the fields of the run and of the stage.
      step: from which it goes on.
      told: the last step that was written before, by a process that was killed maybe.
    """

    name: str
    directory: pathlib.Path
    config: Mapping[str, Any]
    step: int
    told: int

    @property
    def workdir(self) -> str:
        """The name of the run's workdir; of one of several seeds with that of the seed, "mine/seed_3"."""
        place = self.directory.absolute().parents[self.name.count("/")]
        of_seed = place.name == f"seed_{self.config.get('seed')}"
        return f"{place.parent.name}/{place.name}" if of_seed else place.name


class Tracker(Protocol):
    """One that is open."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Tells it of finite values."""

    def close(self, finished: bool) -> None:
        """Tells it that the training has ended, or was interrupted."""


class Trackers(NamedTuple):
    """What a spec names: {name: how it is opened}."""

    opening: Mapping[str, Callable[[Tracked], Tracker]]


def none() -> Trackers:
    """No tracker: `metrics.jsonl` alone."""
    return Trackers({})


def several(*trackers: Trackers) -> Trackers:
    """All of these, such as several(tensorboard(), wandb(project=mine)); each once."""
    opening: dict[str, Callable[[Tracked], Tracker]] = {}
    for chosen in trackers:
        if twice := opening.keys() & chosen.opening.keys():
            raise UserError(f"{min(twice)} is there twice")
        opening |= chosen.opening
    return Trackers(opening)


def tensorboard() -> Trackers:
    """Event files beside each `metrics.jsonl`, for `tensorboard --logdir=WORKDIR`."""
    package = _imported("tensorboardX", "tensorboard")
    return Trackers({"tensorboard": lambda run: _TensorBoard(package, run)})


def wandb(project: str = "lt_noisy", entity: str = "") -> Trackers:
    """Runs at wandb.ai, where `entity` is a team or user. Its own settings, such as WANDB_MODE=offline, hold."""
    package = _imported("wandb", "wandb")
    return Trackers({"wandb": lambda run: _Wandb(package, run, project, entity)})


def mlflow(experiment: str = "lt_noisy", uri: str = "") -> Trackers:
    """MLflow, at the server `uri`, or where MLFLOW_TRACKING_URI says."""
    package = _imported("mlflow", "mlflow")
    return Trackers({"mlflow": lambda run: _MLflow(package, run, experiment, uri)})


TRACKERS = table({"none": none, "several": several, "tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow})


def _imported(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{package} is not installed ({first_line(error)}): pip install '.[{extra}]'") from None


class Tracking:
    """All trackers of a training, open.

    One that fails later, such as for want of a network, ends alone: the training goes on, and says so.

    Raises:
      UserError: one cannot be opened.
    """

    def __init__(self, trackers: Trackers, run: Tracked):
        self._open: dict[str, Tracker] = {}
        for name, opening in trackers.opening.items():
            try:
                self._open[name] = opening(run)
            except Exception as error:  # each has its own kinds
                raise UserError(f"config.trackers: {name} cannot be opened ({first_line(error)[:300]})") from None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Tells each of finite values."""
        self._each(lambda tracker: tracker.write(step, values))

    def close(self, finished: bool) -> None:
        """Tells each whether the training has ended."""
        self._each(lambda tracker: tracker.close(finished))
        self._open.clear()

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                tell(tracker)
            except Exception as error:
                del self._open[name]
                say(f"note: {name} is left out from here on ({first_line(error)[:300]}); metrics.jsonl has everything")


def _remembered(run: Tracked, tracker: str, make: Callable[[], str]) -> tuple[str, int, bool]:
    """The id of the run at a tracker, the last step that it may have been told of, and whether the id is new."""
    path = run.directory / _MEMORY
    known = json.loads(path.read_text()) if path.exists() else {}
    new = tracker not in known
    entry = {"id": make(), "told": 0} if new else known[tracker]
    entry["told"] = max(entry["told"], run.told)
    write_json(path, {**known, tracker: entry})
    return entry["id"], entry["told"], new


class _TensorBoard:
    def __init__(self, package: Any, run: Tracked):
        self._writer = package.SummaryWriter(
            str(run.directory),
            purge_step=run.step + 1,
            filename_suffix=f".{run.step}",  # its names tell seconds apart, not more
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, package: Any, run: Tracked, project: str, entity: str):
        own, self._told, _ = _remembered(run, "wandb", lambda: uuid.uuid4().hex[:12])
        self._run = package.init(
            project=project,
            entity=entity or None,
            id=own,
            resume="allow",
            name=f"{run.workdir}/{run.name}",
            group=run.workdir,
            job_type=run.name,
            config=dict(run.config),
            dir=str(run.directory),
            reinit="create_new",
            settings=package.Settings(silent=True, console="off"),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if step > self._told:
            self._run.log(dict(values), step=step)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class _MLflow:
    def __init__(self, package: Any, run: Tracked, experiment: str, uri: str):
        self._entities = package.entities
        self._client = package.MlflowClient(tracking_uri=uri or None)
        self._id, self._told, new = _remembered(run, "mlflow", lambda: self._made(run, experiment))
        if not new:
            self._client.update_run(self._id, status="RUNNING")

    def _made(self, run: Tracked, experiment: str) -> str:
        found = self._client.get_experiment_by_name(experiment)
        experiment = self._client.create_experiment(experiment) if found is None else found.experiment_id
        made = self._client.create_run(experiment, run_name=f"{run.workdir}/{run.name}", tags={"workdir": run.workdir})
        parameters = [self._entities.Param(name, str(value)[:500]) for name, value in run.config.items()]
        self._client.log_batch(made.info.run_id, params=parameters)
        return made.info.run_id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if step > self._told:
            now = int(1000 * time.time())
            metrics = [self._entities.Metric(name, value, now, step) for name, value in values.items()]
            self._client.log_batch(self._id, metrics=metrics)

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")
