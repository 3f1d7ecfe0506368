"""Whether images fit in memory, asked before they are read: memory that is only promised is taken page by page, and
what takes too much is killed without a word.
"""

import math

from lt_noisy import system
from lt_noisy.errors import UserError

_NOTHING = 2**24  # bytes that are not worth asking for


def check_fits(images: int, shape: tuple[int, ...], where: str) -> None:
    """Refuses, as `where`, to read so many uint8 images of this shape that the main memory does not hold them.

    Raises:
      UserError: with both numbers, and how large images may be.
    """
    needed = images * math.prod(shape)
    if needed < _NOTHING or (free := system.available_bytes()) is None or needed <= free:
        return
    size = "x".join(map(str, shape))
    raise UserError(
        f"{where}: {images} images of {size} take {needed / system.GIB:.1f} GiB of memory, {free / system.GIB:.1f} GiB "
        "are free; all of them must fit: give a smaller size=, or fewer images"
    )
