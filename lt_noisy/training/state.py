"""Everything that carries over from step to step, and how it is named, hashed and handed on."""

from typing import Any

import flax.struct
import jax
import numpy as np

from lt_noisy.errors import UserError

PyTree = Any

AVERAGE = "average"  # in a target: of all weights, see `averaging`


@flax.struct.dataclass
class TrainState:
    """The state of a training stage; all of it is in the checkpoint.

    Attributes:
      seed: uint32 [], of the run: an input of the compiled step, so that another seed compiles nothing.
      step: int32 [], steps taken.
      params: parameters by part (`encoder`, and `head`, `projector` or `predictor`).
      batch_stats: BatchNorm statistics by part.
      opt_state: the optimiser's state.
      target: an exponential moving average of parts of the network, which teaches it, where the objective has one; or
        under `AVERAGE` that of all its weights, which is what is evaluated (see `averaging`).
      method: what the loss or objective keeps (priors, running means, queues).
    """

    seed: jax.Array
    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    target: PyTree
    method: PyTree

    @property
    def variables(self) -> PyTree:
        """What a network's `apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated(self) -> PyTree:
        """The same of what is evaluated and handed on: the average of the weights where there is one."""
        return self.target.get(AVERAGE, self.variables)


def flatten(tree: PyTree) -> dict[str, Any]:
    """A tree as {dotted path: leaf}, e.g. `params.encoder.conv.kernel`; the inverse is `unflatten`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def unflatten(template: PyTree, flat: dict[str, Any]) -> PyTree:
    """`template` with its leaves taken from `flat`; raises `UserError` unless names and shapes agree."""
    wanted = flatten(template)
    if missing := sorted(set(wanted) ^ set(flat)):
        raise UserError(f"the stored arrays are of another model: {missing[0]!r} is on one side only")
    for name, leaf in wanted.items():
        if np.shape(leaf) != np.shape(flat[name]):
            raise UserError(
                f"the stored arrays are of another model: {name} is {np.shape(flat[name])}, not {np.shape(leaf)}"
            )
    return jax.tree.unflatten(jax.tree.structure(template), [flat[name] for name in wanted])


def transfer(template: PyTree, flat: dict[str, Any], prefix: str) -> PyTree:
    """`template` (one part of a network) filled from the arrays of `flat` whose names begin with `prefix.`."""
    part = {k.removeprefix(prefix + "."): v for k, v in flat.items() if k.startswith(prefix + ".")}
    return unflatten(template, part)
