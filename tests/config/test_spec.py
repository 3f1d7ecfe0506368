"""Specs: grammar, binding, canonical text, and one clear line for every mistake."""

import pathlib
from typing import Literal

import numpy as np
import pytest

from lt_noisy.config.spec import bind, parse, read, table
from lt_noisy.errors import UserError


def _ce():
    return "ce"


def _la(tau: float = 1.0):
    return ("la", tau)


def _gce(q: float, mode: str = "plain", on: bool = True, sizes: tuple = ()):
    if not 0 < q <= 1:
        raise UserError(f"q is in (0, 1], not {q}")
    return ("gce", q, mode, on, sizes)


class _Loss:
    pass


def _wrap(inner: _Loss, lam: float = 1.0, count: int = 2):
    return ("wrap", inner, lam, count)


def _chain(*parts: _Loss):
    return parts


def _shaped(form: Literal["round", "square"] = "round"):
    return ("shaped", form)


TABLE = {
    "shaped": _shaped,
    "cross_entropy": _ce,
    "logit_adjusted": _la,
    "gce": _gce,
    "superloss": _wrap,
    "chain": _chain,
}


@pytest.mark.parametrize(
    ("text", "built"),
    [
        ("cross_entropy", "ce"),
        ("cross_entropy()", "ce"),
        (" logit_adjusted(2) ", ("la", 2.0)),
        ("logit_adjusted(tau=-0.5)", ("la", -0.5)),
        ("superloss(logit_adjusted(tau=2.0), lam=0.25)", ("wrap", ("la", 2.0), 0.25, 2)),
        ("superloss(superloss(cross_entropy))", ("wrap", ("wrap", "ce", 1.0, 2), 1.0, 2)),
        ("gce(0.7, mode=fancy, on=False, sizes=(1, 2))", ("gce", 0.7, "fancy", False, (1, 2))),
        ("gce(q=1, mode='a/b:c.d')", ("gce", 1.0, "a/b:c.d", True, ())),
        ("chain(cross_entropy, logit_adjusted(3))", ("ce", ("la", 3.0))),
        ("shaped", ("shaped", "round")),
        ("shaped(square)", ("shaped", "square")),
        ("shaped(form='square')", ("shaped", "square")),
    ],
)
def test_bind(text, built):
    assert bind(text, TABLE, "config.loss") == built


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("logit_ajusted(1.0)", "unknown name 'logit_ajusted', did you mean 'logit_adjusted'?"),
        ("superloss(gce(r=0.7))", "gce has no argument 'r'"),
        ("logit_adjusted(tua=1.0)", "did you mean 'tau'? (it accepts logit_adjusted(tau=1.0))"),
        ("superloss()", "missing a required argument: 'inner'"),
        ("logit_adjusted(1, 2)", "too many positional arguments"),
        ("logit_adjusted(tau='x')", "takes float, not 'x'"),
        ("logit_adjusted(tau=True)", "takes float, not True"),
        ("logit_adjusted(tau=x)", "takes float, not x"),
        ("superloss(cross_entropy, count=1.5)", "takes int, not 1.5"),
        ("superloss(3)", "takes a spec, not 3"),
        ("shaped(sqare)", "shaped(form=...) is round or square, not sqare, did you mean 'square'?"),
        ("shaped(square())", "shaped(form=...) is round or square, not square"),
        ("shaped(3)", "shaped(form=...) is round or square, not 3"),
        ("gce(q=2)", "config.loss: gce: q is in (0, 1], not 2.0"),
        ("superloss(gce(q=2))", "config.loss: gce: q is in (0, 1], not 2.0"),
        ("gce(0.5, mode=/photos/x)", "is not a spec (invalid syntax): write a call"),
        ("gce(0.5, mode=/photos/x)", """; text with / : . - or a space is quoted, as in "folder(path='my/photos')\""""),
        ("gce(0.5, mode=a/b)", "'a / b' is not allowed in a spec (only calls, names and literals); text with"),
        ("gce(0.5, mode=a.b)", "; text with / : . - or a space is quoted"),
        ("gce(0.5, mode=a b)", "; text with / : . - or a space is quoted"),
        ("superloss(gce(0.5)", "'superloss(gce(0.5)' is not a spec ('(' was never closed): write a call"),
        ("superloss('gce(')", "'gce(' is not a spec ('(' was never closed)"),
        (
            "40",
            "'40' is a plain value, not a spec: write a call such as 'name(argument=1)' (known: chain, cross_entropy,",
        ),
        (40, "40 is not a spec: write a call such as 'name(argument=1)' (known: chain, cross_entropy,"),
    ],
)
def test_one_line_errors(text, says):
    with pytest.raises(UserError) as error:
        bind(text, TABLE, "config.loss")
    assert says in str(error.value)
    assert str(error.value).startswith("config.loss: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["", "1", "'text'", "(a, b)", "a.b()", "gce(...)", "gce(*x)", "gce(**x)", "gce(1 + 1)", "gce(q=-x)", "f()()",
     "gce(q=1, q=2)", "lambda: 1", "gce(", "(" * 300, "gce(q=1j)", "gce(-True)", "gce(q=b'x')", "x if y else z", "\0"],
)  # fmt: skip
def test_grammar_refuses(text):
    with pytest.raises(UserError, match=r"\Aconfig.loss: .*\Z"):
        read(text, TABLE, "config.loss")


def test_nothing_is_evaluated(tmp_path):
    target = tmp_path / "x"
    with pytest.raises(UserError):
        parse(f"__import__('pathlib').Path({str(target)!r}).touch()")
    assert not target.exists()


def canonical(text):
    return read(text, TABLE, "x").text


def test_canonical_text_is_equal_for_equal_choices():
    texts = [
        "superloss(logit_adjusted)",
        "superloss( logit_adjusted(tau=1), lam=1 )",
        "superloss(inner=logit_adjusted())",
    ]
    canon = {canonical(text) for text in texts}
    assert canon == {"superloss(inner=logit_adjusted(tau=1.0), lam=1.0, count=2)"}
    assert canonical(canon.copy().pop()) in canon
    assert canonical("superloss(cross_entropy)") not in canon


def test_annotations_that_are_text_are_evaluated():
    """As under `from __future__ import annotations`: a text would bind as a nested spec."""
    namespace = {}
    source = "from __future__ import annotations\ndef f(tau: float = 1.0, name: str = 'a'):\n    return tau, name"
    exec(compile(source, "future", "exec", dont_inherit=True), namespace)
    assert bind("f(2, name=b)", table({"f": namespace["f"]}), "x") == (2.0, "b")
    with pytest.raises(UserError, match=r"takes float, not 'x'"):
        bind("f('x')", {"f": namespace["f"]}, "x")


def _listed(sizes: list):
    pass


def _typed(sizes: tuple[int, ...]):
    pass


def _perhaps(size: int | None = None):
    pass


def _array(values: np.ndarray):
    pass


def _numbered(level: Literal[1, 2]):
    pass


def _unsaid(inner):
    pass


def _path(path: pathlib.Path):
    pass


@pytest.mark.parametrize("factory", [_listed, _typed, _perhaps, _array, _numbered, _unsaid, _path])
def test_a_table_refuses_what_nobody_could_write(factory):
    with pytest.raises(TypeError, match=r"\Af\(\w+.*\): no spec can be written for this annotation\Z"):
        table({"f": factory})
