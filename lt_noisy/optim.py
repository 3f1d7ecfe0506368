"""Optimisers, learning-rate schedules, and the one parameter update.

An optimiser and a schedule are two specs: `OPTIMIZERS[...] (learning_rate) -> optax transformation` and
`SCHEDULES[...] (total_steps) -> optax schedule`. Positions in a schedule are fractions of the stage's
length, so that a shorter run keeps its shape.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lt_noisy.collectives import AXIS
from lt_noisy.spec import UserError
from lt_noisy.state import TrainState

PyTree = Any
Schedule = Callable[[jax.Array], jax.Array]


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def cosine(lr: float, warmup: float = 0.0, final: float = 0.0) -> Callable[[int], Schedule]:
    """Cosine decay from `lr` to `final * lr` after a linear warm-up over the first `warmup` of the steps."""
    _require(lr > 0, f"lr must be positive, not {lr}")
    _require(0 <= warmup < 1, f"warmup is a fraction of the stage in [0, 1), not {warmup}")
    _require(0 <= final <= 1, f"final is a fraction of lr in [0, 1], not {final}")

    def build(total_steps: int) -> Schedule:
        ramp = round(warmup * total_steps)
        decay = optax.cosine_decay_schedule(lr, max(total_steps - ramp, 1), alpha=final)
        # The first step of a warm-up already moves: lr / ramp, not 0.
        return optax.join_schedules([lambda step: lr * (step + 1) / ramp, decay], [ramp]) if ramp else decay

    return build


def constant(lr: float) -> Callable[[int], Schedule]:
    """The same learning rate throughout."""
    _require(lr > 0, f"lr must be positive, not {lr}")
    return lambda total_steps: optax.constant_schedule(lr)


def piecewise(
    lr: float, boundaries: tuple = (0.8, 0.9), factor: float = 0.01, warmup: float = 0.0
) -> Callable[[int], Schedule]:
    """`lr`, multiplied by `factor` at each boundary (fractions of the stage), after a linear warm-up.

    The defaults with warmup=0.025 and 200 epochs are the CIFAR-LT recipe of Yang & Xu 2020 (and of Cao et al.
    2019 before them): x0.01 after epochs 160 and 180, warm-up over 5.
    """
    _require(lr > 0, f"lr must be positive, not {lr}")
    numbers = all(isinstance(b, (int, float)) and 0 < b < 1 for b in boundaries)
    _require(
        numbers and list(boundaries) == sorted(boundaries),
        f"boundaries are rising fractions in (0, 1), not {boundaries}",
    )
    _require(0 <= warmup < 1, f"warmup is a fraction of the stage in [0, 1), not {warmup}")

    def build(total_steps: int) -> Schedule:
        ramp = round(warmup * total_steps)
        steps = optax.piecewise_constant_schedule(lr, {round(b * total_steps): factor for b in boundaries})
        return lambda step: jnp.where(step < ramp, lr * (step + 1) / max(ramp, 1), steps(step))

    return build


SCHEDULES = {"cosine": cosine, "constant": constant, "piecewise": piecewise}


def _decay_mask(decay: str) -> Callable[[PyTree], PyTree]:
    _require(decay in ("kernels", "all"), f"decay is 'kernels' or 'all', not {decay!r}")
    # Biases and BatchNorm scales are the vectors of a network; kernels have two or more axes.
    return lambda params: jax.tree.map(lambda p: decay == "all" or p.ndim > 1, params)


def sgd(
    momentum: float = 0.9, weight_decay: float = 5e-4, nesterov: bool = False, decay: str = "kernels"
) -> Callable[[Schedule], optax.GradientTransformation]:
    """SGD with momentum; weight decay is added to the gradient (L2), as PyTorch does.

    `decay='all'` decays BatchNorm parameters and biases too, as the PyTorch recipes of the five papers do.
    """
    _require(0 <= momentum < 1, f"momentum is in [0, 1), not {momentum}")
    _require(weight_decay >= 0, f"weight_decay is at least 0, not {weight_decay}")
    mask = _decay_mask(decay)
    return lambda schedule: optax.chain(
        optax.add_decayed_weights(weight_decay, mask=mask),
        optax.sgd(schedule, momentum=momentum, nesterov=nesterov),
    )


def adamw(
    weight_decay: float = 1e-4, b1: float = 0.9, b2: float = 0.999, decay: str = "kernels"
) -> Callable[[Schedule], optax.GradientTransformation]:
    """AdamW (decoupled weight decay)."""
    _require(0 <= b1 < 1 and 0 <= b2 < 1, f"b1 and b2 are in [0, 1), not {b1}, {b2}")
    _require(weight_decay >= 0, f"weight_decay is at least 0, not {weight_decay}")
    mask = _decay_mask(decay)
    return lambda schedule: optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=mask)


def lars(
    momentum: float = 0.9, weight_decay: float = 1e-6, trust: float = 0.001
) -> Callable[[Schedule], optax.GradientTransformation]:
    """LARS (You et al. 2017); decay and trust ratio on kernels only, as SimCLR does at large batches."""
    _require(0 <= momentum < 1, f"momentum is in [0, 1), not {momentum}")
    _require(weight_decay >= 0, f"weight_decay is at least 0, not {weight_decay}")
    mask = _decay_mask("kernels")
    return lambda schedule: optax.lars(
        schedule,
        weight_decay,
        weight_decay_mask=mask,
        trust_coefficient=trust,
        trust_ratio_mask=mask,
        momentum=momentum,
    )


OPTIMIZERS = {"sgd": sgd, "adamw": adamw, "lars": lars}


def freeze(tx: optax.GradientTransformation, frozen: tuple[str, ...]) -> optax.GradientTransformation:
    """`tx` for all parts of the network but the `frozen` ones, which stay exactly as they are."""
    if not frozen:
        return tx
    return optax.multi_transform(
        {"trained": tx, "frozen": optax.set_to_zero()},
        lambda params: {part: "frozen" if part in frozen else "trained" for part in params},
    )


def descend(
    state: TrainState, tx: optax.GradientTransformation, local_loss: Callable[[PyTree], Any]
) -> tuple[TrainState, dict[str, tuple[jax.Array, jax.Array]]]:
    """One step of gradient descent, per-device: the end of every step function.

    Args:
      state: the state before the step.
      tx: the optimiser.
      local_loss: `params -> (share, (batch_stats, method, sums))` where `share` is this device's share of the
        weighted mean loss (`collectives.share`) and `sums` maps names to (sum, count) pairs, summed over the
        devices.

    Returns:
      The state after the step, and `sums` with `loss`, `grad_norm` and `nonfinite` (1 for a step whose loss or
      gradient is not finite) added.
    """
    (loss, (batch_stats, method, sums)), grads = jax.value_and_grad(local_loss, has_aux=True)(state.params)
    loss, grads = jax.lax.psum((loss, grads), AXIS)
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    one = jnp.ones((), jnp.float32)
    sums = {
        **sums,
        "loss": (loss, one),
        "grad_norm": (grad_norm, one),
        "nonfinite": (1.0 - (jnp.isfinite(loss) & jnp.isfinite(grad_norm)), one),
    }
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        # With per-device BatchNorm the running statistics differ between devices until they are averaged.
        batch_stats=jax.lax.pmean(batch_stats, AXIS),
        opt_state=opt_state,
        method=method,
    ), sums
