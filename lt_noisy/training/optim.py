"""Optimisers, `OPTIMIZERS[...] (learning rate by step) -> optax transformation`, and the one parameter update."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lt_noisy.collectives import AXIS, share
from lt_noisy.config.spec import table
from lt_noisy.errors import check_below_one, require
from lt_noisy.precision import float_dtype, to_float
from lt_noisy.training.schedules import Schedule
from lt_noisy.training.state import TrainState

PyTree = Any
Decay = Literal["kernels", "all"]
Optimizer = Callable[[Schedule], optax.GradientTransformation]


def _decay_mask(decay: Decay) -> Callable[[PyTree], PyTree]:
    # Biases and BatchNorm scales are the vectors of a network; kernels have two or more axes.
    return lambda params: jax.tree.map(lambda p: decay == "all" or p.ndim > 1, params)


def sgd(
    momentum: float = 0.9, weight_decay: float = 5e-4, nesterov: bool = False, decay: Decay = "kernels"
) -> Optimizer:
    """SGD with momentum; weight decay is added to the gradient (L2), as PyTorch does.

    `decay='all'` decays BatchNorm parameters and biases too, as the PyTorch recipes of the five papers do.
    """
    check_below_one(momentum=momentum)
    require(weight_decay >= 0, f"weight_decay is at least 0, not {weight_decay}")
    mask = _decay_mask(decay)
    return lambda schedule: optax.chain(
        optax.add_decayed_weights(weight_decay, mask=mask),
        optax.sgd(schedule, momentum=momentum, nesterov=nesterov),
    )


def adamw(weight_decay: float = 1e-4, b1: float = 0.9, b2: float = 0.999, decay: Decay = "kernels") -> Optimizer:
    """AdamW (decoupled weight decay)."""
    require(0 <= b1 < 1 and 0 <= b2 < 1, f"b1 and b2 are in [0, 1), not {b1}, {b2}")
    require(weight_decay >= 0, f"weight_decay is at least 0, not {weight_decay}")
    mask = _decay_mask(decay)

    def build(schedule: Schedule) -> optax.GradientTransformation:
        tx = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=mask)

        def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
            with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of its integer count
                return tx.update(updates, state, params)

        return optax.GradientTransformation(tx.init, update)

    return build


def lars(momentum: float = 0.9, weight_decay: float = 1e-6, trust: float = 0.001, clip: bool = False) -> Optimizer:
    """LARS; decay and trust ratio on kernels only, as SimCLR does at large batches.

    A kernel p with gradient g moves by v, v <- momentum v + lr r d, where d = g + weight_decay p and r = trust |p| /
    |d|: the form of SimCLR's authors. `clip` is solo-learn's with `clip_lr` and `exclude_bias_n_norm`: it moves by lr
    v, v <- momentum v + min(r / lr, 1) d with r = trust |p| / (|g| + weight_decay |p| + 1e-8). So its rate is min(r,
    lr), no longer scaled by lr; the rate of the step scales what earlier ones left in v; and a kernel without gradient,
    or of zeros, is not decayed. While lr is below 1 that is a larger rate than lr r where r < 1, by up to 1 / lr (2.5
    times at 0.4, more as lr falls), and a smaller one where r > 1 (with trust 0.02, |p| / |g| above 50 where decay is
    small).

    References:
      You et al. (2017).
    """
    require(trust > 0, f"trust is above 0, not {trust}")
    check_below_one(momentum=momentum)
    require(weight_decay >= 0, f"weight_decay is at least 0, not {weight_decay}")
    mask = _decay_mask("kernels")
    if clip:
        return lambda schedule: _clipped_lars(schedule, momentum, weight_decay, trust)
    return lambda schedule: optax.lars(
        schedule,
        weight_decay,
        weight_decay_mask=mask,
        trust_coefficient=trust,
        trust_ratio_mask=mask,
        momentum=momentum,
    )


class _LarsState(NamedTuple):
    step: jax.Array
    velocity: PyTree


def _clipped_lars(
    schedule: Schedule, momentum: float, weight_decay: float, trust: float
) -> optax.GradientTransformation:
    def init(params: PyTree) -> _LarsState:
        return _LarsState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def local(lr: jax.Array, g: jax.Array, p: jax.Array) -> jax.Array:
        if p.ndim == 1:
            return g
        p_norm, g_norm = jnp.linalg.norm(p.ravel()), jnp.linalg.norm(g.ravel())
        rate = trust * p_norm / (g_norm + weight_decay * p_norm + 1e-8)
        return jnp.where((p_norm > 0) & (g_norm > 0), jnp.minimum(rate / lr, 1) * (g + weight_decay * p), g)

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, _LarsState]:
        lr = jnp.asarray(schedule(state.step), float_dtype())
        directions = jax.tree.map(lambda g, p: local(lr.astype(g.dtype), g, p), updates, params)
        velocity = jax.tree.map(lambda v, d: momentum * v + d, state.velocity, directions)
        moves = jax.tree.map(lambda v: -lr.astype(v.dtype) * v, velocity)
        return moves, _LarsState(state.step + 1, velocity)

    return optax.GradientTransformation(init, update)


OPTIMIZERS = table({"sgd": sgd, "adamw": adamw, "lars": lars})


def by_part(tx: optax.GradientTransformation, rates: Mapping[str, float]) -> optax.GradientTransformation:
    """`tx` with the learning rate of parts of the network multiplied; what is at 0 stays exactly as it is.

    Args:
      rates: by part, such as `encoder`, or by part and layer, such as `encoder/stem_conv`; all others have 1.
    """
    if not rates:
        return tx
    labels = {rate: f"{rate:g}" for rate in {1.0, *rates.values()}}
    scaled: dict[Hashable, optax.GradientTransformation] = {
        label: tx if rate == 1 else optax.chain(tx, optax.scale(rate)) if rate else optax.set_to_zero()
        for rate, label in labels.items()
    }

    def label(params: PyTree) -> PyTree:
        return {
            part: {layer: labels[rates.get(f"{part}/{layer}", rates.get(part, 1.0))] for layer in layers}
            for part, layers in params.items()
        }

    return optax.multi_transform(scaled, label)


class Ascent(NamedTuple):
    """Where else than at the parameters a gradient is taken.

    Attributes:
      move: `move(params, their gradient) -> params` for the second pass, whose gradient descends.
      both: whether BatchNorm's running statistics take in the second pass too, after the first.
    """

    move: Callable[[PyTree, PyTree], PyTree]
    both: bool


def no_ascent() -> None:
    """Plain descent: the gradient where the parameters are."""


def sam(rho: float = 0.05, adaptive: bool = False, statistics: Literal["clean", "both"] = "clean") -> Ascent:
    """Sharpness-aware minimisation: the gradient is taken at params + eps.

    eps = rho g / ||g||, or adaptive (ASAM, Kwon et al. 2021) eps = rho p^2 g / || |p| g ||, with g the gradient of
    the batch over all devices and one norm over all parameters. Where g is of the *weighted* loss this is rwSAM (Liu et
    al. 2022, sec. 4): the weights only choose the direction of the ascent, the descent is on the unweighted loss.
    `adaptive` is the form of their released code (which adds 1e-12 to the norm, as here). rho = 0 is plain descent.

    Args:
      rho: radius of the ascent, at least 0. Plain and adaptive ones are on different scales.
      adaptive: scale each coordinate by its own magnitude.
      statistics: what BatchNorm's running statistics follow. `clean`: the first pass alone, where the parameters are
        (Foret et al.'s program). `both`: the second pass too, at params + eps, on top of the first (the CIFAR programs
        of Liu et al.). At a large rho the two are different encoders in evaluation.

    References:
      Foret et al. (2021); Kwon et al. (2021); Liu et al., "Self-supervised Learning is More Robust to Dataset
      Imbalance" (2022), sec. 4.
    """
    require(rho >= 0, f"rho is at least 0, not {rho}")

    def move(params: PyTree, grads: PyTree) -> PyTree:
        scaled = jax.tree.map(lambda p, g: jnp.abs(p) * g, params, grads) if adaptive else grads
        norm = optax.tree.norm(scaled) + 1e-12
        direction = jax.tree.map(lambda p, s: jnp.abs(p) * s, params, scaled) if adaptive else grads
        return jax.tree.map(lambda p, d: p + rho * d / norm, params, direction)

    return Ascent(move, statistics == "both")


ASCENTS = table({"none": no_ascent, "sam": sam})


def ema(average: PyTree, params: PyTree, decay: jax.Array | float) -> PyTree:
    """Exponential moving average: decay * average + (1 - decay) * params, leaf by leaf."""
    # `optax.incremental_update` adds the two the other way round: with a fused multiply-add that is other bits.
    return jax.tree.map(lambda a, p: decay * a + (1.0 - decay) * p, average, params)


def descend(
    state: TrainState,
    tx: optax.GradientTransformation,
    losses: Callable[[PyTree, PyTree], Any],
    weights: jax.Array,
    ascent: Ascent | None = None,
    ascent_weights: jax.Array | None = None,
) -> tuple[TrainState, dict[str, tuple[jax.Array, jax.Array]]]:
    """One step of gradient descent, per-device: the end of every step function.

    Args:
      state: the state before the step.
      tx: the optimiser.
      losses: `(params, batch_stats) -> (per-example losses [B_local], (batch_stats, method, sums))`: BatchNorm
        statistics before and after, and `sums` maps names to (sum, count) pairs, summed over the devices.
      weights: [B_local], of the mean that is minimised.
      ascent: where to take the gradient (`sam`); None: at the parameters themselves. It costs a second pass, of which
        only the gradient is kept, and where it says so BatchNorm statistics: method state and `loss` are those of the
        clean pass.
      ascent_weights: [B_local], per-example weights of the ascent direction alone; None for equal ones.

    Returns:
      The state after the step, and `sums` with `loss`, `grad_norm` (of the gradient that descends), with an ascent
      `ascent_norm` (of the one that ascends), and `nonfinite` (1 for a step whose loss or gradient is not finite).
    """

    def objective(params, batch_stats, factor):
        values, aux = losses(params, batch_stats)
        return share(values, weights if factor is None else weights * factor), (share(values, weights), aux)

    gradient = jax.grad(objective, has_aux=True)
    first = None if ascent is None else ascent_weights
    grads, (loss, (batch_stats, method, sums)) = gradient(state.params, state.batch_stats, first)
    loss, grads = jax.lax.psum((loss, grads), AXIS)
    one = to_float(1)
    if ascent is not None:
        sums = {**sums, "ascent_norm": (optax.tree.norm(grads), one)}
        before = batch_stats if ascent.both else state.batch_stats
        grads, (_, (after, *_)) = gradient(ascent.move(state.params, grads), before, None)
        grads = jax.lax.psum(grads, AXIS)
        batch_stats = after if ascent.both else batch_stats
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    sums = {
        **sums,
        "loss": (loss, one),
        "grad_norm": (grad_norm, one),
        "nonfinite": (to_float(~(jnp.isfinite(loss) & jnp.isfinite(grad_norm))), one),
    }
    return dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        # With per-device BatchNorm the running statistics differ between devices until they are averaged.
        batch_stats=jax.lax.pmean(batch_stats, AXIS),
        opt_state=opt_state,
        method=method,
    ), sums
