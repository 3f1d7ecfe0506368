"""One step, any number of devices, jit or pmap: the same gradients, the same first three steps."""

import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from lt_noisy import stages
from lt_noisy.augment import AUGMENTS
from lt_noisy.collectives import AXIS
from lt_noisy.config.spec import bind
from lt_noisy.data.batches import Resident
from lt_noisy.errors import UserError
from lt_noisy.losses.table import LOSSES
from lt_noisy.method import Context
from lt_noisy.mixing import mixnn
from lt_noisy.mixing.mixup import MIXES
from lt_noisy.models.heads import HEADS, MLP
from lt_noisy.objectives import OBJECTIVES
from lt_noisy.stages import distil, self_supervised, supervised, training
from lt_noisy.stages.prediction import compile_predict, evaluation_batch
from lt_noisy.training import parallel
from lt_noisy.training.optim import ASCENTS
from lt_noisy.training.state import TrainState

BATCH = 16
AUGMENT = "compose(crop(pad=1), flip())"


def _recording(learning_rate):
    """Plain SGD whose optimiser state is the last gradient."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(np.zeros_like, params),
        lambda grads, state, params: (jax.tree.map(lambda g: -learning_rate * g, grads), grads),
    )


def _data():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    return Resident(images, generator.integers(0, 4, 40, dtype=np.int32))


class Case(NamedTuple):
    """A step, its first state and its data; `ascent_weights`: whether its batches carry them."""

    step: parallel.Step
    first: TrainState
    data: Any
    ascent_weights: bool = False


def _objective(text, augment=AUGMENT, ascent="none()"):
    objective, ascent = bind(text, OBJECTIVES, "objective"), bind(ascent, ASCENTS, "ascent")
    net = self_supervised.build(_encoder(), objective, np.float32, AXIS)
    augment = bind(augment, AUGMENTS, "augment")
    decay = objective.decay and objective.decay(4)
    step = self_supervised.make_step(net, objective, _recording(0.1), augment, "pretrain", decay, ascent)
    first = _first(net, objective.method.init(_context()))
    if objective.target:
        groups = first.variables.items()
        parts = {
            group: {part: tree[part] for part in ("encoder", "projector") if part in tree} for group, tree in groups
        }
        first = first.replace(target=jax.tree.map(np.copy, parts))
    return Case(step, first, _data(), ascent is not None)


def _loss(text, mix="none()"):
    loss, mix = bind(text, LOSSES, "loss"), bind(mix, MIXES, "mix")
    net = supervised.Classifier(_encoder(), bind("linear()", HEADS, "head")(4))
    step = supervised.make_step(net, loss, _recording(0.1), bind(AUGMENT, AUGMENTS, "augment"), "finetune", mix)
    return Case(step, _first(net, loss.init(_context())), _data())


def _mixnn(phase):
    """One phase of MixNN, three images mixed, targets corrected in every step."""
    net = supervised.Classifier(_encoder(), bind("linear()", HEADS, "head")(4))
    section = SimpleNamespace(
        augment=bind("none()", AUGMENTS, "augment"),
        alpha=1.0,
        mixup="linear",
        neighbours=mixnn.in_batch(k=3),
        momentum=0.5,
        correct_from=1,
        correct_every=1,
    )
    job = SimpleNamespace(name="mixnn")
    step = stages.mixnn.make_steps(job, section, net, _recording(0.1), 1)[phase]
    method = {
        "targets": np.eye(4, dtype=np.float32)[_data().labels],
        "clean": np.random.default_rng(3).uniform(0.1, 1, 40).astype(np.float32),
    }
    return Case(step, _first(net, method), _data())


def _distillation():
    """A base and two experts teach three heads."""
    projector = MLP((8, 6), norm=False, dtype=np.float32, norm_axis=AXIS)
    teacher = self_supervised.Network(_encoder(), projector, None)
    base = training.initial_state(teacher, (8, 8, 1), 1, "teacher", {}).variables
    experts = tuple(jax.tree.map(lambda x, shift=shift: x + np.float32(shift), base) for shift in (0.1, 0.2))
    head = MLP((8, 6), norm=True, dtype=np.float32, norm_axis=AXIS)
    net = distil.Student(_encoder(), projector, tuple(head.clone() for _ in range(3)))
    step = distil.make_step(net, teacher, _recording(0.1), bind("none()", AUGMENTS, "augment"), "distil")
    clusters = np.random.default_rng(2).integers(0, 2, 40, dtype=np.int32)
    return Case(step, _first(net, {}), distil.Data(_data(), clusters, distil.Teachers(base, experts)))


class _Encoder(nn.Module):
    """The least that has a convolution and BatchNorm: a ResNet compiles for minutes on eight devices."""

    norm_axis: str | None = AXIS

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(6, (3, 3), strides=2, use_bias=False)(x)
        # The two-pass variance: what is compared here is the devices, not its rounding.
        x = nn.BatchNorm(not train, momentum=0.9, axis_name=self.norm_axis, use_fast_variance=False)(x)
        return nn.relu(x).mean((1, 2))


def _encoder():
    return _Encoder()


def _context():
    return Context(4, 40, BATCH, np.bincount(_data().labels, minlength=4))


def _first(net, method):
    state = training.initial_state(net, (8, 8, 1), 0, "stage", method)
    return state.replace(opt_state=jax.tree.map(np.zeros_like, state.params))


CASES = {
    "simclr": lambda: _objective("simclr(hidden=16, size=8)"),
    "simsiam": lambda: _objective("simsiam(size=16, hidden=8)"),
    "supervised": lambda: _loss("superloss(logit_adjusted(), threshold=running_mean)"),
}
# Batch weights and augmentations reach these as they reach the three above: not compared again, and not compiled.
PLAIN_CASES = {
    "moco": lambda: _objective("moco(queue=64, hidden=16, size=8)", "flip()"),
    "moco-asymmetric": lambda: _objective("moco(queue=40, symmetric=False, hidden=16, size=8)", "none()"),  # wraps
    "byol": lambda: _objective("byol(hidden=16, size=8)", "none()"),
    "rotation": lambda: _objective("rotation()", "none()"),
    "rotation-every": lambda: _objective("rotation(every=True)", "none()"),
    "rwsam": lambda: _objective("simclr(hidden=16, size=8)", "none()", "sam(rho=0.5)"),
    "rwsam-adaptive": lambda: _objective("simclr(hidden=16, size=8)", "none()", "sam(rho=0.5, adaptive=True)"),
    "distil": _distillation,
    "mixup": lambda: _loss("symmetric_cross_entropy()", "mixup()"),
    "elr": lambda: _loss("elr()"),
    "mixnn-transition": lambda: _mixnn(2),
    "mixnn": lambda: _mixnn(3),
}


@functools.cache
def _case(name):
    return {**CASES, **PLAIN_CASES}[name]()


@functools.cache
def _compiled(name, mode, count):
    devices = parallel.make(mode, count)
    return devices, devices.compile_step(_case(name).step)


def _batches(weighted, ascent_weights=False):
    generator = np.random.default_rng(1)
    for _ in range(3):
        weights = generator.uniform(0.1, 3.0, BATCH).astype(np.float32) if weighted else np.ones(BATCH, np.float32)
        weights[3] = 0.0 if weighted else 1.0
        batch = {"rows": generator.permutation(40)[:BATCH].astype(np.int32), "weights": weights}
        if ascent_weights:
            batch["ascent_weights"] = generator.uniform(1, 9, BATCH).astype(np.float32)
        yield batch


PARTS = ("params", "opt_state", "batch_stats", "target", "method")  # the optimiser's state is the gradient


def _three_steps(name, mode, count, weighted):
    """PARTS of the state after each of three steps, and the sums of all three."""
    case, (devices, call) = _case(name), _compiled(name, mode, count)
    batches = list(_batches(weighted, case.ascent_weights))
    totals = parallel.zeros(case.step, case.first, case.data, batches[0])
    state, totals, data = devices.replicate(case.first), devices.replicate(totals), devices.replicate(case.data)
    states = []
    for batch in batches:
        state, totals = call(state, totals, data, batch)
        states.append({part: devices.fetch(getattr(state, part)) for part in PARTS})
    return states, devices.fetch(totals)


def _distance(a, b):
    """||a - b|| / ||b|| over all leaves."""
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)] or [np.zeros(1)]) for t in (a, b)]
    return np.linalg.norm(flat[0] - flat[1]) / max(np.linalg.norm(flat[1]), 1e-12)


@pytest.mark.parametrize(
    ("name", "weighted"), [(name, w) for name in CASES for w in (False, True)] + [(name, False) for name in PLAIN_CASES]
)
def test_devices_agree(name, weighted):
    reference, sums = _three_steps(name, "jit", 1, weighted)
    last = reference[-1]["opt_state"]["encoder"]  # moco's first step has no negatives, and no gradient
    assert all(np.linalg.norm(np.ravel(g)) > 0 for g in jax.tree.leaves(last))
    layouts = [("jit", 4), ("pmap", 8)] if weighted else [("jit", 8), ("pmap", 4)]
    for mode, count in layouts:
        states, layout_sums = _three_steps(name, mode, count, weighted)
        for step, (ours, theirs) in enumerate(zip(states, reference, strict=True)):
            for part in PARTS:
                assert _distance(ours[part], theirs[part]) < 1e-5, (mode, count, step, part)
        assert _distance(layout_sums, sums) < 1e-5


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_the_second_step_compiles_nothing(mode, caplog):
    """A step's own output is laid out as what it was first given."""
    devices, batch = parallel.make(mode, 4), np.ones(8, np.float32)
    call = devices.compile_step(lambda state, data, batch: (state + 1, jax.lax.psum(batch.sum(), AXIS)))
    state, totals, data = devices.replicate((np.float32(0), np.float32(0), ()))
    compilations = []
    with jax.log_compiles():
        for _ in range(2):
            state, totals = call(state, totals, data, batch)
            compilations.append(sum("Compiling" in record.getMessage() for record in caplog.records))
    assert compilations[0] > 0 and compilations[1] == compilations[0]


