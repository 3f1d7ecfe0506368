"""What each process says of itself: `log/process_<i>.jsonl` in the workdir, a JSON object a line, only ever added to.

A line is written at once; `read` skips one that a kill cut short. A log that cannot be written, such as for
want of room, is no reason to stop.
"""

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import jax

from lt_noisy import processes, system
from lt_noisy.errors import first_line

DIRECTORY = "log"  # in the workdir


class HostLog:
    """The log of this process; without a directory nothing is written.

    Args:
      directory: the workdir.
    """

    def __init__(self, directory: pathlib.Path | None = None):
        self.path = None if directory is None else directory / DIRECTORY / f"process_{processes.index()}.jsonl"
        self._told = True  # that the process has started

    def write(self, event: str, **values: Any) -> None:
        """Adds a line: time, host, event, and what is given."""
        if self.path is None:
            return
        if not self._told:
            self._told = True
            self._end_half_a_line()
            self.write("process started", process=processes.index(), processes=processes.count(), pid=os.getpid())
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": now, "host": socket.gethostname(), "event": event, **values}) + "\n"
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab", buffering=0) as file:
                file.write(line.encode())

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Tells of the start of the process's work, and of its end: finished, stopped by a signal, or an error.

        Where there is nothing to tell between them, as of a run whose stages are all finished, it tells of neither.
        """
        self._told = False
        try:
            yield
        except SystemExit as stop:
            self.write("process stopped", status=stop.code)
            raise
        except BaseException as error:
            line = first_line(error) if isinstance(error, Exception) else ""
            self.write("error", error=f"{type(error).__name__}: {line[:500]}")
            raise
        if self._told:
            self.write("process finished")
        self._told = True

    def _end_half_a_line(self) -> None:
        """What a kill has cut short must not take the next line with it."""
        if self.path is None or not self.path.exists() or not self.path.stat().st_size:
            return
        with contextlib.suppress(OSError), open(self.path, "r+b", buffering=0) as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def memory() -> dict[str, int]:
    """Bytes that the process takes of its host, and of the fullest of its devices now and at most, as far as known."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    found = {
        "host_bytes": system.resident_bytes(),
        "device_bytes": max((s["bytes_in_use"] for s in stats if "bytes_in_use" in s), default=None),
        "device_bytes_peak": max((s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s), default=None),
    }
    return {name: number for name, number in found.items() if number is not None}


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a log, without those that a kill cut short."""
    lines = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines
