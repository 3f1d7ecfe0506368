"""Every command that a page or a config's docstring shows names a config that is there, and overrides that bind."""

import ast
import pathlib
import re
import shlex

import pytest
from helpers.commands import ROOT

from lt_noisy.config.command_line import parse
from lt_noisy.config.resolve import resolve
from lt_noisy.errors import UserError


def _lines(path: pathlib.Path) -> list[str]:
    """The lines of shell on a page, or of a config's docstring, whose remarks stand two blanks behind them."""
    text = path.read_text()
    if path.suffix == ".md":
        blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        return re.sub(r"\\\n\s*", "", "".join(blocks)).splitlines()
    text = re.sub(r"\\\n\s*", "", ast.get_docstring(ast.parse(text)) or "")
    return [re.split(" {2,}", line.strip())[0] for line in text.splitlines() if line.startswith("    ")]


def _commands() -> dict[str, list[str]]:
    """{place and command: its `--config` arguments}."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "configs").glob("*.py"))]
    found = {}
    for page in pages:
        for line in _lines(page):
            own = [word for word in shlex.split(line, comments=True) if word.startswith("--config")]
            if any(word.startswith("--config=") for word in own):
                found[f"{page.relative_to(ROOT)}: {line}"] = own
    return found


COMMANDS = _commands()


def test_pages_and_docstrings_show_commands():
    places = {name.partition(": ")[0] for name in COMMANDS}
    assert {"README.md", "docs/own_data.md", "docs/slurm.md", "configs/cifar10_mixnn.py"} <= places


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_shown_has_a_config_that_binds(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    try:
        resolve(parse(["main.py", *COMMANDS[command]]).config)
    except UserError as error:
        assert "is not installed" in str(error)  # an extra that its page names, and the tests do without
