"""Images in memory, or on the disk and decoded when they are asked for: to their readers one and the same.

`Images` is an array uint8 [N, H, W, C] or `Stored`, which has an array's `shape`, `len` and row selection, every
selection being read anew. What goes over all of them takes `blocks`.

Where a data set has vectors in place of images, they are float32 [N, D] and go the same way. The shape of an example
says which it is (`kind_of`), and so the dtype (`DTYPES`): all else that is said of images here holds for them too.
"""

import collections
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from lt_noisy import system
from lt_noisy.data.boxes import Cut
from lt_noisy.hashing import array_sha256

Read = Callable[[np.ndarray], np.ndarray]  # rows int [n] -> [n, H, W, C]
# The same of a part of each picture, cut by the draws float [n, DRAWS].
ReadCut = Callable[[np.ndarray, Cut, np.ndarray], np.ndarray]
_AHEAD_BYTES = 2**28  # of blocks that are read, by a thread each, while one is used

DTYPES = {"images": np.dtype(np.uint8), "vectors": np.dtype(np.float32)}  # by kind


def kind_of(shape: tuple[int, ...]) -> str:
    """What examples of this shape are: `images` [H, W, C] or `vectors` [D]."""
    return "vectors" if len(shape) == 1 else "images"


def described(shape: tuple[int, ...]) -> str:
    """`"images of 32x32x3"`, `"vectors of 512"`."""
    return f"{kind_of(shape)} of {'x'.join(map(str, shape))}"


class Stored:
    """Images that are read by row.

    Attributes:
      read: of a source's split; may be called by several threads at once.
      rows: int [N], the rows of the split that these are.
      shape: (N, H, W, C), or (N, D) of vectors.
      dtype: uint8, or float32 of vectors.
      read_cut: reads parts of the pictures that the images are made of; None where there are none.
    """

    def __init__(self, read: Read, rows: np.ndarray, shape: tuple[int, ...], read_cut: ReadCut | None = None):
        self.read, self.rows, self.read_cut = read, rows, read_cut
        self.shape = (len(rows), *shape)
        self.ndim, self.dtype = len(self.shape), DTYPES[kind_of(shape)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """[n, H, W, C], read now."""
        wanted = self.rows[rows]
        return self.read(wanted) if len(wanted) else np.empty((0, *self.shape[1:]), self.dtype)

    def cut(self, rows: np.ndarray, cut: Cut, draws: np.ndarray) -> np.ndarray:
        """uint8 [n, H, W, C], of each row the part of its picture that `cut` draws from `draws` [n, DRAWS]."""
        if self.read_cut is None:
            raise ValueError("these images are not made of larger pictures")
        return self.read_cut(self.rows[rows], cut, draws)

    @property
    def nbytes(self) -> int:
        """What they would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


Images = np.ndarray | Stored


def subset(images: Images, rows: np.ndarray) -> Images:
    """These rows (int [n]) alone; nothing is read."""
    if isinstance(images, Stored):
        return Stored(images.read, images.rows[rows], images.shape[1:], images.read_cut)
    return images[rows]


def joined(first: Images, second: Images) -> Images:
    """The second after the first, in memory where both are."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.concatenate([first, second])
    border, shape = len(first), first.shape[1:]

    def parts(rows: np.ndarray, read: Callable[[Images, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        out, later = np.empty((len(rows), *shape), first.dtype), rows >= border
        for part, mask, start in ((first, ~later, 0), (second, later, border)):
            if mask.any():
                out[mask] = read(part, rows[mask] - start, mask)
        return out

    def cut_both(rows: np.ndarray, cut: Cut, draws: np.ndarray) -> np.ndarray:
        return parts(rows, lambda part, rows, mask: part.cut(rows, cut, draws[mask]))  # pyright: ignore

    cuttable = all(isinstance(part, Stored) and part.read_cut is not None for part in (first, second))
    return Stored(
        lambda rows: parts(rows, lambda part, rows, _: part[rows]),
        np.arange(border + len(second)),
        shape,
        read_cut=cut_both if cuttable else None,
    )


def blocks(images: Images, size: int, part: slice = slice(None)) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, [n, H, W, C]) over all images, `size` at a time; stored ones are read ahead.

    Args:
      images: [N, H, W, C].
      size: of a block.
      part: of each block, which alone is read; where the images end before it, an empty one.
    """
    starts = range(0, len(images), size)

    def read(start: int) -> np.ndarray:
        low, high, _ = part.indices(size)
        return images[min(start + low, len(images)) : min(start + high, len(images))]

    if isinstance(images, np.ndarray):
        for start in starts:
            yield start, read(start)
        return
    of_one = min(size, len(images)) * images.nbytes // max(len(images), 1)
    ahead = min(max(_AHEAD_BYTES // max(of_one, 1), 2), system.cores() or 2)
    with ThreadPoolExecutor(ahead) as pool:
        waiting: collections.deque[tuple[int, Future[np.ndarray]]] = collections.deque()
        for start in starts:
            waiting.append((start, pool.submit(read, start)))
            if len(waiting) > ahead:
                first, block = waiting.popleft()
                yield first, block.result()
        for first, block in waiting:
            yield first, block.result()


def identity(images: Images) -> str:
    """A hash of all pixels (or numbers), in memory and stored alike."""
    if isinstance(images, np.ndarray):
        return array_sha256(images)
    digest = hashlib.sha256(f"{images.dtype.str}{images.shape}".encode())  # as `array_sha256` has it
    for _, block in blocks(images, 1024):
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()
