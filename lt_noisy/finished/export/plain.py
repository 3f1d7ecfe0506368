"""A function as its converter understands it: the same arithmetic in fewer and plainer operations.

`jax2onnx` follows a function by replacing names of JAX and Flax while it runs, which fails on padded max-pooling and on
anti-aliased resizing, and some primitives it writes wrongly. So a function is traced by JAX alone, and of what comes of
that

* all that does not depend on the input, such as the matrices of a resize, is computed at once;
* functions within functions are opened;
* products are matrix products with the contracted axes innermost (the converter's Gemm takes other axes for those);
* a max-pool is the largest of shifted images (the converter's MaxPool has a window over four axes, which nothing runs);
* padding is concatenation (the converter's Pad takes no size that is a symbol);
* rounding to fewer bits is a conversion there and back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Literal

PyTree = Any


def plain(function: Callable[[jax.Array], PyTree], spec: jax.ShapeDtypeStruct) -> Callable[[jax.Array], list[Any]]:
    """The function, with its outputs as a list (leaves in JAX's order), for inputs of this shape.

    Args:
      spec: its sizes may be symbols.
    """
    traced = jax.make_jaxpr(function)(spec)

    def run(x: jax.Array) -> list[Any]:
        # An output that is the input as it is would be one value with two names, which the converter refuses.
        return [found * 1 if found is x else found for found in _run(traced, [x])]

    return run


def _run(traced: ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
    """Evaluates what was traced, equation by equation."""
    jaxpr, known = traced.jaxpr, dict[Any, Any]()
    known.update(zip(jaxpr.constvars, traced.consts, strict=True))
    known.update(zip(jaxpr.invars, inputs, strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        found = _apply(equation, [value(variable) for variable in equation.invars])
        known.update(zip(equation.outvars, found, strict=True))
    return [value(variable) for variable in jaxpr.outvars]


def _apply(equation: Any, inputs: list[Any]) -> list[Any]:
    primitive: Any = equation.primitive
    params = equation.params
    inner = params.get("jaxpr", params.get("call_jaxpr"))
    if isinstance(inner, ClosedJaxpr):
        return _run(inner, inputs)
    fixed = all(isinstance(side, int) for variable in equation.outvars for side in variable.aval.shape)
    if fixed and not any(isinstance(x, Tracer) for x in inputs):
        with jax.ensure_compile_time_eval():
            found = primitive.bind(*inputs, **params)
    else:
        form = _FORMS[primitive.name] if primitive.name in _FORMS else primitive.bind
        found = form(*inputs, **params)
    return list(found) if primitive.multiple_results else [found]


def _product(a: jax.Array, b: jax.Array, *, dimension_numbers: Any, **params: Any) -> jax.Array:
    """`lax.dot_general` as `jnp.matmul`; `params` say in which precision an accelerator may compute it."""
    (of_a, of_b), (batch_a, batch_b) = dimension_numbers
    rest_a = [axis for axis in range(a.ndim) if axis not in (*of_a, *batch_a)]
    rest_b = [axis for axis in range(b.ndim) if axis not in (*of_b, *batch_b)]
    if len(of_a) != 1 or (batch_a and (len(rest_a), len(rest_b)) != (1, 1)) or min(len(rest_a), len(rest_b)) > 1:
        raise NotImplementedError(f"a product over axes {of_a} of {a.ndim} and {of_b} of {b.ndim}")
    if len(rest_b) <= 1:
        return jnp.matmul(lax.transpose(a, (*batch_a, *rest_a, *of_a)), lax.transpose(b, (*batch_b, *of_b, *rest_b)))
    # Of a matrix and an array of more axes: matmul takes the matrix behind, and its rows go to the front again.
    found = jnp.matmul(lax.transpose(b, (*rest_b, *of_b)), lax.transpose(a, (*of_a, *rest_a)))
    return lax.transpose(found, (found.ndim - 1, *range(found.ndim - 1)))


def _largest(
    x: jax.Array, *, window_dimensions: Any, window_strides: Any, padding: Any, base_dilation: Any, window_dilation: Any
) -> jax.Array:
    """`lax.reduce_window_max`: along one axis after the other the largest of shifted slices."""
    if any(step != 1 for step in (*base_dilation, *window_dilation)):
        raise NotImplementedError("a max-pool with gaps in it")
    for axis, (size, stride, (before, after)) in enumerate(
        zip(window_dimensions, window_strides, padding, strict=True)
    ):
        if size == stride == 1:
            continue
        x = _longer(x, jnp.array(-jnp.inf, x.dtype), axis, before, after)
        last = (x.shape[axis] - size) // stride * stride
        parts = [lax.slice_in_dim(x, at, at + last + 1, stride, axis) for at in range(size)]
        x = parts[0]
        for part in parts[1:]:
            x = jnp.maximum(x, part)
    return x


def _padded(x: jax.Array, value: jax.Array, *, padding_config: Any) -> jax.Array:
    """`lax.pad`."""
    if any(between or min(before, after) < 0 for before, after, between in padding_config):
        raise NotImplementedError("padding between pixels, or less than none")
    for axis, (before, after, _) in enumerate(padding_config):
        x = _longer(x, value, axis, before, after)
    return x


def _longer(x: jax.Array, value: jax.Array, axis: int, before: int, after: int) -> jax.Array:
    """x with so many of a value before and after it along an axis."""

    def of(size: int) -> list[jax.Array]:
        return [lax.broadcast(value, (*x.shape[:axis], size, *x.shape[axis + 1 :]))] if size else []

    return lax.concatenate([*of(before), x, *of(after)], axis) if before or after else x


def _rounded(x: jax.Array, *, exponent_bits: int, mantissa_bits: int) -> jax.Array:
    if (exponent_bits, mantissa_bits) != (5, 10):
        raise NotImplementedError(f"rounding to {exponent_bits} and {mantissa_bits} bits")
    return x.astype(jnp.float16).astype(x.dtype)


_FORMS: dict[str, Callable[..., Any]] = {
    "dot_general": _product,
    "pad": _padded,
    "reduce_window_max": _largest,
    "reduce_precision": _rounded,
    "stop_gradient": lambda x, **params: x,
    "copy": lambda x, **params: x,
}
