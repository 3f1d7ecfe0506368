"""Checkpoints: Orbax arrays plus a run card with a SHA-256 per array.

`directory/00000120/` holds the arrays of step 120 by dotted name, `directory/00000120.json` its card. The
card is written first and Orbax commits by rename, so a directory with its final name is whole. Orbax restores a
flipped bit without a word; the card does not.

Of several processes the first alone writes and reads, and tells the others what it has read: the state is equal in all
of them, and of Orbax's own barriers, in which a lost process is waited for, none is needed.
"""

import contextlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from lt_noisy import processes
from lt_noisy.errors import UserError, did_you_mean, first_line, removal, say
from lt_noisy.files import MIB, may_pass, write_json
from lt_noisy.hashing import array_sha256, json_sha256
from lt_noisy.training import orbax
from lt_noisy.training.state import AVERAGE, flatten, unflatten

PyTree = Any

CHECKPOINTS, WEIGHTS = "checkpoints", "weights"  # of a stage, or of one of its networks; see `prune` for the second


def _card_sha256(card: Mapping[str, Any]) -> str:
    return json_sha256({k: v for k, v in card.items() if k != "card_sha256"})


class Checkpoints:
    """The checkpoints of one stage.

    Args:
      directory: where they are; made when the first is saved.
      card: what every card of this run says (config, versions, cores, manifest).
      keep: how many whole checkpoints to keep beside the one being written.
      every: the first checkpoint in each stretch of so many steps is kept for good as well; 0: none is.
    """

    def __init__(self, directory: pathlib.Path, card: Mapping[str, Any], keep: int = 2, every: int = 0):
        self.directory, self.card, self.keep, self.every = directory.absolute(), card, keep, every
        self._checkpointer = (
            ocp.StandardCheckpointer(multiprocessing_options=orbax.alone()) if processes.first() else None
        )
        self._saving = ""  # what is being written, for an error
        self._failed = False  # whether that was told as an error
        orbax.silence_late_calls()
        # Orbax's threads log with a traceback each what they raise, all of which comes up in `wait`, too.
        logging.getLogger("absl").addFilter(orbax.says_more_than_its_traceback)

    def steps(self) -> list[int]:
        """Steps with a committed checkpoint, oldest first."""
        return committed(self.directory)

    def _path(self, step: int) -> pathlib.Path:
        return self.directory / f"{step:08d}"

    def save(self, step: int, tree: PyTree, seconds: float) -> None:
        """Starts to write a host tree; returns while Orbax writes on. Waits for a save still under way.

        Args:
          step: the step the tree belongs to.
          tree: host arrays that nobody changes afterwards.
          seconds: training time so far, over all restarts.

        Raises:
          OSError: see `wait`.
        """
        if self._checkpointer is None:
            return
        self.wait()
        self.directory.mkdir(parents=True, exist_ok=True)
        older = [s for s in self.steps() if s < step]  # a newer one is corrupt: the run fell back behind it
        for old in older[: -self.keep]:
            if not lasting(self.directory, old):
                remove(self.directory, old)
        if self._path(step).exists():  # a corrupt one that the run has passed again
            remove(self.directory, step)
        arrays = flatten(tree)
        begins = self.every > 0 and step // self.every > max(older, default=0) // self.every
        card = {**self.card, "step": step, "seconds": seconds, "lasting": begins}
        card["arrays"] = {name: array_sha256(array) for name, array in arrays.items()}
        size = sum(np.asarray(array).nbytes for array in arrays.values()) / MIB
        self._saving = f"the checkpoint of step {step} ({size:.1f} MiB) cannot be written"
        self._failed = False
        with self._errors():
            write_json(self._path(step).with_suffix(".json"), {**card, "card_sha256": _card_sha256(card)})
            self._checkpointer.save(self._path(step), arrays)

    def wait(self) -> None:
        """Returns when the save under way, if any, is committed; raises what it raised.

        Raises:
          OSError: it could not be written, such as for want of room; the checkpoints before it are as they were.
        """
        if self._checkpointer is not None:
            with self._errors():
                self._checkpointer.wait_until_finished()

    def close(self) -> None:
        """Waits, then stops the writing thread. After a save that failed, which was told, nothing more is raised."""
        if self._checkpointer is None:
            return
        if not self._failed:
            with self._errors():
                self._checkpointer.close()
            return
        with contextlib.suppress(Exception):  # what other threads of that save still run into
            self._checkpointer.close()
        sweep(self.directory)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Makes an error of the system, whoever tells of it, an `OSError` that says what could not be written."""
        try:
            yield
        except Exception as error:  # TensorStore's are ValueErrors
            self._failed = True
            sweep(self.directory)  # half a checkpoint may hold the room that others want
            if (number := orbax.os_error(error)) is None:
                raise
            raise OSError(number, f"{self._saving}: {os.strerror(number)}", str(self.directory)) from None

    def latest(self, template: PyTree, at_most: int | None = None) -> tuple[PyTree, dict[str, Any]] | None:
        """The newest checkpoint that is whole, in the shape of `template`, and its card; None without one.

        Any error with a newer one (truncated, deleted, a flipped bit) is printed, and the one before is tried.

        Args:
          template: the tree.
          at_most: of the steps up to this one; None: of all.

        Raises:
          UserError: there are checkpoints, and none can be used.
        """
        return processes.once(lambda: self._latest(template, at_most))

    def _latest(self, template: PyTree, at_most: int | None) -> tuple[PyTree, dict[str, Any]] | None:
        sweep(self.directory)
        steps = self.steps()
        for step in reversed([step for step in steps if at_most is None or step <= at_most]):
            try:
                flat, card = read(self._path(step))
                if card.get("identity") != self.card.get("identity"):
                    raise UserError("it is of another run")
                return unflatten(template, flat), card
            except MemoryError:
                raise
            except Exception as error:  # Orbax, TensorStore and JSON raise all kinds
                if (number := orbax.os_error(error)) is not None and may_pass(OSError(number, "")):
                    raise OSError(number, os.strerror(number), str(self._path(step))) from None
                reason = first_line(error)[:200]
                say(f"checkpoint {self._path(step)} cannot be used ({reason}); trying the one before", always=True)
        if steps:
            again = f"remove it to start from step 0: {removal(self.directory)}"
            raise UserError(f"no checkpoint in {self.directory} can be used; {again}")
        return None


def sweep(directory: pathlib.Path) -> None:
    """Removes what a killed save or removal left: arrays under a temporary name, a card without arrays."""
    for path in directory.glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(path, ignore_errors=True)  # a thread whose write failed may still be at it
    for path in directory.glob("*.json"):
        if not path.with_suffix("").is_dir():
            path.unlink(missing_ok=True)


def committed(directory: pathlib.Path) -> list[int]:
    """Steps with a committed checkpoint in `directory`, oldest first."""
    try:
        return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit() and path.is_dir())
    except FileNotFoundError:  # another process may be pruning it
        return []


def lasting(directory: pathlib.Path, step: int) -> bool:
    """Whether the checkpoint was saved as one that is kept beside the newest ones."""
    try:
        return bool(json.loads((directory / f"{step:08d}.json").read_text()).get("lasting"))
    except (FileNotFoundError, ValueError):  # another fault of the disk says nothing of it
        return False


def read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of one checkpoint by dotted name, every one checked against its card; and the card."""
    card = json.loads(path.with_suffix(".json").read_text())
    if card["card_sha256"] != _card_sha256(card):
        raise UserError("its card was altered")
    flat = orbax.restore(path)
    if set(flat) != set(card["arrays"]):
        raise UserError("its arrays are not those of its card")
    for name, array in flat.items():
        if array_sha256(array) != card["arrays"][name]:
            raise UserError(f"{name} does not match its SHA-256")
    return flat, card


