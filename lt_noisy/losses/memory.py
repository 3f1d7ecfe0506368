"""Losses that remember what the network said of every example: a row of state for each row of the manifest.

The memory is whole on every device and must stay equal there. So rows and probabilities are gathered, and every
device writes those of the global batch. A row that occurs more than once in it (sampling with replacement) counts as
one visit with the mean of its probabilities, whatever their order.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.collectives import gather, positions
from lt_noisy.errors import check_below_one, check_not_negative, check_proportion
from lt_noisy.losses.common import at_target, log_softmax
from lt_noisy.losses.factory import check_memory, check_start, first_step
from lt_noisy.method import Context, Method, State


def elr(logits: jax.Array, targets: jax.Array, running: jax.Array, lam: float = 3.0) -> jax.Array:
    """Early-learning regularisation: l = -log p_y + lam log(1 - <t, p>), t the example's running target.

    t starts from 0 and is updated at each visit, *before* it is used: t <- beta t + (1 - beta) `elr_prediction`(f).

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C]; only the cross-entropy reads them.
      running: t, float32 [B, C], at least 0 with sum at most 1; a constant in the backward pass.
      lam: weight of the second term, finite and at least 0; 0 is cross-entropy. Settings in use: 3 (and beta 0.7) on
        CIFAR-10 with symmetric noise, 7 (and 0.9) on CIFAR-100.

    Returns:
      float32 [B].

    References:
      Liu et al., "Early-Learning Regularization Prevents Memorization of Noisy Labels" (2020). As in the authors' code,
      and not in the paper, p in the second term is clipped to [1e-4, 1 - 1e-4] (no gradient where it is clipped), which
      keeps the logarithm above log 1e-4.
    """
    log_p = log_softmax(logits)
    overlap = (jax.lax.stop_gradient(running) * _clipped(log_p)).sum(-1)
    return at_target(-log_p, targets) + lam * jnp.log(1 - overlap)


def elr_prediction(logits: jax.Array) -> jax.Array:
    """What ELR's running target averages: logits [B, C] -> clipped p / sum p, float32 [B, C], without a gradient."""
    p = _clipped(log_softmax(logits))
    return jax.lax.stop_gradient(p / p.sum(-1, keepdims=True))


def _clipped(log_p: jax.Array) -> jax.Array:
    return jnp.clip(jnp.exp(log_p), 1e-4, 1 - 1e-4)


def selc(logits: jax.Array, targets: jax.Array, keep: jax.Array, rest: jax.Array) -> jax.Array:
    """Self-ensemble label correction: l = -sum_c t_c log p_c, t a running mean of the given label and predictions.

    t is `keep` onehot(y) + `rest`. From the step on where correction begins, t <- momentum t + (1 - momentum) p at each
    visit, *before* it is used: keep <- momentum keep, rest <- momentum rest + (1 - momentum) p. Until then keep is 1,
    rest is 0, and the loss is cross-entropy.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C]: what t starts from, so the same at each visit.
      keep: float32 [B], in [0, 1].
      rest: float32 [B, C], at least 0 with sum 1 - keep; both are constants in the backward pass.

    Returns:
      float32 [B].

    References:
      Lu & He, "SELC: Self-Ensemble Label Correction Improves Learning with Noisy Labels" (2022); t is updated before it
      is used as in the authors' code. They begin at an epoch estimated for each kind of noise.
    """
    log_p = log_softmax(logits)
    keep, rest = jax.lax.stop_gradient((keep, rest))
    return keep * at_target(-log_p, targets) - (rest * log_p).sum(-1)


def make_elr(beta: float = 0.7, lam: float = 3.0) -> Method:
    """`elr`; keeps t, float32 [N, C]. One that is too large (`factory.check_memory`) is a UserError.

    Args:
      beta: momentum of the targets, in [0, 1).
      lam: as there.
    """
    check_below_one(beta=beta)
    check_not_negative(lam=lam)

    def init(context: Context) -> State:
        return {"targets": _memory("elr", context)}

    def apply(state: State, outputs, targets, rows, step):
        visited, seen = _visits(rows, elr_prediction(outputs))
        running = beta * state["targets"][visited] + (1 - beta) * seen
        losses = elr(outputs, targets, running[positions(len(rows))], lam)
        return losses, {"targets": state["targets"].at[visited].set(running)}

    return Method(init, apply, memory=True)


def make_selc(momentum: float = 0.9, start: float = 0.25) -> Method:
    """`selc`; keeps keep [N], rest [N, C] and the step where correction begins.

    A memory that is too large (`factory.check_memory`) is a UserError. Deviation: where the paper estimates the epoch
    at which correction begins, it is to be chosen.

    Args:
      momentum: in [0, 1]; 1 is cross-entropy.
      start: fraction of the stage, 0 to 1, after which correction begins.
    """
    check_proportion(momentum=momentum)
    check_start(start)

    def init(context: Context) -> State:
        rest = _memory("selc", context)
        return {"keep": np.ones(len(rest), np.float32), "rest": rest, "start": first_step(start, context)}

    def apply(state: State, outputs, targets, rows, step):
        visited, seen = _visits(rows, jnp.exp(log_softmax(outputs)))
        m = jnp.where(step >= state["start"], momentum, 1.0)
        keep = m * state["keep"][visited]
        rest = m * state["rest"][visited] + (1 - m) * seen
        own = positions(len(rows))
        return selc(outputs, targets, keep[own], rest[own]), {
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
    copies = same.astype(p.dtype)
    mean = jnp.matmul(copies, p, precision="highest") / copies.sum(axis=1, keepdims=True)
    return rows, mean[jnp.argmax(same, axis=1)]


def _memory(name: str, context: Context) -> np.ndarray:
    """Zeros float32 [N, C]."""
    check_memory(name, context.num_examples, context.num_classes)
    return np.zeros((context.num_examples, context.num_classes), np.float32)
