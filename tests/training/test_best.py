"""The best evaluation on validation: its weights, through kills and damage, and the stop that follows from it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy.data.batches import Epoch
from lt_noisy.errors import UserError
from lt_noisy.training import parallel
from lt_noisy.training.best import BEST, EARLY_STOPPING, FIGURE, Best, Bests
from lt_noisy.training.checkpoint import CHECKPOINTS, WEIGHTS, Checkpoints, committed, read_final
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.loop import Phase, Plan, Prepared, train
from lt_noisy.training.prune import discard_weights
from lt_noisy.training.replicas import States
from lt_noisy.training.state import AVERAGE, TrainState
from lt_noisy.training.writer import Writer

STATE = TrainState(np.uint32(0), np.int32(0), {"w": np.float32(0)}, {}, {}, {}, {})
PLAN = Plan(total=10, log_every=5, eval_every=1, save_every=2, steps_per_call=1, batch_size=4, epoch=Epoch(3, 4))
RISING = [0.1, 0.5, 0.5, 0.4, 0.6, 0.2, 0.6, 0.5, 0.1, 0.2]  # by step, from 1; the first 0.6 is of step 5


class Killed(Exception):
    """In the place of a SIGKILL: nothing is caught on its way but what `finally` closes."""


def _step(state, data, batch):
    one = jnp.float32(1)
    after = state.replace(step=state.step + 1, params={"w": state.params["w"] + 1})
    return after, {"loss": (one, one), "nonfinite": (0 * one, one)}


def _train(directory, figures, plan=PLAN, killed_before=None, keep=2):
    def refresh(step, state):
        if step == killed_before:
            raise Killed
        return state

    def evaluate(state):
        return {"test_accuracy": 0.5, FIGURE: figures[int(jax.device_get(state.step)) - 1]}

    directory.mkdir(exist_ok=True)
    ready = Prepared(
        None, STATE, (Phase(0, _step),), lambda step: {"rows": np.ones(4, np.int32)}, plan, np.float32(0), refresh
    )
    return train(
        "stage",
        ready,
        parallel.make("jit", 1),
        Checkpoints(directory / CHECKPOINTS, {}, keep),
        Writer(directory),
        evaluate,
        Interrupts(),
        best=Best(directory, {}),
    )


def _weight(directory):
    return float(read_final(directory / BEST)["state.params.w"])


def test_the_weights_of_the_first_best_evaluation_are_beside_the_last(tmp_path):
    trained = _train(tmp_path, RISING)
    assert trained.best == 5 and _weight(tmp_path) == 5.0
    assert float(read_final(tmp_path)["state.params.w"]) == 10.0
    assert committed(tmp_path / BEST / WEIGHTS) == [5]  # step 2's are gone
    discard_weights(tmp_path)  # of a start that goes on
    assert _weight(tmp_path) == 5.0


@pytest.mark.parametrize("killed_before", range(1, 10))
def test_after_a_kill_anywhere_the_best_is_the_same(tmp_path, killed_before):
    with pytest.raises(Killed):
        _train(tmp_path, RISING, killed_before=killed_before)
    assert _train(tmp_path, RISING).best == 5 and _weight(tmp_path) == 5.0


def test_a_rerun_with_other_bits_has_the_best_of_its_own_evaluations(tmp_path, monkeypatch):
    """Killed after step 5's weights were written and before its checkpoint; then step 5 is worse than step 2."""
    save = Checkpoints.save

    def killed(self, step, tree, seconds):
        if step == 6 and self.directory.name == CHECKPOINTS:
            raise Killed
        save(self, step, tree, seconds)

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(Killed):
        _train(tmp_path, RISING)
    assert committed(tmp_path / BEST / WEIGHTS) == [2, 5] and committed(tmp_path / CHECKPOINTS) == [2, 4]
    monkeypatch.undo()
    assert _train(tmp_path, [0.1, 0.5, *[0.3] * 8]).best == 2 and _weight(tmp_path) == 2.0


