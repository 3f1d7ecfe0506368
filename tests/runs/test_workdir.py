"""Locks of a stage's directory, and links to stages that runs share."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from helpers.commands import HANGS

from lt_noisy.errors import UserError
from lt_noisy.files import write_json
from lt_noisy.hashing import json_sha256
from lt_noisy.runs import run as runs
from lt_noisy.runs.jobs import Work
from lt_noisy.runs.workdir import claim, link, locked, waited_for

HOLD = f"""
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print(1, flush=True)
time.sleep({HANGS})
"""


def holder(directory):
    """A process that holds the lock of a stage's directory."""
    directory.mkdir(parents=True, exist_ok=True)
    child = subprocess.Popen([sys.executable, "-c", HOLD, directory / ".lock"], stdout=subprocess.PIPE)
    child.stdout.readline()
    child.stdout.close()
    return child


def test_a_stage_under_way_is_waited_for_and_a_killed_one_taken_over(tmp_path, capfd):
    child = holder(tmp_path / "base")

    def kill():
        while "waiting" not in capfd.readouterr().out:
            time.sleep(0.05)
        child.kill()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with waited_for(tmp_path / "base"):
        thread.join()
        assert child.wait() == -signal.SIGKILL
        with open(tmp_path / "base" / ".lock") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("held", [waited_for, locked])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, held):
    def without(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", without)
    says = f"{tmp_path}: its file system gives no locks (Function not implemented); choose one that does"
    with pytest.raises(UserError) as error, held(tmp_path):
        pass
    assert str(error.value) == says if held is waited_for else str(error.value) == f"--workdir={says}"


def test_what_was_waited_for_is_not_done_again(tmp_path, capfd):
    """`finished` is asked again under the lock; a stage that is finished needs no lock at all."""
    identity, directory = {"seed": 0}, tmp_path / "base"
    child = holder(directory)

    def finish():
        while "waiting" not in capfd.readouterr().out:
            time.sleep(0.05)
        claim(directory, identity)
        summary = {"identity_sha256": json_sha256(identity), "sources_sha256": "s", "wall_seconds": 3}
        write_json(directory / "summary.json", summary)
        child.kill()

    stage = SimpleNamespace(name="base", kind=SimpleNamespace(run=None))  # to run it would be an error
    job = SimpleNamespace(directory=directory, card={"sources_sha256": "s"})
    thread = threading.Thread(target=finish, daemon=True)
    thread.start()
    assert runs._finish([Work(stage, job, identity)], "last")[0]["wall_seconds"] == 3
    thread.join()
    child.wait()
    with holder(directory) as child:
        assert runs._finish([Work(stage, job, identity)], "last")[0]["wall_seconds"] == 3
        child.kill()
    assert capfd.readouterr().out == 2 * "base: finished already, skipped\n"  # and nothing of waiting


@pytest.mark.parametrize(
    ("made_by", "says"),
    [
        ({"code": {"commit": "3bfb9e0d81", "changed": False, "sources_sha256": "c877a7a1"}}, "3bfb9e0,"),
        ({}, "unrecorded code,"),
    ],
)
def test_what_other_sources_finished_is_skipped_with_a_note(tmp_path, capsys, made_by, says):
    identity, directory = {"seed": 0}, tmp_path / "base"
    claim(directory, identity)
    write_json(directory / "summary.json", {"identity_sha256": json_sha256(identity), **made_by})
    stage = SimpleNamespace(name="base", kind=SimpleNamespace(run=None))
    job = SimpleNamespace(directory=directory, card={"sources_sha256": "s"})
    runs._finish([Work(stage, job, identity)], "last")
    skipped, note = capsys.readouterr().out.splitlines()
    assert skipped == "base: finished already, skipped"
    assert note.startswith(f"note: base was made by {says} and its sources") and f"remove {directory} to" in note


def test_a_path_that_checkpoints_cannot_be_written_to_is_refused_at_once(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9")
    identity = {"stage.kind": "supervised"}
    for option, refused in (
        ("--workdir", lambda: locked(path).__enter__()),
        ("--store", lambda: link(path, path, identity, "")),
    ):
        with pytest.raises(UserError, match=rf"{option}=.*caf\\udce9: checkpoints cannot be written"):
            refused()
    assert not path.exists()


def test_links_to_the_store(tmp_path):
    store, base = tmp_path / "store", tmp_path / "run" / "base"
    base.parent.mkdir()
    link(base, store, {"seed": 0}, "a")
    first = os.readlink(base)
    assert first.startswith("../store/base-") and base.is_dir()
    link(base, store, {"seed": 0}, "a")
    assert os.readlink(base) == first
    link(base, store, {"seed": 1}, "a")  # nothing was started there
    second = os.readlink(base)
    assert second != first
    claim(base, {"seed": 1})
    with pytest.raises(UserError, match=r"holds another run of this stage \(seed: 1 -> 2\)"):
        link(base, store, {"seed": 2}, "a")
    link(base, store, {"seed": 1}, "b")  # the same stage of other sources: both stay in the store
    assert os.readlink(base) not in (first, second) and not (base / "identity.json").exists()
    link(base, store, {"seed": 1}, "a")
    assert os.readlink(base) == second and (base / "identity.json").exists()
    (tmp_path / "run" / "own").mkdir()
    with pytest.raises(UserError, match="own is a directory where a link would go"):
        link(tmp_path / "run" / "own", store, {"seed": 0}, "a")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--store=.*file: cannot be written"):
        link(tmp_path / "run" / "other", tmp_path / "file", {}, "a")
