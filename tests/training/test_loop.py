"""The loop on a network of one number: what it writes and when, what it refuses, and where it goes on."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy.collectives import AXIS
from lt_noisy.data.batches import Epoch, grouped
from lt_noisy.errors import UserError
from lt_noisy.training import loop, parallel
from lt_noisy.training.checkpoint import Checkpoints
from lt_noisy.training.host_log import HostLog, read
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.loop import Phase, Plan, Prepared, train
from lt_noisy.training.state import TrainState
from lt_noisy.training.watch import Watch
from lt_noisy.training.writer import Writer

STATE = TrainState(np.uint32(0), np.int32(0), {"w": np.float32(0)}, {}, {}, {}, {})
PLAN = Plan(total=8, log_every=3, eval_every=4, save_every=4, steps_per_call=1, batch_size=4, epoch=Epoch(3, 4))


def _step(slope, nonfinite_at=None):
    """w grows by `slope`; the loss of step k (from 0) is k + the batch's mean, which is k again."""

    def step(state, data, batch):
        count = jnp.float32(1)
        bad = (state.step == (-1 if nonfinite_at is None else nonfinite_at)).astype(jnp.float32)
        loss = state.step.astype(jnp.float32) + jax.lax.pmean(batch["rows"].mean(), AXIS)
        params = {"w": state.params["w"] + slope * data}
        sums = {"loss": (loss, count), "nonfinite": (bad, count)}
        return state.replace(step=state.step + 1, params=params), sums

    return step


def _ready(*phases, plan=PLAN, refresh=None):
    def batches(step):
        return {"rows": np.full(4, step, np.int32)}

    return Prepared(None, STATE, phases or (Phase(0, _step(1.0)),), batches, plan, np.float32(1), refresh)


def _train(directory, ready, mode="jit", evaluate=lambda state: {}, interrupts=None):
    directory.mkdir(exist_ok=True)
    return train(
        "stage",
        ready,
        parallel.make(mode, 2),
        Checkpoints(directory / "checkpoints", {}),
        Writer(directory),
        evaluate,
        interrupts or Interrupts(),
        Watch("stage", HostLog(directory)),
    )


def _lines(directory):
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("seconds") >= 0 for line in lines)
    return lines


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_lines_are_means_of_their_steps_and_evaluations_stand_where_they_were_made(tmp_path, mode, steps_per_call):
    plan = PLAN._replace(log_every=6, steps_per_call=steps_per_call)
    devices = parallel.make(mode, 2)
    trained = _train(
        tmp_path, _ready(plan=plan), mode, evaluate=lambda state: {"w": float(devices.fetch(state.params["w"]))}
    )
    assert _lines(tmp_path) == [
        {"step": 4, "w": 4.0},
        {"step": 6, "loss": 2 * np.mean(range(6))},
        {"step": 8, "loss": 2 * np.mean([6, 7]), "w": 8.0},
    ]
    assert trained.state.params["w"] == 8.0 and trained.state.step.shape == ()


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_examples_are_counted_and_not_their_pixels(steps_per_call):
    """Streamed images come with their rows, in any order."""
    batch = {"images": np.zeros((4, 3, 3, 1), np.uint8), "rows": np.arange(4), "weights": np.ones(4, np.float32)}
    of_call = grouped(lambda step: batch, 0, steps_per_call)
    assert loop._examples(of_call) == 4 * steps_per_call
    assert loop._examples((of_call, of_call)) == 8 * steps_per_call  # two seeds


def test_nothing_is_made_of_a_state_that_is_not_finite(tmp_path):
    """A refresh at the start of an epoch, before any line: step 3 is the first of the second epoch."""
    refreshed = []

    def refresh(step, state):
        refreshed.append(step)
        return state

    plan = PLAN._replace(log_every=8, eval_every=8, save_every=8)
    with pytest.raises(UserError, match=r"stage: .*1\.\.3"):
        _train(tmp_path, _ready(Phase(0, _step(1.0, 2)), plan=plan, refresh=refresh))
    assert refreshed == [0, 1, 2]


