"""SIGTERM and Ctrl-C: leave at once with the right exit code, or, inside the loop, after a save."""

import contextlib
import signal
from collections.abc import Iterator

# A hang-up, when a terminal goes, would else leave the processes of a sweep behind.
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


class Interrupts:
    """What the handlers saw.

    Attributes:
      pending: the signal that came while `deferred`, or None. The loop saves, then calls `leave`.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._deferred = False

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handles these signals inside the block."""
        before = {number: signal.signal(number, self._handle) for number in EXIT_CODES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside the block a first signal only sets `pending`; a second one leaves at once."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.pending is not None:
            self.leave()

    def leave(self) -> None:
        """Exits with 143 or 130."""
        raise SystemExit(EXIT_CODES[signal.Signals(self.pending)])

    def _handle(self, number: int, frame: object) -> None:
        again, self.pending = self.pending is not None, number
        if again or not self._deferred:
            self.leave()
        print("stopping: finishing the step and saving (once more to stop at once)", flush=True)
