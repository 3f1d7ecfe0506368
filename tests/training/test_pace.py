"""The pace of steps, on a clock of the test's own, and how far the host runs ahead."""

import types

import jax
import numpy as np
import pytest

from lt_noisy.training import pace
from lt_noisy.training.pace import Pace


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def _call(timed, clock, images, host):
    """A call that takes so many seconds for its images, and for what else the host does."""
    with timed.waiting():
        clock.now += images
    clock.now += host
    timed.called(jax.device_put(np.int32(1)))


@pytest.mark.parametrize("per_call", [1, 4])
def test_percentiles_and_means_are_of_a_step(clock, per_call, monkeypatch):
    timed, wait = Pace(types.SimpleNamespace(idle=0.0), per_call), [0.0]
    monkeypatch.setattr(pace.jax, "block_until_ready", lambda x: setattr(clock, "now", clock.now + wait[0]))
    for seconds in (9, 2, 2, 2, 4):  # the first one compiles, and counts for nothing but the wait for its images
        wait[0] = 1.0 if seconds == 4 else 0.0
        _call(timed, clock, images=0.5, host=seconds)
    found = timed.take()
    np.testing.assert_allclose(found.steps, np.array([2.5, 2.5, 2.5, 5.5]) / per_call)
    np.testing.assert_allclose((found.images, found.host, found.waited), (0.5 / per_call, 2.5 / per_call, 2.5))
    expected = {"p50": 2500.0 / per_call, "p90": 4600.0 / per_call, "max": 5500.0 / per_call}
    assert found.milliseconds() == pytest.approx(expected)
    again = timed.take()
    assert not again.steps.size and again.milliseconds() == {} and again.waited == 0.0


def test_a_call_around_which_the_devices_were_idle_is_left_out(clock):
    stopwatch = types.SimpleNamespace(idle=0.0)
    timed = Pace(stopwatch, 1)
    for idle in (0, 0, 7, 7, 9, 9):  # an evaluation before the third call, a save before the fifth
        clock.now += idle - stopwatch.idle
        stopwatch.idle = idle
        _call(timed, clock, images=0.0, host=1.0)
    np.testing.assert_allclose(timed.take().steps, [1.0, 1.0, 1.0])


@pytest.fixture
def waited_for(monkeypatch):
    """The calls, by the step that they were given, that the host has waited for."""
    found = []
    monkeypatch.setattr(pace.jax, "block_until_ready", lambda x: found.append(int(x) - 1))
    return found


def test_the_host_waits_for_the_long_call_before_the_last_two(clock, waited_for):
    timed = Pace(types.SimpleNamespace(idle=0.0), 1)
    for step in range(5):
        clock.now += 0.2
        timed.called(jax.device_put(np.int32(step)))
    assert waited_for == [0, 1, 2]


def test_states_of_several_seeds_are_waited_for_together(clock, monkeypatch):
    found = []
    monkeypatch.setattr(pace.jax, "block_until_ready", found.append)
    timed = Pace(types.SimpleNamespace(idle=0.0), 1)
    for step in range(3):
        clock.now += 0.2
        timed.called(tuple(jax.device_put(np.int32(step), device) for device in jax.devices()[:2]))
    assert [tuple(map(int, marks)) for marks in found] == [(1, 1)]


def test_short_calls_are_timed_in_groups_that_grow_and_shrink_with_their_pace(clock, waited_for):
    """Of 5 ms each ten make a group, once groups have doubled so far; of 200 ms every one is its own."""
    timed = Pace(types.SimpleNamespace(idle=0.0), 1)
    for step in range(60):
        clock.now += 0.005 if step < 46 else 0.2
        timed.called(jax.device_put(np.int32(step)))
    assert waited_for == [0, 1, 3, 7, 15, 25, 35, 45, 55, 56, 57]
    np.testing.assert_allclose(timed.take().steps, [0.005] * 7 + [0.2] * 5)