def test_a_line_waits_for_the_next_call_and_no_evaluation_for_a_line(tmp_path):
    """Line 3 comes after call 4 was sent off; the refresh before a call sees all lines before it."""
    written = []

    def refresh(step, state):
        path = tmp_path / "metrics.jsonl"
        written.append(len(path.read_text().splitlines()) if path.exists() else 0)
        return state

    _train(tmp_path, _ready(plan=PLAN._replace(log_every=1, eval_every=8, save_every=8), refresh=refresh))
    assert written == list(range(8))
    assert [line["step"] for line in _lines(tmp_path)] == list(range(1, 9))


def test_phases_take_over_at_their_steps(tmp_path):
    phases = (Phase(0, _step(1.0)), Phase(3, _step(10.0)), Phase(6, _step(100.0)))
    assert _train(tmp_path, _ready(*phases)).state.params["w"] == 3 * 1 + 3 * 10 + 2 * 100


@pytest.mark.parametrize(("nonfinite_at", "steps", "saved"), [(2, "1..3", []), (3, "4..4", []), (6, "7..8", [4])])
def test_a_state_that_is_not_finite_is_neither_evaluated_nor_saved(tmp_path, nonfinite_at, steps, saved):
    evaluated = []

    def evaluate(state):
        evaluated.append(int(jax.device_get(state.step)))
        return {}

    with pytest.raises(UserError, match=re.escape(f"not finite in steps {steps};")):
        _train(tmp_path, _ready(Phase(0, _step(1.0, nonfinite_at))), evaluate=evaluate)
    assert evaluated == saved and Checkpoints(tmp_path / "checkpoints", {}).steps() == saved


def test_a_signal_saves_once_and_the_rest_is_the_same_run(tmp_path, capsys):
    whole = _train(tmp_path / "whole", _ready())
    interrupts = Interrupts()

    def refresh(step, state):
        if step == 4:
            interrupts.pending = 15
        return state

    with pytest.raises(SystemExit) as stopped:
        _train(tmp_path / "cut", _ready(refresh=refresh), interrupts=interrupts)
    assert stopped.value.code == 143
    assert Checkpoints(tmp_path / "cut" / "checkpoints", {}).steps() == [4, 5]
    assert "saved at step 5 of 8" in capsys.readouterr().out
    rest = _train(tmp_path / "cut", _ready())
    assert "stage: resuming from step 5 of 8" in capsys.readouterr().out
    assert _lines(tmp_path / "cut") == _lines(tmp_path / "whole")
    assert rest.state.params == whole.state.params
    log = read(tmp_path / "cut" / "log" / "process_0.jsonl")
    assert [(line["event"], line["step"]) for line in log] == [
        *[("started", 0), ("steps", 3), ("saving", 4), ("saving", 5), ("stopped", 5)],
        *[("resumed", 5), ("steps", 6), ("steps", 8), ("saving", 8), ("finished", 8)],
    ]
    of_steps = [line["step_ms"] for line in log if line["event"] == "steps"]
    assert [sorted(times) for times in of_steps] == [["max", "p50", "p90"], [], ["max", "p50", "p90"]]
    assert all(0 < times["p50"] <= times["p90"] <= times["max"] for times in of_steps if times)


def test_a_checkpoint_that_the_plan_does_not_reach_is_refused(tmp_path):
    _train(tmp_path, _ready(plan=PLAN._replace(total=5)))
    with pytest.raises(UserError, match="steps_per_call=2 reaches on the way to 8; set --config"):
        _train(tmp_path, _ready(plan=PLAN._replace(steps_per_call=2)))


def _host_array(state):
    jax.jit(jnp.sum)(np.ones(3))


def _array_made(state):
    jnp.zeros(3)


def _scalar(state):
    state.step + 1


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("transfer", [_host_array, _array_made, _scalar])
def test_an_implicit_transfer_is_refused_in_an_evaluation_and_before_a_step(tmp_path, mode, transfer):
    """A CPU shares memory with the host, so that JAX guards there only the way to the devices."""

    def evaluate(state):
        transfer(state)
        return {}

    def refresh(step, state):
        transfer(state)
        return state

    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        _train(tmp_path / "evaluation", _ready(), mode, evaluate=evaluate)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        _train(tmp_path / "refresh", _ready(refresh=refresh), mode)
