"""What a stage is given, and what its kind is."""

import pathlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from lt_noisy.config.fields import Fields
from lt_noisy.data.batches import Batches
from lt_noisy.data.dataset import Dataset
from lt_noisy.errors import UserError
from lt_noisy.files import load_arrays
from lt_noisy.training import parallel
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.loop import Phase, Plan, Refresh
from lt_noisy.training.state import TrainState

PyTree = Any


class Input(NamedTuple):
    """An earlier stage that a stage reads: directory, bound section and its texts, and the stages it reads itself."""

    directory: pathlib.Path
    section: SimpleNamespace
    texts: Mapping[str, Any]
    inputs: Mapping[str, "Input"]


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
      steps_per_call: of the training loop.
      multiple: what every duration is a multiple of: steps_per_call as configured, on a CPU too.
      dataset: images, observed and clean labels, test set.
      training_set: the run's own, which `dataset` is too unless the stage chose another.
      inputs: the finished stages it reads, by the field that names them.
      card: what every checkpoint of the run says of itself.
      tensorboard: whether to write TensorBoard files.
      interrupts: signals seen.
    """

    name: str
    directory: pathlib.Path
    seed: int
    encoder: Callable[[Any, str | None], nn.Module]
    dtype: Any
    norm_axis: str | None
    devices: parallel.Jit | parallel.Pmap
    steps_per_call: int
    multiple: int
    dataset: Dataset
    training_set: Dataset
    inputs: Mapping[str, Input]
    card: Mapping[str, Any]
    tensorboard: bool
    interrupts: Interrupts


class Prepared(NamedTuple):
    """A training stage ready for the loop: network, initial state (host), step, batches, plan and data (host).

    Attributes:
      later: phases after the first, where the step changes.
      refresh: what happens to the state between steps (`train.Refresh`).
    """

    net: nn.Module
    state: TrainState
    step: parallel.Step
    batches: Batches
    plan: Plan
    data: PyTree
    later: tuple[Phase, ...] = ()
    refresh: Refresh | None = None


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


class Reads(NamedTuple):
    """What a field that names an earlier stage may name.

    Attributes:
      kinds: stages of these kinds.
      optional: or none at all.
      label_free: only stages that read no labels of the training set, nor were made of one that did.
    """

    kinds: tuple[str, ...]
    optional: bool = False
    label_free: bool = False


class Kind(NamedTuple):
    """One kind of stage.

    Attributes:
      fields: of its config section.
      labels: those of the training set that a bound section reads, `observed` and `clean`: part of its identity.
      inputs: the fields that name the earlier stages it reads.
      check: `check(job, bound_section)` raises `UserError` on what only the data can tell, before any stage runs, and
        returns what the identity needs of it, such as {"steps": 1000}.
      run: `run(job, bound_section) -> summary`.
      prepare: `prepare(job, bound_section) -> Prepared`, what `run` trains, where that is one network; benchmarks time
        it alone.
      revision: raised when a change of the code changes what an unchanged config computes: what finished before is then
        another stage.
    """

    fields: Fields
    labels: Callable[[SimpleNamespace], tuple[str, ...]]
    inputs: Mapping[str, Reads]
    check: Callable[[Job, SimpleNamespace], dict[str, Any]]
    run: Callable[[Job, SimpleNamespace], dict[str, Any]]
    prepare: Callable[[Job, SimpleNamespace], Prepared] | None = None
    revision: int = 1
