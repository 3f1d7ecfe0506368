"""Bars in a terminal, below the lines that are printed meanwhile; where standard output is none, nothing at all.

Nothing runs beside the program: a bar is drawn when it is told how far things are. Colours are rich's, which leaves
them out where NO_COLOR is set; a terminal that calls itself `dumb` gets no bars.
"""

import os
import sys
import threading
import time
from typing import Any

from lt_noisy import errors

_EVERY = 0.1  # seconds between two drawings, at the least
_lock = threading.RLock()
_display: Any = None  # rich's, while there is a bar


def has_bars() -> bool:
    """Whether standard output is a terminal that can draw a line anew, and the user wants to see it."""
    dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    return not errors.is_quiet() and not dumb and sys.stdout.isatty()


class Bar:
    """How far something long has come, on a line of its own that goes when it is closed.

    Args:
      what: its name.
      total: how many there are to do.
      done: how many of them were done before.
    """

    def __init__(self, what: str, total: int, done: int = 0):
        self._what, self._total, self._before = errors.printable(what), total, done
        self._task: Any = None
        self._drawn, self._closed = 0.0, False

    def at(self, done: int) -> None:
        """So many are done; may be called by several threads."""
        now = time.monotonic()
        if self._closed or (done < self._total and now - self._drawn < _EVERY) or not has_bars():
            return
        with _lock:
            self._drawn, display = now, _shown()
            if self._task is None or self._task not in display.task_ids:
                self._task = display.add_task(self._what, total=self._total, completed=self._before)
            display.update(self._task, completed=done, refresh=True)

    def close(self) -> None:
        """Takes the line away."""
        self._closed = True
        with _lock:
            if _display is not None and self._task in _display.task_ids:
                _display.remove_task(self._task)
                if not _display.task_ids:
                    close()


def _shown() -> Any:
    """Rich's display of all bars, begun where there is none."""
    global _display
    if _display is None:
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
        )
        console = Console(file=sys.stdout, force_jupyter=False)
        _display = progress.Progress(
            *columns,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        _display.start()
        console.show_cursor(True)  # a process that is killed leaves it as it is
        errors.print_by(_print, close)
    return _display


def _print(text: str) -> None:
    """Prints a text above the bars, as it is."""
    with _lock:
        if _display is None:
            print(text, flush=True)
        else:
            _display.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def close() -> None:
    """Takes all bars away: before an error is printed, which goes elsewhere."""
    global _display
    with _lock:
        display, _display = _display, None
        errors.print_by(None, None)
        if display is not None:
            display.stop()
