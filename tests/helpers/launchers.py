"""Stand-ins for the programs that launchers start, and the launchers themselves as processes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

CONTRACT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

# main.py: prints what it was started with, then does what plan.json has for this start of this process.
PROGRAM = f"""
import json, os, pathlib, signal, sys, time

names = {(*CONTRACT, "JAX_LOCAL_DEVICE_IDS", "XLA_FLAGS")!r}
contract = {{name: os.environ.get(name) for name in names}}
print(json.dumps({{"arguments": sys.argv[1:], "pid": os.getpid(), **contract}}), flush=True)
index = int(contract["JAX_PROCESS_ID"] or 0)
log = pathlib.Path(f"started.{{index}}")
start = len(log.read_text()) if log.exists() else 0


def saved(*_):
    print("saved", flush=True)
    os._exit(143)


plan = pathlib.Path("plan.json")
what = json.loads(plan.read_text())[start][index] if plan.exists() else "finish"
if what == "save":
    signal.signal(signal.SIGTERM, saved)
elif what == "wrong":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(2))
elif what == "stay":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
log.write_text("." * (start + 1))  # it listens to signals now
if what.startswith("exit"):
    sys.exit(int(what.split()[1]))
if what == "die":  # once the others listen
    others = int(contract["JAX_NUM_PROCESSES"]) - 1
    while sum(len(path.read_text()) > start for path in pathlib.Path().glob("started.*")) <= others:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
if what != "finish":
    time.sleep(60)
"""


def executable(path, text):
    """Writes a program of this interpreter (without packages, to start fast), or with a first line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.startswith("#!") else f"#!{sys.executable} -IS\n{text}")
    path.chmod(0o755)


def contracts(output):
    """What each process printed of its environment and arguments, by process id; any label before it is left out."""
    lines = [line[line.index("{") :] for line in output.splitlines() if '"arguments"' in line]
    return sorted((json.loads(line) for line in lines), key=lambda found: int(found["JAX_PROCESS_ID"]))


def check_contract(found, count, coordinator):
    """All processes of a run are told one coordinator, their number, and ids that differ."""
    assert [one["JAX_PROCESS_ID"] for one in found] == [str(index) for index in range(count)]
    assert {one["JAX_NUM_PROCESSES"] for one in found} == {str(count)}
    assert {one["JAX_COORDINATOR_ADDRESS"] for one in found} == {coordinator}


# In the background of a shell a process is born deaf to Ctrl-C, and bash cannot change that.
HEARING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"


class Started:
    """A launcher as a process in a group of its own, as a terminal starts it, with stand-ins first on PATH."""

    def __init__(self, command, programs, output):
        self.output = output
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        with output.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-IS", "-c", HEARING, *(str(part) for part in command)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, condition, what):
        """Waits until the condition holds, while the launcher runs."""
        for _ in range(6000):
            if condition():
                return
            assert self.process.poll() is None, f"ended before {what}:\n{self.text()}"
            time.sleep(0.01)
        self.kill()
        raise AssertionError(f"no {what}:\n{self.text()}")

    def finish(self):
        """Returns status and output."""
        try:
            status = self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"never ended:\n{self.text()}") from None
        return status, self.text()

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def text(self):
        return self.output.read_text()
