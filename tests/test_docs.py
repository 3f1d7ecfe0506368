"""The project's papers: pages that stand in the navigation, a version in one place, a program that installs."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest
from helpers.commands import ROOT

import lt_noisy
from lt_noisy.runs import cli

DOCS = ROOT / "docs"
SETUP = (ROOT / "setup.py").read_text()


def _nav():
    """The pages that mkdocs.yml names; its tags for Python objects are no plain YAML."""
    text = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    return re.findall(r"[\w/]+\.md", text)


@pytest.mark.parametrize("page", sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")))
def test_a_page_stands_in_the_navigation_once(page):
    assert _nav().count(page) == 1


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / "reference").glob("*.md"))
)
def test_a_page_of_the_reference_names_modules_that_are_there(page):
    names = re.findall(r"^::: (\S+)$", (DOCS / page).read_text(), re.MULTILINE)
    assert names
    for name in names:
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_every_file_that_a_page_names_is_there():
    """Of the repository, in code: `lt_noisy/...`, `tests/...`, `configs/...`."""
    for page in (DOCS / "architecture.md", DOCS / "index.md", ROOT / "CONTRIBUTING.md"):
        for name in re.findall(r"`((?:lt_noisy|tests|configs|docs)/[\w/.]+)`", page.read_text()):
            assert "NAME" in name or (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_architecture_page_has_the_order_that_the_layers_test_holds():
    tree = ast.parse((ROOT / "tests" / "test_layers.py").read_text())
    (packages,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGES"
    )
    order = re.findall(r"^\| `(\w+)` \|", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    assert tuple(order) == packages


def test_the_version_stands_in_one_place():
    files = ("setup.py", "pyproject.toml", "CITATION.cff", "mkdocs.yml", "lt_noisy/__init__.py")
    holding = [name for name in files if lt_noisy.__version__ in (ROOT / name).read_text()]
    assert holding == ["lt_noisy/__init__.py"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[(\d.*?)\]", changelog, re.MULTILINE)
    assert newest is None or newest[1] == lt_noisy.__version__


def test_the_installed_program_is_the_same_function_from_any_directory(tmp_path):
    target = re.search(r'"lt-noisy = ([\w.]+):(\w+)"', SETUP)
    assert target and (sys.modules[target[1]], getattr(cli, target[2])) == (cli, cli.start)
    script = f"import sys; from {target[1]} import {target[2]}; sys.exit({target[2]}())"  # as pip writes it
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    config = ROOT / "configs" / "digits_lt_noise.py"
    command = [sys.executable, "-c", script, f"--config={config}", "--config.seed=one"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: --config.seed takes int, not 'one'\n")


def test_types_are_shipped_and_the_licence_is_whole():
    assert (pathlib.Path(lt_noisy.__file__).parent / "py.typed").is_file() and '"lt_noisy": ["py.typed"]' in SETUP
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence and "END OF TERMS AND CONDITIONS" in licence


def test_ci_builds_the_docs_last_and_as_the_contributors_do():
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.strip()]
    assert "'.[docs]'" in lines[-2] and lines[-1].endswith("mkdocs build --strict")
    assert "mkdocs build --strict" in (ROOT / "CONTRIBUTING.md").read_text()
