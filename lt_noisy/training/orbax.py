"""Orbax as checkpoints need it: alone in its process, quiet about what the caller says, its reads ended together."""

import asyncio
import logging
import pathlib
import re
import sys
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lt_noisy import processes

_CLOSED = ("Event loop is closed", "cannot schedule new futures after")  # what a thread that comes late runs into
# How asyncio's log says that nobody waits any more for what failed, or never ended.
_ABANDONED = ("Task was destroyed but it is pending", "Task exception was never", "Future exception was never")


class _WholeReads(ocp.type_handlers.NumpyHandler):
    """Reads all arrays at once, as Orbax's own handler does, but ends no sooner than the last of them.

    Orbax's raises with the first read that fails and abandons the others, which then complain, at a time of their own
    and with tracebacks, to an event loop that is closed.
    """

    async def deserialize(self, infos, args=None):
        args = args or [ocp.RestoreArgs()] * len(infos)
        one = super().deserialize
        reads = [one([info], [arg]) for info, arg in zip(infos, args, strict=True)]
        read = await asyncio.gather(*reads, return_exceptions=True)
        if failed := next((result for result in read if isinstance(result, BaseException)), None):
            raise failed
        return [array for (array,) in read]


def says_more_than_its_traceback(record: logging.LogRecord) -> bool:
    """False of a line in which Orbax logs, with its traceback, an error that it also raises."""
    return record.exc_info is None or "orbax" not in record.pathname


def os_error(error: Exception) -> int | None:
    """The number of the operating system's error behind one of Orbax or TensorStore, if it is such a one."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found.group(1)) if found else None


def alone() -> ocp.options.MultiprocessingOptions:
    """Orbax waits for no other process."""
    if processes.count() == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}, barrier_sync_key_prefix="lt_noisy")


def restore(path: pathlib.Path) -> dict[str, np.ndarray]:
    """What `ocp.StandardCheckpointer` saved at `path`."""
    handlers = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, _WholeReads()),
        (jax.Array, ocp.type_handlers.ArrayHandler()),  # there is none to read, but Orbax warns without
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=handlers, multiprocessing_options=alone())
    with ocp.Checkpointer(handler, multiprocessing_options=alone()) as checkpointer:
        return checkpointer.restore(path.absolute())


def _came_late(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith(_CLOSED)


def _of_a_failed_save(record: logging.LogRecord) -> bool:
    return _came_late(record.exc_info[1] if record.exc_info else None) or str(record.msg).startswith(_ABANDONED)


def silence_late_calls() -> None:
    """Threads and tasks of a save that failed end after its event loop, which is closed: 100 lines of nothing.

    They come at any time after the failure, by Python's hooks and by the loggers of its libraries, from no code of
    ours that could catch them. What the save raised comes up in `wait`.
    """
    told = sys.unraisablehook
    if getattr(told, "__name__", "") == "_without_late_calls":
        return

    def _without_late_calls(unraisable: Any) -> None:
        if not _came_late(unraisable.exc_value):
            told(unraisable)

    sys.unraisablehook = _without_late_calls
    for library in ("asyncio", "concurrent.futures"):
        logging.getLogger(library).addFilter(lambda record: not _of_a_failed_save(record))
