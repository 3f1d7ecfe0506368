"""The order of the packages: what imports what, read from the sources."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent / "lt_noisy"

GROUND = (
    "errors",
    "processes",
    "files",
    "hashing",
    "rng",
    "collectives",
    "method",
    "precision",
    "progress",
    "revision",
    "system",
    "terminal",
)
PACKAGES = (
    "config",
    "data",
    "augment",
    "models",
    "losses",
    "objectives",
    "rebalance",
    "mixing",
    "estimate",
    "training",
    "weights",
    "evaluation",
    "stages",
    "runs",
    "finished",
    "api",
)
# Where config files come in: it knows every table, and stands above them all though it lies in `config`.
ENTRANCE = {f"lt_noisy.config.{name}" for name in ("resolve", "identity", "recipes", "command_line")}


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def _of_types(node):
    """Whether it is `if TYPE_CHECKING:`, which no program runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_of(path):
    """The package's own modules that a file imports, at its top or inside a function."""
    names = set()
    tree = ast.parse(path.read_text())
    for_types = {id(inner) for node in tree.body if _of_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (members & set(MODULES)) or {node.module}
    return names & set(MODULES)


GRAPH = {name: imports_of(path) for name, path in MODULES.items()}


def place_of(module):
    """The place of a module's package in the order; the ground comes before all."""
    name = module.split(".")[1] if "." in module else ""
    return -1 if name in ("", *GROUND) else PACKAGES.index(name)


def test_every_package_has_a_place():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(PACKAGES)
    assert {path.stem for path in ROOT.glob("*.py")} - {"__init__"} == set(GROUND)
    assert set(MODULES) >= ENTRANCE


def test_the_graph_holds_what_is_known_of_it():
    assert "lt_noisy.rng" in GRAPH["lt_noisy.data.noise"]  # from lt_noisy import rng
    assert "lt_noisy.stages.supervised" in GRAPH["lt_noisy.stages"]  # from lt_noisy.stages import (...)
    assert "lt_noisy.errors" in GRAPH["lt_noisy.config.spec"]  # from lt_noisy.errors import UserError


@pytest.mark.parametrize("module", sorted(set(MODULES) - ENTRANCE))
def test_a_module_imports_only_from_its_package_and_those_before(module):
    assert [name for name in sorted(GRAPH[module]) if place_of(name) > place_of(module)] == []


def test_no_modules_import_each_other():
    list(graphlib.TopologicalSorter(GRAPH).static_order())  # CycleError names the modules of a circle
