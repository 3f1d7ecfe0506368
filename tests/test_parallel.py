"""One step, any number of devices, jit or pmap: the same gradients, the same first three steps."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from lt_noisy import parallel
from lt_noisy.collectives import AXIS
from lt_noisy.data.augment import AUGMENTS
from lt_noisy.data.batches import Resident
from lt_noisy.losses import LOSSES
from lt_noisy.method import Context
from lt_noisy.models.heads import HEADS
from lt_noisy.objectives import OBJECTIVES
from lt_noisy.spec import UserError, bind
from lt_noisy.stages import common, self_supervised, supervised

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


def _objective(text):
    objective = bind(text, OBJECTIVES, "objective")
    net = self_supervised.build(_encoder(), objective, np.float32, AXIS)
    augment = bind(AUGMENT, AUGMENTS, "augment")
    step = self_supervised.make_step(net, objective, _recording(0.1), augment, seed=0, name="pretrain")
    return net, step, objective.method.init(_context())


def _loss(text):
    loss = bind(text, LOSSES, "loss")
    net = supervised.Classifier(_encoder(), bind("linear()", HEADS, "head")(4))
    step = supervised.make_step(net, loss, _recording(0.1), bind(AUGMENT, AUGMENTS, "augment"), 0, "finetune")
    return net, step, loss.init(_context())


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


CASES = {
    "simclr": lambda: _objective("simclr(hidden=16, size=8)"),
    "simsiam": lambda: _objective("simsiam(size=16, hidden=8)"),
    "supervised": lambda: _loss("superloss(logit_adjusted(), threshold=running_mean)"),
}


def _batches(weighted):
    generator = np.random.default_rng(1)
    for _ in range(3):
        weights = generator.uniform(0.1, 3.0, BATCH).astype(np.float32) if weighted else np.ones(BATCH, np.float32)
        weights[3] = 0.0 if weighted else 1.0
        yield {"rows": generator.permutation(40)[:BATCH].astype(np.int32), "weights": weights}


def _first(net, method):
    state = common.initial_state(net, (8, 8, 1), 0, "stage", method)
    return state.replace(opt_state=jax.tree.map(np.zeros_like, state.params))


def _three_steps(devices, state, step, weighted):
    """[(parameters, gradient, method state)] after each of three steps, and the sums of all three."""
    data = _data()
    totals = parallel.zeros(step, state, data, next(_batches(weighted)))
    call = devices.compile_step(step)
    state, totals, resident = devices.replicate(state), devices.replicate(totals), devices.replicate(data)
    seen = []
    for batch in _batches(weighted):
        state, totals = call(state, totals, resident, batch)
        seen.append(devices.fetch((state.params, state.opt_state, state.batch_stats, state.method)))
    return seen, devices.fetch(totals), call


def _distance(a, b):
    """||a - b|| / ||b|| over all leaves."""
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)] or [np.zeros(1)]) for t in (a, b)]
    return np.linalg.norm(flat[0] - flat[1]) / max(np.linalg.norm(flat[1]), 1e-12)


@pytest.mark.parametrize("weighted", [False, True], ids=["uniform", "weighted"])
@pytest.mark.parametrize("case", CASES)
def test_devices_agree(case, weighted):
    net, step, method = CASES[case]()
    first = _first(net, method)
    reference, sums, _ = _three_steps(parallel.make("jit", 1), first, step, weighted)
    assert all(np.linalg.norm(np.ravel(g)) > 0 for g in jax.tree.leaves(reference[0][1]["encoder"]))
    others = [("jit", 4), ("pmap", 8)] if weighted else [("jit", 8), ("pmap", 4)]
    for mode, count in others:
        seen, other_sums, _ = _three_steps(parallel.make(mode, count), first, step, weighted)
        for at, (ours, theirs) in enumerate(zip(seen, reference, strict=True)):
            for part, name in enumerate(("params", "gradient", "batch_stats", "method")):
                assert _distance(ours[part], theirs[part]) < 1e-5, (mode, count, at, name)
        assert _distance(other_sums, sums) < 1e-5


def test_pmap_of_one_and_scan_of_three_are_the_plain_step():
    net, step, method = CASES["supervised"]()
    state = _first(net, method)
    reference, sums, call = _three_steps(parallel.make("jit", 1), state, step, False)
    assert call._cache_size() == 1  # the second step compiles nothing
    one, one_sums, _ = _three_steps(parallel.make("pmap", 1), state, step, False)
    assert _distance(one, reference) < 1e-6 and _distance(one_sums, sums) < 1e-6

    devices = parallel.make("jit", 2)
    call = devices.compile_step(step, steps_per_call=3)
    batches = jax.tree.map(lambda *x: np.stack(x), *_batches(False))
    totals = parallel.zeros(step, state, _data(), next(_batches(False)))
    end, total = call(*devices.replicate((state, totals, _data())), batches)
    assert int(end.step) == 3
    assert _distance(devices.fetch(end.params), reference[-1][0]) < 1e-5
    assert _distance(devices.fetch(total), sums) < 1e-5


def test_device_scope_norm_differs_but_states_stay_equal():
    """Without synchronisation the statistics are each device's own, averaged: the same state everywhere."""
    loss = bind("cross_entropy()", LOSSES, "loss")
    net = supervised.Classifier(_Encoder(None), bind("linear()", HEADS, "h")(4))
    step = supervised.make_step(net, loss, _recording(0.1), bind("none()", AUGMENTS, "a"), 0, "finetune")
    devices = parallel.make("pmap", 4)
    state = _first(net, loss.init(_context()))
    totals = parallel.zeros(step, state, _data(), next(_batches(False)))
    end, _ = devices.compile_step(step)(*devices.replicate((state, totals, _data())), next(_batches(False)))
    for leaf in jax.tree.leaves((end.params, end.batch_stats)):
        np.testing.assert_array_equal(np.asarray(leaf)[0], np.asarray(leaf)[3])


def test_map_covers_uneven_sets():
    class Job:
        devices = parallel.make("jit", 4)

    predict = common.compile_predict(Job, lambda variables, images: images.sum((1, 2, 3)) * variables["params"])
    images = np.random.default_rng(0).integers(0, 9, (common.EVAL_BATCH + 7, 2, 2, 1), dtype=np.uint8)

    class State:
        params, batch_stats = np.float32(2), {}

    np.testing.assert_allclose(predict(State, images), 2.0 * images.sum((1, 2, 3), dtype=np.float64))


@pytest.mark.parametrize(("mode", "count"), [("jti", 1), ("jit", 9), ("pmap", -1)])
def test_bad_devices(mode, count):
    with pytest.raises(UserError):
        parallel.make(mode, count)
