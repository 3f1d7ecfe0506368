"""The one loop. It knows steps, checkpoints, metrics and signals, and no method."""

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from lt_noisy import processes
from lt_noisy.data.batches import Batches, Epoch, grouped
from lt_noisy.errors import UserError, say
from lt_noisy.revision import describe
from lt_noisy.terminal import Bar
from lt_noisy.training import parallel
from lt_noisy.training.best import Best, Bests
from lt_noisy.training.checkpoint import Checkpoints
from lt_noisy.training.host_log import HostLog
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.log import Log
from lt_noisy.training.progress import Stopwatch
from lt_noisy.training.state import TrainState
from lt_noisy.training.watch import Watch
from lt_noisy.training.writer import Writer

PyTree = Any


class Plan(NamedTuple):
    """The lengths of a stage in steps, all but the epoch's multiples of `steps_per_call`.

    `keep_newest` and `keep_every` are of `Checkpoints`; `patience`, in evaluations, is of `best.EARLY_STOPPING`.
    """

    total: int
    log_every: int
    eval_every: int
    save_every: int
    steps_per_call: int
    batch_size: int
    epoch: Epoch
    keep_newest: int = 2
    keep_every: int = 0
    patience: int = 0

    @property
    def examples_seen(self) -> int:
        """Examples in all batches of the stage."""
        epochs, steps = divmod(self.total, self.epoch.steps)
        return epochs * self.epoch.examples(self.batch_size) + steps * self.batch_size


class Phase(NamedTuple):
    """A part of a stage: from step `begin` on the loop runs `step`. All phases of a stage have the same sums."""

    begin: int
    step: parallel.Step


Refresh = Callable[[int, TrainState], TrainState]


class Prepared(NamedTuple):
    """A stage ready for the loop.

    Attributes:
      net: the network, for evaluation; the loop leaves it alone.
      state: the initial state, on the host.
      phases: by rising `begin`, the first at 0.
      batches: `step -> batch`, on the host.
      plan: the lengths.
      data: what stays in the devices' memory; still on the host.
      refresh: `(step, state on the devices) -> state`, before every call; a function of its arguments alone, so that a
        resumed run does the same. What it makes of the state it makes at the start of an epoch, where the state is
        known to be finite. None: nothing is done.
    """

    net: nn.Module
    state: TrainState
    phases: tuple[Phase, ...]
    batches: Batches
    plan: Plan
    data: PyTree
    refresh: Refresh | None = None


class Trained(NamedTuple):
    """What the loop returns.

    Attributes:
      state: the state after the last step, on the host.
      device_state: the same on the devices.
      seconds: training time over all restarts, without compilation of the first call.
      images_per_second: of all processes and seeds, since this start, without evaluation, saving and the first call; 0
        if it took no step.
      waited: seconds of this process that went into waiting for streamed images; None where they are in memory.
      best: the step of the weights in `best/` (see `Best.finish`).
    """

    state: TrainState
    device_state: TrainState
    seconds: float
    images_per_second: float
    waited: float | None = None
    best: Any = None


