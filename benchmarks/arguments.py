"""What the command lines of these scripts have in common: a mistake is one line, and said before any work."""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any

# The scripts, which all import this module before the package, run the code of the checkout that they are in.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from lt_noisy.config.arguments import Parser, new_file  # noqa: F401 (for the scripts)
from lt_noisy.errors import UserError
from lt_noisy.files import exit_status


def count(text: str) -> int:
    """A whole number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def duration(text: str) -> float:
    """Seconds, above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def from_record(option: str, path: pathlib.Path, use: Callable[[Any], Any]) -> Any:
    """`use` of the JSON in the file; `UserError`, naming `option`, where it is not what `use` takes."""
    try:
        return use(json.loads(path.read_text()))
    except OSError as error:
        raise UserError(f"{option}={path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{option}={path}: not such a record ({type(error).__name__}: {error})") from None


def run(main: Callable[[list[str]], None]) -> None:
    """Calls `main` with the command line; exits with status 2 and one line of error where something is wrong."""
    sys.exit(exit_status(lambda: main(sys.argv) or 0))
