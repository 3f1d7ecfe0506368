"""The processes of one run: who they are, what they tell each other, and what becomes of them when one fails.

All of them run the same program: they take the same steps, meet in the same collectives, and what one alone does the
others wait for (`once`). JAX's own runtime joins them; what they tell each other beside it goes through the key-value
store of its coordinator, which is a thread of process 0. Where nobody has called `join` there is one process, and
nothing here imports JAX.
"""

import atexit
import contextlib
import hashlib
import json
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from lt_noisy.errors import UserError, first_line, say

T = TypeVar("T")

MODES = ("off", "auto", "env")
CONTRACT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")  # what every launcher fills
# Exit status where another process is gone, or a fault may be at the next start: a launcher starts all of them again.
LOST = 75
_STORE = "lt_noisy"  # before all keys
_FOREVER = 2**31 - 1  # milliseconds; a process that is lost ends a wait sooner
_SMALL = 2**18  # bytes that go through the store; more go through the devices
_GRACE = 5.0  # seconds in which all others leave after one that failed

_index, _count, _hosts, _polls = 0, 1, [socket.gethostname()], 0
_client: Any = None
_stop: Callable[[], object] | None = None
_in_once, _calls, _heartbeat = False, 0, 30.0


def index() -> int:
    """Of this process."""
    return _index


def count() -> int:
    """How many there are."""
    return _count


def first() -> bool:
    """Whether this is the one that writes what people read."""
    return _index == 0


def shares() -> int:
    """Among how many the work of a loop is divided: all, but inside of `once`, where the others wait."""
    return 1 if _in_once else _count


def name(process: int | None = None) -> str:
    """`process 1 (host b)`: of this one, unless another is given."""
    process = _index if process is None else process
    return f"process {process} ({_hosts[process]})"


def describe() -> str:
    """` in 16 processes on 4 hosts`; of one process the empty string."""
    return "" if _count == 1 else f" in {_count} processes on {len(set(_hosts))} host(s)"