def train(
    name: str,
    ready: Prepared,
    devices: parallel.Jit | parallel.Pmap,
    checkpoints: Checkpoints,
    writer: Writer,
    evaluate: Callable[[TrainState], dict[str, float]],
    interrupts: Interrupts,
    watch: Watch | None = None,
    best: Best | Bests | None = None,
) -> Trained:
    """Runs the phases' steps from the newest checkpoint (or from the initial state) to the end of the plan.

    With `plan.patience` it ends sooner, at the evaluation that exhausts it: the same in every process and after every
    restart, because it is a function of the evaluations so far.

    Between host and devices only explicit transfers are allowed, in `evaluate` and `ready.refresh` too: any other is
    an error of JAX (`jax.transfer_guard`; of those from the device it sees none on a CPU).

    Args:
      name: the stage, for messages.
      evaluate: device state -> numbers for the metrics file, every `plan.eval_every` steps and at the end.
      watch: what else is said of the steps; nothing, unless given.
      best: keeps the weights of the evaluation that was best on validation; nobody does, unless given.

    Raises:
      UserError: a loss or gradient that is not finite, with the range of steps; a checkpoint of a step that the plan
        does not reach.
      SystemExit: SIGTERM or Ctrl-C, after the state was saved.
    """
    plan = ready.plan
    empty = parallel.zeros(ready.phases[0].step, ready.state, ready.data, ready.batches(0))
    host, step, seconds = _restore(name, {"state": ready.state, "totals": empty}, plan, checkpoints)
    writer.begin(step)
    best = best or Bests(())
    best.begin(step)

    data, state, totals = (devices.replicate(tree) for tree in (ready.data, host["state"], host["totals"]))
    stopwatch, bar = Stopwatch(name, seconds), Bar(name, plan.total, step)
    log = Log(name, plan.total, devices, writer, stopwatch)
    watch = watch or Watch(name, HostLog())
    watch.begin(step, plan.total, plan.steps_per_call, stopwatch)
    call = _compile(ready.phases, plan.steps_per_call, devices, stopwatch)
    first = step - step % plan.log_every + 1  # of the steps that `totals` adds up
    stopping = finished = False
    early = best.exhausted(plan.patience)  # killed between the last save and the summary
    try:
        with interrupts.deferred(), jax.transfer_guard("disallow"):
            while step < plan.total and not stopping and not early:
                if ready.refresh is not None:
                    log.flush()
                    if step % plan.epoch.steps == 0:
                        log.finite(first, step, totals)  # nothing is made of a state that is not
                    state = ready.refresh(step, state)
                watch.before(step, state.step)
                with watch.waiting():
                    batch = grouped(ready.batches, step, plan.steps_per_call)
                state, totals = call(step, state, totals, data, batch)
                step += plan.steps_per_call
                log.flush()  # of steps before this call, while it runs
                stopwatch.called(state.step, plan.steps_per_call, _examples(batch))
                watch.called(state.step)
                bar.at(step)

                processes.poll()
                # Read once: a signal that comes later in this round stops the next one, after its save.
                stopping = interrupts.pending is not None
                last = step == plan.total
                evaluating = step % plan.eval_every == 0 or last
                evaluated = {}
                if evaluating:
                    with stopwatch.paused(state.step):
                        log.finite(first, step, totals)  # no evaluation of a broken state
                        evaluated = evaluate(state)
                        best.see(step, state, evaluated, devices)
                early = best.exhausted(plan.patience)
                if step % plan.log_every == 0 or last or early:
                    log.add(first, step, totals, evaluated)
                    first, totals = step + 1, devices.replicate(empty)
                    watch.line(step, state.step)
                elif evaluating:
                    log.add_evaluation(step, evaluated)
                saving = step % plan.save_every == 0 or last or early or stopping
                if evaluating or saving:
                    log.flush()
                if saving:
                    with stopwatch.paused(state.step):
                        tree = {"state": devices.fetch(state), "totals": log.finite(first, step, totals)}
                        writer.sync()
                        best.save(stopwatch.seconds())
                        checkpoints.save(step, tree, stopwatch.seconds())
                    watch.event("saving", step)
            checkpoints.wait()
            watch.event("stopped" if stopping else "finished", step)
            if early and step < plan.total:
                say(
                    f"{name}: stopped early, at step {step} of {plan.total}: no better on validation in the last "
                    f"{plan.patience} evaluations"
                )
            elif stopping and step < plan.total:
                say(f"{name}: saved at step {step} of {plan.total}; the same command goes on from there", always=True)
        finished = True
    finally:
        bar.close()
        watch.close()
        writer.close(finished)
        checkpoints.close()
    return Trained(devices.fetch(state), state, stopwatch.seconds(), stopwatch.rate(), best=best.finish())


def _compile(
    phases: Sequence[Phase], steps_per_call: int, devices: parallel.Jit | parallel.Pmap, stopwatch: Stopwatch
) -> Callable[..., tuple[TrainState, PyTree]]:
    """`call(step, state, totals, data, batch) -> (state, totals)`, of the phase that `step` is in.

    A phase is compiled when first called, and again for batches of another size: the first compilation starts the
    stopwatch, a later one stops it.
    """
    calls = [devices.compile_step(phase.step, steps_per_call) for phase in phases]
    begins = [phase.begin for phase in phases]
    compiled: set[tuple[int, int]] = set()  # (phase, examples of its batch)

    def call(
        step: int, state: TrainState, totals: PyTree, data: PyTree, batch: dict[str, np.ndarray]
    ) -> tuple[TrainState, PyTree]:
        phase = bisect.bisect(begins, step) - 1
        program, first = (phase, _examples(batch)), not compiled
        if first or program in compiled:
            compiled.add(program)
            return calls[phase](state, totals, data, batch)
        compiled.add(program)
        with stopwatch.uncounted(state.step):
            return jax.block_until_ready(calls[phase](state, totals, data, batch))

    return call


def _examples(batch: Any) -> int:
    """Examples of a call, over all its steps, seeds and processes."""
    batches = batch if isinstance(batch, tuple) else (batch,)
    return sum(one["rows"].size for one in batches) * processes.count()


def _restore(
    name: str, initial: dict[str, PyTree], plan: Plan, checkpoints: Checkpoints
) -> tuple[dict[str, PyTree], int, float]:
    """The newest checkpoint (state and totals on the host), its step and the training time so far; else `initial`."""
    restored = checkpoints.latest(initial)
    if restored is None:
        return processes.once(lambda: initial), 0, 0.0  # hosts that differ would begin with other bits
    host, card = restored
    step = card["step"]
    say(f"{name}: resuming from step {step} of {plan.total}")
    _warn_if_elsewhere(card, checkpoints.card)
    if step > plan.total or step % plan.steps_per_call:
        raise UserError(
            f"{name}: the checkpoint is of step {step}, which no call of steps_per_call={plan.steps_per_call} "
            f"reaches on the way to {plan.total}; set --config.steps_per_call=1"
        )
    return host, step, card["seconds"]


def _warn_if_elsewhere(card: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = {k: f"{card.get(k)} -> {now.get(k)}" for k in ("versions", "machine") if card.get(k) != now.get(k)}
    if card.get("sources_sha256") != now.get("sources_sha256"):
        changed["code"] = f"{describe(card.get('code'))} -> {describe(now.get('code'))}"
    if changed:
        say(
            f"note: the checkpoint was written with other {' and '.join(changed)} "
            f"({', '.join(f'{name}: {what}' for name, what in changed.items())}); "
            "the run goes on, but not bit for bit"
        )
