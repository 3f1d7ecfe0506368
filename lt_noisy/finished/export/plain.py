"""A function as its converter understands it: the same arithmetic in fewer and plainer operations.

`jax2onnx` follows a function by replacing names of JAX and Flax while it runs, which fails on padded max-pooling and on
anti-aliased resizing, and some primitives it writes wrongly. So a function is traced by JAX alone, and of what comes of
that

* all that does not depend on the input, such as the matrices of a resize, is computed at once;
* functions within functions are opened;
* what scales and shifts the channels of a convolution, as BatchNorm does, becomes part of its kernel and one sum, which
  a runtime computes in one go;
* products are matrix products with the contracted axes innermost (the converter's Gemm takes other axes for those);
* a max-pool is the largest of shifted images (the converter's MaxPool has a window over four axes, which nothing runs);
* padding is concatenation (the converter's Pad takes no size that is a symbol);
* rounding to fewer bits is a conversion there and back.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
        return [found * 1 if found is x else _value(found) for found in _run(traced, [x])]

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
    if (folded := _folded(primitive.name, inputs, params)) is not None:
        return [folded]
    if fixed and not any(isinstance(x, Tracer | _Convolution) for x in inputs):
        with jax.ensure_compile_time_eval():
            found = primitive.bind(*inputs, **params)
    else:
        form: Any = _FORMS.get(primitive.name)
        found = (form or primitive.bind)(*map(_value, inputs), **params)
    return list(found) if primitive.multiple_results else [found]


class _Convolution:
    """A convolution [B, H, W, O] by a fixed kernel that is still to be computed, and what became of its channels since.

    It is computed with channels first, as ONNX has it, so that nothing stands between it and the sum after it.
    """

    def __init__(self, x: jax.Array, kernel: np.ndarray, params: Mapping[str, Any], shift: np.ndarray | None = None):
        self.x, self.params = x, params
        self.kernel, self.shift = kernel, shift  # [h, w, C, O], [1, 1, 1, O]
        self._found: jax.Array | None = None

    def takes(self, other: Any) -> bool:
        """Whether `other` is fixed, with a number for each channel or one for all."""
        fixed = not isinstance(other, Tracer | _Convolution)
        return fixed and np.ndim(other) == 4 and np.shape(other)[:3] == (1, 1, 1)

    def changed(self, name: str, other: Any) -> "_Convolution":
        """Itself after `mul`, `add` or `sub` of what it `takes`."""
        numbers = np.asarray(other)
        if name == "mul":
            shift = None if self.shift is None else self.shift * numbers
            return _Convolution(self.x, self.kernel * numbers, self.params, shift)
        numbers = np.broadcast_to(-numbers if name == "sub" else numbers, (1, 1, 1, self.kernel.shape[-1]))
        return _Convolution(self.x, self.kernel, self.params, numbers + (0 if self.shift is None else self.shift))

    def value(self) -> jax.Array:
        """Computes it, once."""
        if self._found is None:
            names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "feature_group_count")
            options = {name: self.params[name] for name in names}
            x, kernel = lax.transpose(self.x, (0, 3, 1, 2)), jnp.asarray(self.kernel.transpose(3, 2, 0, 1))
            found = lax.conv_general_dilated(x, kernel, **options, dimension_numbers=("NCHW", "OIHW", "NCHW"))
            found = found if self.shift is None else found + self.shift.transpose(0, 3, 1, 2)
            self._found = lax.transpose(found, (0, 2, 3, 1))
        return self._found


def _value(x: Any) -> Any:
    return x.value() if isinstance(x, _Convolution) else x


def _folded(name: str, inputs: list[Any], params: Any) -> _Convolution | None:
    """What an operation makes of a convolution without computing it; None where it has to be computed."""
    if name == "conv_general_dilated" and not isinstance(inputs[1], Tracer | _Convolution):
        channels_last = (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)  # as Flax and our own networks have them
        if tuple(params["dimension_numbers"]) == channels_last and params["batch_group_count"] == 1:
            return _Convolution(_value(inputs[0]), np.asarray(inputs[1]), params)
    if name not in ("add", "mul", "sub"):
        return None
    first, second = inputs
    if isinstance(first, _Convolution) and first.takes(second):
        return first.changed(name, second)
    if isinstance(second, _Convolution) and name != "sub" and second.takes(first):
        return second.changed(name, first)
    return None


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
