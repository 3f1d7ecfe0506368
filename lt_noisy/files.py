"""Files that are whole or not there: written under another name, then renamed; read with one line for what is wrong.

And the paths that users write.
"""

import argparse
import contextlib
import csv
import errno
import fcntl
import json
import os
import pathlib
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from lt_noisy import processes
from lt_noisy.errors import UserError, drain, first_line, say

MIB = 2**20
# Faults of a disk that others share, which may be gone at the next start. Not every system has all of them.
_PASSING = {
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "EREMOTEIO", "ETIMEDOUT", "EAGAIN", "ENOTCONN", "ECONNRESET", "ECONNABORTED"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET", "ESHUTDOWN"),
    )
    if hasattr(errno, name)
}
_LESS = "a smaller batch_size, smaller images or more devices take less"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet computes, or may


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Gives an `OSError` of the block, such as that of a write to a full disk, the path that it lacks."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def may_pass(error: Exception) -> bool:
    """Whether it is the fault of a disk or a network that may be gone at the next start."""
    return isinstance(error, OSError) and error.errno in _PASSING


def fault(error: Exception) -> tuple[str, int] | None:
    """One line for what the machine did not give, room on a disk or memory, and the exit status; None for other errors.

    The status is 2, or `LOST` where a launcher that starts all processes again may find the fault gone.
    """
    if isinstance(error, OSError):
        return _os_error_line(error), processes.LOST if may_pass(error) and processes.count() > 1 else 2
    if isinstance(error, MemoryError):
        return f"out of memory: {first_line(error)}; {_LESS}", 2
    if type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error):
        import jax  # it is in use

        return f"out of memory on {jax.local_devices()[0].device_kind}: {first_line(error)[:300]}; {_LESS}", 2
    return None


def _os_error_line(error: OSError) -> str:
    """What went wrong and where; for a disk or a quota that is full, what is free there and what to do."""
    line = error.strerror or first_line(error)
    if error.filename:
        line = f"{error.filename}: {line}"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return line
    place = pathlib.Path(error.filename or ".").absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / MIB
    return f"{line} ({free:.1f} MiB free there); make room, and the same command goes on from the last checkpoint"


def exit_status(command: Callable[[], int]) -> int:
    """The exit status of a command: what it returns, or that of one line that says what its user or the system did."""
    try:
        return command()
    except BrokenPipeError:  # a reader of rows, such as `head`, has read enough
        drain(sys.stdout)
        return 0
    except UserError as error:
        say(f"error: {error}", stream=sys.stderr)
        return 2
    except (OSError, MemoryError, RuntimeError) as error:
        if (found := fault(error)) is None:
            raise
        line, status = found
        say(f"error: {line}", stream=sys.stderr)
        return status


def take_lock(file: IO[str], where: object) -> bool:
    """Takes the lock of an open file, or tells that another process has it; refuses a file system without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if may_pass(error):
            raise
        raise UserError(f"{where}: its file system gives no locks ({error.strerror}); choose one that does") from None
    return True


def user_path(text: str) -> pathlib.Path:
    """The path that a user wrote in a spec or a flag, in which no shell has turned `~` into the home directory.

    Raises:
      UserError: there is no such home directory. What is really called `~x` is written `./~x`.
    """
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        name = text.partition("/")[0]
        raise UserError(f"{text}: there is no home directory {name}; for what is really called that write ./{name}")
    return pathlib.Path(expanded)


def path_argument(text: str) -> pathlib.Path:
    """`user_path` as argparse takes it, which hides what a `ValueError` says."""
    try:
        return user_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@contextlib.contextmanager
def replacing(path: pathlib.Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """A file that takes the place of `path` at the end of the block: whole and on the disk, or not at all.

    Of several processes the first alone does it; what the others write is lost.

    Args:
      path: what is replaced, in a directory that exists.
      mode: as of `open`; text is UTF-8, whatever the locale.
      options: as of `open`.
    """
    if "b" not in mode:
        options = {"encoding": "utf-8", **options}
    if not processes.first():
        with tempfile.TemporaryFile(mode, **options) as file:
            yield file
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with naming(path), open(temporary, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # or the new name is lost with the power
    finally:
        os.close(directory)


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes JSON, see `replacing`; refuses NaN."""
    with replacing(path, "w") as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")


def write_table(path: pathlib.Path, heading: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV for people, see `replacing`: what spreadsheets show right and compute nothing of.

    UTF-8 with the mark by which they know it (`utf-8-sig`); text that begins as a formula does has an apostrophe before
    it. A file's name need not be text: what is not is written as the bytes that it was.
    """
    with replacing(path, "w", newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heading)
        writer.writerows([safe_cell(cell) for cell in row] for row in rows)


def safe_cell(cell: object) -> object:
    """A cell of a table in which no spreadsheet sees a formula: an apostrophe before text that begins as one.

    Text that begins with such apostrophes already gets one more, so that `cell_text` gives it back as it was.
    """
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip("'")[:1] in _FORMULA else cell


def cell_text(cell: str) -> str:
    """What was written as a `safe_cell`."""
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'")[:1] in _FORMULA else cell


def has_text(path: pathlib.Path, text: str) -> bool:
    """Whether a file is there and holds this text, ASCII, in its first 100,000 bytes."""
    try:
        with open(path, "rb") as file:
            return text.encode() in file.read(100_000)
    except OSError:
        return False


def write_arrays(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """Writes an `.npz`, see `replacing`."""
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_arrays(path: pathlib.Path, *names: str) -> list[np.ndarray]:
    """These arrays of a finished stage's `.npz`; of several processes the first reads.

    Raises:
      UserError: the file is missing or damaged, or has no such array.
    """
    return processes.once(lambda: _load_arrays(path, names))


def _load_arrays(path: pathlib.Path, names: Sequence[str]) -> list[np.ndarray]:
    try:
        with open(path, "rb") as file, np.load(file) as arrays:  # np.load leaves a damaged file of its own open
            return [arrays[name] for name in names]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if may_pass(error):
            raise
        raise UserError(f"{path} cannot be read ({error}); remove {path.parent} to make it again") from None


def read_array(path: str, key: str) -> np.ndarray:
    """The array of an `.npy` file (no key), or array `key` of an `.npz` file, at a path that a user wrote."""
    try:
        with open(user_path(path), "rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                found = {"": found}
            if key in found:
                return found[key]
            names = ", ".join(filter(None, found)) or "one array without a name"
        raise UserError(f"{path} has no array {key!r} (it has {names})")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except Exception as error:  # a broken file raises anything from OSError to zlib.error
        raise UserError(f"{path} is not a readable array file ({type(error).__name__})") from None


def show(text: str) -> None:
    """Prints what the user asked to see."""
    say(*text.splitlines(), always=True)
