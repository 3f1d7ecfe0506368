"""Lines that tell how far something long has come; in a terminal a bar in their place."""

import time

from lt_noisy.errors import say
from lt_noisy.terminal import Bar, has_bars

_EVERY = 5.0  # seconds
_BAR_AFTER = 1.0  # seconds


def remaining(seconds: float) -> str:
    """The end of a line of progress: the time until all is done, hours:minutes:seconds."""
    left = round(seconds)
    return f"ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"


class Progress:
    """Says every few seconds how many of `total` are done, and when the rest will be; nothing of what ends sooner.

    Args:
      what: such as "decoding photos".
      total: how many there are.
    """

    def __init__(self, what: str, total: int):
        self._what, self._total, self._done = what, total, 0
        self._began = self._said = time.monotonic()
        self._bar = Bar(what, total)

    def add(self, number: int = 1) -> None:
        """So many more are done; may be called by several threads."""
        self._done += number
        now = time.monotonic()
        if has_bars():
            if self._done >= self._total:
                self._bar.close()
            elif now - self._began >= _BAR_AFTER:
                self._bar.at(self._done)
            return
        if now - self._said < _EVERY or self._done >= self._total:
            return
        self._said = now
        left = (now - self._began) / self._done * (self._total - self._done)
        share = 100 * self._done // self._total
        say(f"{self._what}: {self._done:,} of {self._total:,} ({share} %), {remaining(left)}")
