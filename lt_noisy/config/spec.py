"""Specs: choices written as calls, such as ``superloss(logit_adjusted(tau=1.0), lam=0.25)``.

A spec is parsed with `ast` (nothing is evaluated) and bound with `inspect.signature` to a factory in a table made by
`table`. The factory's signature *is* the documentation of what the user may write: its parameter names, annotations
(`bool`, `int`, `float`, `str`, `tuple`, a `Literal` of texts; a class or a `Callable` is a nested spec) and defaults.
Grammar: calls with literal arguments or nested specs. A bare name stands for its own text where the parameter is a
`str` or a `Literal`, and for a zero-argument spec elsewhere; text with ``/ : .`` is quoted. Ellipsis, ``*``, ``**``
and arithmetic are refused; a sign before a number is allowed.
"""

import ast
import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args, get_origin

from lt_noisy.errors import UserError, did_you_mean

Factory = Callable[..., Any]
Table = Mapping[str, Factory]

_PLAIN = (bool, int, float, str, tuple)
_LIBRARIES = {*sys.stdlib_module_names, "numpy", "jax", "jaxlib"}  # whose classes no factory of a table builds
_RIGHT = "write a call such as 'name(argument=1)'"


class Call(NamedTuple):
    """A parsed spec: `name`, positional `args` and `kwargs`, whose values are literals or `Call`s."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    bare: bool = False  # written without parentheses


class Bound(NamedTuple):
    """What a spec describes: the `value` its factory built, and the `text` with every argument written out by name."""

    value: Any
    text: str


def table(factories: Table) -> Table:
    """`factories`, name -> factory, once it is known that a user can write every parameter of each.

    Raises:
      TypeError: an annotation that is neither a literal's type, nor a `Literal` of texts, nor a nested spec.
    """
    for name, factory in factories.items():
        for parameter in _parameters(factory).values():
            if not _writable(parameter.annotation):
                raise TypeError(f"{name}({parameter}): no spec can be written for this annotation")
    return factories


def _writable(kind: Any) -> bool:
    """Whether a user can write an argument of this annotation: a literal, one of a few texts, or a nested spec."""
    if get_origin(kind) is Literal:
        return all(isinstance(text, str) for text in get_args(kind))
    nested = isinstance(kind, type) and kind.__module__.partition(".")[0] not in _LIBRARIES
    return kind in _PLAIN or nested or get_origin(kind) is Callable


@functools.cache
def _parameters(factory: Factory) -> Mapping[str, inspect.Parameter]:
    """A factory's parameters by name, with annotations evaluated."""
    return inspect.signature(factory, eval_str=True).parameters


def parse(text: Any) -> Call:
    """Parses one spec; raises `UserError` on anything outside the grammar."""
    if not isinstance(text, str):
        raise UserError(f"{text!r} is not a spec: {_RIGHT}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = f" ({error.msg})" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{text!r} is not a spec{why}: {_RIGHT}{_quoting(text)}") from None
    value = _value(tree, text)
    if not isinstance(value, Call):
        raise UserError(f"{text!r} is a plain value, not a spec: {_RIGHT}")
    return value


def _quoting(text: str) -> str:
    """What is likely wrong with text that seems to hold a path, a file name or several words."""
    seems = re.search(r"[/:\\~]|[A-Za-z]\.|\.[A-Za-z]|\w[ -]+[A-Za-z]", text)
    return "; text with / : . - or a space is quoted, as in \"folder(path='my/photos')\"" if seems else ""


def _value(node: ast.expr, text: str) -> Any:
    def refuse(what: str) -> UserError:
        return UserError(f"{text!r}: {what} is not allowed in a spec (only calls, names and literals){_quoting(text)}")

    match node:
        case ast.Constant(value=value) if isinstance(value, (bool, int, float, str)):
            return value
        case ast.Name(id=name):
            return Call(name, bare=True)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=value)) if isinstance(
            value, (int, float)
        ) and not isinstance(value, bool):
            return -value if isinstance(node.op, ast.USub) else value
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return tuple(_value(element, text) for element in elements)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            if any(isinstance(arg, ast.Starred) for arg in args) or any(k.arg is None for k in keywords):
                raise refuse("* or **")
            kwargs = {k.arg: _value(k.value, text) for k in keywords if k.arg is not None}
            if len(kwargs) < len(keywords):
                raise refuse("a repeated argument")
            return Call(name, tuple(_value(arg, text) for arg in args), kwargs)
        case _:
            raise refuse(repr(ast.unparse(node)))


def signature_text(name: str, factory: Factory) -> str:
    """What the user may write for `factory`, e.g. ``gce(q=0.7)``."""
    parts = []
    for p in _parameters(factory).values():
        if p.kind is p.VAR_POSITIONAL:
            parts.append(f"{p.name}, ...")
        else:
            parts.append(p.name if p.default is p.empty else f"{p.name}={p.default!r}")
    return f"{name}({', '.join(parts)})"


