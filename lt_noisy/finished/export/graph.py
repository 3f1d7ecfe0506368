"""A finished classifier as one function to export, and the proof that what became of it still computes the same."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from lt_noisy.data.images import DTYPES, kind_of
from lt_noisy.errors import UserError
from lt_noisy.finished.network import Network, load_network, traceable
from lt_noisy.finished.run import FinishedRun

OUTPUTS = ("logits", "probabilities", "features")
TOLERANCE = 1e-4  # of the largest number that the run's own network gives
_EXAMPLES = 6

Outputs = Mapping[str, np.ndarray]  # arrays float32 [N, ...] by the names in `OUTPUTS`


class Graph(NamedTuple):
    """A finished classifier, ready to be written in another form.

    Attributes:
      network: of the run, in float32.
      rounded: whether the features are rounded to float16 (`network.Traceable`).
      apply: `apply(images [N, H, W, C] uint8, or vectors [N, D] float32) -> {name: float32 [N, ...]}` with the names
        of `OUTPUTS`; pure, with the preparation of images in it.
    """

    network: Network
    rounded: bool
    apply: Callable[[jax.Array], dict[str, jax.Array]]

    @property
    def takes(self) -> str:
        """What its input is called: `images` or `vectors`."""
        return kind_of(self.network.image_shape)

    def input_spec(self) -> jax.ShapeDtypeStruct:
        """The shape of its input, whose first axis N is a symbol."""
        (size,) = jax.export.symbolic_shape("N")
        return jax.ShapeDtypeStruct((size, *self.network.image_shape), DTYPES[self.takes])


def load_graph(run: FinishedRun, stage: str = "") -> Graph:
    """The classifier of a finished stage, in float32 whatever it was trained in.

    Other programs compute in bfloat16 as they please, so that nobody could say whether their outputs are right.

    Raises:
      UserError: as `load_network`.
    """
    exact = run._replace(config={**run.config, "precision": "float32"})
    forward, rounded = traceable(exact, stage)

    def apply(images: jax.Array) -> dict[str, jax.Array]:
        logits, features = forward(images)
        # Written out: `jax.nn.softmax` is the same, less what only its gradient needs.
        powers = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
        return {"logits": logits, "probabilities": powers / powers.sum(axis=-1, keepdims=True), "features": features}

    return Graph(load_network(exact, stage), rounded, apply)


def examples(shape: tuple[int, ...]) -> np.ndarray:
    """Inputs to compare outputs on, the same ones every time: uint8 [6, H, W, C], or float32 [6, D].

    Half of the images are noise, half of them large patches, as pictures rather are.
    """
    rng = np.random.default_rng(0)
    if kind_of(shape) == "vectors":
        return rng.normal(size=(_EXAMPLES, *shape)).astype(np.float32)
    height, width, channels = shape
    noise = rng.integers(0, 256, (_EXAMPLES, *shape))
    patches = rng.integers(0, 256, (_EXAMPLES, 4, 4, channels))
    rows, columns = (np.arange(side) * 4 // side for side in (height, width))
    smooth = patches[:, rows][:, :, columns]
    return np.where(np.arange(_EXAMPLES).reshape(-1, 1, 1, 1) % 2, smooth, noise).astype(np.uint8)


def compared(graph: Graph, call: Callable[[np.ndarray], Outputs]) -> float:
    """How far outputs of the exported graph are from the run's own, at most, as a share of the largest of those.

    Batches of six and of one are asked for. Where features are rounded, the last digits before that decide to which
    side: one step of float16 is no difference.

    Args:
      call: runs what was exported, on a batch of any size.

    Raises:
      UserError: it is more than `TOLERANCE`.
    """
    given = examples(graph.network.image_shape)
    logits, features = graph.network(given)
    ours = {"logits": logits, "probabilities": softmax(logits, axis=-1), "features": features}
    worst = 0.0
    for rows in (slice(None), slice(1)):
        theirs = call(given[rows])
        for name in OUTPUTS:
            step = (
                np.spacing(np.abs(features[rows]).astype(np.float16)) if graph.rounded and name == "features" else 0.0
            )
            error = _error(theirs[name], ours[name][rows], float(np.abs(ours[name]).max()), step)
            if not error <= TOLERANCE:
                raise UserError(
                    f"export: its {name} differ from those of the run by {error:.1e} of the largest, and {TOLERANCE:g} "
                    f"is allowed; no file was written"
                )
            worst = max(worst, error)
    return worst


def _error(theirs: np.ndarray, ours: np.ndarray, scale: float, step: np.ndarray | float) -> float:
    """The largest difference beyond a step, as a share of the scale; infinite for another shape or no number."""
    if theirs.shape != ours.shape or not np.isfinite(theirs).all():
        return np.inf
    beyond = np.abs(np.asarray(theirs, np.float64) - ours) - np.asarray(step, np.float64)
    return max(float(beyond.max()), 0.0) / (scale or 1.0)
