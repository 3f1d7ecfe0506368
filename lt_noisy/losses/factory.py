"""What the factories share: a `Method` around a formula, and the refusal of arguments."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lt_noisy import system
from lt_noisy.errors import UserError
from lt_noisy.method import Context, Method, State

_SHARE = 0.5  # of free memory that what a loss remembers may take: a save and a step hold some of it twice


def from_formula(
    formula: Callable[..., jax.Array], constants: Callable[[Context], State] = lambda context: {}, **arguments: Any
) -> Method:
    """The `Method` whose loss is `formula(logits, targets, **constants, **arguments)`.

    Args:
      formula: `(logits, targets, ...) -> [B]`.
      constants: `context -> {name: array}`, the formula's arguments that depend on the data. They are the state.
      arguments: the formula's other arguments.
    """

    def apply(state: State, outputs, targets, rows, step):
        return formula(outputs, targets, **state, **arguments), state

    return Method(constants, apply)


def first_step(start: float, context: Context) -> np.ndarray:
    """The step, int32 [], where the fraction `start` of the stage is done, rounded."""
    return np.asarray(round(start * context.steps), np.int32)


def check_start(start: float) -> None:
    """Refuses a `start` that is not a fraction of the stage."""
    if not 0 <= start <= 1:
        raise UserError(f"start must be a fraction of the stage, 0 to 1, not {start!r}")


def check_memory(name: str, examples: int, numbers: int) -> None:
    """Refuses a memory of so many numbers of 4 bytes for each example that takes more than half of what there is.

    Of a device's memory, and of what is free on the host, which holds it to save it (and as the device, on a CPU).
    """
    size = 4 * examples * numbers
    for where, there in (("a device has", system.device_bytes()), ("the host has free", system.available_bytes())):
        if there is not None and size > _SHARE * there:
            raise UserError(
                f"{name}: a memory of {examples} examples x {numbers} numbers takes {size / system.GIB:.1f} GiB, and "
                f"{where} {there / system.GIB:.1f} GiB, of which it may take half"
            )
