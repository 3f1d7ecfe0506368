"""The one loop. It knows steps, checkpoints, metrics and signals, and no method."""

import bisect
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from lt_noisy.data.batches import Batches, grouped
from lt_noisy.errors import UserError
from lt_noisy.revision import describe
from lt_noisy.training import parallel
from lt_noisy.training.checkpoint import Checkpoints
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.progress import Clock
from lt_noisy.training.state import TrainState
from lt_noisy.training.writer import Writer, means, refuse_nonfinite

PyTree = Any


class Plan(NamedTuple):
    """The lengths of a stage in steps, all multiples of `steps_per_call`."""

    total: int
    log_every: int
    eval_every: int
    save_every: int
    steps_per_call: int
    batch_size: int


class Phase(NamedTuple):
    """A part of a stage: from step `begin` on the loop runs `step`. All phases of a stage have the same sums."""

    begin: int
    step: parallel.Step


Refresh = Callable[[int, TrainState], TrainState]


class Trained(NamedTuple):
    """What the loop returns.

    Attributes:
      state: the state after the last step, on the host.
      device_state: the same on the devices.
      seconds: training time over all restarts, without compilation of the first call.
      images_per_second: of this process, without evaluation, saving and the first call; 0 if it took no step.
    """

    state: TrainState
    device_state: TrainState
    seconds: float
    images_per_second: float


def train(
    name: str,
    state: TrainState,
    phases: Sequence[Phase],
    refresh: Refresh | None,
    data: PyTree,
    batches: Batches,
    plan: Plan,
    devices: parallel.Jit | parallel.Pmap,
    checkpoints: Checkpoints,
    writer: Writer,
    evaluate: Callable[[TrainState], dict[str, float]],
    interrupts: Interrupts,
) -> Trained:
    """Runs the phases' steps from the newest checkpoint (or from `state`) to `plan.total`.

    Args:
      name: the stage, for messages.
      state: the initial state, on the host.
      phases: by rising `begin`, the first at 0; each step is per-device `(state, data, batch) -> (state, sums)`.
      refresh: `(at, state on the devices) -> state`, before every call; a function of its arguments alone, so that a
        resumed run does the same. None: nothing is done.
      data: resident data, replicated on the devices.
      batches: `step -> batch` on the host.
      evaluate: device state -> numbers for the metrics file, every `plan.eval_every` steps and at the end.

    Raises:
      UserError: a loss or gradient that is not finite, with the range of steps.
      SystemExit: SIGTERM or Ctrl-C, after the state was saved.
    """
    batch = batches(0)
    empty = parallel.zeros(phases[0].step, state, data_shapes(data, devices), batch)
    template = {"state": state, "totals": empty}
    restored = checkpoints.latest(template)
    start, spent = 0, 0.0
    host = template
    if restored is not None:
        host, card = restored
        start, spent = card["step"], card["seconds"]
        print(f"{name}: resuming from step {start} of {plan.total}", flush=True)
        _warn_if_elsewhere(card, checkpoints.card)
    if start > plan.total or start % plan.steps_per_call:
        raise UserError(
            f"{name}: the checkpoint is of step {start}, which no call of steps_per_call={plan.steps_per_call} "
            f"reaches on the way to {plan.total}; set --config.steps_per_call=1"
        )
    writer.truncate(start)

    calls = [devices.compile_step(phase.step, plan.steps_per_call) for phase in phases]  # compiled when first called
    state, totals = devices.replicate(host["state"]), devices.replicate(host["totals"])
    clock = Clock(name, spent, plan.batch_size)
    first = start - start % plan.log_every + 1  # of the steps that `totals` adds up
    compiled: set[int] = set()  # phases that have run here
    at, pending = start, None  # pending: (first, last, totals) to write, one call old

    def checked(begin: int, end: int, sums: PyTree) -> PyTree:
        sums = devices.fetch(sums)
        refuse_nonfinite(sums, begin, end, name)
        return sums

    def write(begin: int, end: int, sums: PyTree, evaluated: dict[str, float]) -> None:
        values = means({k: v for k, v in checked(begin, end, sums).items() if k != "nonfinite"})
        writer.write(end, {**values, **evaluated, "seconds": clock.seconds()})
        print(clock.line(end, plan.total, {**values, **evaluated}), flush=True)

    try:
        with interrupts.deferred():
            stopping = False
            while at < plan.total and not stopping:
                if refresh is not None:
                    if pending is not None:  # nothing is made of a state before it is known to be finite
                        write(*pending, {})
                        pending = None
                    state = refresh(at, state)
                phase = bisect.bisect(phases, at, key=lambda phase: phase.begin) - 1
                batch = grouped(batches, at, plan.steps_per_call)
                compiles = bool(compiled) and phase not in compiled  # the first phase's compilation starts the clock
                compiled.add(phase)
                with clock.paused(state.step) if compiles else contextlib.nullcontext():
                    state, totals = calls[phase](state, totals, data, batch)
                    if compiles:
                        jax.block_until_ready(state.step)
                at += plan.steps_per_call
                if pending is not None:
                    write(*pending, {})
                    pending = None
                if not compiles:
                    clock.called(state.step, plan.steps_per_call)
                # Read once: a signal that comes later in this round stops the next one, after its save.
                stopping = interrupts.pending is not None
                last = at == plan.total
                evaluating = at % plan.eval_every == 0 or last
                saving = at % plan.save_every == 0 or last or stopping
                if at % plan.log_every == 0 or last:
                    pending = (first, at, totals)
                    first, totals = at + 1, devices.replicate(empty)
                evaluated = {}
                if evaluating:
                    with clock.paused(state.step):
                        checked(*(pending or (first, at, totals)))  # no evaluation of a broken state
                        evaluated = evaluate(state)
                if pending is not None and (evaluating or saving):
                    write(*pending, evaluated)
                    pending = None
                elif evaluating:  # between two log lines
                    writer.write(at, {**evaluated, "seconds": clock.seconds()})
                if saving:
                    with clock.paused(state.step):
                        tree = {"state": devices.fetch(state), "totals": checked(first, at, totals)}
                        checkpoints.save(at, tree, clock.seconds())
            checkpoints.wait()
            if stopping and at < plan.total:
                print(
                    f"{name}: saved at step {at} of {plan.total}; the same command goes on from there",
                    flush=True,
                )
    finally:
        writer.close()
        checkpoints.close()
    return Trained(devices.fetch(state), state, clock.seconds(), clock.rate())


def data_shapes(data: PyTree, devices: parallel.Jit | parallel.Pmap) -> PyTree:
    """Shapes of one device's data."""
    drop = 1 if isinstance(devices, parallel.Pmap) else 0  # pmap stacks a device axis in front
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[drop:], x.dtype), data)


def _warn_if_elsewhere(card: dict, now: dict) -> None:
    changed = {k: f"{card.get(k)} -> {now.get(k)}" for k in ("versions", "machine") if card.get(k) != now.get(k)}
    if card.get("sources_sha256") != now.get("sources_sha256"):
        changed["code"] = f"{describe(card.get('code'))} -> {describe(now.get('code'))}"
    if changed:
        print(
            f"note: the checkpoint was written with other {' and '.join(changed)} "
            f"({', '.join(f'{name}: {what}' for name, what in changed.items())}); "
            "the run goes on, but not bit for bit",
            flush=True,
        )
