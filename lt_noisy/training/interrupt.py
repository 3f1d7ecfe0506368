"""SIGTERM, Ctrl-C and SIGHUP: leave at once with the right exit code, or, inside the loop, after a save.

No handler raises. Python runs handlers in the main thread, once that is back from whatever it calls: minutes late while
XLA compiles, and an exception that comes up as the compiler returns ends in a segmentation fault when Python is shut
down. A `print` in a handler may meet the one that it interrupts. So handlers do nothing, and a thread of its own learns
of the signal at once, by `signal.set_wakeup_fd`.

To leave at once is `os._exit`: no `finally`, no shutting down of libraries under work that is under way. It loses
nothing that a kill would not lose: every file is put in place by rename and locks go with the process.

Of several processes none may stop by itself: SIGTERM is left to JAX, which has all of them come to the same call of
`processes.poll` and stop there, with 143; a first Ctrl-C or hang-up of one is passed on as its SIGTERM.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from lt_noisy import processes
from lt_noisy.errors import say

# A hang-up, when a terminal goes, would else leave the processes of a sweep behind.
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


def leave_now(number: int, frame: object = None) -> NoReturn:
    """Ends the process with one line and the signal's exit code; nothing is cleaned up."""
    with contextlib.suppress(OSError):
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(EXIT_CODES[signal.Signals(number)])


def leave_on_signals() -> None:
    """Has the signals end the process as it stands, while libraries load and flags are parsed."""
    _handle(leave_now)


def _handle(handler: Callable[[int, object], object]) -> dict[int, object]:
    """Installs the handler, but for a SIGHUP that is ignored (as under nohup); returns those before.

    JAX's handler of SIGTERM, where it has one, stays: one of Python's would take its place.
    """
    heard = [n for n in EXIT_CODES if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    heard = [n for n in heard if n != signal.SIGTERM or processes.count() == 1]
    return {number: signal.signal(number, handler) for number in heard}


class Interrupts:
    """The signals so far.

    Attributes:
      pending: the signal that came while `deferred`, or None. The loop saves, then leaves the block.
      before_leaving: called, in another thread than the main one, before the process ends at once.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self.before_leaving: Callable[[], object] = lambda: None
        self._deferred = self._passed_on = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Heeds these signals inside the block; a SIGHUP that was ignored before (as under nohup) stays so."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        terminals = [stream for stream in (1, 2) if os.isatty(stream)]  # cannot be asked of one that is gone
        watcher = threading.Thread(target=self._watch, args=(reader, terminals), daemon=True)
        watcher.start()
        fd_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        before = _handle(lambda number, frame: None)
        try:
            with processes.heed(self._stop_together):
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
            signal.set_wakeup_fd(fd_before)
            os.write(writer, b"\0")  # of no signal: ends the thread
            watcher.join()
            os.close(reader)
            os.close(writer)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside the block a first signal only sets `pending`; a second one leaves at once.

        Raises:
          SystemExit: at the end of the block, with 143, 130 or 129, where a signal came.
        """
        with self._lock:
            self._deferred = True
        try:
            yield
        finally:
            with self._lock:
                self._deferred = False
        if self.pending is not None:
            raise SystemExit(EXIT_CODES[signal.Signals(self.pending)])

    def _watch(self, reader: int, terminals: list[int]) -> None:
        while number := os.read(reader, 1)[0]:
            if number not in EXIT_CODES:  # the same pipe tells of every signal that has a handler
                continue
            if number == signal.SIGHUP:
                _silence(terminals)
            if processes.count() > 1 and not self._passed_on:
                self._passed_on = True
                os.kill(os.getpid(), signal.SIGTERM)
                continue
            # Of several processes none stops by itself: `_stop_together` puts it off, for all.
            if processes.count() > 1 or not self._put_off(number):
                self.before_leaving()
                leave_now(number)
            _say_stopping()

    def _stop_together(self) -> None:
        """All processes have come here, for a SIGTERM that one of them got."""
        if self._put_off(signal.SIGTERM):
            _say_stopping()
        elif not self._deferred:
            self.before_leaving()
            processes.leave(EXIT_CODES[signal.SIGTERM])

    def _put_off(self, number: int) -> bool:
        """Whether the signal is left to the block of `deferred`: it is the first one there."""
        with self._lock:
            if not self._deferred or self.pending is not None:
                return False
            self.pending = number
            return True


def _say_stopping() -> None:
    with contextlib.suppress(OSError, ValueError):
        say("stopping: finishing the step and saving (once more to stop at once)")


def _silence(terminals: list[int]) -> None:
    """What is printed to a terminal that is gone is an error, and before the save it would cost steps."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in terminals:
        os.dup2(nowhere, stream)
    os.close(nowhere)
