"""What tests share with `tests/published/efficientnet_with_torch.py`: images, weights by a rule, and what came of them.

NumPy alone: the script runs where there is PyTorch and no JAX.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from helpers import published

ARRAYS = pathlib.Path(__file__).parent.parent / "published" / "efficientnet.npz"
TIMMS = ("tf_efficientnet_lite0", "efficientnet_lite0")


def images() -> np.ndarray:
    """float64 [2, 48, 70, 3]: strides meet even sides and odd ones."""
    return published.normal(40, 2, 48, 70, 3)


def tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """float32 tensors of these shapes, by the names that they have in a file and the seeds of their order.

    Variances are such that activations keep their size through the network, and some reach 6.
    """
    made = {}
    for i, (name, shape) in enumerate(sorted(shapes.items())):
        values = published.normal(i, *shape)
        if len(shape) > 1:
            values = values / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("running_var"):
            values = 0.3 * np.exp(0.1 * values)
        else:
            values = 0.1 * values + name.endswith("weight")
        made[name] = values.astype(np.float32)
    return made


def load(program: str) -> tuple[dict[str, tuple[int, ...]], np.ndarray]:
    """The shapes of a program's tensors by name, and its features float64 [2, 1280]."""
    with np.load(ARRAYS) as arrays:
        sizes = [tuple(map(int, text.split(","))) for text in arrays[f"{program}/shapes"]]
        return dict(zip(arrays[f"{program}/names"].tolist(), sizes, strict=True)), arrays[f"{program}/features"]
