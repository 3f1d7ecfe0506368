"""Signals at every moment of a run: the right exit code, one line, and nothing lost."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from helpers.commands import HANGS, ROOT, STOPPER, metrics_of, run, summary_of

from lt_noisy.training.interrupt import Interrupts

# One stage of four steps, saved and evaluated every two.
CONFIG = [
    "--config=configs/digits_lt_noise.py:small",
    "--config.devices=1",
    "--config.model=resnet8(width=4)",
    "--config.dataset=digits(test_per_class=20)",
    "--config.stages=('finetune',)",
    "--config.finetune.init=none()",
    "--config.finetune.length=steps(4)",
    "--config.finetune.log_every=steps(2)",
    "--config.finetune.eval_every=steps(2)",
    "--config.finetune.save_every=steps(2)",
]
CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129}


@pytest.mark.parametrize(
    ("name", "moment", "saved"),
    [
        ("SIGTERM", "in data loading", None),
        ("SIGTERM", "in a compilation", None),
        ("SIGINT", "in a compilation", None),
        ("SIGHUP", "in a compilation", None),
        ("SIGINT", "before the loop", None),
        ("SIGHUP", "in an evaluation", 3),  # of step 2: a round asks once, before it
        ("SIGINT", "during a save", 3),
        ("SIGTERM", "during a save, twice", None),
        ("SIGTERM", "while the summary is written", None),
    ],
)
def test_a_signal_at_any_moment_has_its_exit_code_and_one_line(env, tmp_path, name, moment, saved):
    began = time.perf_counter()
    stopped = run(env, tmp_path, program=(STOPPER, name, moment), config=CONFIG)
    assert stopped.returncode == CODES[name], stopped.stderr
    assert time.perf_counter() - began < HANGS / 2
    if saved is None:
        assert stopped.stderr == f"stopped by {name}\n"
        assert "saved at step" not in stopped.stdout
    else:
        assert stopped.stderr == "" and "stopping: finishing the step and saving" in stopped.stdout
        assert f"finetune: saved at step {saved} of 4; the same command goes on from there" in stopped.stdout
        assert (tmp_path / "finetune" / "checkpoints" / f"{saved:08d}").is_dir()
    assert not (tmp_path / "finetune" / "summary.json").exists()


def test_a_run_that_was_stopped_at_every_moment_is_the_same_run(env, tmp_path):
    whole = run(env, tmp_path / "whole", config=CONFIG)
    assert whole.returncode == 0, whole.stderr
    for moment in ("before the loop", "in an evaluation", "during a save, twice", "while the summary is written"):
        run(env, tmp_path / "cut", program=(STOPPER, "SIGTERM", moment), config=CONFIG)
    rest = run(env, tmp_path / "cut", config=CONFIG)
    assert rest.returncode == 0 and "finetune: resuming from step 4 of 4" in rest.stdout, rest.stdout
    ours, theirs = (summary_of(tmp_path / name, "finetune") for name in ("cut", "whole"))
    assert ours["params_sha256"] == theirs["params_sha256"] and ours["test"] == theirs["test"]
    assert metrics_of(tmp_path / "cut", "finetune") == metrics_of(tmp_path / "whole", "finetune")


@pytest.mark.parametrize("program", ["main.py", "launch/sweep.py"])
@pytest.mark.parametrize("name", CODES)
def test_a_signal_while_libraries_load(env, program, name):
    """Sent by the first import of NumPy, before anything else of the program runs."""
    code = (
        "import builtins, os, runpy, signal, sys, time\n"
        f"signal.signal(signal.{name}, signal.SIG_DFL)\n"  # tests may run under nohup
        "sys.path.insert(0, '.'); real = builtins.__import__\n"
        "def imported(name, *rest):\n"
        "    if name == 'numpy':\n"
        f"        os.kill(os.getpid(), signal.{name}); time.sleep({HANGS})\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = imported\n"
        f"runpy.run_path({program!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (CODES[name], f"stopped by {name}\n")


IN_A_BLOCK = """
import os, signal, sys, time
sys.path.insert(0, ".")
from lt_noisy.training.interrupt import Interrupts
interrupts = Interrupts()
with interrupts.installed(), interrupts.deferred():
    print("ready", flush=True)
    while interrupts.pending is None:
        time.sleep(0.01)
    print("saving", flush=True)
    with open(sys.argv[1], "w") as file:
        file.write("saved")
"""


def test_a_terminal_that_goes_costs_no_save(tmp_path):
    """What is printed to it from then on would be an error; it is not printed."""
    ours, terminal = pty.openpty()
    code = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n{IN_A_BLOCK}"  # tests may run under nohup
    command = [sys.executable, "-c", code, tmp_path / "file"]
    with subprocess.Popen(command, cwd=ROOT, stdout=terminal, stderr=terminal, start_new_session=True) as child:
        os.close(terminal)
        said = b""
        while not said.endswith(b"\n"):  # else the terminal goes in the middle of that line
            said += os.read(ours, 100)
        assert b"ready" in said
        child.send_signal(signal.SIGHUP)
        os.close(ours)
        assert child.wait(HANGS) == 129
    assert (tmp_path / "file").read_text() == "saved"


def test_an_ignored_hangup_stays_ignored(tmp_path):
    """As under nohup."""
    code = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{IN_A_BLOCK}"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "file"], cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        child.send_signal(signal.SIGTERM)
        assert child.wait(HANGS) == 143


def test_what_was_installed_before_is_back_afterwards():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    interrupts = Interrupts()
    with pytest.raises(SystemExit) as left, interrupts.installed(), interrupts.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        while interrupts.pending is None:
            time.sleep(0.01)
    assert left.value.code == 130
    assert {number: signal.getsignal(number) for number in before} == before
