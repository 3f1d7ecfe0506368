"""Durations in the user's units, turned into steps once: `epochs(n)`, `steps(n)`, `examples(n)`, `percent(p)`."""

from collections.abc import Callable
from typing import NamedTuple

from lt_noisy.config.spec import table
from lt_noisy.errors import UserError


class Clock(NamedTuple):
    """What a duration is measured against.

    Attributes:
      steps_per_epoch: batches of an epoch.
      examples_per_step: over all devices, on average: the batch size, unless epochs end with a short batch.
      total: steps of the stage (0 while the stage's own length is measured).
      multiple: steps per call; every duration is a multiple of it.
    """

    steps_per_epoch: int
    examples_per_step: float
    total: int
    multiple: int


Duration = Callable[[Clock, str], int]


def _rounded(steps: float, clock: Clock) -> int:
    return max(round(steps / clock.multiple), 1) * clock.multiple


def _positive(value: float) -> None:
    if not 0 < value < 2**31:
        raise UserError(f"a duration is positive and below 2**31, not {value}")


def epochs(n: float) -> Duration:
    """`n` passes over the training set, each of whole batches (and with `keep_last` of a short one).

    In steps, to the nearest multiple of steps_per_call.
    """
    _positive(n)
    return lambda clock, where: _rounded(n * clock.steps_per_epoch, clock)


def examples(n: int) -> Duration:
    """The steps that see about `n` examples."""
    _positive(n)
    return lambda clock, where: _rounded(n / clock.examples_per_step, clock)


def percent(p: float) -> Duration:
    """`p` percent of the stage's length."""
    _positive(p)

    def measure(clock: Clock, where: str) -> int:
        if not clock.total:
            raise UserError(f"{where}: a stage's length cannot be a percentage; write epochs(n) or steps(n)")
        return _rounded(clock.total * p / 100, clock)

    return measure


def steps(n: int) -> Duration:
    """Exactly `n` steps; refused unless a multiple of steps_per_call."""
    _positive(n)

    def measure(clock: Clock, where: str) -> int:
        if n % clock.multiple:
            raise UserError(
                f"{where}: steps({n}) is not a multiple of config.steps_per_call={clock.multiple}; "
                f"steps({_rounded(n, clock)}) is"
            )
        return n

    return measure


DURATIONS = table({"epochs": epochs, "examples": examples, "percent": percent, "steps": steps})
