"""What the losses share: log-probabilities, reading a per-class loss at its target, when a phase starts."""

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.errors import UserError
from lt_noisy.method import Context, State


def log_softmax(outputs: jax.Array) -> jax.Array:
    """log p of logits [B, C], float32 whatever their dtype."""
    return jax.nn.log_softmax(outputs.astype(jnp.float32))


def log_complement(log_p: jax.Array) -> jax.Array:
    """log(1 - p) of log-probabilities [B, C], C at least 2: exact where p is nearly 1, finite in value and gradient."""
    top = jnp.argmax(log_p, axis=-1, keepdims=True) == jnp.arange(log_p.shape[-1])
    # 1 - p cancels for the most probable class alone (the others are at most 1/2): sum what is left of it instead.
    of_top = jax.nn.logsumexp(jnp.where(top, -jnp.inf, log_p), axis=-1, keepdims=True)
    return jnp.where(top, of_top, jnp.log1p(-jnp.where(top, 0.0, jnp.exp(log_p))))


def at_target(per_class: jax.Array, targets: jax.Array) -> jax.Array:
    """Per-class losses [B, C] at int [B] targets, or expected under soft [B, C] ones: float32 [B].

    A class with soft target 0 does not count, even if its loss is infinite.
    """
    if targets.ndim == per_class.ndim:
        targets = targets.astype(jnp.float32)
        return jnp.where(targets == 0, 0.0, targets * per_class).sum(-1)
    return jnp.take_along_axis(per_class, targets[:, None], axis=-1)[:, 0]


def soft(targets: jax.Array, num_classes: int) -> jax.Array:
    """Targets, int [B] or soft [B, C], as soft ones: float32 [B, C]."""
    return targets.astype(jnp.float32) if targets.ndim == 2 else jax.nn.one_hot(targets, num_classes)


def stateless(context: Context) -> State:
    """The `init` of a loss that keeps nothing."""
    return {}


def check_start(start: float) -> None:
    """Refuses a `start` that is not a fraction of the stage."""
    if not 0 <= start <= 1:
        raise UserError(f"start must be a fraction of the stage, 0 to 1, not {start!r}")


def first_step(start: float, context: Context) -> np.ndarray:
    """The step, int32 [], where the fraction `start` of the stage is done, rounded."""
    return np.asarray(round(start * context.steps), np.int32)
