"""What the formulas share: log-probabilities, reading a per-class loss at its target, weights of classes."""

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy.precision import to_float


def log_softmax(logits: jax.Array) -> jax.Array:
    """log p of logits [B, C], float32 whatever their dtype."""
    return jax.nn.log_softmax(to_float(logits))


def log_complement(log_p: jax.Array) -> jax.Array:
    """log(1 - p) of log-probabilities [B, C], C at least 2: exact where p is nearly 1, finite in value and gradient."""
    top = jnp.argmax(log_p, axis=-1, keepdims=True) == jnp.arange(log_p.shape[-1])[None]
    # 1 - p cancels for the most probable class alone (the others are at most 1/2): sum what is left of it instead.
    of_top = jax.nn.logsumexp(jnp.where(top, -jnp.inf, log_p), axis=-1, keepdims=True)
    return jnp.where(top, of_top, jnp.log1p(-jnp.where(top, 0.0, jnp.exp(log_p))))


def at_target(per_class: jax.Array, targets: jax.Array) -> jax.Array:
    """Per-class losses [B, C] at int [B] targets, or expected under soft [B, C] ones: [B], of the losses' dtype.

    A class with soft target 0 does not count, even if its loss is infinite.
    """
    if targets.ndim == per_class.ndim:
        targets = targets.astype(per_class.dtype)
        return jnp.where(targets == 0, 0.0, targets * per_class).sum(-1)
    return jnp.take_along_axis(per_class, targets[:, None], axis=-1)[:, 0]


def inverse_effective_number(counts: np.ndarray, beta: float) -> np.ndarray:
    """(1 - beta) / (1 - beta^n), what a class of n examples weighs for each, up to a constant.

    Args:
      counts: n, [C], at least 1; on the host.
      beta: in [0, 1). 0 counts every class as one example, -> 1 is the inverse frequency.

    Returns:
      float64 [C].

    References:
      Cui et al., "Class-balanced loss based on effective number of samples" (2019).
    """
    counts = np.asarray(counts, np.float64)
    # expm1 and log: 1 - beta^n cancels where beta is near 1.
    return (1 - beta) / (-np.expm1(counts * np.log(beta)) if beta else np.ones_like(counts))


def class_balanced_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Class weights by `inverse_effective_number`, summing to C over the classes that have examples: float64 [C].

    A class without any has the weight of one example.
    """
    counts = np.asarray(counts)
    weights = inverse_effective_number(np.maximum(counts, 1), beta)
    return weights * len(counts) / weights[counts > 0].sum()
