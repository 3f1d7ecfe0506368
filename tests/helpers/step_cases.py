"""What the tests of whole steps share: steps on the smallest networks and data, three of them taken, a distance."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from lt_noisy import stages
from lt_noisy.augment import AUGMENTS
from lt_noisy.collectives import AXIS
from lt_noisy.config.spec import bind
from lt_noisy.data.batches import Resident, own
from lt_noisy.losses.table import LOSSES
from lt_noisy.method import Context, Method
from lt_noisy.mixing import mixnn
from lt_noisy.mixing.mixup import MIXES
from lt_noisy.models.heads import HEADS, MLP
from lt_noisy.models.norm import batch_norm
from lt_noisy.objectives import OBJECTIVES
from lt_noisy.precision import float_dtype
from lt_noisy.rebalance.sampling import Over
from lt_noisy.stages import distil, self_supervised, supervised, training
from lt_noisy.training import parallel
from lt_noisy.training.optim import ASCENTS
from lt_noisy.training.state import TrainState

CLASSES, EXAMPLES, BATCH = 4, 40, 16
AUGMENT = "compose(crop(pad=1), flip())"
PARTS = ("params", "opt_state", "batch_stats", "target", "method")  # the optimiser's state is the gradient
PyTree = Any


class Case(NamedTuple):
    """A step, its first state and its data (host); `ascent_weights`: whether its batches carry them."""

    step: parallel.Step
    first: TrainState
    data: Any
    ascent_weights: bool = False


def entry(table: Mapping[str, Callable], name: str, **arguments) -> str:
    """The spec of a table entry with those of the arguments that it has."""
    known = inspect.signature(table[name]).parameters
    return f"{name}({', '.join(f'{k}={v}' for k, v in arguments.items() if k in known)})"


class Convolutional(nn.Module):
    """The least encoder that has a convolution and BatchNorm: a ResNet compiles for minutes on eight devices."""

    norm_axis: str | None = AXIS
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(6, (3, 3), strides=2, use_bias=False, dtype=self.dtype)(x)
        x = nn.relu(batch_norm(x, train, self.dtype, self.norm_axis, "norm")).mean((1, 2))
        return x if self.dtype is None else x.astype(np.float32)


class Dense(nn.Module):
    """The least encoder that has parameters and BatchNorm."""

    norm_axis: str | None = AXIS

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(6, use_bias=False)(x.reshape(len(x), -1))
        return batch_norm(x, train, None, self.norm_axis, "norm", affine=False)


def recording(held: Sequence[str] = ()) -> optax.GradientTransformation:
    """Plain SGD whose state is the last gradient; it leaves the `held` parts of the network as they are."""

    def update(grads, state, params):
        rates = {part: 0.0 if part in held else 0.1 for part in grads}
        return {part: jax.tree.map(lambda g, rate=rates[part]: -rate * g, grads[part]) for part in grads}, grads

    return optax.GradientTransformation(lambda params: jax.tree.map(np.zeros_like, params), update)


def resident() -> Resident:
    """Images and labels of all classes."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (EXAMPLES, 8, 8, 1), dtype=np.uint8)
    return Resident(images, generator.integers(0, CLASSES, EXAMPLES, dtype=np.int32))


def context() -> Context:
    """What a method is told of `resident()`."""
    counts = np.bincount(resident().labels, minlength=CLASSES)
    transition = 0.6 * np.eye(CLASSES) + 0.4 * np.roll(np.eye(CLASSES), 1, axis=1)  # has zeros
    return Context(CLASSES, EXAMPLES, BATCH, counts, 4, transition, counts + 1.5)


@functools.cache
def _fresh(net: nn.Module) -> TrainState:
    with jax.enable_x64(False):  # float32, as a run makes it
        return training.initial_state(net, (8, 8, 1), 0, "stage", {})


def first(net: nn.Module, method: PyTree) -> TrainState:
    """The first state, with `recording`'s part."""
    state = jax.tree.map(np.copy, _fresh(net))
    return state.replace(opt_state=jax.tree.map(np.zeros_like, state.params), method=jax.tree.map(np.asarray, method))


def classifier(encoder: nn.Module, classes: int = CLASSES) -> supervised.Classifier:
    """The encoder and a linear head."""
    return supervised.Classifier(encoder, bind("linear()", HEADS, "head")(classes))


def objective(
    text: str, augment: str = "none()", ascent: str = "none()", encoder: Callable[[], nn.Module] = Convolutional
) -> Case:
    """The step of an objective."""
    objective, ascent = bind(text, OBJECTIVES, "objective"), bind(ascent, ASCENTS, "ascent")
    net = self_supervised.build(encoder(), objective, None, AXIS)
    decay = objective.decay and objective.decay(4)
    augment = bind(augment, AUGMENTS, "augment")
    step = self_supervised.make_step(net, objective, recording(), augment, "pretrain", decay, ascent)
    state = first(net, objective.method.init(context()))
    if objective.target:
        groups = state.variables.items()
        parts = {
            group: {part: tree[part] for part in self_supervised.TARGET_PARTS if part in tree} for group, tree in groups
        }
        state = state.replace(target=jax.tree.map(np.copy, parts))
    return Case(step, state, resident(), ascent is not None)


