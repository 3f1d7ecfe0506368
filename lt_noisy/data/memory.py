"""Whether images fit in memory, asked before they are read: memory that is only promised is taken page by page, and
what takes too much is killed without a word.
"""

import math

from lt_noisy import system
from lt_noisy.data.images import DTYPES, described, kind_of
from lt_noisy.errors import UserError

_NOTHING = 2**24  # bytes that are not worth asking for


def check_fits(count: int, shape: tuple[int, ...], where: str) -> None:
    """Refuses, as `where`, to read so many images, or vectors, of this shape that the main memory does not hold them.

    Raises:
      UserError: with both numbers, and what would fit.
    """
    kind = kind_of(shape)
    less = "give a smaller size=, or fewer images" if kind == "images" else "give fewer vectors, or shorter ones"
    needed = count * math.prod(shape) * DTYPES[kind].itemsize
    check_bytes(needed, f"{where}: {count} {described(shape)} take", f"all of them must fit: {less}")


def check_bytes(needed: int, what: str, remedy: str) -> None:
    """Refuses what the main memory does not hold: `what` (`"data.npz takes"`), both numbers, and `remedy`."""
    if needed < _NOTHING or (free := system.available_bytes()) is None or needed <= free:
        return
    raise UserError(f"{what} {needed / system.GIB:.1f} GiB of memory, {free / system.GIB:.1f} GiB are free; {remedy}")
