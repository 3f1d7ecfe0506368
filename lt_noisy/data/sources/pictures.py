"""Picture files, or what stands for them: which of them can be read, what is in them, and their pixels.

Every file is looked at once: hashed and decoded to its end, so that what is broken is known before work starts. What
was found is kept (`cache`) by path, size and time of change; decoded pixels by what is in the files.
"""

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from lt_noisy import system
from lt_noisy.data.boxes import Cut
from lt_noisy.data.cache import Arrays, renewed
from lt_noisy.data.memory import check_fits
from lt_noisy.data.sources.decoding import GREY, File, decode, decode_cut, opened, rgb, scaled, upright_size
from lt_noisy.errors import first_line
from lt_noisy.progress import Progress

_READER = f"2, Pillow {PIL.__version__}"  # changes where pixels may
_LOOKER = f"5, Pillow {PIL.__version__}"  # changes where faults may, or what a look tells
_WHOLE = 2**30  # bytes of pixels that are decoded once and kept
_OTHERS = 4  # so many times the files that are listed are remembered of other lists
_PASSING = -2  # size and time of change of a file that has to be looked at again
_BATCH = 512  # so many rows or fewer are read by the thread that asks


class Seen(NamedTuple):
    """What a look at a file tells.

    Attributes:
      content: the SHA-256 of its bytes.
      grey: whether its pixels are.
      fault: why it cannot be read as an image; the empty string where it can.
      size: (width, height) of the upright picture; (0, 0) where there is a fault.
    """

    content: bytes
    grey: bool
    fault: str
    size: tuple[int, int]


def look(root: Path, files: Sequence[File]) -> list[Seen]:
    """What is in each of these files under `root`."""
    stats = np.array([_stat(file) for file in files], np.int64).reshape(-1, 2)
    names = _hashed(repr(file).encode(errors="surrogatepass") for file in files)

    def renew(found: Arrays | None) -> Arrays:
        of_old = _positions(names, None if found is None else found["names"])
        same = of_old >= 0
        if found is not None:
            same[same] = (found["stats"][of_old[same]] == stats[same]).all(1)
            if same.all():
                return found
        arrays = {
            "names": names,
            "stats": stats,
            "contents": np.zeros((len(files), 32), np.uint8),
            "grey": np.zeros(len(files), bool),
            "sizes": np.zeros((len(files), 2), np.int32),
        }
        faults = np.full(len(files), "", object)
        if found is not None:
            for name in ("contents", "grey", "sizes"):
                arrays[name][same] = found[name][of_old[same]]
            faults[same] = _faults(found)[of_old[same]]
        new, progress = np.flatnonzero(~same), Progress(f"looking at the files of {root}", int((~same).sum()))

        def fill(row: int) -> None:
            seen, passing = _look(files[row])
            if passing:
                stats[row] = _PASSING
            arrays["contents"][row] = np.frombuffer(seen.content, np.uint8)
            arrays["grey"][row], faults[row], arrays["sizes"][row] = seen.grey, seen.fault, seen.size
            progress.add()

        _spread(fill, new)
        if found is not None:  # of other lists of the same root; in the end only what is there twice over is dropped
            others = _unlisted(found["names"], of_old)[: _OTHERS * len(files)]
            arrays = {name: np.concatenate([array, found[name][others]]) for name, array in arrays.items()}
            faults = np.append(faults, _faults(found)[others])
        faulty = np.flatnonzero(faults != "")
        return {**arrays, "faulty": faulty, "faults": np.array([str(faults[row])[:200] for row in faulty], "U200")}

    arrays = renewed({"reader": _LOOKER, "looked at": str(root.absolute())}, renew)
    at = _positions(names, arrays["names"])
    contents, sizes = arrays["contents"][at], map(tuple, arrays["sizes"][at].tolist())
    faults = _faults(arrays)[at].tolist()
    rows = zip(map(bytes, contents), arrays["grey"][at].tolist(), faults, sizes, strict=True)
    return [Seen(*row) for row in rows]


