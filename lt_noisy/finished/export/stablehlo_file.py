"""A classifier as StableHLO, as `jax.export` writes it: for any later JAX, on a CPU, a GPU or a TPU."""

from collections.abc import Callable

import jax
import numpy as np

from lt_noisy.errors import UserError
from lt_noisy.finished.export.graph import Graph, Outputs

PLATFORMS = ("cpu", "cuda", "tpu")


def require_library() -> None:
    """Refuses, in one line, to begin without the library by which JAX writes it."""
    try:
        import flatbuffers
    except ImportError:
        raise UserError(
            "export: StableHLO needs flatbuffers; pip install 'lt_noisy[stablehlo]' (docs/export.md)"
        ) from None
    del flatbuffers


def stablehlo_bytes(graph: Graph) -> bytes:
    """What `jax.export.deserialize` reads; its `call(images)` gives {name: float32 [N, ...]} as `Graph.apply`."""
    return bytes(jax.export.export(jax.jit(graph.apply), platforms=PLATFORMS)(graph.input_spec()).serialize())


def stablehlo_call(content: bytes) -> Callable[[np.ndarray], Outputs]:
    """Runs what `stablehlo_bytes` gave on the device at hand."""
    read = jax.export.deserialize(bytearray(content))
    return lambda images: jax.device_get(read.call(images))
