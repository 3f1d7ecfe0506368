"""Losses on other targets than the ones given: smoothed, or mixed with the network's own opinion."""

import jax
import jax.numpy as jnp

from lt_noisy.errors import check_proportion
from lt_noisy.losses.common import at_target, log_softmax
from lt_noisy.losses.factory import from_formula
from lt_noisy.method import Context, Method, State
from lt_noisy.precision import to_float


def label_smoothing(targets: jax.Array, num_classes: int, epsilon: float = 0.1) -> jax.Array:
    """Smoothed targets, for any loss: (1 - epsilon) t + epsilon / C.

    Args:
      targets: int [B], or soft [B, C].
      num_classes: C.
      epsilon: in [0, 1]. 0 changes nothing.

    Returns:
      float32 [B, C].

    References:
      Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016).
    """
    soft = to_float(targets) if targets.ndim == 2 else jax.nn.one_hot(targets, num_classes)
    return (1 - epsilon) * soft + epsilon / num_classes


def bootstrapping(logits: jax.Array, targets: jax.Array, beta: float = 0.95, hard: bool = False) -> jax.Array:
    """Bootstrapping: cross-entropy with target beta t + (1 - beta) p, or beta t + (1 - beta) onehot(argmax p).

    beta = 1 is cross-entropy. In the soft form the gradient flows through p in the target too: the paper calls that
    form cross-entropy with minimum-entropy regularisation, and (1 - beta) times the entropy of p has that gradient.
    Code that holds p constant trains a different loss of the same value. The argmax has no gradient.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C].
      beta: trust in the given target, in [0, 1].
      hard: whether the network's part is its most probable class instead of p; not traced.

    Returns:
      float32 [B].

    References:
      Reed et al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping" (2015).
    """
    log_p = log_softmax(logits)
    own = jnp.argmax(log_p, axis=-1) if hard else jnp.exp(log_p)
    return beta * at_target(-log_p, targets) + (1 - beta) * at_target(-log_p, own)


def make_label_smoothing(inner: Method, epsilon: float = 0.1) -> Method:
    """`inner` on targets after `label_smoothing`; keeps `inner`'s state under "inner".

    Args:
      inner: any loss; it is given soft targets.
      epsilon: as there.
    """
    check_proportion(epsilon=epsilon)

    def init(context: Context) -> State:
        return {"inner": inner.init(context)}

    def apply(state: State, outputs, targets, rows, step):
        smoothed = label_smoothing(targets, outputs.shape[-1], epsilon)
        losses, inner_state = inner.apply(state["inner"], outputs, smoothed, rows, step)
        return losses, {"inner": inner_state}

    return inner._replace(init=init, apply=apply)


def make_bootstrapping(beta: float = 0.95, hard: bool = False) -> Method:
    """`bootstrapping`, with its arguments; keeps nothing."""
    check_proportion(beta=beta)
    return from_formula(bootstrapping, beta=beta, hard=hard)
