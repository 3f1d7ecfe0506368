"""The directory of a run: its default name, its lock, what stands finished in it, and stages that runs share."""

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lt_noisy import processes
from lt_noisy.config.identity import run_sha256
from lt_noisy.config.resolve import Resolved, Stage
from lt_noisy.errors import UserError, removal, say
from lt_noisy.files import may_pass, take_lock, write_json
from lt_noisy.hashing import json_sha256
from lt_noisy.models.table import MODELS
from lt_noisy.revision import sources_sha256
from lt_noisy.runs.jobs import Work


def default_workdir(config_name: str, resolved: Resolved) -> pathlib.Path:
    """`runs/<config name>-<hash>`: the same command comes back to the same place, another override does not."""
    return pathlib.Path("runs") / f"{config_name}-{run_sha256(resolved)[:8]}"


def stage_sources(stage: Stage, inputs: Mapping[str, str | None]) -> str:
    """The hash of the sources that a stage runs and of those that made what it reads.

    Args:
      inputs: the same of the stages it reads, by name; None for one that was made before summaries held it.
    """
    models = (builder.__module__ for builder in MODELS.values())  # a stage is given its model, so it imports none
    own = sources_sha256(stage.kind.module, *models)
    return json_sha256({"own": own, "inputs": dict(inputs)})


def planned_sources(resolved: Resolved) -> dict[str, str]:
    """`stage_sources` of every stage, in order, of a run that starts now and finds none of them finished."""
    sources: dict[str, str] = {}
    for stage in resolved.stages:
        sources[stage.name] = stage_sources(stage, {name: sources[name] for name in stage.inputs.values()})
    return sources


def _refuse_unwritable(directory: pathlib.Path, option: str) -> None:
    """Refuses a path that the library which writes checkpoints does not take."""
    try:
        str(directory.absolute()).encode()
    except UnicodeEncodeError:
        raise UserError(f"{option}={directory}: checkpoints cannot be written to a path that is not UTF-8") from None


@contextlib.contextmanager
def _writable(where: str) -> Iterator[None]:
    """Refuses, as `where`, a place that cannot be written; a fault that may pass stays what it is."""
    try:
        yield
    except OSError as error:
        if may_pass(error):
            raise
        raise UserError(f"{where}: cannot be written ({error.strerror})") from None


@contextlib.contextmanager
def locked(directory: pathlib.Path, option: str = "--workdir") -> Iterator[None]:
    """Makes the directory and holds its lock; refuses, naming `option`, a directory that another process holds.

    The kernel drops the lock with the process, so a killed run leaves nothing to clean up. Of several processes of a
    run the first holds it.
    """
    if not processes.first():
        yield
        return
    _refuse_unwritable(directory, option)
    with _writable(f"{option}={directory}"):
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / ".lock", "w")  # noqa: SIM115 (closed below, with the lock)
    with lock:
        if not take_lock(lock, f"{option}={directory}"):
            raise UserError(
                f"{option}={directory}: another process is running in it; wait for it or choose another directory"
            )
        yield


def refuse_unshared(directory: pathlib.Path) -> None:
    """Refuses a directory that several processes do not have in common, by a file that the first writes there."""
    if processes.count() == 1:
        return
    token = directory / f".shared-{processes.once(lambda: _write_token(directory))}"
    seen = processes.gather(_appears(token)).tolist()
    processes.once(lambda: token.unlink(missing_ok=True))
    if not all(seen):
        blind = processes.name(seen.index(False))
        raise UserError(
            f"--workdir={directory}: {blind} does not see what {processes.name(0)} writes there; give a "
            "directory that all processes share"
        )


def _write_token(directory: pathlib.Path) -> str:
    name = secrets.token_hex(8)
    with _writable(f"--workdir={directory}"):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f".shared-{name}").touch()
    return name


def _appears(path: pathlib.Path, seconds: float = 10.0) -> bool:
    """Whether the file is there, or comes within so many seconds: a network's file system may tell of it late."""
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    return path.exists()


