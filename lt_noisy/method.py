"""The one shape of a loss or an objective: `Method(init, apply)`, and what `init` is told (`Context`)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

State = Any  # a pytree of arrays; {} where the method keeps nothing


class Context(NamedTuple):
    """What a method may know of the training set. Never a clean label.

    Attributes:
      num_classes: C.
      num_examples: N, those that the stage trains on.
      batch_size: examples of one step, over all devices.
      counts: int [C], examples per *observed* class; all 0 where labels are not read.
      steps: of the stage.
      transition: float64 [C, C], an estimate of P(observed = j | true = i) (a `transition` stage's); None without one.
      clean_counts: float64 [C], the same stage's estimate of how many examples are truly of each class; or None.
    """

    num_classes: int
    num_examples: int
    batch_size: int
    counts: np.ndarray
    steps: int = 1
    transition: np.ndarray | None = None
    clean_counts: np.ndarray | None = None


class Method(NamedTuple):
    """A loss or objective.

    Attributes:
      init: `init(context) -> state`. All constants that depend on the data live in the state, so that the
        checkpoint holds them.
      apply: `apply(state, outputs, targets, rows, step) -> (per_example float32 [B], new_state)`. Per-device:
        runs inside the axis `collectives.AXIS`; `rows` int32 [B] are those of its examples, `step` a traced scalar. The
        new state must come out equal on every device.
      memory: whether it keeps something for every example by row, so that a batch of mixed examples is refused.
      transition: whether it reads what a `transition` stage estimates, so that one nobody reads is refused.
      cosines: the scale of the `cosine` head whose logits it takes; 0: it takes those of any head.
      weighs: whether it weighs the classes itself, so that weights beside it are refused.
      content: hash of what it has read from a file, for the stage's identity; the empty string where nothing.
    """

    init: Callable[[Context], State]
    apply: Callable[..., tuple[jax.Array, State]]
    memory: bool = False
    transition: bool = False
    cosines: float = 0.0
    weighs: bool = False
    content: str = ""