def read(text: str | Call, table: Table, where: str) -> Bound:
    """Builds what `text` describes: calls the factory with its nested specs built first.

    Args:
      text: the spec. Nested specs are looked up in the same table.
      table: name -> factory.
      where: the config field, for error messages.

    Returns:
      The value, and the canonical text: equal choices have equal text.

    Raises:
      UserError: text outside the grammar, unknown name, misspelt, missing or ill-typed argument, or a value the
        factory refuses.
    """
    call = _parsed(text, table, where)
    factory, arguments = _arguments(call, table, where)
    positional, keyword, parts = [], {}, []
    for parameter, value in arguments:
        nested = read(value, table, where) if isinstance(value, Call) else Bound(value, repr(value))
        if parameter.kind is parameter.KEYWORD_ONLY:
            keyword[parameter.name] = nested.value
        else:
            positional.append(nested.value)
        varying = parameter.kind is parameter.VAR_POSITIONAL
        parts.append(nested.text if varying else f"{parameter.name}={nested.text}")
    try:
        value = factory(*positional, **keyword)
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith(where) else f"{where}: {call.name}: {message}") from None
    return Bound(value, f"{call.name}({', '.join(parts)})")


def bind(text: str | Call, table: Table, where: str) -> Any:
    """The value of `read`."""
    return read(text, table, where).value


def _parsed(spec: Any, table: Table, where: str) -> Call:
    """`parse`, whose refusals name the field, and what the table knows unless the text starts with one of that."""
    if isinstance(spec, Call):
        return spec
    try:
        return parse(spec)
    except UserError as error:
        begun = isinstance(spec, str) and spec.partition("(")[0].strip() in table
        known = "" if begun else f" (known: {', '.join(sorted(table))})"
        raise UserError(f"{where}: {error}{known}") from None


def _arguments(call: Call, table: Table, where: str) -> tuple[Factory, list[tuple[inspect.Parameter, Any]]]:
    """The factory and its (parameter, value) pairs, defaults applied; var-positional values one by one.

    Literals are checked, nested specs still `Call`s.
    """
    if call.name not in table:
        raise UserError(
            f"{where}: unknown name {call.name!r}{did_you_mean(call.name, table)} (known: {', '.join(sorted(table))})"
        )
    factory = table[call.name]
    accepts, parameters = signature_text(call.name, factory), _parameters(factory)
    for name in call.kwargs:
        if name not in parameters:
            raise UserError(
                f"{where}: {call.name} has no argument {name!r}{did_you_mean(name, parameters)} (it accepts {accepts})"
            )
    try:
        bound = inspect.signature(factory).bind(*call.args, **call.kwargs)
    except TypeError as error:
        raise UserError(f"{where}: {call.name}: {error} (it accepts {accepts})") from None
    bound.apply_defaults()
    pairs = []
    for name, given in bound.arguments.items():
        parameter = parameters[name]
        values = given if parameter.kind is parameter.VAR_POSITIONAL else (given,)
        place = f"{call.name}({name}=...)"
        pairs += [(parameter, _argument(value, parameter.annotation, table, where, place)) for value in values]
    return factory, pairs


def _argument(value: Any, kind: Any, table: Table, where: str, place: str) -> Any:
    """Checks one argument against its annotation; returns literals ready, specs as `Call`."""
    shown = value.name if isinstance(value, Call) else repr(value)
    if get_origin(kind) is Literal:
        text, choices = value.name if isinstance(value, Call) and value.bare else value, get_args(kind)
        if text not in choices:
            hint = did_you_mean(text, list(choices)) if isinstance(text, str) else ""
            raise UserError(f"{where}: {place} is {' or '.join(filter(None, choices))}, not {shown}{hint}")
        return text
    if kind not in _PLAIN:  # a nested spec
        if isinstance(value, str):
            value = _parsed(value, table, where)  # a default, or a quoted spec
        if not isinstance(value, Call):
            raise UserError(f"{where}: {place} takes a spec, not {shown}")
        return value
    if isinstance(value, Call) and value.bare and kind is str:
        return value.name
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{where}: {place} takes {kind.__name__}, not {shown}")
    if isinstance(value, tuple) and (name := _name_in(value)):
        raise UserError(f"{where}: {place} takes literals, not the name {name}; text is quoted")
    return value


def _name_in(values: tuple) -> str:
    """The first name or call among literals, however deep; the empty string without one."""
    names = (v.name if isinstance(v, Call) else _name_in(v) if isinstance(v, tuple) else "" for v in values)
    return next(filter(None, names), "")
