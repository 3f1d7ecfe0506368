"""launch/local_processes.py with small programs, and what a run makes of being started again and again."""

import subprocess
import sys

import pytest
from helpers.commands import HANGS, ROOT

from lt_noisy import processes
from lt_noisy.errors import UserError
from lt_noisy.runs.starts import count_start

SAYS = f"""
import os
line = " ".join(os.environ[name] for name in {processes.CONTRACT})
os.write(1, f"{{line}}\\n".encode())  # in one piece
"""
FAILS = "import os, sys, time; time.sleep(0 if os.environ['JAX_PROCESS_ID'] == '1' else 1); sys.exit({})"


def run(tmp_path, program, *options):
    """The exit status and what was printed, of three processes."""
    file = tmp_path / "program.py"
    file.write_text(program)
    command = [sys.executable, "launch/local_processes.py", *options, "--", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS)
    return done.returncode, done.stdout, done.stderr


def test_each_has_its_number_and_all_the_same_coordinator(tmp_path):
    status, out, err = run(tmp_path, SAYS, "3")
    addresses, counts, numbers = zip(*(line.split() for line in out.splitlines()), strict=True)
    assert status == 0 and err == ""
    assert len(set(addresses)) == 1 and set(counts) == {"3"} and sorted(numbers) == ["0", "1", "2"]


def test_what_would_run(tmp_path):
    status, out, _ = run(tmp_path, "raise SystemExit(1)", "2", "--dry_run")
    lines = out.splitlines()
    assert status == 0 and len(lines) == 2
    assert all(f"JAX_PROCESS_ID={i} " in line and line.endswith("program.py") for i, line in enumerate(lines))


@pytest.mark.parametrize(("code", "restarts"), [(1, 2), (2, 0), (75, 2), (143, 2)])
def test_all_start_again_but_for_wrong_input(tmp_path, code, restarts):
    status, _, err = run(tmp_path, FAILS.format(code), "2", "--restarts=2")
    assert status == code
    assert err.count("starting all again") == restarts
    assert err.count(f"process 1 of 2 ended with status {code}\n") == restarts + 1  # the first to fail alone is named


@pytest.mark.parametrize("options", [("0",), ("x",), ("2", "--restarts=-1"), ("2", "--again")])
def test_bad_options(tmp_path, options):
    status, _, err = run(tmp_path, "", *options)
    assert status == 2 and "local_processes.py: error: " in err


def test_a_run_gives_up_after_three_starts_without_progress(tmp_path, monkeypatch):
    def found():
        count_start(tmp_path, ["one", "two"])

    found()
    assert list(tmp_path.iterdir()) == []  # one process: nobody starts it again and again
    monkeypatch.setattr(processes, "_count", 2)
    found(), found()
    (tmp_path / "one" / "checkpoints" / "00000008").mkdir(parents=True)
    found(), found(), found()  # new, and two without progress
    with pytest.raises(UserError, match=r"the last 3 starts have made no progress \(stage one, step 8\)"):
        found()
    (tmp_path / "one" / "summary.json").touch()
    found(), found(), found()
    (tmp_path / "two" / "fold_0" / "checkpoints" / "00000004").mkdir(parents=True)
    found()
    (tmp_path / "two" / "summary.json").touch()
    for _ in range(5):  # finished: to look at it again is no failure
        found()
