"""One stage of several seeds as one for the loop: the seeds' states side by side, one step for all of them.

There are two ways. The step is vectorised over the seeds (`jax.vmap`) and runs on the devices as that of one seed
would: sums are in another order, and results equal those of a seed's own run but for rounding. Or the compiled step of
one seed is called for each in turn (`InTurn`), on devices of its own where there are several, which then compute at the
same time: the program and the bits are those of its own run. `vectorises` says where the first is the faster.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.data.batches import Resident
from lt_noisy.training import parallel
from lt_noisy.training.checkpoint import Checkpoints, committed
from lt_noisy.training.loop import Phase, Prepared
from lt_noisy.training.parallel import Step
from lt_noisy.training.state import TrainState, flatten
from lt_noisy.training.writer import Writer

PyTree = Any


@flax.struct.dataclass
class States:
    """The state of every seed."""

    each: tuple[TrainState, ...]

    @property
    def step(self) -> tuple[jax.Array, ...]:
        """Steps taken, the same number of each."""
        return tuple(state.step for state in self.each)


class Data(NamedTuple):
    """What stays in the devices' memory.

    Attributes:
      images: of every seed, or those that all seeds see; None where batches bring them.
      own: of every seed all that `Prepared.data` holds, but for the images in its `Resident`.
    """

    images: tuple[Any, ...]
    own: tuple[PyTree, ...]

    def of(self, seed: int) -> PyTree:
        """The `Prepared.data` of one of the seeds, by its position."""
        return _with_images(self.own[seed], self.images[seed % len(self.images)])


@dataclasses.dataclass(frozen=True)
class Together:
    """The step of all seeds, vectorised: `(States, Data, batches) -> (States, sums)`, batches and sums one a seed."""

    one: Step

    def __call__(self, states: States, data: Data, batches: tuple[PyTree, ...]) -> tuple[States, tuple[PyTree, ...]]:
        def one(state: TrainState, own: PyTree, batch: PyTree) -> tuple[TrainState, PyTree]:
            return self.one(state, _with_images(own, data.images[0]), batch)

        count = len(states.each)
        after, sums = jax.vmap(one)(_stacked(states.each), _stacked(data.own), _stacked(batches))
        return States(_each(after, count)), _each(sums, count)


class InTurn:
    """The devices of several seeds, each with its own or some with the same: what the loop asks of `Jit` or `Pmap`."""

    def __init__(self, devices: Sequence[parallel.Jit | parallel.Pmap]):
        self._devices = devices

    def replicate(self, tree: PyTree) -> PyTree:
        """The host trees of the seeds on the devices of each; images that several have in common once a device."""
        if isinstance(tree, States):
            return States(self.replicate(tree.each))
        if not isinstance(tree, Data):
            return tuple(devices.replicate(one) for devices, one in zip(self._devices, tree, strict=True))
        placed: dict[tuple[int, int], Any] = {}
        images = []
        for seed, devices in enumerate(self._devices):
            own = tree.images[seed % len(tree.images)]
            key = id(own), id(devices)
            if key not in placed:
                placed[key] = devices.replicate(own)
            images.append(placed[key])
        return Data(tuple(images), self.replicate(tree.own))

    def fetch(self, tree: PyTree) -> PyTree:
        """The trees of all seeds back on the host, as copies."""
        return self._devices[0].fetch(tree)

    def compile_step(self, step: Together, steps_per_call: int = 1) -> Callable[..., tuple[PyTree, PyTree]]:
        """As `Jit.compile_step`, of the seeds' trees."""
        compiled = {id(devices): devices for devices in self._devices}
        calls = {key: devices.compile_step(step.one, steps_per_call) for key, devices in compiled.items()}

        def call(states: States, totals: Any, data: Data, batches: Any) -> tuple[States, tuple[PyTree, ...]]:
            after = [
                calls[id(devices)](states.each[seed], totals[seed], data.of(seed), batches[seed])
                for seed, devices in enumerate(self._devices)
            ]
            return States(tuple(state for state, _ in after)), tuple(sums for _, sums in after)

        return call


def divided(devices: parallel.Jit | parallel.Pmap, seeds: int) -> list[parallel.Jit | parallel.Pmap]:
    """The devices of each of so many seeds: equal parts, and where seeds outnumber the devices several on each."""
    known = list(devices.devices if isinstance(devices, parallel.Pmap) else devices.mesh.devices.flat)
    parts = min(seeds, len(known))
    size = len(known) // parts
    made = [type(devices)(known[part * size : (part + 1) * size]) for part in range(parts)]
    return [made[seed % parts] for seed in range(seeds)]


def vectorises(devices: Sequence[parallel.Jit | parallel.Pmap], takes: str) -> bool:
    """Whether seeds on these devices, one entry a seed, are vectorised.

    They are not where each could have devices of its own. On a CPU it pays for small matrix products, between which
    such a step waits for its dispatch, and not for convolutions: with a kernel a seed they are grouped ones, and
    those are slow there (jax-ml/jax#13800). `benchmarks/seeds.py` measures both.

    Args:
      devices: from `parallel.make`, or parts of those.
      takes: `images` or `vectors`, what the network takes.
    """
    one_place = len({id(own) for own in devices}) == 1
    return one_place and (jax.default_backend() != "cpu" or takes == "vectors")


