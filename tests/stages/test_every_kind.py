"""What all kinds of stages have in common."""

import pathlib
import sys

import pytest
from helpers.commands import NOISY, ROOT, SSL

from lt_noisy.config.fields import bind_section
from lt_noisy.config.python_file import read_module
from lt_noisy.config.resolve import resolve, section
from lt_noisy.stages import STAGES


def tiny_run(arguments):
    """The config of a tiny run."""
    return read_module(ROOT / arguments[0].removeprefix("--config=")).get_config()


@pytest.mark.parametrize("name", STAGES)
def test_a_kind_is_one_file_of_its_name(name):
    module = sys.modules[STAGES[name].section.__module__]
    assert module.KIND is STAGES[name] and pathlib.Path(str(module.__file__)).stem == name
    assert module.__doc__ and module.__doc__.startswith(f"Stage `{name}`: ")


@pytest.mark.parametrize("name", STAGES)
def test_its_defaults_bind_and_name_what_there_is(name):
    kind, values = STAGES[name], section(name)
    bound, texts = bind_section({k: v for k, v in values.items() if k != "kind"}, kind.section, name)
    assert isinstance(bound, kind.section) and texts.keys() == set(values) - {"kind"}
    assert set(kind.labels(bound)) <= {"observed", "clean"}
    for reference in kind.inputs.values():
        assert reference.kinds and set(reference.kinds) <= STAGES.keys()
    assert kind.revision >= 1


def test_every_kind_runs_in_a_tiny_run():
    configs = [tiny_run(SSL), tiny_run(NOISY)]
    assert {config[name].kind for config in configs for name in config.stages} == STAGES.keys()


@pytest.mark.parametrize("like", ["density", "supervised", "classifier"])
def test_a_new_kind_comes_last_in_a_tiny_run(monkeypatch, like):
    """With the first stage that it can read, and lengths that take no time."""
    before = tiny_run(NOISY).stages
    monkeypatch.setitem(STAGES, "new", STAGES[like])
    config = tiny_run(NOISY)
    assert config.stages == (*before, "new")
    assert resolve(config).stages[-1].kind is STAGES[like]
    if "init" in STAGES[like].inputs and not STAGES[like].inputs["init"].optional:
        assert config.new.init == "elr"
    assert config.new.get("length", "steps(12)") == "steps(12)"
