"""Specs: choices written as calls, such as ``superloss(logit_adjusted(tau=1.0), lam=0.25)``.

A spec is parsed with `ast` (nothing is evaluated) and bound with `inspect.signature` to a factory in
a plain dict table. The factory's signature *is* the documentation of what the user may write: its
parameter names, annotations (`int`, `float`, `bool`, `str`, `tuple`; anything else is a nested
spec) and defaults. Grammar: calls with literal arguments or nested specs. A bare name stands for its own
text where the parameter is a `str`, and for a zero-argument spec elsewhere; text with ``/ : .`` is quoted.
Ellipsis, ``*``, ``**`` and arithmetic are refused; a sign before a number is allowed.
"""

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lt_noisy.errors import UserError, did_you_mean

Table = Mapping[str, Callable[..., Any]]
_LITERAL_TYPES = (bool, int, float, str, tuple)
_RIGHT = "write a call such as 'name(argument=1)'"


class Call(NamedTuple):
    """A parsed spec: `name`, positional `args` and `kwargs`, whose values are literals or `Call`s."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    bare: bool = False  # written without parentheses


def parse(text: str) -> Call:
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
            kwargs = {k.arg: _value(k.value, text) for k in keywords}
            if len(kwargs) < len(keywords):
                raise refuse("a repeated argument")
            return Call(name, tuple(_value(arg, text) for arg in args), kwargs)
        case _:
            raise refuse(repr(ast.unparse(node)))


def signature_text(name: str, factory: Callable[..., Any]) -> str:
    """What the user may write for `factory`, e.g. ``gce(q=0.7)``."""
    parts = []
    for p in inspect.signature(factory).parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            parts.append(f"{p.name}, ...")
        else:
            parts.append(p.name if p.default is p.empty else f"{p.name}={p.default!r}")
    return f"{name}({', '.join(parts)})"


def _resolve(call: Call, table: Table, where: str) -> tuple[Callable[..., Any], inspect.BoundArguments]:
    """Looks `call` up and binds its arguments (defaults applied), nested specs still unbound."""
    if call.name not in table:
        raise UserError(
            f"{where}: unknown name {call.name!r}{did_you_mean(call.name, table)} (known: {', '.join(sorted(table))})"
        )
    factory = table[call.name]
    accepts = signature_text(call.name, factory)
    parameters = inspect.signature(factory).parameters
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
    return factory, bound


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


def _argument(value: Any, parameter: inspect.Parameter, table: Table, where: str, name: str) -> Any:
    """Checks one literal against the parameter's annotation; returns literals ready, specs as `Call`."""
    kind = parameter.annotation
    if kind not in _LITERAL_TYPES:  # a nested spec
        if isinstance(value, str):
            value = _parsed(value, table, where)  # a default, or a quoted spec
        if not isinstance(value, Call):
            raise UserError(f"{where}: {name}({parameter.name}=...) takes a spec, not {value!r}")
        return value
    if isinstance(value, Call) and value.bare and kind is str:
        return value.name
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is tuple and isinstance(value, tuple):
        return value
    if type(value) is not kind:
        shown = value.name if isinstance(value, Call) else repr(value)
        raise UserError(f"{where}: {name}({parameter.name}=...) takes {kind.__name__}, not {shown}")
    return value


def _bound_items(call: Call, table: Table, where: str) -> tuple[Callable[..., Any], list[tuple[str, Any, Any]]]:
    """The factory and its (name, kind, value) arguments; var-positional ones are listed one by one."""
    factory, bound = _resolve(call, table, where)
    items = []
    for key, value in bound.arguments.items():
        parameter = bound.signature.parameters[key]
        values = value if parameter.kind is parameter.VAR_POSITIONAL else (value,)
        items += [(key, parameter.kind, _argument(v, parameter, table, where, call.name)) for v in values]
    return factory, items


def bind(text: str | Call, table: Table, where: str) -> Any:
    """Builds what `text` describes: calls the factory with its nested specs built first.

    Args:
      text: the spec. Nested specs are looked up in the same table.
      table: name -> factory.
      where: the config field, for error messages.

    Raises:
      UserError: text outside the grammar, unknown name, misspelt, missing or ill-typed argument, or a value the
        factory refuses.
    """
    call = _parsed(text, table, where)
    factory, items = _bound_items(call, table, where)
    built = [(k, kind, bind(v, table, where) if isinstance(v, Call) else v) for k, kind, v in items]
    keyword = {k: v for k, kind, v in built if kind is inspect.Parameter.KEYWORD_ONLY}
    try:
        return factory(*[v for _, kind, v in built if kind is not inspect.Parameter.KEYWORD_ONLY], **keyword)
    except UserError as error:
        message = str(error)
        raise UserError(message if message.startswith(where) else f"{where}: {call.name}: {message}") from None


def canonical(text: str | Call, table: Table, where: str) -> str:
    """`text` with every argument written out by name, so that equal choices have equal text."""
    call = _parsed(text, table, where)
    _, items = _bound_items(call, table, where)
    parts = []
    for key, kind, value in items:
        shown = canonical(value, table, where) if isinstance(value, Call) else repr(value)
        parts.append(shown if kind is inspect.Parameter.VAR_POSITIONAL else f"{key}={shown}")
    return f"{call.name}({', '.join(parts)})"
