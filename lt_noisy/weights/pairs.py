"""What a layer of ours is called in a file of weights, and how its numbers lie there: one table for both ways."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Tensors = Mapping[str, np.ndarray]  # what a file of weights holds, by name


class Form(NamedTuple):
    """How numbers of ours lie in a file.

    Attributes:
      load: `load(tensors of the file, shape of ours)` gives an array of that shape, if the tensors fit it.
      save: `save(array of ours)` gives the tensors.
    """

    load: Callable[[Sequence[np.ndarray], tuple[int, ...]], np.ndarray]
    save: Callable[[np.ndarray], Sequence[np.ndarray]]


class Pair(NamedTuple):
    """One array of ours and the tensors that it is in a file.

    Attributes:
      ours: its path, such as `params.stem_conv.kernel`.
      theirs: names of tensors, several where a file keeps apart what is one array here.
      form: how the numbers lie.
      beside: names of tensors that are loaded with them, behind them, and that another pair saves.
    """

    ours: str
    theirs: tuple[str, ...]
    form: Form
    beside: tuple[str, ...] = ()


class Naming(NamedTuple):
    """What one family of programs calls the layers of a network.

    Attributes:
      name: such as "torchvision".
      pairs: all arrays of the network.
      also: names beside them that say nothing to the encoder, as a classifier's do: the beginnings of names.
      head: what a linear classifier is called, whose weights lie as PyTorch's do; empty: it has no such one.
      arguments: of the model, by the part of a name that is in a file if they are so: (part, argument).
    """

    name: str
    pairs: tuple[Pair, ...]
    also: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    head: str = ""


def _joined(turn: Callable[[np.ndarray], np.ndarray]) -> Callable[[Sequence[np.ndarray], tuple[int, ...]], np.ndarray]:
    """Tensors one below the other, `turn`ed."""
    return lambda tensors, shape: turn(np.concatenate(tensors) if len(tensors) > 1 else tensors[0])


AS_IS = Form(_joined(lambda tensor: tensor), lambda array: [array])
# PyTorch's [out, in] and [out, in, h, w]; ours are [in, out] and [h, w, in, out].
LINEAR = Form(_joined(lambda tensor: tensor.T), lambda array: [array.T])
CONVOLUTION = Form(_joined(lambda tensor: tensor.transpose(2, 3, 1, 0)), lambda array: [array.transpose(3, 2, 0, 1)])
# The same for queries, keys and values, which are one layer of ours, kept apart.
THREE_LINEAR = Form(LINEAR.load, lambda array: np.split(array.T, 3))
THREE_BIASES = Form(AS_IS.load, lambda array: np.split(array, 3))


def convolution(ours: str, theirs: str) -> list[Pair]:
    """A convolution without bias, PyTorch's."""
    return [Pair(f"params.{ours}.kernel", (f"{theirs}.weight",), CONVOLUTION)]


def batch_norm(ours: str, theirs: str) -> list[Pair]:
    """BatchNorm, PyTorch's."""
    return [
        Pair(f"params.{ours}.scale", (f"{theirs}.weight",), AS_IS),
        Pair(f"params.{ours}.bias", (f"{theirs}.bias",), AS_IS),
        Pair(f"batch_stats.{ours}.mean", (f"{theirs}.running_mean",), AS_IS),
        Pair(f"batch_stats.{ours}.var", (f"{theirs}.running_var",), AS_IS),
    ]
