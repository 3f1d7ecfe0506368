"""One step, any number of devices, jit or pmap: the same gradients, the same first three steps.

Compared in float64: in float32 the difference is rounding, and hangs on the instructions of the CPU.
"""

import functools
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers import objective_cases, step_cases
from helpers.every_step import CASES, LOSSES
from helpers.step_cases import CLASSES, PARTS, Dense, distance
from scipy.special import softmax

from lt_noisy.augment import AUGMENTS
from lt_noisy.collectives import AXIS
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.losses.plain import make_cross_entropy
from lt_noisy.stages import supervised
from lt_noisy.stages.prediction import compile_predict, evaluation_batch
from lt_noisy.training import parallel

# Under pmap, which runs the same step, one of each kind: all losses, what gathers, what has two networks or draws.
PMAP = (
    "losses",
    objective_cases.small("moco"),
    objective_cases.small("rotation"),
    "mixnn in_set(k=3)",
    "distil",
    "sam(rho=0.5, adaptive=True)",
)


def _others(name):
    """What is compared with one device under jit."""
    return [("jit", 8), *([("pmap", 4)] if name in PMAP else [])]


@functools.cache
def _case(name):
    return CASES[name]()


@functools.cache
def _three_steps(name, mode, count):
    """{weighted: PARTS after each of three steps, and the sums of all three}."""
    devices = parallel.make(mode, count)
    call = devices.compile_step(_case(name).step)
    return {weighted: step_cases.three_steps(_case(name), devices, call, weighted) for weighted in (False, True)}


def test_the_cases_under_pmap_are_there():
    assert set(PMAP) <= CASES.keys()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_devices_agree(x64, name, weighted):
    reference, sums = _three_steps(name, "jit", 1)[weighted]
    last = reference[-1]["opt_state"]["encoder"]  # moco's first step has no negatives, and no gradient
    assert all(np.linalg.norm(g) > 0 for g in jax.tree.leaves(last))
    for mode, count in _others(name):
        seen, other_sums = _three_steps(name, mode, count)[weighted]
        for at, (ours, theirs) in enumerate(zip(seen, reference, strict=True)):
            for part in PARTS:
                assert distance(ours[part], theirs[part]) < 1e-9, (mode, count, at, part)
        assert distance(other_sums, sums) < 1e-9


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("text", LOSSES)
def test_each_loss_agrees(x64, text, weighted):
    """On its own head, whose gradient is of this loss alone."""
    columns = LOSSES.index(text) * CLASSES + np.arange(CLASSES)

    def own(mode, count):
        seen, _ = _three_steps("losses", mode, count)[weighted]
        return [(step["opt_state"]["head"]["dense"]["kernel"][:, columns], step["method"][text]) for step in seen]

    reference = own("jit", 1)
    assert all(np.linalg.norm(gradient) > 0 for gradient, _ in reference)
    for mode, count in _others("losses"):
        for ours, theirs in zip(own(mode, count), reference, strict=True):
            assert distance(ours[0], theirs[0]) < 1e-9 and distance(ours[1], theirs[1]) < 1e-9, (mode, count)


def test_a_weighted_sum_over_the_batch_is_the_published_class_balanced_softmax(x64):
    """Cui et al. divide the sum of w l by the number of images that weigh anything, LDAM-DRW by the sum of w."""
    gradients = {}
    for over in ("weights", "batch"):
        case, devices = step_cases.loss("cross_entropy()", over=over), parallel.make("jit", 2)
        seen, _ = step_cases.three_steps(case, devices, devices.compile_step(case.step), True)
        gradients[over] = seen[0]["opt_state"]["head"]["dense"]["bias"]
    params, batch = step_cases.first(step_cases.classifier(Dense()), {}).params, step_cases.batches(True)[0]
    images, labels = (x[batch["rows"]] for x in step_cases.resident()[:2])
    x = (images / 255).reshape(len(images), -1) @ np.float64(params["encoder"]["Dense_0"]["kernel"])
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    head = jax.tree.map(np.float64, params["head"]["dense"])
    errors = softmax(x @ head["kernel"] + head["bias"], axis=-1) - np.eye(step_cases.CLASSES)[labels]
    weights, total = batch["weights"], (batch["weights"][:, None] * errors).sum(0)
    assert (weights > 0).sum() == len(images) - 1
    np.testing.assert_allclose(gradients["batch"], total / (len(images) - 1), rtol=1e-9)
    np.testing.assert_allclose(gradients["weights"], total / weights.sum(), rtol=1e-9)


