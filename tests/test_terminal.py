"""Bars in a terminal; none, and the lines as they are, elsewhere; and what `--quiet` leaves."""

import io
import os
import pty
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import layouts
from helpers.commands import HANGS, ROOT

from lt_noisy import progress, terminal
from lt_noisy.errors import quieted, say
from lt_noisy.progress import Progress
from lt_noisy.terminal import Bar, has_bars

COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;[25];[0-9;]+)[0-9;]*m")


class Terminal(io.StringIO):
    """Standard output that says it is one."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def tty(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(terminal, "_EVERY", 0.0)
    stream = Terminal()

    def attach():  # in the test itself: pytest has an output of its own for each of its parts
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    yield attach
    terminal.close()


def test_a_bar_stands_below_the_lines_and_goes(tty):
    tty = tty()
    bar = Bar("finetune [x]", 100, 20)
    bar.at(40)
    line = "finetune 40/100 (40%)  loss 1  [bold]as it is[/bold] :smile: " + "x" * 120
    say(line)
    bar.at(60)
    shown = tty.getvalue()
    assert "finetune [x]" in shown and "60/100" in shown and "60%" in shown
    assert line in shown  # neither wrapped nor marked up
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")  # the cursor is there
    bar.close()
    said = len(tty.getvalue())
    say("the end")
    assert tty.getvalue()[said:] == "the end\n"
    bar.at(100)  # closed
    assert tty.getvalue()[said:] == "the end\n"


def test_two_bars_share_the_terminal_and_an_error_takes_both_away(tty):
    tty = tty()
    outer, inner = Bar("finetune", 10), Bar("a network on images", 500)
    outer.at(1)
    inner.at(200)
    assert "200/500" in tty.getvalue()
    inner.close()
    outer.at(2)
    errors = io.StringIO()
    say("error: x", stream=errors)
    assert errors.getvalue() == "error: x\n" and terminal._display is None
    outer.at(3)  # whoever goes on is shown again
    assert "3/10" in tty.getvalue()
    outer.close()
    assert terminal._display is None


def test_progress_is_a_bar_in_a_terminal_and_lines_elsewhere(tty, monkeypatch):
    tty = tty()
    clock = iter([0.0, 0.5, 2.0, 7.0, 8.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock, 9.0))
    told = Progress("decoding", 100)
    for _ in range(3):
        told.add(20)
    assert "decoding" in tty.getvalue() and "decoding:" not in tty.getvalue()
    told.add(40)
    assert terminal._display is None

    monkeypatch.setattr(sys, "stdout", plain := io.StringIO())
    clock = iter([0.0, 6.0])
    Progress("decoding", 100).add(50)
    assert plain.getvalue() == "decoding: 50 of 100 (50 %), ETA 0:00:06\n"


@pytest.mark.parametrize(
    ("name", "value", "bars", "coloured"),
    [("X", "", True, True), ("NO_COLOR", "1", True, False), ("TERM", "dumb", False, False), ("TERM", "", False, False)],
)
def test_colours_and_bars_are_off_where_the_environment_says_so(tty, monkeypatch, name, value, bars, coloured):
    monkeypatch.setenv(name, value)
    tty = tty()
    Bar("finetune", 10).at(5)
    assert has_bars() == bars and ("5/10" in tty.getvalue()) == bars
    assert bool(COLOUR.search(tty.getvalue())) == coloured


def test_quiet_leaves_warnings_errors_and_results(tty):
    tty = tty()
    with quieted(True):
        Bar("finetune", 10).at(5)
        say("finetune 5/10", "note: as of a list")
        say("note: a warning")
        say("summary", always=True)
        say("error: x", stream=(errors := io.StringIO()))
    assert tty.getvalue() == "note: a warning\nsummary\n" and errors.getvalue() == "error: x\n"
    say("finetune 10/10")
    assert tty.getvalue().endswith("summary\nfinetune 10/10\n")


def _run(env, *arguments, stdout):
    root = arguments[0]
    command = [
        *[sys.executable, "main.py", "--config=tests/helpers/features_config.py", "--config.stages=('base',)"],
        *[f"--config.{field}=features(path='{root}/features.npz')" for field in ("dataset", "labels.pool")],
        *arguments[1:],
    ]
    return subprocess.run(command, env=env, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=HANGS)


def _read(leader):
    """All that a terminal is shown."""
    shown = b""
    try:
        while block := os.read(leader, 65536):
            shown += block
    except OSError:  # the other end is closed
        pass
    return shown


def test_a_run_in_a_terminal_and_a_quiet_one(env, tmp_path):
    """The lines are those of a run whose output is no terminal; a quiet one shows its table alone."""
    layouts.features(tmp_path)
    leader, follower = pty.openpty()
    env = {**env, "TERM": "xterm", "COLUMNS": "200"}
    with ThreadPoolExecutor(1) as pool:  # a terminal that nobody reads fills up, and the program waits for it
        shown = pool.submit(_read, leader)
        done = _run(env, tmp_path, f"--workdir={tmp_path / 'shown'}", stdout=follower)
        os.close(follower)
    os.close(leader)
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.result().decode())
    for line in ("base: first step done", "base 12/12 (100%)", "  test accuracy", "summary: "):
        assert re.search(rf"^{re.escape(line)}", text.replace("\r", "\n"), re.MULTILINE)
    assert "12/12" in text and "━" in text

    done = _run(env, tmp_path, f"--workdir={tmp_path / 'quiet'}", "--quiet", stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.match(r"base: [\d,]+ parameters, 12 steps, ", lines[0]) and lines[-1].startswith("summary: ")
    assert all(line.startswith("  ") for line in lines[1:-1])
