"""The directory of a run: its default name, its lock, and what stands finished in it."""

import contextlib
import fcntl
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from lt_noisy.config import Resolved, identity_sha256
from lt_noisy.metrics import write_json
from lt_noisy.spec import UserError


def default_workdir(config_name: str, resolved: Resolved) -> pathlib.Path:
    """`runs/<config name>-<hash>`: the same command comes back to the same place, another override does not."""
    content = {**resolved.texts, **{stage.name: stage.texts for stage in resolved.stages}}
    return pathlib.Path("runs") / f"{config_name}-{identity_sha256(content)[:8]}"


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Makes the directory and holds its lock; refuses a directory that another process holds.

    The kernel drops the lock with the process, so a killed run leaves nothing to clean up.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / ".lock", "w")  # noqa: SIM115 (closed below, with the lock)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be written ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"--workdir={workdir}: another process is running in it; wait for it or choose another directory"
            ) from None
        yield


def finished(directory: pathlib.Path) -> dict[str, Any] | None:
    """The summary of a finished stage, or None."""
    path = directory / "summary.json"
    return json.loads(path.read_text()) if path.exists() else None


def claim(directory: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Marks a stage's directory with its identity; refuses one that holds another, naming what differs."""
    path = directory / "identity.json"
    if path.exists():
        stored = json.loads(path.read_text())
        keys = sorted(k for k in {*stored, *identity} if stored.get(k) != identity.get(k))
        if keys:
            differ = "; ".join(f"{k}: {_short(stored.get(k))} -> {_short(identity.get(k))}" for k in keys)
            raise UserError(
                f"{directory} holds another run of this stage ({differ}); choose another --workdir, or remove it"
            )
        return
    directory.mkdir(parents=True, exist_ok=True)
    write_json(path, dict(identity))


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text[:12] + "..." if len(text) == 64 else text
