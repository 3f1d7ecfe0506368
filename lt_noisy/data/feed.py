"""Where the images of a step come from: the devices' memory, or the disk, by workers, a few batches ahead.

A batch is a function of its step, whichever way its images come and however many workers read them. Nothing of an
iterator is saved: whoever asks for step k gets step k, and from then on the workers read what follows it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import grain
import numpy as np

from lt_noisy import processes, rng, system
from lt_noisy.config.spec import table
from lt_noisy.data.batches import Batches, Resident, own, part
from lt_noisy.data.boxes import DRAWS, Cut
from lt_noisy.data.images import Images, Stored
from lt_noisy.errors import UserError

More = Callable[[int, Mapping[str, np.ndarray]], dict[str, np.ndarray]]
_AHEAD_BYTES = 2**30  # of the batches that are read ahead, of which there are at least two
_SHARE = 0.5  # of free memory that resident images may take, on the host and on a device


class Feed(NamedTuple):
    """Which way, and how many threads read where images are streamed.

    Attributes:
      resident: None: by their size.
      workers: 0: one for each core.
    """

    resident: bool | None
    workers: int = 0


def auto(workers: int = 0) -> Feed:
    """In the devices' memory where the images take at most half of what is free, on the host too; else streamed."""
    return Feed(None, _checked(workers))


def resident() -> Feed:
    """All images are read before work starts and stay in the memory of every device."""
    return Feed(True)


def streamed(workers: int = 0) -> Feed:
    """Images stay on the disk; `workers` threads (0: one a core) read and decode the batches of the next steps."""
    return Feed(False, _checked(workers))


FEEDS = table({"auto": auto, "resident": resident, "streamed": streamed})


def _checked(workers: int) -> int:
    if workers < 0:
        raise UserError(f"workers={workers} is a number of threads, 0 for one a core")
    return workers


class Room(NamedTuple):
    """The memory that there is for images, in bytes.

    Attributes:
      host: free on the host; None where the system does not say.
      device: what JAX may take of a device; None where that is the host's memory.
    """

    host: int | None
    device: int | None


def room_here() -> Room:
    """That of this machine, now."""
    return Room(system.available_bytes(), system.device_bytes())


def stays_resident(feed: Feed, on_host: int, on_device: int, room: Room) -> bool:
    """Whether a run keeps its images in memory.

    Args:
      on_host: bytes of all images to train on and to test on.
      on_device: bytes of the images to train on that a device holds.
      room: the memory that there is.
    """
    if feed.resident is not None:
        return feed.resident
    if room.device is None:
        on_host += on_device
    fits_host = room.host is None or on_host <= _SHARE * room.host
    return fits_host and (room.device is None or on_device <= _SHARE * room.device)


class Cuts(NamedTuple):
    """Parts of whole pictures in place of a stage's images, drawn afresh for each step, position and view.

    Attributes:
      cut: draws a box.
      seed: of the draws.
      purpose: of the draws.
      views: of each image; of one the images of a batch are [B, H, W, C], of more [B, V, H, W, C].
      begin: the step from which on; those before get the images as they are.
    """

    cut: Cut
    seed: int
    purpose: str
    views: int = 1
    begin: int = 0

    def read(self, images: Stored, rows: np.ndarray, step: int) -> np.ndarray:
        """uint8 [B, H, W, C], or [B, V, H, W, C], of rows int [B], or [B, V], of a step: this process's part of it."""
        size = rows.size * processes.count()
        draws = rng.generator(self.seed, self.purpose, step).random((size, DRAWS))[part(size)]
        return images.cut(rows.reshape(-1), self.cut, draws).reshape(*rows.shape, *images.shape[1:])

    def batch(self, images: Stored, rows: np.ndarray, step: int) -> np.ndarray:
        """The images of a batch, rows int [B], with all their views."""
        if step < self.begin:
            return images[rows]
        return self.read(images, rows if self.views == 1 else np.repeat(rows[:, None], self.views, 1), step)


def fed(
    images: Images,
    labels: np.ndarray,
    order: Batches,
    steps: int,
    workers: int,
    cuts: Cuts | None = None,
    more: More | None = None,
) -> tuple[Resident, Batches]:
    """What a stage keeps on the devices, and its batches, with their images where those are stored.

    Of several processes each gets its own part of every batch, and reads no image of another's.

    Args:
      images: [N, H, W, C], the rows that `order` names.
      labels: [N, ...].
      order: `step -> {"rows", "weights", ...}`, the whole batch.
      steps: of the stage.
      workers: see `Feed`.
      cuts: in place of the images, which then are stored.
      more: see `Stream`.
    """
    if isinstance(images, Stored):
        return Resident(None, labels), Stream(images, own(order), steps, workers, cuts, more)
    return Resident(images, labels), own(order)


class Stream:
    """`Batches` with images: `stream(step) -> {"rows", "weights", ..., "images": uint8 [B, H, W, C]}`.

    A step that follows the one before comes from the workers; any other is read at once, and the workers go on from it.

    Attributes:
      waited: seconds that callers have waited for images.
    """

    def __init__(
        self,
        images: Stored,
        order: Batches,
        steps: int,
        workers: int,
        cuts: Cuts | None = None,
        more: More | None = None,
    ):
        """`more(step, batch)` adds arrays that are not known before the step is asked for."""
        self.waited = 0.0
        self._steps, self._more = _Steps(images, order, steps, cuts), more
        self._workers = workers or system.cores() or 1
        self._ahead: Iterator[Mapping[str, np.ndarray]] | None = None
        self._last: tuple[int, dict[str, np.ndarray]] | None = None

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        began = time.perf_counter()
        if self._last is None or step not in (self._last[0], self._last[0] + 1):
            self.close()
            self._last = step, self._steps[step]
        elif step == self._last[0] + 1:
            if self._ahead is None:
                self._ahead = self._workers_from(step, self._last[1]["images"].nbytes)
            self._last = step, dict(next(self._ahead))
        batch = self._last[1]
        if self._more is not None:
            batch = {**batch, **self._more(step, batch)}
        self.waited += time.perf_counter() - began
        return batch

    def _workers_from(self, step: int, of_one: int) -> Iterator[Mapping[str, np.ndarray]]:
        """The batches from `step` on; `of_one`: bytes of one."""
        buffer = min(self._workers + 1, max(_AHEAD_BYTES // of_one, 2))
        options = grain.ReadOptions(num_threads=self._workers, prefetch_buffer_size=buffer)
        return iter(grain.MapDataset.source(self._steps)[step:].to_iter_dataset(options))

    def close(self) -> None:
        """Ends the workers."""
        if self._ahead is not None:
            self._ahead.close()  # pyright: ignore[reportAttributeAccessIssue]
            self._ahead = None


class _Steps:
    """The steps of a stage as a source of Grain's: item k is the batch of step k."""

    def __init__(self, images: Stored, order: Batches, steps: int, cuts: Cuts | None):
        self._images, self._order, self._count, self._cuts = images, order, steps, cuts

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch = self._order(index)
        rows = batch["rows"]
        return {**batch, "images": self._cuts.batch(self._images, rows, index) if self._cuts else self._images[rows]}
