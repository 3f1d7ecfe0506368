"""The moving average of a classifier's weights: its numbers, and that it is what is evaluated and handed on."""

import itertools

import jax
import numpy as np
import pytest
from helpers.small_job import job
from helpers.step_cases import distance, in_precision

from lt_noisy.config.fields import bind_section, new_section
from lt_noisy.errors import UserError
from lt_noisy.evaluation.classification import classification
from lt_noisy.stages import STAGES, supervised, training
from lt_noisy.stages.base import Training
from lt_noisy.training.checkpoint import CHECKPOINTS, committed, final, read
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.parallel import zeros
from lt_noisy.training.prune import prune, write_weights
from lt_noisy.training.state import AVERAGE, flatten

TRAIN = {"length": "steps(6)", "batch_size": 16, "augment": "none()", "schedule": "constant(lr=0.1)"}
DECAY = 0.15  # above the warm-up's 1/10 and below its 2/11


def section(kind="supervised", **changed):
    cls = STAGES[kind].section
    return bind_section(new_section(cls, {**TRAIN, **changed}, kind), cls, "config.train")[0]


def stepped(own, bound, kind="supervised"):
    """The states on the host before the first step and after each."""
    with jax.enable_x64(False):  # as a run makes it
        ready = STAGES[kind].prepare(own, bound)
    state, batches = in_precision(ready.state), in_precision([ready.batches(k) for k in range(ready.plan.total)])
    data = in_precision(ready.data) if jax.config.jax_enable_x64 else ready.data
    states = [state]
    totals = zeros(ready.phases[0].step, state, data, batches[0])
    totals, state, data = (own.devices.replicate(tree) for tree in (totals, state, data))
    calls = {phase.begin: own.devices.compile_step(phase.step) for phase in ready.phases}
    for step, batch in enumerate(batches):
        call = calls[max(begin for begin in calls if begin <= step)]
        state, totals = call(state, totals, data, batch)
        states.append(own.devices.fetch(state))
    return states


def test_the_average_follows_the_weights_and_leaves_them_as_they_are(x64, tmp_path):
    """Against NumPy; on one device and eight, with jit and pmap; of mean and variance too."""
    plain = stepped(job(tmp_path, "jit", 1), section())
    expected = plain[0].variables
    for step, state in enumerate(plain[1:]):
        decay = min(DECAY, (1 + step) / (10 + step))
        assert decay == (0.1, DECAY)[step > 0]
        expected = jax.tree.map(lambda a, w, d=decay: d * a + (1 - d) * w, expected, state.variables)
    for mode, devices in (("jit", 1), ("jit", 8), ("pmap", 8)):
        last = stepped(job(tmp_path, mode, devices), section(ema=DECAY))[-1]
        assert distance(last.evaluated, expected) < 1e-9 and distance(last.variables, plain[-1].variables) < 1e-9
    assert set(flatten(expected)) == set(flatten(last.evaluated)) and "batch_stats" in last.evaluated
    assert plain[-1].evaluated == plain[-1].variables and plain[-1].target == {}


def test_what_is_frozen_stays_as_it_is_bit_for_bit(tmp_path):
    states = stepped(job(tmp_path, devices=1), section(ema=0.9, freeze_encoder=True))
    first, last = states[0].params["encoder"], states[-1].evaluated["params"]
    jax.tree.map(np.testing.assert_array_equal, last["encoder"], first)
    assert distance(last["head"], states[0].params["head"]) > 1e-3


def test_all_phases_of_mixnn_update_it(tmp_path):
    fields = {"length": "epochs(5)", "warmup": 2, "correct_from": 3, "correct_every": 1, "ema": DECAY}
    fields |= {"batch_size": 16, "neighbours": "in_batch(k=2)"}
    states = stepped(job(tmp_path, devices=1), section("mixnn", **fields), "mixnn")
    assert len(states) == 6
    for before, after in itertools.pairwise(states[2:]):
        expected = jax.tree.map(lambda a, w: DECAY * a + (1 - DECAY) * w, before.evaluated, after.variables)
        assert distance(after.evaluated, expected) < 1e-5


def run(own, bound):
    """As a run does it: the summary, and the state."""
    own.directory.mkdir(exist_ok=True)
    kind = STAGES["supervised"].run
    assert isinstance(kind, Training)
    ready = kind.prepare(own, bound)
    followed = kind.follow(own, bound, ready)
    trained = training.run_training(own, ready, followed.monitor)
    return followed.finish(trained), trained, ready


def test_it_is_evaluated_and_what_readers_of_the_stage_find(tmp_path):
    own, bound = job(tmp_path / "stage"), section(ema=0.9)
    summary, trained, ready = run(own, bound)
    average = trained.state.target[AVERAGE]
    data = own.dataset
    logits = ready.net.apply(average, data.test_images.astype(np.float32) / 255, train=False)
    counts = np.bincount(data.clean)
    assert summary["test"]["nll"] == pytest.approx(
        classification(np.asarray(logits), data.test_labels, counts, data.class_names)["nll"], rel=1e-5
    )
    arrays, _ = final(own.directory)
    for name, array in flatten(average).items():
        np.testing.assert_array_equal(arrays[f"state.{name}"], array)
    for name, array in flatten(trained.state.variables).items():
        np.testing.assert_array_equal(arrays[f"state.last.{name}"], array)
    kept = committed(own.directory / CHECKPOINTS)[-1]  # in the file they have their own names
    stored, _ = read(own.directory / CHECKPOINTS / f"{kept:08d}")
    np.testing.assert_array_equal(stored["state.params.head.dense.bias"], trained.state.params["head"]["dense"]["bias"])

    write_weights(own.directory)
    prune(own.directory, "weights")
    kept_alone, _ = final(own.directory)
    assert set(kept_alone) == {f"state.{name}" for name in flatten(average)}
    np.testing.assert_array_equal(
        kept_alone["state.params.head.dense.bias"], average["params"]["head"]["dense"]["bias"]
    )


def test_a_run_that_goes_on_has_the_same_average(tmp_path):
    bound = section(ema=0.9, save_every="steps(6)")
    _, whole, _ = run(job(tmp_path / "whole", "pmap"), bound)
    cut = job(tmp_path / "cut", "pmap")
    cut.directory.mkdir()
    ready = supervised.prepare(cut, bound)

    def stop(step, state):
        if step == 3:
            cut.interrupts.pending = 15
        return state

    with pytest.raises(SystemExit):
        training.run_training(cut, ready._replace(refresh=stop), lambda state: {})
    cut.interrupts = Interrupts()
    rest = training.run_training(cut, supervised.prepare(cut, bound), lambda state: {})
    jax.tree.map(np.testing.assert_array_equal, rest.state, whole.state)


@pytest.mark.parametrize("kind", ["supervised", "mixnn"])
@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_is_in_its_range(tmp_path, kind, decay):
    given = {"length": "epochs(80)"} if kind == "mixnn" else {}
    with pytest.raises(UserError, match=r"^config\.train\.ema: a decay is at least 0 \(no average\) and below 1, not"):
        STAGES[kind].check(job(tmp_path), section(kind, ema=decay, **given))
