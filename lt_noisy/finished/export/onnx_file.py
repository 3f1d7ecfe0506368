"""A classifier as an ONNX model, by `jax2onnx`, and run by `onnxruntime`."""

import json
import logging
import operator
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from lt_noisy import __version__
from lt_noisy.errors import UserError, first_line
from lt_noisy.finished.export.graph import OUTPUTS, Graph, Outputs
from lt_noisy.finished.export.plain import plain

OPSET = 17  # of 2022: whatever runs ONNX at all runs it


def require_libraries() -> None:
    """Refuses, in one line, to begin without the libraries."""
    try:
        with _quiet():
            import jax2onnx  # pyright: ignore[reportMissingImports] (an extra)
            import onnx  # pyright: ignore[reportMissingImports] (an extra)
            import onnxruntime  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise UserError(f"export: ONNX needs {error.name}; pip install 'lt_noisy[onnx]' (docs/export.md)") from None
    del jax2onnx, onnx, onnxruntime


def onnx_bytes(graph: Graph, described: dict[str, str]) -> bytes:
    """The model: one input, `images` or `vectors`, of any number N, and the outputs `OUTPUTS`.

    Args:
      described: text by name, for the model's `metadata_props`.

    Raises:
      UserError: something in the network has no form in ONNX that the converter knows.
    """
    import jax2onnx  # pyright: ignore[reportMissingImports] (an extra)
    import onnx  # pyright: ignore[reportMissingImports] (an extra)

    spec = graph.input_spec()
    function = plain(lambda x: operator.itemgetter(*OUTPUTS)(graph.apply(x)), spec)
    try:
        with _quiet():
            model = jax2onnx.to_onnx(
                lambda x: tuple(function(x)),
                [spec],
                model_name="lt_noisy",
                opset=OPSET,
                input_names=[graph.takes],
                output_names=list(OUTPUTS),
            )
    except Exception as error:  # a converter has errors of many kinds
        raise UserError(f"export: jax2onnx cannot convert this network: {first_line(error)}") from error
    model.producer_name, model.producer_version = "lt_noisy", __version__
    onnx.helper.set_model_props(model, described)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def onnx_call(content: bytes) -> Callable[[np.ndarray], Outputs]:
    """Runs a model of `onnx_bytes` on a CPU."""
    import onnxruntime  # pyright: ignore[reportMissingImports] (an extra)

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def call(images: np.ndarray) -> Outputs:
        found: Any = session.run(list(OUTPUTS), {name: images})
        return dict(zip(OUTPUTS, found, strict=True))

    return call


def metadata(graph: Graph, prepared: str) -> dict[str, str]:
    """What a program has to know beside the graph, as texts by name.

    Args:
      prepared: how the graph prepares its input, in words.
    """
    network = graph.network
    return {
        "class_names": json.dumps(network.class_names),
        "image_shape": json.dumps(network.image_shape),
        "resize": str(network.fit.resize),
        "stretched": json.dumps(network.fit.stretched),
        "preprocessing": prepared,
        "stage": network.stage,
        "lt_noisy": __version__,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the libraries' own warnings, which no user of ours can act on, from the screen."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