def test_pmap_of_one_and_scan_of_three_are_the_plain_step():
    case = _case("supervised")
    reference, sums = _three_steps("supervised", "jit", 1, False)
    one, one_sums = _three_steps("supervised", "pmap", 1, False)
    assert _distance(one, reference) < 1e-6 and _distance(one_sums, sums) < 1e-6

    devices = parallel.make("jit", 2)
    call = devices.compile_step(case.step, steps_per_call=3)
    batches = jax.tree.map(lambda *x: np.stack(x), *_batches(False))
    totals = parallel.zeros(case.step, case.first, case.data, next(_batches(False)))
    end, total = call(*devices.replicate((case.first, totals, case.data)), batches)
    assert int(end.step) == 3
    assert _distance(devices.fetch(end.params), reference[-1]["params"]) < 1e-5
    assert _distance(devices.fetch(total), sums) < 1e-5


def test_device_scope_norm_differs_but_states_stay_equal():
    """Without synchronisation the statistics are each device's own, averaged: the same state everywhere."""
    loss = bind("cross_entropy()", LOSSES, "loss")
    net = supervised.Classifier(_Encoder(None), bind("linear()", HEADS, "h")(4))
    step = supervised.make_step(net, loss, _recording(0.1), bind("none()", AUGMENTS, "a"), "finetune")
    devices = parallel.make("pmap", 4)
    state = _first(net, loss.init(_context()))
    totals = parallel.zeros(step, state, _data(), next(_batches(False)))
    start = devices.replicate((state, totals, _data()))
    # A step's own output is laid out as what it was first given: else pmap compiles the second step again.
    layout = [leaf.sharding for leaf in jax.tree.leaves(start[0])]
    end, _ = devices.compile_step(step)(*start, next(_batches(False)))
    assert [leaf.sharding for leaf in jax.tree.leaves(end)] == layout
    for leaf in jax.tree.leaves((end.params, end.batch_stats)):
        np.testing.assert_array_equal(np.asarray(leaf)[0], np.asarray(leaf)[3])


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_map_covers_uneven_sets(mode):
    job = SimpleNamespace(devices=parallel.make(mode, 4))
    predict = compile_predict(job, lambda v, images: images.astype(np.int32).sum((1, 2, 3)) * v["params"])
    variables = job.devices.replicate({"params": np.int32(2)})
    images = np.random.default_rng(0).integers(0, 9, (evaluation_batch((2, 2, 1), 4) + 7, 2, 2, 1), dtype=np.uint8)

    predicted = predict(variables, images)
    np.testing.assert_array_equal(predicted, 2 * images.sum((1, 2, 3), dtype=np.int64))


def test_larger_images_are_evaluated_in_smaller_batches():
    assert evaluation_batch((8, 8, 1), 1) == evaluation_batch((32, 32, 3), 8) == 512
    assert evaluation_batch((32, 32, 3), 3) == 513  # shared out evenly
    sizes = [evaluation_batch((side, side, 3), 1) for side in (64, 96, 224, 1024, 4096)]
    assert sizes == [512, 227, 41, 2, 1]  # 6 MiB of pixels, but never less than one image
    assert evaluation_batch((4096, 4096, 3), 8) == 8


@pytest.mark.parametrize(("mode", "count"), [("jti", 1), ("jit", 9), ("pmap", -1)])
def test_bad_devices(mode, count):
    with pytest.raises(UserError):
        parallel.make(mode, count)
