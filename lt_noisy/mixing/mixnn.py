"""MixNN's pure parts: how a batch is mixed with its neighbours, and how soft targets are corrected.

Lu & He, "Mitigating Noisy Supervision Using Synthetic Samples with Soft Labels" (2024). Everything is per-device inside
`collectives.AXIS`, with neighbours and partners in the global batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lt_noisy.collectives import gather
from lt_noisy.config.spec import table
from lt_noisy.errors import UserError
from lt_noisy.losses import cross_entropy
from lt_noisy.precision import to_float

EPSILON = 1e-10

MixupLoss = Callable[[jax.Array, jax.Array], jax.Array]  # (logits [B, C], targets [B, C]) -> float32 [B]


class Neighbours(NamedTuple):
    """Where an example's neighbours are looked for.

    Attributes:
      k: examples that are mixed, the example itself among them; 1 mixes nothing.
      whole_set: in the whole training set, by features of the epoch's start, in place of the mini-batch.
    """

    k: int
    whole_set: bool


def none() -> Neighbours:
    """Nothing is mixed: an ablation, corrected targets alone."""
    return Neighbours(1, False)


def in_batch(k: int = 2) -> Neighbours:
    """The nearest others in the mini-batch, by features of the un-mixed augmented batch (the paper's, with k = 2).

    References:
      Lu & He, "Mitigating Noisy Supervision Using Synthetic Samples with Soft Labels" (2024).
    """
    return Neighbours(_several(k), False)


def in_set(k: int = 2) -> Neighbours:
    """The nearest others in the whole training set, by evaluation-mode features at the start of the epoch."""
    return Neighbours(_several(k), True)


def _several(k: int) -> int:
    if not 2 <= k <= 64:
        raise UserError(f"k, the example and its neighbours, is from 2 to 64, not {k} (none() mixes nothing)")
    return k


NEIGHBOURS = table({"none": none, "in_batch": in_batch, "in_set": in_set})


def shares(clean: jax.Array) -> jax.Array:
    """How much of each of k examples goes into the mix: clean probabilities [B, k], self first -> [B, k], sum 1.

    For k = 2 the paper's w_i = (p_i + e) / (p_i + p_j + e) and 1 - w_i, e = 1e-10; for more w_j = p_j / sum p (inferred
    from its top-K variant), with e on the example itself alike.
    """
    raised = clean.at[:, 0].add(EPSILON)
    return raised / raised.sum(-1, keepdims=True)


def mixed(values: jax.Array, weights: jax.Array) -> jax.Array:
    """sum_k w_k v_k: values [B, k, ...] and weights [B, k] -> [B, ...]."""
    return jnp.einsum("bk...,bk->b...", values, weights, precision="highest")  # a TPU would round to bfloat16


def linear(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-sum_c t_c p_c, float32 [B]: the mixup phase's loss as the authors released it, linear in the probability."""
    return -(targets * jax.nn.softmax(to_float(logits))).sum(-1)


MIXUP_LOSSES: dict[str, MixupLoss] = {"linear": linear, "ce": cross_entropy}


def corrected(targets: jax.Array, rows: jax.Array, logits: jax.Array, momentum: float, now: jax.Array) -> jax.Array:
    """All soft targets [N, C] after t_i <- m t_i + (1 - m) softmax f(x_i) for the rows int [B] of every device.

    Args:
      logits: [B, C], of the un-mixed examples; no gradient.
      now: bool [], whether this step corrects at all.
    """
    p = jax.lax.stop_gradient(jax.nn.softmax(to_float(logits)))
    before = targets[rows]
    after = jnp.where(now, momentum * before + (1 - momentum) * p, before)
    return targets.at[gather(rows)].set(gather(after))  # rows of a permutation: none comes twice
