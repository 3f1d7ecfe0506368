"""Runs N processes of one run on this machine: `--distributed=env`, with what every launcher sets.

    python launch/local_processes.py 2 [--restarts=3] -- main.py --config=configs/x.py --distributed=env [...]

SIGTERM, Ctrl-C and SIGHUP go on to all of them, which save the same step and end with 143. When one ends with an error
the others follow by themselves within the heartbeat of the config; who has not after 60 s is killed. With `--restarts`
all start again, and go on from the last checkpoint, as long as the run makes progress; not after wrong input (status
2), nor when this program was told to stop. The exit status is 0, or that of the process that failed first.
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time

WRONG_INPUT = 2  # of main.py: another start would end alike
GRACE = 60.0  # seconds between the end of one process and the kill of those that stay


def main(argv: list[str]) -> int:
    """Returns the exit status."""
    options, command = _parse(argv)
    if options.dry_run:
        for environment in _environments(options.processes):
            print(shlex.join([*(f"{name}={value}" for name, value in environment.items()), *command]))
        return 0
    stop = _Stop()
    for attempt in range(options.restarts + 1):
        status = _run(command, options.processes, stop)
        if status in (0, WRONG_INPUT) or stop.signal is not None:
            break
        if attempt < options.restarts:
            _say(f"starting all again ({attempt + 1} of {options.restarts})")
    return status


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="local_processes.py", usage="local_processes.py N [options] -- main.py ...")
    parser.add_argument("processes", type=int, help="how many")
    parser.add_argument("--restarts", type=int, default=0, help="how often all start again after a failure")
    parser.add_argument("--dry_run", action="store_true", help="print what would run")
    split = argv.index("--") if "--" in argv else len(argv)
    options, program = parser.parse_args(argv[:split]), argv[split + 1 :]
    if options.processes < 1 or options.restarts < 0:
        parser.error("one process or more, restarts from 0")
    if not program:
        parser.error("give the program after --, such as: -- main.py --config=configs/x.py --distributed=env")
    return options, [sys.executable, *program]


def _environments(count: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count)}
    return [{**common, "JAX_PROCESS_ID": str(i)} for i in range(count)]


class _Stop:
    """The signal that this program got, which it hands on."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.children: list[subprocess.Popen[bytes]] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._hand_on)

    def _hand_on(self, number: int, frame: object) -> None:
        self.signal = number
        for child in self.children:
            if child.poll() is None:
                child.send_signal(number)


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:  # who reads may be gone before all have saved; what is buffered goes nowhere at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _run(command: list[str], count: int, stop: _Stop) -> int:
    """All processes from start to end; the status of the first that failed, or 0."""
    for environment in _environments(count):
        # A session of its own: a terminal's Ctrl-C comes once, from here.
        child = subprocess.Popen(command, env={**os.environ, **environment}, start_new_session=True)
        stop.children.append(child)
    if stop.signal is not None:  # it came when not all were there
        for child in stop.children:
            child.send_signal(stop.signal)
    running, failed, deadline = dict(enumerate(stop.children)), 0, float("inf")
    while running:
        for process, child in list(running.items()):
            if (status := child.poll()) is None:
                continue
            del running[process]
            if status and not failed:
                failed, deadline = _exit_status(status), time.monotonic() + GRACE
                _say(f"process {process} of {count} ended {_how(status)}")
        if time.monotonic() > deadline:
            for process, child in running.items():
                _say(f"process {process} of {count} stays, and is killed")
                child.kill()
            deadline = float("inf")
        time.sleep(0.05)
    stop.children.clear()
    return failed


def _exit_status(status: int) -> int:
    return 128 - status if status < 0 else status


def _how(status: int) -> str:
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
