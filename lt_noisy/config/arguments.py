"""What the command lines of these commands have in common: a mistake is one line, and said before any work."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from lt_noisy.errors import UserError
from lt_noisy.files import path_argument


class Parser(argparse.ArgumentParser):
    """Raises `UserError` for a wrong command line; flags are written out in full."""

    def __init__(self, command: str, **keywords: Any):
        super().__init__(prog=f"lt-noisy {command}", allow_abbrev=False, **keywords)

    def error(self, message: str) -> NoReturn:
        """In place of argparse's, which prints the usage and exits."""
        raise UserError(f"{self.prog.removeprefix('lt-noisy ')}: {message}; see {self.prog} --help")


def new_file(text: str) -> Path:
    """The path of a file that can be written later."""
    found = path_argument(text)
    if not found.name or found.is_dir() or not found.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no file in a directory that exists")
    return found
