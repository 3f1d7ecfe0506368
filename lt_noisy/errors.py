"""The one exception that a user can cause, the checks that several rooms raise it by, and how a run says things."""

import contextlib
import difflib
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:  # what a signal says must be there before the second that NumPy takes to load
    import numpy as np


class UserError(ValueError):
    """Something the user can put right. The message is one line: what, where, what would be right.

    Names of files and classes stand in it as they are: `printable` makes the message one line.
    """

    def __init__(self, message: object):
        super().__init__(printable(message))


def printable(text: object) -> str:
    """`text` on one line: line ends, control characters and lone surrogates are written as Python escapes them.

    A surrogate is a byte of a file's name that is not UTF-8.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


@contextlib.contextmanager
def prefixed(where: object) -> Iterator[None]:
    """Puts `where`, such as the field that is at fault, in front of a `UserError` from inside the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


_quiet = False
_print: Callable[[str], object] | None = None  # what prints on standard output while there are bars
_close: Callable[[], object] | None = None  # what takes the bars away


def is_quiet() -> bool:
    """Whether the user wants warnings, errors and results alone."""
    return _quiet


@contextlib.contextmanager
def quieted(quiet: bool) -> Iterator[None]:
    """Inside the block `say` leaves out what only tells how far things are."""
    global _quiet
    before, _quiet = _quiet, quiet
    try:
        yield
    finally:
        _quiet = before


def print_by(print_: Callable[[str], object] | None, close: Callable[[], object] | None) -> None:
    """Has `say` print on standard output by `print_`, and elsewhere after `close`; None: by itself (see `terminal`)."""
    global _print, _close
    _print, _close = print_, close


def say(*lines: object, stream: TextIO | None = None, always: bool = False) -> None:
    """Prints lines, each as `printable` has it, and escapes what the stream cannot encode.

    Once nobody reads the stream any more, as when `tee` has ended first on Ctrl-C, they go nowhere: no run ends unsaved
    for want of a reader.

    Args:
      stream: standard output, unless given.
      always: whether `--quiet` prints them too, as it does warnings, which begin with `note: `, and other streams.
    """
    if stream is None and _quiet and not always and not str(lines[0] if lines else "").startswith("note: "):
        return
    if stream is not None and _close is not None:
        _close()
    target = stream or sys.stdout
    encoding = getattr(target, "encoding", None) or "utf-8"
    text = "\n".join(map(printable, lines)).encode(encoding, "backslashreplace").decode(encoding)
    try:
        if _print is not None:
            _print(text)
        else:
            print(text, file=target, flush=True)
    except BrokenPipeError:
        drain(target)


def drain(stream: TextIO) -> None:
    """Has a stream that nobody reads any more lead nowhere, also for what is flushed at exit."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def require(ok: bool, message: str) -> None:
    """Raises `UserError` with this message unless `ok`."""
    if not ok:
        raise UserError(message)


def check_not_negative(**arguments: float) -> None:
    """Refuses an argument that is negative or not finite."""
    for name, value in arguments.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{name} must be a finite number, at least 0, not {value!r}")


def check_positive(**arguments: float) -> None:
    """Refuses an argument that is 0, negative or not finite."""
    for name, value in arguments.items():
        if not 0 < value < math.inf:
            raise UserError(f"{name} must be a finite number above 0, not {value!r}")


def check_proportion(**arguments: float) -> None:
    """Refuses an argument outside [0, 1]."""
    for name, value in arguments.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} must be in [0, 1], not {value!r}")


def check_below_one(**arguments: float) -> None:
    """Refuses an argument outside [0, 1)."""
    for name, value in arguments.items():
        if not 0 <= value < 1:
            raise UserError(f"{name} must be in [0, 1), not {value!r}")


def check_sizes(**arguments: int) -> None:
    """Refuses an argument below 1."""
    for name, value in arguments.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value!r}")


def removal(path: object) -> str:
    """The command that removes a file or a directory, for a shell."""
    return f"rm -r {shlex.quote(str(path))}"


def did_you_mean(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """`", did you mean 'x'?"` for the closest known name, or the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def first_line(error: Exception) -> str:
    """The first line of what a library's error says, or the name of its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_finite(rows: "np.ndarray", name: str) -> None:
    """Raises `UserError` where a row of `rows` [N, D], called `name`, is not finite."""
    import numpy as np

    finite = np.asarray(np.isfinite(rows).all(-1))
    if not finite.all():
        first = finite.argmin()
        raise UserError(f"{(~finite).sum()} of {len(finite)} rows of {name} are not finite (the first: row {first})")


def check_range(classes: "np.ndarray", num_classes: int, name: str = "labels") -> None:
    """Raises `UserError` where one of `classes` int [N], called `name`, is outside [0, num_classes)."""
    if classes.min() < 0 or classes.max() >= num_classes:
        raise UserError(f"{name} must be in [0, {num_classes}), but they span {classes.min()} to {classes.max()}")
