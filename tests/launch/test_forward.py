"""`benchmarks/forward.sh`: what a script runs hears of its end once, as SIGTERM, and is gone before the script is."""

import os
import signal
import subprocess
import sys

import pytest
from helpers.commands import HANGS, ROOT

CHILD = """
import signal, sys, time
heard = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: heard.append(number))
print("runs", flush=True)
while not heard:
    time.sleep(0.01)
time.sleep(0.5)  # a second signal would come by now
open(sys.argv[1], "w").write(" ".join(map(str, heard)))
sys.exit(143)
"""

# bash cannot trap a signal that was ignored when it began, as SIGINT is in a script's background and SIGHUP by nohup.
HEARS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
os.execvp("bash", ["bash", *sys.argv[1:]])
"""


def script(tmp_path, body):
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "script.sh").write_text(f'set -eu\n. "{ROOT}/benchmarks/forward.sh"\n{body}\n')
    command = [sys.executable, str(tmp_path / "child.py"), str(tmp_path / "heard")]
    command = [sys.executable, "-c", HEARS, str(tmp_path / "script.sh"), *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("way", ["terminal", "kill", "hangup"])
def test_a_signal_comes_once_and_ends_the_script(tmp_path, way):
    started = script(tmp_path, 'forward "$@"\necho "goes on"')
    assert started.stdout.readline() == "runs\n"
    if way == "terminal":  # Ctrl-C goes to all of the script's group
        os.killpg(started.pid, signal.SIGINT)
    else:
        started.send_signal(signal.SIGTERM if way == "kill" else signal.SIGHUP)
    out, _ = started.communicate(timeout=HANGS)
    assert (started.returncode, out) == (143, "")
    assert (tmp_path / "heard").read_text() == str(int(signal.SIGTERM))


def test_the_status_is_the_commands(tmp_path):
    started = script(
        tmp_path, 'forward true\nforward sh -c "exit 3" || echo "status $?"\nforward false\necho "goes on"'
    )
    out, _ = started.communicate(timeout=HANGS)
    assert (started.returncode, out) == (1, "status 3\n")