def test_lost_weights_are_said_to_be(tmp_path, capsys):
    """The checkpoints from step 4 on are damaged, and `best/` holds later steps alone."""
    figures = [0.1, 0.4, 0.3, 0.2, 0.7, 0.6, 0.8, 0.1, 0.1, 0.1]
    _train(tmp_path, figures, keep=9)
    for step in committed(tmp_path / CHECKPOINTS)[1:]:
        (tmp_path / CHECKPOINTS / f"{step:08d}.json").write_text("{}")
    trained = _train(tmp_path, [*figures[:2], *[0.0] * 8])
    assert trained.best is None and not committed(tmp_path / BEST / WEIGHTS)
    assert "note: the weights of step 2, best on validation, are lost" in capsys.readouterr().out


def test_of_averaged_weights_the_average_is_kept(tmp_path):
    state = dataclasses.replace(STATE, target={AVERAGE: {"params": {"w": np.float32(7)}, "batch_stats": {}}})
    best = Best(tmp_path, {})
    best.begin(0)
    devices = parallel.make("jit", 1)
    best.see(1, devices.replicate(state), {FIGURE: 0.5}, devices)
    best.save(0.0)
    assert _weight(tmp_path) == 7.0 and best.finish() == 1


def test_without_a_figure_on_validation_nothing_is_kept(tmp_path):
    best = Best(tmp_path, {})
    best.begin(0)
    best.see(1, STATE, {"test_accuracy": 0.5}, parallel.make("jit", 1))
    best.save(0.0)
    assert best.finish() is None and not best.exhausted(1) and not list(tmp_path.iterdir())


def test_several_seeds_have_each_their_own(tmp_path):
    devices = parallel.make("jit", 1)
    seeds = States((devices.replicate(STATE), devices.replicate(STATE.replace(params={"w": np.float32(1)}))))
    several = Bests([Best(tmp_path / name, {}) for name in "ab"])
    several.begin(0)
    several.see(1, seeds, {FIGURE: np.array([0.5, 0.1])}, devices)
    several.see(2, seeds, {FIGURE: np.array([0.4, 0.2])}, devices)
    several.save(0.0)
    assert several.finish() == (1, 2) and _weight(tmp_path / "b") == 1.0 and not several.exhausted(1)


@pytest.mark.parametrize(("patience", "stops", "best"), [(1, 3, 2), (2, 4, 2), (3, 8, 5), (5, 10, 5), (6, 10, 5)])
def test_patience_ends_at_the_evaluation_that_exhausts_it(tmp_path, patience, stops, best, capsys):
    plan = PLAN._replace(patience=EARLY_STOPPING["patience"](patience))
    trained = _train(tmp_path, RISING, plan)
    out = capsys.readouterr().out
    assert (int(trained.state.step), trained.best) == (stops, best)
    assert ("stopped early, at step" in out) == (stops < 10)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, stops + 1)) and "loss" in lines[-1]
    assert committed(tmp_path / CHECKPOINTS)[-1] == stops  # its last checkpoint is of its last step
    # Killed before its summary, it takes no step more.
    again = _train(tmp_path, RISING, plan, killed_before=stops)
    assert (int(again.state.step), again.best) == (stops, best)
    jax.tree.map(np.testing.assert_array_equal, again.state, trained.state)


@pytest.mark.parametrize("killed_before", range(1, 8))
def test_a_killed_run_stops_where_it_would_have(tmp_path, killed_before):
    plan = PLAN._replace(patience=3)
    with pytest.raises(Killed):
        _train(tmp_path, RISING, plan, killed_before=killed_before)
    trained = _train(tmp_path, RISING, plan)
    assert (int(trained.state.step), trained.best) == (8, 5) and _weight(tmp_path) == 5.0


def test_patience_is_of_at_least_one_evaluation():
    with pytest.raises(UserError, match="evaluations is at least 1, not 0"):
        EARLY_STOPPING["patience"](0)
    assert EARLY_STOPPING["none"]() == 0
