"""What the tests of the losses share: a batch, a context, and every table entry run on one device."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special as sp

from lt_noisy import collectives
from lt_noisy.config.spec import bind
from lt_noisy.losses.table import LOSSES
from lt_noisy.method import Context

C = 5
COUNTS = np.array([400, 100, 30, 7, 1])
TRANSITION = 0.6 * np.eye(C) + 0.4 * np.roll(np.eye(C), 1, axis=1)  # has zeros
CONTEXT = Context(
    num_classes=C,
    num_examples=int(COUNTS.sum()),
    batch_size=8,
    counts=COUNTS,
    steps=10,
    transition=TRANSITION,
    clean_counts=np.array([300.0, 150.0, 60.0, 27.5, 0.5]),
)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(8, C)).astype(np.float32) * 3
LABELS = RNG.integers(C, size=8).astype(np.int32)
SOFT = RNG.dirichlet(np.ones(C), size=8).astype(np.float32)


def nesting() -> list[str]:
    """The table entries that have a loss inside."""
    return [name for name, f in LOSSES.items() if "inner" in inspect.signature(f).parameters]


def linear() -> list[str]:
    """Specs of losses that are linear in the target: table entries and variants with code of their own."""
    return [
        *(f"{name}()" for name in LOSSES if name not in nesting()),
        "focal(gamma=0.5)",
        "focal(gamma=2.0, beta=0.99)",
        "logit_adjusted(tau=2.0, prior=corrected)",
        "gce(truncate=0.3)",
        "label_smoothing(forward())",
        "bootstrapping(beta=0.5, hard=True)",
        "selc(start=0.0, momentum=0.5)",
    ]


def gathering() -> list[str]:
    """Those that ask something of the other devices: memories of every example, a mean over the batch."""
    return [
        "elr()",
        "selc(start=0.0)",
        "superloss(cross_entropy(), threshold=global_mean)",
        "superloss(label_smoothing(elr()), threshold=running_mean)",
    ]


def everything() -> list[str]:
    """A spec for each table entry (a nested loss is cross-entropy), and variants with code of their own."""
    return [
        *linear(),
        *(f"{name}(cross_entropy())" for name in nesting()),
        "superloss(logit_adjusted(tau=2.0), lam=0.25, threshold=global_mean)",
        "superloss(label_smoothing(elr()), threshold=running_mean)",
    ]


def on_one_device(apply, *args):
    """`apply` inside the axis, as a device of one sees it."""
    add, drop = (lambda x: jnp.asarray(x)[None]), (lambda x: x[0])
    mapped = jax.vmap(apply, axis_name=collectives.AXIS)
    return jax.tree.map(drop, mapped(*jax.tree.map(add, args)))


@functools.cache
def _compiled(text):
    """(state, logits, targets, rows, step) -> ((losses, new state), gradient of the sum of the losses)."""
    loss = bind(text, LOSSES, "loss")

    def total(logits, state, *rest):
        losses, new_state = on_one_device(loss.apply, state, logits, *rest)
        return losses.sum(), (losses, new_state)

    gradient = jax.grad(total, has_aux=True)
    return jax.jit(lambda state, logits, *rest: gradient(logits, state, *rest)[::-1])


def _call(text, logits=LOGITS, targets=LABELS, context=CONTEXT, state=None, rows=None, step=0):
    state = bind(text, LOSSES, "loss").init(context) if state is None else state
    rows = np.arange(len(logits)) if rows is None else rows
    return _compiled(text)(state, jnp.asarray(logits), targets, rows, jnp.int32(step))


def run(text, *args, **kwargs):
    """(per-example loss, new state) of the loss `text` says."""
    return _call(text, *args, **kwargs)[0]


def values(text, *args, **kwargs):
    return np.asarray(run(text, *args, **kwargs)[0])


def gradient(text, *args, **kwargs):
    return np.asarray(_call(text, *args, **kwargs)[1])


def log_p(logits=LOGITS):
    """log softmax in float64."""
    return sp.log_softmax(np.asarray(logits, np.float64), axis=-1)


def at(matrix, labels=LABELS):
    return matrix[np.arange(len(labels)), labels]


def numeric_gradient(function, logits=LOGITS, eps=1e-6):
    """Central differences of a float64 function [B, C] -> [B] whose rows do not depend on each other."""
    logits = np.asarray(logits, np.float64)
    found = np.zeros_like(logits)
    for c in range(logits.shape[1]):
        shift = eps * np.eye(logits.shape[1])[c]
        found[:, c] = (function(logits + shift) - function(logits - shift)) / (2 * eps)
    return found