def test_devices_agree_in_float32():
    """Loosely: how far rounding takes them apart is the CPU's business."""
    case = step_cases.loss("cross_entropy()")
    one, eight = (
        step_cases.three_steps(case, devices, devices.compile_step(case.step), True)
        for devices in (parallel.make("jit", 1), parallel.make("jit", 8))
    )
    assert all(np.asarray(x).dtype == np.float32 for x in jax.tree.leaves(eight))
    assert distance(eight, one) < 1e-2


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


def test_the_shape_of_the_sums_and_the_program_share_one_trace():
    """On one device; to trace a deep network takes seconds of every start."""
    traces = []

    def step(state, data, batch):
        traces.append(batch.shape)
        return state + 1, jax.lax.psum(batch.sum(), AXIS)

    devices, batch = parallel.make("jit", 1), np.ones(8, np.float32)
    totals = parallel.zeros(step, np.float32(0), (), batch)
    call = devices.compile_step(step)
    state, total = call(*devices.replicate((np.float32(0), totals, ())), batch)
    assert traces == [(8,)]
    assert (float(state), float(total)) == (1.0, 8.0)


def test_pmap_of_one_and_scan_of_three_are_the_plain_step(x64):
    case = step_cases.loss("superloss(cross_entropy(), threshold=running_mean)")
    devices = parallel.make("jit", 1)
    call = devices.compile_step(case.step)
    reference, sums = step_cases.three_steps(case, devices, call, False)
    devices = parallel.make("pmap", 1)
    one, one_sums = step_cases.three_steps(case, devices, devices.compile_step(case.step), False)
    assert distance(one, reference) < 1e-9 and distance(one_sums, sums) < 1e-9

    devices = parallel.make("jit", 2)
    call = devices.compile_step(case.step, steps_per_call=3)
    first, data, batches = step_cases.in_precision((case.first, case.data, step_cases.batches(False)))
    totals = parallel.zeros(case.step, first, data, batches[0])
    stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
    end, total = call(*devices.replicate((first, totals, data)), stacked)
    assert int(end.step) == 3
    assert distance(devices.fetch(end.params), reference[-1]["params"]) < 1e-9
    assert distance(devices.fetch(total), sums) < 1e-9


def test_device_scope_norm_differs_but_states_stay_equal():
    """Without synchronisation the statistics are each device's own, averaged: the same state everywhere."""
    loss = make_cross_entropy()
    net = step_cases.classifier(Dense(norm_axis=None))
    step = supervised.make_step(net, loss, step_cases.recording(), bind("none()", AUGMENTS, "a"), "finetune")
    devices = parallel.make("pmap", 4)
    state, data = step_cases.first(net, loss.init(step_cases.context())), step_cases.resident()
    batch = step_cases.in_precision(step_cases.batches(False)[0])
    start = devices.replicate((state, parallel.zeros(step, state, data, batch), data))
    # A step's own output is laid out as what it was first given: else pmap compiles the second step again.
    layout = [leaf.sharding for leaf in jax.tree.leaves(start[0])]
    end, _ = devices.compile_step(step)(*start, batch)
    assert [leaf.sharding for leaf in jax.tree.leaves(end)] == layout
    for leaf in jax.tree.leaves((end.params, end.batch_stats)):
        np.testing.assert_array_equal(np.asarray(leaf)[0], np.asarray(leaf)[3])


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_map_covers_uneven_sets(mode):
    job = SimpleNamespace(devices=parallel.make(mode, 4))
    predict = compile_predict(job.devices, lambda v, images: images.astype(np.int32).sum((1, 2, 3)) * v["params"])
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


@pytest.mark.parametrize(
    ("mode", "count", "says"),
    [
        ("jti", 1, "config.parallel: unknown mode 'jti'"),
        ("jit", 9, "config.devices: 9 asked for, 8 present"),
        ("pmap", -1, "config.devices: -1 asked for, 8 present"),
    ],
)
def test_bad_devices(mode, count, says):
    with pytest.raises(UserError, match=says):
        parallel.make(mode, count)


@pytest.mark.parametrize(
    ("flags", "before", "found"),
    [
        ("", "", "2"),  # as asked for
        ("", "parallel.divide_cpu(2); jax.devices()", "2"),  # before it is used
        ("", "jax.devices()", "config.devices: 2 asked for, 1 present (0 takes them all)"),
        ("--xla_force_host_platform_device_count=3", "", "2"),  # of three
        ("", "system.cores = lambda: 1", "config.devices: 2 asked for, 1 present (0 takes them all)"),
    ],
)
def test_a_cpu_is_divided_where_devices_are_asked_for(flags, before, found):
    """Up to one for each core, and before JAX is in use."""
    program = f"""
import jax
from lt_noisy import system
from lt_noisy.errors import UserError
from lt_noisy.training import parallel
system.cores = lambda: 2
{before}
try:
    print(parallel.make("jit", 2).num_devices)
except UserError as error:
    print(error)
"""
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == found