def loss(text: str, mix: str = "none()", over: Over = "weights") -> Case:
    """The step of a supervised loss, its weighted sum divided as `over` says."""
    loss, mix, augment = bind(text, LOSSES, "loss"), bind(mix, MIXES, "mix"), bind("none()", AUGMENTS, "augment")
    net = classifier(Dense())
    step = supervised.make_step(net, loss, recording(), augment, "finetune", mix, over)
    return Case(step, first(net, loss.init(context())), resident())


def side_by_side(texts: Sequence[str]) -> Case:
    """One step of all these losses, each on a head of its own: loss k has the columns k * CLASSES onwards.

    They share an encoder that does not learn, so that none feels another. One program compiles in a tenth of the time
    of twenty.
    """
    losses = {text: bind(text, LOSSES, "loss") for text in texts}

    def init(context):
        return {text: loss.init(context) for text, loss in losses.items()}

    def apply(state, outputs, *args):
        logits = outputs.reshape(len(outputs), len(losses), CLASSES)
        each = {text: loss.apply(state[text], logits[:, k], *args) for k, (text, loss) in enumerate(losses.items())}
        return sum(values for values, _ in each.values()), {text: new for text, (_, new) in each.items()}

    net = classifier(Dense(), len(losses) * CLASSES)
    step = supervised.make_step(
        net, Method(init, apply), recording(held=["encoder"]), bind(AUGMENT, AUGMENTS, "augment"), "finetune"
    )
    return Case(step, first(net, init(context())), resident())


def mixnn_phase(phase: int, neighbours: str) -> Case:
    """One phase of MixNN, targets corrected in every step."""
    net = classifier(Dense())
    section = SimpleNamespace(
        augment=bind("none()", AUGMENTS, "augment"),
        alpha=1.0,
        mixup=mixnn.MIXUP_LOSSES["linear"],
        neighbours=bind(neighbours, mixnn.NEIGHBOURS, "neighbours"),
        momentum=0.5,
        correct_from=1,
        correct_every=1,
    )
    step = stages.mixnn.make_steps(SimpleNamespace(name="mixnn"), section, net, recording(), 1)[phase]
    generator = np.random.default_rng(3)
    method = {
        "targets": np.eye(CLASSES, dtype=np.float32)[resident().labels],
        "clean": generator.uniform(0.1, 1, EXAMPLES).astype(np.float32),
    }
    if section.neighbours.whole_set:
        method["neighbours"] = generator.integers(0, EXAMPLES, (EXAMPLES, section.neighbours.k - 1), dtype=np.int32)
    return Case(step, first(net, method), resident())


def distillation() -> Case:
    """A base and two experts teach three heads."""
    projector = MLP((8, 6), norm=False, dtype=None, norm_axis=AXIS)
    teacher = self_supervised.Network(Dense(), projector, None)
    base = first(teacher, {}).variables
    experts = tuple(jax.tree.map(lambda x, shift=shift: x + np.float32(shift), base) for shift in (0.1, 0.2))
    head = MLP((8, 6), norm=True, dtype=None, norm_axis=AXIS)
    net = distil.Student(Dense(), projector, tuple(head.clone() for _ in range(3)))
    step = distil.make_step(net, teacher, recording(), bind("none()", AUGMENTS, "augment"), "distil")
    clusters = np.random.default_rng(2).integers(0, 2, EXAMPLES, dtype=np.int32)
    return Case(step, first(net, {}), distil.Data(resident(), clusters, distil.Teachers(base, experts)))


def batches(weighted: bool, ascent_weights: bool = False) -> list[PyTree]:
    """Three batches: all weights 1, or all different and one of them 0."""
    generator, made = np.random.default_rng(1), []
    for _ in range(3):
        weights = generator.uniform(0.1, 3.0, BATCH) * (np.arange(BATCH) != 3) if weighted else np.ones(BATCH)
        batch = {"rows": generator.permutation(EXAMPLES)[:BATCH].astype(np.int32), "weights": weights}
        if ascent_weights:
            batch["ascent_weights"] = generator.uniform(1, 9, BATCH)
        made.append(batch)
    return made


def in_precision(tree: PyTree) -> PyTree:
    """The tree on the host with its floats in the precision of the mode: float64 in x64, else float32."""
    return jax.tree.map(lambda x: np.asarray(x, float_dtype() if np.issubdtype(x.dtype, np.floating) else None), tree)


def three_steps(
    case: Case, devices: parallel.Jit | parallel.Pmap, call: Callable, weighted: bool
) -> tuple[list[dict[str, PyTree]], PyTree]:
    """PARTS of the state after each of three calls of the compiled step, and the sums of all three.

    Of several processes each gives its part of the batches.
    """
    start, data = in_precision((case.first, case.data))
    each = in_precision(batches(weighted, case.ascent_weights))
    totals = devices.replicate(parallel.zeros(case.step, start, data, each[0]))
    state, data = devices.replicate(start), devices.replicate(data)
    seen = []
    for batch in (own(each.__getitem__)(step) for step in range(len(each))):
        state, totals = call(state, totals, data, batch)
        seen.append({part: devices.fetch(getattr(state, part)) for part in PARTS})
    return seen, devices.fetch(totals)


def distance(a: PyTree, b: PyTree) -> float:
    """||a - b|| / ||b|| over all leaves, their equal infinities left out; infinite where others are not finite."""
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)] or [np.zeros(1)]) for tree in (a, b))
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite]):  # NaN equals nothing
        return np.inf
    return np.linalg.norm(a[finite] - b[finite]) / max(np.linalg.norm(b[finite]), 1e-12)
