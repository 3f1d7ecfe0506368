"""What the command lines of the commands have in common: a mistake is one line, and said before any work."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from lt_noisy.errors import UserError, did_you_mean
from lt_noisy.files import path_argument


class Parser(argparse.ArgumentParser):
    """Raises `UserError` for a wrong command line; flags are written out in full.

    Args:
      command: of `lt-noisy`; empty for a script, whose description is printed as it is written.
      keywords: as of `argparse.ArgumentParser`.
    """

    def __init__(self, command: str = "", **keywords: Any):
        if command:
            keywords |= {"prog": f"lt-noisy {command}"}
        else:
            keywords |= {"formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(allow_abbrev=False, **keywords)
        self._command = command or "command line"

    def error(self, message: str) -> NoReturn:
        """In place of argparse's, which prints the usage and exits."""
        name, _, given = message.partition("unrecognized arguments: ")
        near = "" if name else did_you_mean(given.partition("=")[0], list(self._option_string_actions))
        raise UserError(f"{self._command}: {message}{near}; see {self.prog} --help")


def new_file(text: str) -> Path:
    """The path of a file that can be written later."""
    found = path_argument(text)
    if not found.name or found.is_dir() or not found.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no file in a directory that exists")
    return found