def joined(readies: Sequence[Prepared], vectorised: bool) -> Prepared:
    """The stages of several seeds, which differ in numbers alone (`signature`), as one for the loop."""
    first = readies[0]
    refreshes = [ready.refresh for ready in readies]

    def refresh(step: int, states: Any) -> Any:
        pairs = zip(refreshes, states.each, strict=True)
        return States(tuple(state if own is None else own(step, state) for own, state in pairs))

    def batches(step: int) -> Any:
        return tuple(ready.batches(step) for ready in readies)

    return Prepared(
        net=first.net,
        state=States(tuple(ready.state for ready in readies)),  # pyright: ignore[reportArgumentType]
        phases=tuple(Phase(phase.begin, Together(phase.step)) for phase in first.phases),
        batches=batches,
        plan=first.plan,
        data=_data([ready.data for ready in readies], vectorised),
        refresh=None if first.refresh is None else refresh,
    )


def signature(ready: Prepared) -> tuple[Any, ...]:
    """What is equal of the stages of two seeds that can share a loop: lengths, phases, and the shapes of all arrays."""
    trees = {"state": ready.state, "data": ready.data, "batch": ready.batches(0)}
    shapes = [(name, np.shape(leaf), str(np.asarray(leaf).dtype)) for name, leaf in flatten(trees).items()]
    return ready.plan, tuple(phase.begin for phase in ready.phases), tuple(shapes)


def _data(each: Sequence[PyTree], vectorised: bool) -> Data:
    images = [next(r.images for r in jax.tree.leaves(data, is_leaf=_is_resident) if _is_resident(r)) for data in each]
    own = tuple(_with_images(data, None) for data in each)
    if all(found is images[0] or np.array_equal(found, images[0]) for found in images):
        return Data((images[0],), own)
    if not vectorised:
        return Data(tuple(images), own)
    # Not stacked: a gather by row and seed is one by row alone, of one long array.
    size = len(images[0])
    rows = [np.arange(size, dtype=np.int32) + size * seed for seed in range(len(each))]
    moved = [_replaced(data, rows=its) for data, its in zip(own, rows, strict=True)]
    return Data((np.concatenate(images),), tuple(moved))


def _is_resident(node: Any) -> bool:
    return isinstance(node, Resident)


def _replaced(data: PyTree, **fields: Any) -> PyTree:
    """`data` with these fields of its `Resident`."""
    replace = lambda node: node._replace(**fields) if _is_resident(node) else node  # noqa: E731
    return jax.tree.map(replace, data, is_leaf=_is_resident)


def _with_images(data: PyTree, images: Any) -> PyTree:
    return _replaced(data, images=images)


def _stacked(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _each(tree: PyTree, count: int) -> tuple[PyTree, ...]:
    return tuple(jax.tree.map(lambda leaf: leaf[seed], tree) for seed in range(count))  # noqa: B023 (called at once)


class Writers:
    """The metrics files of several seeds as one `Writer`, of figures [S]."""

    def __init__(self, each: Sequence[Writer]):
        self._each = each

    def begin(self, step: int) -> None:
        """As `Writer.begin`."""
        for writer in self._each:
            writer.begin(step)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds a line to each; a figure that is one number is of all seeds."""
        for seed, writer in enumerate(self._each):
            writer.write(step, {name: float(v[seed]) if np.ndim(v) else v for name, v in values.items()})

    def sync(self) -> None:
        """As `Writer.sync`."""
        for writer in self._each:
            writer.sync()

    def close(self, finished: bool) -> None:
        """As `Writer.close`."""
        for writer in self._each:
            writer.close(finished)


class Saved:
    """The checkpoints of several seeds as one `Checkpoints`: a step is saved when it is of all of them."""

    def __init__(self, each: Sequence[Checkpoints]):
        self._each = each
        self.card = each[0].card

    def save(self, step: int, tree: PyTree, seconds: float) -> None:
        """As `Checkpoints.save`."""
        for seed, checkpoints in enumerate(self._each):
            own = {"state": tree["state"].each[seed], "totals": tree["totals"][seed]}
            checkpoints.save(step, own, seconds)

    def latest(self, template: PyTree) -> tuple[PyTree, Mapping[str, Any]] | None:
        """The newest checkpoint that all seeds have, of which a kill between two saves can leave some one too many."""
        own = [
            {"state": state, "totals": totals}
            for state, totals in zip(template["state"].each, template["totals"], strict=True)
        ]
        at_most = None
        while True:
            found = [saved.latest(tree, at_most) for saved, tree in zip(self._each, own, strict=True)]
            there = [one for one in found if one is not None]
            if len(there) < len(found):
                return None
            steps = [card["step"] for _, card in there]
            if len(set(steps)) == 1:
                trees = [tree for tree, _ in there]
                states = States(tuple(tree["state"] for tree in trees))
                return {"state": states, "totals": tuple(tree["totals"] for tree in trees)}, there[0][1]
            at_most = min(steps)

    def wait(self) -> None:
        """As `Checkpoints.wait`."""
        for checkpoints in self._each:
            checkpoints.wait()

    def close(self) -> None:
        """As `Checkpoints.close`."""
        for checkpoints in self._each:
            checkpoints.close()


def in_step(directories: Sequence[pathlib.Path]) -> bool:
    """Whether seeds with these checkpoints can go on together: they have one of the same step, or at most a first one.

    Those without a common one begin again, at the cost of one interval: the first save was killed.
    """
    steps = [set(committed(directory)) for directory in directories]
    return bool(set.intersection(*steps)) or len(set().union(*steps)) <= 1