@contextlib.contextmanager
def waited_for(directory: pathlib.Path) -> Iterator[None]:
    """Makes the directory of a stage and holds its lock; waits, and says so, while another process holds it.

    As with `locked` the kernel drops the lock with the process: whoever waits goes on where a killed one stopped.
    """
    if not processes.first():
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as lock:
        if not take_lock(lock, str(directory)):
            say(f"{directory.name}: another process is at this stage; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def place(works: Sequence[Work], card: Mapping[str, Any], store: pathlib.Path | None) -> list[Work]:
    """Finds each stage its directory, in `store` where that is given; returns the works with their cards.

    Raises:
      UserError: a directory that holds another stage, or cannot be made.
    """
    placed: list[Work] = []
    made_by: dict[str, str | None] = {}  # sources of the stages as they stand finished, or of those that will make them
    for work in works:
        stage, job, identity = work.stage, work.job, work.identity
        sources = stage_sources(stage, {name: made_by[name] for name in stage.inputs.values()})
        if store is not None:
            link(job.directory, store, identity, sources)
        else:
            unlink_unused(job.directory)
        summary = finished(job.directory, identity)
        made_by[stage.name] = sources if summary is None else summary.get("sources_sha256")
        own = {
            **card,
            "stage": work.stage.name,
            "image_shape": list(job.dataset.train_images.shape[1:]),
            "identity": json_sha256(identity),
            "sources_sha256": sources,
        }
        placed.append(work._replace(job=job._replace(card=own)))
    return placed


def link(directory: pathlib.Path, store: pathlib.Path, identity: Mapping[str, Any], sources: str) -> None:
    """Makes the directory of a stage a relative link to `<store>/<stage>-<key>`, which is made too.

    The key is the hash of its identity and of `sources` (`stage_sources`): runs share what the same code makes of the
    same.

    Raises:
      UserError: a real directory is in the place of the link, or a link to a stage of another identity.
    """
    key = json_sha256({"identity": json_sha256(identity), "sources": sources})
    target = store / f"{directory.name}-{key[:16]}"
    _refuse_unwritable(store, "--store")
    with _writable(f"--store={store}"):
        target.mkdir(parents=True, exist_ok=True)
    if directory.is_symlink():
        if directory.resolve() == target.resolve():
            return
        finished(directory, identity)  # refuses what was started there; says what differs
        directory.unlink()
    elif directory.exists():
        raise UserError(f"--store: {directory} is a directory where a link would go; choose another --workdir")
    directory.symlink_to(os.path.relpath(target.resolve(), directory.parent.resolve()))


def unlink_unused(directory: pathlib.Path) -> None:
    """Removes a link into a store whose stage never started: a run without that store must not start its own there."""
    if directory.is_symlink() and not (directory / "identity.json").exists():
        directory.unlink()


def finished(directory: pathlib.Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary of this stage where it stands finished in `directory`, else None.

    Raises:
      UserError: the directory holds a stage of another identity; what differs is named.
    """
    stored = read_json(directory / "identity.json")
    if stored is not None and differences(stored, identity):
        raise refusal(directory, stored, identity)
    summary = read_json(directory / "summary.json")
    if summary is not None and summary.get("identity_sha256") != json_sha256(identity):
        raise UserError(
            f"{directory} holds another run of this stage; choose another --workdir, or remove it: {removal(directory)}"
        )
    return summary


def differences(stored: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """The keys in which an identity and a stored one differ, sorted."""
    identity = json.loads(json.dumps(identity))  # a tuple is a list there
    return sorted(key for key in {*stored, *identity} if stored.get(key) != identity.get(key))


def refusal(directory: pathlib.Path, stored: Mapping[str, Any], identity: Mapping[str, Any]) -> UserError:
    """Says what differs between a stage and the one that `directory` holds."""
    keys = differences(stored, identity)
    differ = "; ".join(f"{key}: {_short(stored.get(key))} -> {_short(identity.get(key))}" for key in keys)
    return UserError(
        f"{directory} holds another run of this stage ({differ}); choose another --workdir, or remove that "
        f"directory to run the stage again: {removal(directory)}"
    )


def claim(directory: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Marks the directory of a stage that is about to start with its identity."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "identity.json", dict(identity))


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """What a file of a stage or a run holds; None without one, `UserError` where it is damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        if path.name in ("identity.json", "summary.json"):
            wrong = f"remove {path.parent} to run the stage again: {removal(path.parent)}"
        else:
            wrong = f"remove it, and the run's command goes on: {removal(path)}"
        raise UserError(f"{path} is damaged; {wrong}") from None


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text[:12] + "..." if len(text) == 64 else text
