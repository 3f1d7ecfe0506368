"""Losses that remember what the network said of every example: a row of state for each row of the manifest.

The memory is whole on every device and must stay equal there. So rows and probabilities are gathered, and every
device writes those of the global batch. A row that occurs more than once in it (sampling with replacement) counts as
one visit with the mean of its probabilities, whatever their order.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.collectives import gather, positions
from lt_noisy.errors import UserError
from lt_noisy.losses.common import at_target, check_start, first_step, log_softmax
from lt_noisy.method import Context, Method, State

_LARGEST = 2**31  # bytes, on every device


def elr(beta: float = 0.7, lam: float = 3.0) -> Method:
    """Early-learning regularisation: l = -log p_y + lam log(1 - <t, p>).

    Liu et al., "Early-Learning Regularization Prevents Memorization of Noisy Labels" (2020). t is the example's running
    target, from 0: t <- beta t + (1 - beta) p / sum p at each visit, a constant in the backward pass, updated before it
    is used, as in the released code. There, and here, p in both places of the second term is clipped to
    [1e-4, 1 - 1e-4] (no gradient where it is clipped), which keeps the logarithm above log 1e-4.

    Args:
      beta: momentum of the targets, in [0, 1).
      lam: weight of the second term, finite and at least 0; 0 is cross-entropy. Settings in use: beta 0.7 and lam 3 on
        CIFAR-10 with symmetric noise, 0.9 and 7 on CIFAR-100.

    The method takes logits [B, C] and int [B] or soft [B, C] targets (only the cross-entropy reads them); it keeps t,
    float32 [N, C]. A memory of more than 2 GiB is a UserError.
    """
    if not 0 <= beta < 1:
        raise UserError(f"beta must be in [0, 1), not {beta!r}")
    if not 0 <= lam < math.inf:
        raise UserError(f"lam must be a finite number, at least 0, not {lam!r}")

    def init(context: Context) -> State:
        return {"targets": _memory("elr", context)}

    def apply(state: State, outputs, targets, rows, step):
        log_p = log_softmax(outputs)
        p = jnp.clip(jnp.exp(log_p), 1e-4, 1 - 1e-4)
        visited, seen = _visits(rows, p / p.sum(-1, keepdims=True))
        running = beta * state["targets"][visited] + (1 - beta) * seen
        overlap = (running[positions(len(rows))] * p).sum(-1)
        losses = at_target(-log_p, targets) + lam * jnp.log(1 - overlap)
        return losses, {"targets": state["targets"].at[visited].set(running)}

    return Method(init, apply, memory=True)


def selc(momentum: float = 0.9, start: float = 0.25) -> Method:
    """Self-ensemble label correction: l = -sum_c t_c log p_c, t a running mean of the given label and predictions.

    Lu & He, "SELC: Self-Ensemble Label Correction Improves Learning with Noisy Labels" (2022). t starts as the target
    given. From the fraction `start` of the stage on, t <- momentum t + (1 - momentum) p at each visit, p a constant in
    the backward pass, t updated before it is used, as in the released code; until then the loss is cross-entropy.

    Deviation: the released code starts at an epoch estimated for each kind of noise; here it is a fraction of the
    stage, to be chosen. The target that t starts from is the one given at each visit, so it must not change between
    visits.

    Args:
      momentum: in [0, 1]; 1 is cross-entropy.
      start: fraction of the stage, 0 to 1.

    The method takes logits [B, C] and int [B] or soft [B, C] targets. It keeps t as keep * target + rest, keep float32
    [N] from 1 and rest float32 [N, C] from 0, and the step where correction begins. A memory of more than 2 GiB is a
    UserError.
    """
    if not 0 <= momentum <= 1:
        raise UserError(f"momentum must be in [0, 1], not {momentum!r}")
    check_start(start)

    def init(context: Context) -> State:
        rest = _memory("selc", context)
        return {"keep": np.ones(len(rest), np.float32), "rest": rest, "start": first_step(start, context)}

    def apply(state: State, outputs, targets, rows, step):
        log_p = log_softmax(outputs)
        visited, seen = _visits(rows, jnp.exp(log_p))
        m = jnp.where(step >= state["start"], momentum, 1.0)
        keep = m * state["keep"][visited]
        rest = m * state["rest"][visited] + (1 - m) * seen
        own = positions(len(rows))
        losses = keep[own] * at_target(-log_p, targets) - (rest[own] * log_p).sum(-1)
        return losses, {
            "keep": state["keep"].at[visited].set(keep),
            "rest": state["rest"].at[visited].set(rest),
            "start": state["start"],
        }

    return Method(init, apply, memory=True)


def _visits(rows: jax.Array, p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The global batch: rows int32 [B] and, for each, the mean of p over all copies of that row, float32 [B, C].

    Copies get the same bits, so that it does not matter which of them is written. p is a constant from here on.
    """
    rows, p = gather(rows), gather(jax.lax.stop_gradient(p))
    same = rows[:, None] == rows[None]
    mean = jnp.matmul(same.astype(jnp.float32), p, precision="highest") / same.sum(axis=1, keepdims=True)
    return rows, mean[jnp.argmax(same, axis=1)]


def _memory(name: str, context: Context) -> np.ndarray:
    """Zeros float32 [N, C]."""
    check_memory(name, context.num_examples, context.num_classes)
    return np.zeros((context.num_examples, context.num_classes), np.float32)


def check_memory(name: str, examples: int, numbers: int) -> None:
    """Refuses a memory of so many numbers of 4 bytes for each example that is too large for a device."""
    size = 4 * examples * numbers
    if size > _LARGEST:
        raise UserError(
            f"{name}: a memory of {examples} examples x {numbers} numbers takes {size / 2**30:.1f} GiB on each "
            f"device, over the limit of {_LARGEST // 2**30}"
        )
