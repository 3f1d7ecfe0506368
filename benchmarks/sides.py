"""Processes that measure in turns, one quiet while another computes, and what their times say of each other."""

import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from lt_noisy.errors import UserError


class Side:
    """A process that `turns.serve` runs in.

    Raises:
      UserError: it ended by itself.
    """

    def __init__(self, command: list[str], environment: Mapping[str, str] | None = None):
        """`environment`: what it has beside this process's own."""
        self.command = command
        env = {**os.environ, **(environment or {})}
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()

    def _line(self) -> str:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            self.process.communicate()
            raise UserError(f"{' '.join(self.command)} ended with {self.process.returncode}")
        return line

    def seconds(self) -> float:
        """Of one step, measured now."""
        if self.process.stdin:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """Ends it."""
        self.process.terminate()
        self.process.communicate()


@contextlib.contextmanager
def started(
    commands: Mapping[str, list[str]], environments: Mapping[str, Mapping[str, str]] | None = None
) -> Iterator[dict[str, Side]]:
    """A process for each command, with what its environment adds; all have ended afterwards."""
    sides: dict[str, Side] = {}
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            sides[name] = Side(command, (environments or {}).get(name))
            stack.callback(sides[name].close)
        yield sides


def in_turns(sides: Mapping[str, Side], number: int) -> list[dict[str, float]]:
    """So many times the seconds of a step of each."""
    return [{name: side.seconds() for name, side in sides.items()} for _ in range(number)]


def median(turns: Sequence[Mapping[str, float]], name: str) -> float:
    """The median seconds of a side."""
    return statistics.median(turn[name] for turn in turns)


def ratios(turns: Sequence[Mapping[str, float]], name: str, by: str) -> list[float]:
    """The seconds of one side by those of another, turn by turn, to three decimals."""
    return [round(turn[name] / turn[by], 3) for turn in turns]


def spread(numbers: Sequence[float]) -> str:
    """Their median, smallest and largest."""
    return f"{statistics.median(numbers):.2f} ({min(numbers):.2f} to {max(numbers):.2f})"


def versions_of(option: str, python: str, packages: Sequence[str]) -> dict[str, str]:
    """The versions of packages that an interpreter, the value of an option, has.

    Raises:
      UserError: there is no such interpreter, or it lacks one.
    """
    if shutil.which(python) is None:
        raise UserError(f"{option}={python}: no such interpreter")
    code = f"from importlib.metadata import version; print(*map(version, {list(packages)!r}))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if found.returncode:
        names = " and ".join(packages)
        raise UserError(f"{option}={python}: it has no {names} (pip install {' '.join(packages)})")
    return dict(zip(packages, found.stdout.split(), strict=True))


def named_alone(words: Sequence[str], python: str) -> list[str]:
    """The words of a command with an interpreter's name in place of its path, which is of one machine."""
    return [word.replace(python, pathlib.Path(python).name) for word in words]
