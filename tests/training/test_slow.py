"""Which process is named as slow, on figures of the test's own."""

import jax
import numpy as np
import pytest

from lt_noisy import processes
from lt_noisy.training import slow, watch
from lt_noisy.training.host_log import HostLog, read
from lt_noisy.training.pace import Paced
from lt_noisy.training.slow import Comparing, Slow, slowest
from lt_noisy.training.watch import Watch

EQUAL = np.tile([0.001, 0.004, 0.002], (4, 1))  # a step takes 0.1 s


@pytest.mark.parametrize(
    ("process", "measure", "seconds", "named"),
    [
        (2, 0, 0.05, True),  # waits for images half of a step
        (2, 0, 0.0105, False),  # more than the others, less than a tenth of a step more
        (0, 1, 0.03, True),
        (3, 2, 0.0031, True),  # its device takes longer: the step hides how much of it that is
        (3, 2, 0.0029, False),
    ],
)
def test_one_is_named_that_is_well_above_the_others(process, measure, seconds, named):
    figures = EQUAL.copy()
    figures[process, measure] = seconds
    expected = Slow(process, measure, seconds, EQUAL[0, measure])
    assert slowest(figures, 0.1) == (expected if named else None)
    both = slowest(figures[[process, (process + 1) % 4]], 0.1)  # two are enough
    assert (both is None) is (not named) and (both is None or both.process == 0)


def test_nobody_is_named_among_equals_or_alone_or_where_most_of_them_are_slow():
    assert slowest(EQUAL, 0.1) is None
    assert slowest(np.array([[5.0, 5.0, 5.0]]), 0.1) is None
    figures = EQUAL.copy()
    figures[:3, 0] = 0.05
    assert slowest(figures, 0.1) is None


def test_of_two_measures_the_one_that_stands_out_more_is_told():
    figures = EQUAL.copy()
    figures[1, 2], figures[2, 0] = 0.004, 0.09
    assert slowest(figures, 0.1).process == 2


def test_it_is_told_when_it_was_so_twice_in_a_row_and_then_not_for_a_while():
    comparing = Comparing(pause=3)
    figures = {process: EQUAL.copy() for process in (1, 2)}
    for process, its in figures.items():
        its[process, 0] = 0.05
    order = [1, 2, 1, 1, 1, 1, 1, 1, 2, 1]
    told = [comparing.hear(figures[process], 0.1) for process in order]
    assert [found and found.process for found in told] == [None, None, None, 1, None, None, None, 1, None, None]
    assert comparing.hear(EQUAL, 0.1) is None


def test_own_figures_need_no_other_process_and_no_hidden_transfer():
    with jax.transfer_guard("disallow"):
        found = slow.own_figures(0.25, 0.5)
    assert found.shape == (len(slow.MEASURES),) and list(found[:2]) == [0.25, 0.5] and found[2] > 0


def test_the_processes_compare_now_and_then_and_the_slow_one_is_named(tmp_path, monkeypatch, capsys):
    class Stopwatch:
        idle = 0.0

        def paused(self, step):
            return monkeypatch.context()  # any block will do

    gathered = []

    def gather(figures):
        gathered.append(figures)
        return np.stack([figures, figures + np.array([0.5, 0.0, 0.0, 0.0])])

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "gather", gather)
    monkeypatch.setattr(processes, "name", lambda i: f"process {i} (host{i})")
    monkeypatch.setattr(slow, "own_figures", lambda images, host: np.array([images, host, 0.001]))
    log = HostLog(tmp_path)
    watched = Watch("finetune", log)
    watched.begin(0, 10_000, 1, Stopwatch())
    monkeypatch.setattr(watched._pace, "take", lambda: Paced(np.array([0.6, 0.6]), 0.1, 0.0, 0.2))
    done = jax.device_put(np.int32(1))
    for step in range(1, 3 * watch._COMPARED + 1):
        watched.called(done)
        if step % 10 == 0:
            watched.line(step, done)
    assert len(gathered) == 3
    expected = "note: process 1 (host1) is slow: 600 ms a step waiting for images, the median of the others is 100 ms"
    assert capsys.readouterr().out.splitlines() == [expected]
    (line,) = [line for line in read(log.path) if line["event"] == "slow"]
    assert (line["of"], line["step"], line["seconds"]) == ("process 1 (host1)", 2 * watch._COMPARED, 0.6)