def _positions(keys: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """int [N], where each of `keys` uint8 [N, K] is among the known ones; -1 where it is not."""
    at = {} if known is None else {key.tobytes(): row for row, key in enumerate(known)}
    return np.array([at.get(key.tobytes(), -1) for key in keys], np.int64)


def _unlisted(known: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Rows int [n] of `known` that are not among the `used` ones (-1: none)."""
    return np.setdiff1d(np.arange(len(known)), used)


def _spread(fill: Callable[[int], None], rows: Sequence[int] | np.ndarray) -> None:
    """`fill(row)` for all rows by several threads, a portion at a time: a future for each takes more than the work."""
    size = min(max(len(rows) // (8 * (system.cores() or 1)), 1), 256)

    def portion(start: int) -> None:
        for row in rows[start : start + size]:
            fill(row)

    with ThreadPoolExecutor(system.cores()) as pool:
        list(pool.map(portion, range(0, len(rows), size)))


def _faults(arrays: Arrays) -> np.ndarray:
    """What is wrong with each file [N], the empty string where nothing is; few have a fault."""
    faults = np.full(len(arrays["grey"]), "", object)
    faults[arrays["faulty"]] = arrays["faults"]
    return faults


def _stat(file: File) -> tuple[int, int]:
    """Size and time of change; -1 of a file that is not there, or whose name is none: `_look` says what is wrong."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # through a file, too long, locked; with a NUL byte
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _hashed(texts: Iterable[bytes]) -> np.ndarray:
    """uint8 [N, 16], a hash of each text."""
    hashes = [hashlib.blake2b(text, digest_size=16).digest() for text in texts]
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16)


def _look(file: File) -> tuple[Seen, bool]:
    """What is in it, and whether it may be readable next time without a change: the system could not read it."""
    data, passing = b"", False
    try:
        data = file.read_bytes()
        with opened(io.BytesIO(data)) as image:
            size = upright_size(image)
            scaled(image, 1)
            grey = image.mode in GREY
            rgb(image)
        return Seen(hashlib.sha256(data).digest(), grey, "", size), False
    except (FileNotFoundError, NotADirectoryError):
        fault = "it does not exist"
    except PIL.UnidentifiedImageError:  # whose text names an address in memory
        fault = "it is no image, or of a kind that is not read"
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error ...
        fault = first_line(error)
        passing = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)
    return Seen(hashlib.sha256(data).digest(), False, fault, (0, 0)), passing


def _in_order(rows: np.ndarray) -> list[int]:
    """Positions in `rows` in the order in which to read: what lies together in a table is read together."""
    return np.argsort(rows, kind="stable").tolist()


class Pictures:
    """The pixels of files that can all be read, by row: uint8 [n, size, size, 1 where all are grey, else 3].

    Attributes:
      shape: of an image.
    """

    def __init__(self, root: Path, files: Sequence[File], seen: Sequence[Seen], size: int, resize: int = 0):
        self._root, self._files, self._size, self._resize = root, files, size, resize
        self.shape = size, size, 1 if all(one.grey for one in seen) else 3
        self._contents = np.frombuffer(b"".join(one.content for one in seen), np.uint8).reshape(-1, 32)
        self._kept: tuple[np.ndarray, np.ndarray] | None = None
        if len(files) * size * size * self.shape[-1] <= _WHOLE:
            self._kept = self._decode_whole()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 [n, H, W, C] of these rows (int [n])."""
        check_fits(len(rows), self.shape, str(self._root))
        if self._kept is None:
            return self._decode(rows)
        images, at = self._kept
        return images[at[rows]]

    def cut(self, rows: np.ndarray, cut: Cut, draws: np.ndarray) -> np.ndarray:
        """uint8 [n, H, W, C] of these rows (int [n]): of each picture the part that `cut` draws from `draws`."""
        out = np.empty((len(rows), *self.shape), np.uint8)
        for at in _in_order(rows):
            out[at] = decode_cut(self._files[rows[at]], self._size, self.shape[-1], cut, draws[at])
        return out

    def original(self, row: int) -> bytes:
        """The encoded picture of a row."""
        return self._files[row].read_bytes()

    def content(self, rows: np.ndarray) -> str:
        """Identifies the pixels of these rows, by what is in the files."""
        digest = hashlib.sha256(f"{self.shape}{f', resize {self._resize}' if self._resize else ''}".encode())
        digest.update(np.ascontiguousarray(self._contents[rows]).data)
        return digest.hexdigest()

    def _decode(self, rows: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        out = np.empty((len(rows), *self.shape), np.uint8)

        def fill(at: int) -> None:
            out[at] = decode(self._files[rows[at]], self._size, self.shape[-1], self._resize)
            if progress is not None:
                progress.add()

        order = _in_order(rows)
        if progress is None and len(rows) <= _BATCH:  # several of which are read at once
            for at in order:
                fill(at)
        else:
            _spread(fill, order)
        return out

    def _decode_whole(self) -> tuple[np.ndarray, np.ndarray]:
        """Images, and where each picture is among them; the cache has those whose files have not changed."""

        def renew(found: Arrays | None) -> Arrays:
            of_old = _positions(self._contents, None if found is None else found["contents"])
            new = np.flatnonzero(of_old < 0)
            if found is not None and not len(new):
                return found
            images = np.empty((len(self._files), *self.shape), np.uint8)
            images[new] = self._decode(new, Progress(f"decoding {self._root}", len(new)))
            if found is None:
                return {"contents": self._contents, "images": images}
            images[of_old >= 0] = found["images"][of_old[of_old >= 0]]
            room = max(_WHOLE - images.nbytes, 0) // math.prod(self.shape)  # for those of other lists of the same root
            others = _unlisted(found["contents"], of_old)[:room]
            return {
                "contents": np.concatenate([self._contents, found["contents"][others]]),
                "images": np.concatenate([images, found["images"][others]]),
            }

        key = {"reader": _READER, "decoded": str(self._root.absolute()), "shape": self.shape, "resize": self._resize}
        arrays = renewed(key, renew)
        return arrays["images"], _positions(self._contents, arrays["contents"])
