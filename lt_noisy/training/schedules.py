"""Learning-rate schedules: `SCHEDULES[...] (total_steps, epoch_steps) -> optax schedule`.

Positions in a schedule are fractions of the stage's length, so that a shorter run keeps its shape.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lt_noisy.config.spec import table
from lt_noisy.errors import check_positive, require
from lt_noisy.precision import to_float

Schedule = optax.Schedule  # step -> learning rate
BuildSchedule = Callable[[int, int], Schedule]  # of the lengths of the stage and of one epoch, in steps
By = Literal["step", "epoch"]  # when a rate changes


def _of_float(schedule: Callable[[jax.Array], Any]) -> Schedule:
    """The same schedule on the step as a float, exact below 2**24: Optax multiplies the step with floats."""
    return lambda step: schedule(to_float(step))


def _held(step: ArrayLike, epoch_steps: int) -> jax.Array:
    """The first step of `step`'s epoch. In whole numbers: a float division may round up at an epoch's last step."""
    step = jnp.asarray(step)
    return step - step % epoch_steps


def _ramp(lr: float, warmup: float, warmup_by: By, total_steps: int, epoch_steps: int) -> tuple[int, Schedule]:
    """The length of a linear warm-up in steps, and its rates: they reach `lr` in its last step or epoch."""
    if warmup_by == "step":
        ramp = round(warmup * total_steps)
        # The first step of a warm-up already moves: lr / ramp, not 0.
        return ramp, _of_float(lambda step: lr * (step + 1) / max(ramp, 1))
    epochs = round(warmup * total_steps / epoch_steps)
    return epochs * epoch_steps, lambda step: lr * to_float(jnp.asarray(step) // epoch_steps + 1) / max(epochs, 1)


def _check_warmup(warmup: float) -> None:
    require(0 <= warmup < 1, f"warmup is a fraction of the stage in [0, 1), not {warmup}")


def _check_final(final: float) -> None:
    require(0 <= final <= 1, f"final is a fraction of lr in [0, 1], not {final}")


def cosine(lr: float, warmup: float = 0.0, final: float = 0.0, warmup_by: By = "step") -> BuildSchedule:
    """Cosine decay from `lr` to `final * lr` after a linear warm-up over the first `warmup` of the steps.

    Args:
      warmup_by: as in `piecewise`; the decay follows the step either way.
    """
    check_positive(lr=lr)
    _check_warmup(warmup)
    _check_final(final)

    def build(total_steps: int, epoch_steps: int) -> Schedule:
        ramp, rising = _ramp(lr, warmup, warmup_by, total_steps, epoch_steps)
        decay = _of_float(optax.cosine_decay_schedule(lr, max(total_steps - ramp, 1), alpha=final))
        return optax.join_schedules([rising, decay], [ramp]) if ramp else decay

    return build


def constant(lr: float) -> BuildSchedule:
    """The same learning rate throughout."""
    check_positive(lr=lr)
    return lambda total_steps, epoch_steps: optax.constant_schedule(lr)


def piecewise(
    lr: float, boundaries: tuple = (0.8, 0.9), factor: float = 0.01, warmup: float = 0.0, warmup_by: By = "step"
) -> BuildSchedule:
    """`lr`, multiplied by `factor` at each boundary (fractions of the stage), after a linear warm-up.

    The defaults with warmup=0.025, warmup_by=epoch and 200 epochs are the CIFAR-LT recipe of Yang & Xu 2020 (and of Cao
    et al. 2019 before them): 0.02, 0.04, ... 0.1 in the first five epochs, x0.01 after epochs 160 and 180.

    Args:
      warmup: fraction of the stage.
      warmup_by: `step` (ours): the rate rises with each step. `epoch`, as in the programs of Cao et al. and of Yang &
        Xu: the warm-up is the nearest whole number E of epochs, and its e-th has lr e / E throughout. Over five epochs
        of 96 steps these rates sum to 288 lr, by step to 240.5 lr. Less than half an epoch is no warm-up.

    References:
      Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss" (2019); Yang & Xu,
      "Rethinking the Value of Labels" (2020).
    """
    check_positive(lr=lr)
    numbers = all(isinstance(b, (int, float)) and 0 < b < 1 for b in boundaries)
    require(
        numbers and list(boundaries) == sorted(boundaries),
        f"boundaries are rising fractions in (0, 1), not {boundaries}",
    )
    _check_warmup(warmup)

    def build(total_steps: int, epoch_steps: int) -> Schedule:
        ramp, rising = _ramp(lr, warmup, warmup_by, total_steps, epoch_steps)
        drops = Counter(round(b * total_steps) for b in boundaries)  # in a short stage several may fall on one step
        steps = optax.piecewise_constant_schedule(lr, {step: factor**count for step, count in drops.items()})
        return lambda step: jnp.where(jnp.asarray(step) < ramp, rising(step), steps(to_float(step)))

    return build


def cosine_restarts(lr: float, periods: int = 30, final: float = 0.0, by: By = "step") -> BuildSchedule:
    """Cosine decay from `lr` to `final * lr`, over again in each of `periods` equal parts (SGDR, without warm-up).

    T_mult is 1.

    Args:
      by: `step` (ours): the rate follows the step. `epoch`, as in the programs of ELR (Liu et al. 2020) and MixNN (Lu &
        He 2024): all of an epoch has the rate of its first step. At periods of 10 epochs and final=0.05 that is 9 %
        more learning, 0.5725 of `lr` on average against 0.525.

    References:
      Loshchilov & Hutter (2017).
    """
    check_positive(lr=lr)
    require(1 <= periods <= 10_000, f"periods is from 1 to 10000, not {periods}")
    _check_final(final)

    def build(total_steps: int, epoch_steps: int) -> Schedule:
        require(periods * total_steps < 2**31, f"{periods} periods of a stage of {total_steps} steps are too many")
        decay = _of_float(optax.cosine_decay_schedule(lr, total_steps, alpha=final))
        hold = epoch_steps if by == "epoch" else 1
        # Whole steps of `periods` equal parts of the stage.
        return lambda step: decay(_held(step, hold) * periods % total_steps)

    return build


SCHEDULES = table({"cosine": cosine, "cosine_restarts": cosine_restarts, "constant": constant, "piecewise": piecewise})
