"""What a stage is given, and what its kind is."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import flax.linen as nn
import numpy as np

from lt_noisy.config.fields import Reference, fields_of
from lt_noisy.data.dataset import Dataset, Part
from lt_noisy.errors import UserError
from lt_noisy.files import load_arrays
from lt_noisy.stages.rows import Rows
from lt_noisy.training import parallel
from lt_noisy.training.host_log import HostLog
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.loop import Prepared, Trained
from lt_noisy.training.profile import Trace
from lt_noisy.training.state import TrainState
from lt_noisy.training.trackers import Trackers, none

S = TypeVar("S")

# Kinds that leave an encoder: in their checkpoint, or `features`, its outputs.
ENCODERS = ("self_supervised", "supervised", "mixnn", "distil", "features")
WITH_HEAD = ("supervised", "mixnn")  # kinds whose checkpoint holds a classifier on it too


class Input(NamedTuple):
    """An earlier stage that a stage reads: directory, bound section and its texts, and the stages it reads itself.

    Attributes:
      of_features: whether it is a `features` stage, or works on what one made.
    """

    directory: pathlib.Path
    section: Any
    texts: Mapping[str, Any]
    inputs: Mapping[str, "Input"]
    of_features: bool = False


class Job(NamedTuple):
    """What a stage is given beside its own section.

    Attributes:
      name: the stage's name in the run; its random streams carry it.
      directory: where its artefacts go.
      seed: of the run.
      encoder: builds the model, `encoder(dtype, norm_axis)`.
      dtype: of the computation.
      norm_axis: the axis name for synchronised BatchNorm, None for statistics per device.
      devices: from `parallel.make`.
      steps_per_call: of the training loop; every duration is a multiple of it.
      dataset: images, observed and clean labels, test set.
      training_set: the run's own, which `dataset` is too unless the stage chose another.
      inputs: the finished stages it reads, by the field that names them.
      card: what every checkpoint of the run says of itself.
      interrupts: signals seen.
      workers: threads that read images where those are streamed; 0: one a core.
      trackers: where metrics go beside `metrics.jsonl`.
      host_log: of this process.
      trace: where steps of the stage are to be traced.
      arrived: `arrived(dataset)` when the stage begins: with the features that an earlier stage has made, in memory.
    """

    name: str
    directory: pathlib.Path
    seed: int
    encoder: Callable[[Any, str | None], nn.Module]
    dtype: Any
    norm_axis: str | None
    devices: parallel.Jit | parallel.Pmap
    steps_per_call: int
    dataset: Dataset
    training_set: Dataset
    inputs: Mapping[str, Input]
    card: Mapping[str, Any]
    interrupts: Interrupts
    workers: int = 0
    trackers: Trackers = none()
    host_log: HostLog = HostLog()
    trace: Trace | None = None
    arrived: Callable[[Dataset], Dataset] = lambda dataset: dataset


def check_on_manifest(job: Job) -> None:
    """Refuses an `init` that is trained on other data than the run's training set."""
    stage = job.inputs["init"]
    if getattr(stage.section, "data", Part.MANIFEST) is not Part.MANIFEST:
        raise UserError(
            f"config.{job.name}.init: that stage is trained on {stage.texts['data']}, not on the run's manifest()"
        )


def read_arrays(job: Job, directory: pathlib.Path, name: str, array: str = "") -> np.ndarray:
    """The array `array` [N, ...] (`name`, unless given) of `<directory>/<name>.npz`, in the order of the job's rows.

    Raises:
      UserError: the file is missing or damaged, or was written for other images.
    """
    path = directory / f"{name}.npz"
    ids, values = load_arrays(path, "ids", array or name)
    if not np.array_equal(ids, job.dataset.ids):
        raise UserError(f"config.{job.name}: {path} is of another training set")
    return values


def no_labels(section: Any) -> tuple[str, ...]:
    """The `Kind.labels` of a stage that reads none."""
    return ()


def observed_labels(section: Any) -> tuple[str, ...]:
    """The `Kind.labels` of a stage that learns from the observed ones."""
    return ("observed",)


def nothing_to_check(job: Job, section: Any) -> dict[str, Any]:
    """The `Kind.check` of a stage that works on any data."""
    return {}


def watches_nothing(job: Job, section: Any) -> int:
    """The `Kind.watch_bytes` of a stage that watches nothing large."""
    return 0


class Followed(NamedTuple):
    """What a stage makes of its network beside training it.

    Attributes:
      monitor: state on the devices -> numbers for the metrics file, while the network is trained.
      finish: what the loop returned -> the summary; writes the stage's artefacts.
    """

    monitor: Callable[[TrainState], dict[str, float]]
    finish: Callable[[Trained], dict[str, Any]]


class Training(NamedTuple, Generic[S]):
    """What a stage does whose work is to train one network: the loop is not its own (`training.run`).

    So the loop can train it beside the same network of other seeds. `prepare` builds nothing into the step that depends
    on the seed: that is all in the state, the data and the batches.

    Attributes:
      prepare: `prepare(job, section)`, what the loop trains; benchmarks time it alone.
      follow: `follow(job, section, ready)`, what becomes of that.
    """

    prepare: Callable[[Job, S], Prepared]
    follow: Callable[[Job, S, Prepared], Followed]


class Kind(NamedTuple, Generic[S]):
    """One kind of stage: each is the `KIND` at the end of its file.

    Attributes:
      section: the class of its config section.
      run: `run(job, section) -> summary`, or how its one network is trained.
      rows: `rows(summary) -> Rows`: what the table at the end of a run shows of it.
      check: `check(job, section)` raises `UserError` on what only the data can tell, before any stage runs, and returns
        what the identity needs of it, such as {"steps": 1000}.
      labels: those of the training set that a section reads, `observed` and `clean`: part of its identity.
      watch_bytes: `watch_bytes(job, section)`, about how many bytes of the host its monitor takes beside the run's
        images.
      revision: raised when a change of the code makes of every unchanged config of the kind another computation: what
        finished before is then another stage. (A store tells all changes of sources apart; a workdir says of them.)
    """

    section: type[S]
    run: Callable[[Job, S], dict[str, Any]] | Training[S]
    rows: Callable[[Mapping[str, Any]], Rows]
    check: Callable[[Job, S], dict[str, Any]] = nothing_to_check
    labels: Callable[[S], tuple[str, ...]] = no_labels
    watch_bytes: Callable[[Job, S], int] = watches_nothing
    revision: int = 1

    @property
    def prepare(self) -> Callable[[Job, S], Prepared] | None:
        """What makes the one network of such a kind ready for the loop."""
        return self.run.prepare if isinstance(self.run, Training) else None

    @property
    def module(self) -> str:
        """The module that the kind is in."""
        return (self.run.prepare if isinstance(self.run, Training) else self.run).__module__

    @property
    def inputs(self) -> dict[str, Reference]:
        """The fields that name the earlier stages it reads."""
        fields = fields_of(self.section).items()
        return {name: field.reference for name, field in fields if field.reference is not None}
