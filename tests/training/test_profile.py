"""`--profile`: which steps, what is refused, which calls a trace covers, and that there is one."""

import contextlib
import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lt_noisy.errors import UserError
from lt_noisy.training import profile, progress
from lt_noisy.training.profile import Steps, Trace, parse, placed
from lt_noisy.training.progress import Stopwatch

LENGTHS = {"pretrain": 200, "finetune": 50}


@pytest.mark.parametrize("text", ["100", "110:100", "0:5", "a:b", "finetune/", "/1:2", "1:2:3", "-1:5"])
def test_what_is_no_range_is_one_line(text):
    with pytest.raises(UserError, match=r"^--profile=.*: write FIRST:LAST or STAGE/FIRST:LAST"):
        parse(text)


def test_a_range_is_of_the_first_training_stage_or_of_the_one_that_is_named():
    assert parse("") is None
    assert placed(parse("100:110"), LENGTHS) == Steps(100, 110, "pretrain")
    assert placed(parse("finetune/50:50"), LENGTHS) == Steps(50, 50, "finetune")
    with pytest.raises(UserError, match="pretrain has 200 steps, and 190:201 goes beyond them"):
        placed(parse("190:201"), LENGTHS)
    with pytest.raises(UserError, match="'finetun' is no training stage of this run, did you mean 'finetune'"):
        placed(parse("finetun/1:2"), LENGTHS)
    with pytest.raises(UserError, match="there are: none"):
        placed(parse("1:2"), {})


class Pauses:
    """Counts the pauses."""

    pauses = 0

    @contextlib.contextmanager
    def paused(self, step):
        self.pauses += 1
        yield


def _traced(monkeypatch, steps, per_call, total, begin=0):
    """[(first, last) step of the calls between start and stop] of a training."""
    spans = []
    monkeypatch.setattr(profile.jax.profiler, "start_trace", lambda directory: spans.append([step + 1]))
    monkeypatch.setattr(profile.jax.profiler, "stop_trace", lambda: spans[-1].append(step))
    trace, done, stopwatch, step = Trace(steps, "DIR"), jax.device_put(np.int32(0)), Pauses(), begin
    while step < total:
        trace.at(step, per_call, done, stopwatch)
        step += per_call
    trace.close()
    trace.finish()
    return spans, stopwatch.pauses


@pytest.mark.parametrize(
    ("steps", "per_call", "begin", "spans"),
    [
        ((6, 9), 1, 0, [[6, 9]]),
        ((1, 1), 1, 0, [[1, 1]]),
        ((6, 9), 4, 0, [[5, 12]]),  # the calls that cover them
        ((20, 20), 4, 0, [[17, 20]]),  # the last ones of a training
        ((6, 9), 1, 7, [[8, 9]]),  # what is left where a run goes on in their middle
        ((6, 9), 1, 9, []),
    ],
)
def test_a_trace_covers_the_steps_once(monkeypatch, capsys, steps, per_call, begin, spans):
    found, pauses = _traced(monkeypatch, Steps(*steps, "finetune"), per_call, 20, begin)
    assert found == spans
    said = capsys.readouterr().out
    assert f"steps {steps[0]}:{steps[1]}" in said and ("nothing is traced" in said) is (not spans)
    assert pauses == (0 if not spans else 1 if spans[0][1] == 20 else 2)  # what it takes is no training time


def test_what_starts_before_the_first_call_is_no_pause_of_the_training(monkeypatch):
    """The profiler starts before the call that compiles, from whose end on time is measured."""
    clock = itertools.count(0, 10)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    stopwatch, done = Stopwatch("stage", 0.0), np.int32(0)
    with stopwatch.paused(done):
        pass
    for _ in range(2):
        stopwatch.called(done, 1, 32)
    assert (stopwatch.seconds(), stopwatch.rate()) == (10, 1.6)


def test_a_range_that_no_network_came_to_is_said(monkeypatch, capsys):
    """Experts are shorter than the stage, by as much as their clusters are."""
    trace = Trace(Steps(9, 10, "experts"), "DIR")
    for step in range(8):
        trace.at(step, 1, None, Pauses())
    trace.close()
    trace.finish()
    assert capsys.readouterr().out.startswith("note: --profile: no network of experts ran steps 9:10 now")
    assert _traced(monkeypatch, Steps(2, 2, "experts"), 1, 4)[0] == [[2, 2]]
    assert "note" not in capsys.readouterr().out


def test_there_is_a_trace_to_open(tmp_path, capsys):
    trace, work = Trace(Steps(2, 3, "finetune"), tmp_path / "process_0"), jax.jit(lambda x: x @ x)
    x = work(jax.device_put(np.eye(8, dtype=np.float32)))
    with jax.transfer_guard("disallow"):
        for step in range(4):
            trace.at(step, 1, x, Pauses())
            x = work(x)
    names = {path.name.partition(".")[2] for path in tmp_path.rglob("*") if path.is_file()}
    assert names >= {"xplane.pb", "trace.json.gz"}
    assert str(tmp_path / "process_0") in capsys.readouterr().out