def refuse_alone(mode: str) -> None:
    """Refuses to be one of several processes that do not know of each other.

    Raises:
      UserError: an unknown mode; `off` where a launcher started several.
    """
    if mode not in MODES:
        raise UserError(f"--distributed={mode}: it is {', '.join(MODES)}")
    several = {name: os.environ.get(name, "") for name in ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS")}
    for variable, number in several.items():
        if mode == "off" and number.isdigit() and int(number) > 1:
            instead = "auto" if variable.startswith("SLURM") else "env"
            raise UserError(
                f"--distributed=off, but {variable}={number}: {number} processes would each do the whole run; "
                f"set --distributed={instead}"
            )


def join(mode: str, heartbeat: float) -> None:
    """Joins the other processes; returns when all are there. Before JAX is first used.

    Args:
      mode: one of `MODES`: not at all; as JAX finds the launcher out; by the variables of `CONTRACT`.
      heartbeat: seconds after which a process that has not been heard of is lost.

    Raises:
      UserError: the mode does not fit the environment, or the others did not come.
    """
    global _index, _count, _client, _hosts, _heartbeat
    refuse_alone(mode)
    if mode == "off":
        return
    import jax
    from jax._src import distributed  # the store has no public name

    try:
        address, number, process = _contract() if mode == "env" else (None, None, None)
        jax.distributed.initialize(
            address,
            number,
            process,
            cluster_detection_method="deactivate" if mode == "env" else None,
            # JAX ends a process that it holds for lost with a stack trace: the watch says it in a line, before.
            heartbeat_timeout_seconds=int(2 * heartbeat) + 10,
            shutdown_timeout_seconds=int(heartbeat) + 10,
        )
    except UserError:
        raise
    except Exception as error:  # of JAX's detection, of gRPC
        reason = first_line(error)[:300]
        raise UserError(f"--distributed={mode}: the processes did not come together ({reason})") from None
    _index, _count = distributed.global_state.process_id, distributed.global_state.num_processes
    _client = distributed.global_state.client
    if _count == 1:
        return
    _client.key_value_set(f"{_STORE}/host/{_index}", socket.gethostname())
    _hosts = [_client.blocking_key_value_get(f"{_STORE}/host/{i}", _FOREVER) for i in range(_count)]
    _heartbeat = heartbeat
    if not first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
    _Watch(heartbeat).start()


def _contract() -> tuple[str, int, int]:
    given = {name: os.environ.get(name, "") for name in CONTRACT}
    if missing := [name for name, value in given.items() if not value]:
        raise UserError(f"--distributed=env: {' and '.join(missing)} not set (a launcher sets {', '.join(CONTRACT)})")
    address, *numbers = given.values()
    if not all(number.isdigit() for number in numbers) or not int(numbers[1]) < int(numbers[0]):
        raise UserError(f"--distributed=env: JAX_PROCESS_ID={numbers[1]} is not one of JAX_NUM_PROCESSES={numbers[0]}")
    if not address.rpartition(":")[2].isdigit():
        raise UserError(f"--distributed=env: JAX_COORDINATOR_ADDRESS={address} is not HOST:PORT")
    return address, int(numbers[0]), int(numbers[1])


class _Watch(threading.Thread):
    """Tells the others that this process lives, and ends it when one of them has failed or is lost.

    Process 0 looks after all others. When it is lost itself the coordinator is, and JAX ends the others at once.
    """

    def __init__(self, heartbeat: float):
        super().__init__(daemon=True)
        self._heartbeat, self._stopping = heartbeat, threading.Event()
        self._heard = {i: ("", time.monotonic()) for i in range(_count)}
        atexit.register(self.stop)  # before JAX's own, which closes the store

    def stop(self) -> None:
        """No more is told, and the others do not wait for it."""
        self._stopping.set()
        self.join(self._heartbeat)
        with contextlib.suppress(Exception):
            _client.key_value_set(f"{_STORE}/pulse/{_index}", "done", allow_overwrite=True)

    def run(self) -> None:
        beat = 0
        while not self._stopping.wait(min(self._heartbeat / 5, 1.0)):
            beat += 1
            try:
                _client.key_value_set(f"{_STORE}/pulse/{_index}", str(beat), allow_overwrite=True)
                failures = _client.key_value_dir_get(f"{_STORE}/failed")
                pulses = _client.key_value_dir_get(f"{_STORE}/pulse") if first() else []
            except Exception:  # the coordinator is gone: JAX says so and ends the process
                continue
            if failures and not self._stopping.wait(_GRACE / 2):  # or they fail alike, and each says so
                _leave_after(min(failures, key=lambda failure: int(failure[0].rpartition("/")[2])))
            if first() and (lost := self._lost(pulses)) is not None:
                fail(
                    f"{name(lost)} has not been heard of for {self._heartbeat:g} s (config.heartbeat) and is lost; "
                    "started again, all go on from the last checkpoint",
                    LOST,
                )

    def _lost(self, pulses: list[tuple[str, str]]) -> int | None:
        now = time.monotonic()
        for key, pulse in pulses:
            process = int(key.rpartition("/")[2])
            if pulse != self._heard[process][0]:
                self._heard[process] = pulse, now
        silent = [i for i, (pulse, heard) in self._heard.items() if pulse != "done" and now - heard > self._heartbeat]
        return next((i for i in silent if i != _index), None)


def _leave_after(failure: tuple[str, str]) -> NoReturn:
    """Leaves because another process has failed: `failure` is its key and what it told."""
    told, process = json.loads(failure[1]), int(failure[0].rpartition("/")[2])
    if process and first():
        say(f"error: {name(process)}: {told['line']}", stream=sys.stderr)
    leave(told["status"])


def fail(line: str, status: int) -> NoReturn:
    """Ends all processes with this exit status, and with one line where they all fail alike; for several alone."""
    with contextlib.suppress(Exception):
        _client.key_value_set(f"{_STORE}/failed/{_index}", json.dumps({"line": line, "status": status}), True)
    if first():
        say(f"error: {line}", stream=sys.stderr)
    else:
        told: list[tuple[str, str]] = []
        end = time.monotonic() + _GRACE / 2
        while time.monotonic() < end and not told:
            with contextlib.suppress(Exception):
                told = [f for f in _client.key_value_dir_get(f"{_STORE}/failed") if f[0].endswith("/0")]
            time.sleep(0.05)
        if not told:
            say(f"error: {name()}: {line}", stream=sys.stderr)
    leave(status)


def leave(status: int) -> NoReturn:
    """Ends this process at once, where all others do too: process 0 as the last, for with it the coordinator goes."""
    with contextlib.suppress(Exception):
        _client.key_value_set(f"{_STORE}/gone/{_index}", "")
        end = time.monotonic() + _GRACE
        while first() and time.monotonic() < end and len(_client.key_value_dir_get(f"{_STORE}/gone")) < _count:
            time.sleep(0.05)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def failed(line: str, status: int) -> int:
    """The exit status of a process that failed, after the line that says why; of one of several see `fail`."""
    if _count > 1:
        fail(line, status)
    say(f"error: {line}", stream=sys.stderr)
    return status


def broken(error: Exception) -> None:
    """Ends one of several processes whose collective failed: another is likely gone, and soon process 0 names it."""
    if _count > 1:
        time.sleep(2 * _heartbeat)
        fail(first_line(error), LOST)


def once(compute: Callable[[], T]) -> T:
    """What `compute` returns or raises in process 0; the others wait for it. The value is one that can be pickled."""
    global _in_once
    if _count == 1 or _in_once:
        return compute()
    told = b""
    if first():
        _in_once = True
        try:
            result: tuple[Any, Exception | None] = compute(), None
        except (UserError, OSError) as error:
            result = None, error
        finally:
            _in_once = False
        told = pickle.dumps(result)
    value, error = pickle.loads(_broadcast(told))
    if error is not None:
        raise error
    return value


def _broadcast(told: bytes) -> bytes:
    """The bytes of process 0 in all of them; the others wait for it however long it takes."""
    global _calls
    _calls += 1
    key = f"{_STORE}/once/{_calls}"
    if first():  # a collective of the devices would give up waiting
        _client.key_value_set_bytes(key, told if len(told) <= _SMALL else str(len(told)).encode())
    found = _client.blocking_key_value_get_bytes(key, _FOREVER)
    _client.wait_at_barrier(key, _FOREVER)
    if first():
        _client.key_value_delete(key)
    if not found.isdigit():  # a pickle never is
        return found
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    array = np.frombuffer(told, np.uint8) if first() else np.zeros(int(found), np.uint8)
    with jax.transfer_guard("allow"):
        return np.asarray(multihost_utils.broadcast_one_to_all(array)).tobytes()


def refuse_different(what: str, text: str) -> None:
    """Refuses processes whose `text` differs, such as their config.

    Raises:
      UserError: in all of them.
    """
    import numpy as np

    digests = gather(np.frombuffer(hashlib.sha256(text.encode(errors="surrogatepass")).digest(), np.uint8))
    for process, digest in enumerate(digests):
        if not np.array_equal(digest, digests[0]):
            raise UserError(f"{name(process)} has other {what} than {name(0)}; give all processes the same")


def gather(values: Any) -> Any:
    """An array of the same shape from every process: [P, ...] of this one's [...], in all of them."""
    import numpy as np

    values = np.asarray(values)
    if _count == 1:
        return values[None]
    import jax
    from jax.experimental import multihost_utils

    with jax.transfer_guard("allow"):
        return np.asarray(multihost_utils.process_allgather(values))


def poll() -> None:
    """Calls what `heed` was given where all processes are to stop, for a SIGTERM that one of them got.

    Every loop calls it, in every process as often as in the others: JAX agrees on one of the calls for all of them.
    Nothing for one process, and inside of `once`.
    """
    global _polls
    if _count == 1 or _in_once:
        return
    from jax.experimental import multihost_utils

    _polls += 1
    if multihost_utils.reached_preemption_sync_point(_polls) and _stop is not None:
        _stop()


@contextlib.contextmanager
def heed(stop: Callable[[], object]) -> Iterator[None]:
    """Has `poll` call `stop`, inside the block, where all processes are to stop."""
    global _stop
    before, _stop = _stop, stop
    try:
        yield
    finally:
        _stop = before