def remove(directory: pathlib.Path, step: int) -> None:
    """Removes one checkpoint; killed half-way, it leaves what counts as none, and a start sweeps."""
    path = directory / f"{step:08d}"
    half = path.with_name(f"{path.name}.orbax-checkpoint-tmp-removed")
    shutil.rmtree(half, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):  # another process may be at it
        path.rename(half)
    shutil.rmtree(half, ignore_errors=True)
    path.with_suffix(".json").unlink(missing_ok=True)


def final(network: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a finished network's last checkpoint, by dotted name, or what was kept of them; and its card.

    Where weights were averaged, `state.params...` and `state.batch_stats...` are the average; the last ones are
    `state.last.params...` and so on.

    Raises:
      UserError: there is none, or it cannot be used.
    """
    return processes.once(lambda: _final(network))


def _final(network: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    directory = network / (WEIGHTS if committed(network / WEIGHTS) else CHECKPOINTS)
    steps = committed(directory)
    if not steps:
        raise UserError(f"{network} has no checkpoint to start from{_nearest(network)}")
    try:
        arrays, card = read(directory / f"{steps[-1]:08d}")
    except Exception as error:
        raise UserError(f"{directory}: the last checkpoint cannot be used ({first_line(error)[:200]})") from None
    return _evaluated(arrays), card


def _nearest(network: pathlib.Path) -> str:
    """What the name of a network that is not there may have meant: one beside it, or one in it."""
    inside, beside = (
        sorted(path.parent.name for name in (CHECKPOINTS, WEIGHTS) for path in where.glob(f"*/{name}"))
        for where in (network, network.parent)
    )
    if inside:
        return f" (there are: {', '.join(str(network / name) for name in dict.fromkeys(inside))})"
    return "" if network.is_dir() else did_you_mean(network.name, beside)


def _evaluated(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays with the average of the weights, where there is one, in their place (`TrainState.evaluated`)."""
    averages = f"state.target.{AVERAGE}."
    if not any(name.startswith(averages) for name in arrays):
        return arrays
    renamed = {
        averages: "state.",
        **{f"state.{group}.": f"state.last.{group}." for group in ("params", "batch_stats")},
    }

    def new(name: str) -> str:
        old = next((prefix for prefix in renamed if name.startswith(prefix)), "")
        return renamed.get(old, "") + name.removeprefix(old)

    return {new(name): array for name, array in arrays.items()}


def read_final(network: pathlib.Path) -> dict[str, Any]:
    """The arrays of `final`, such as `state.params.encoder...`."""
    return final(network)[0]
