"""Losses on other targets than the ones given: smoothed, or mixed with the network's own opinion."""

import jax.numpy as jnp

from lt_noisy.errors import UserError
from lt_noisy.losses.common import at_target, log_softmax, soft, stateless
from lt_noisy.method import Context, Method, State


def label_smoothing(inner: Method, epsilon: float = 0.1) -> Method:
    """`inner` on smoothed targets: t -> (1 - epsilon) t + epsilon / C.

    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016). epsilon = 0 is `inner`.

    Args:
      inner: any loss; it is given soft targets.
      epsilon: in [0, 1].

    The method takes logits [B, C] and int [B] or soft [B, C] targets; it keeps `inner`'s state under "inner".
    """
    if not 0 <= epsilon <= 1:
        raise UserError(f"epsilon must be in [0, 1], not {epsilon!r}")

    def init(context: Context) -> State:
        return {"inner": inner.init(context)}

    def apply(state: State, outputs, targets, rows, step):
        classes = outputs.shape[-1]
        smoothed = (1 - epsilon) * soft(targets, classes) + epsilon / classes
        losses, inner_state = inner.apply(state["inner"], outputs, smoothed, rows, step)
        return losses, {"inner": inner_state}

    return inner._replace(init=init, apply=apply)


def bootstrapping(beta: float = 0.95, hard: bool = False) -> Method:
    """Bootstrapping: cross-entropy with target beta t + (1 - beta) p, or beta t + (1 - beta) onehot(argmax p).

    Reed et al., "Training Deep Neural Networks on Noisy Labels with Bootstrapping" (2015). beta = 1 is cross-entropy.
    In the soft form the gradient flows through p in the target too: the paper calls that form cross-entropy with
    minimum-entropy regularisation, and (1 - beta) times the entropy of p has that gradient. Code that holds p
    constant trains a different loss of the same value. The argmax has no gradient.

    Args:
      beta: trust in the given target, in [0, 1].
      hard: whether the network's part is its most probable class instead of p.

    The method takes logits [B, C] and int [B] or soft [B, C] targets; it keeps no state.
    """
    if not 0 <= beta <= 1:
        raise UserError(f"beta must be in [0, 1], not {beta!r}")

    def apply(state: State, outputs, targets, rows, step):
        log_p = log_softmax(outputs)
        own = jnp.argmax(log_p, axis=-1) if hard else jnp.exp(log_p)
        return beta * at_target(-log_p, targets) + (1 - beta) * at_target(-log_p, own), state

    return Method(stateless, apply)
