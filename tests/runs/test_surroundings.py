"""What the machine cannot give, a device, an operating system, room or memory: one line each, and nothing lost."""

import errno
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
from helpers.commands import CONFIG, NO_RECIPE, ROOT, run, summary_of

import main
from lt_noisy import processes, system
from lt_noisy.files import fault
from lt_noisy.runs import run as runs
from lt_noisy.training import parallel


def test_a_device_that_is_not_there_is_one_line(env, tmp_path):
    done = run({**env, "JAX_PLATFORMS": "cuda"}, tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: JAX_PLATFORMS=cuda: JAX finds no device to run on") and "'.[cuda]'" in line


@pytest.mark.parametrize("program", ["main.py", "launch/sweep.py"])
def test_a_system_without_posix_locks_is_one_line(program):
    code = (
        "import runpy, sys; sys.modules['fcntl'] = None; sys.platform = 'win32'; sys.path.insert(0, '.')\n"
        f"runpy.run_path({program!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: lt_noisy runs on Linux and macOS, not on 'win32'")


NO_ROOM = (
    "-c",
    "import resource, sys; sys.path.insert(0, '.')\n"
    "import main, lt_noisy.runs.run\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))\n"
    "sys.exit(main.main(['main.py', *sys.argv[1:]]))",
)


def test_no_room_on_the_disk_is_one_line_and_the_same_command_goes_on(env, tmp_path):
    """At each of what a run writes first, then at a checkpoint: with as much room as the others take."""
    own = {**env, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # JAX writes that, and only warns
    one_stage = ["--config.stages=('finetune',)", "--config.finetune.init=none()"]

    def limited(limit):
        program = (NO_ROOM[0], NO_ROOM[1].replace("ROOM", str(limit)))
        done = run(own, tmp_path / "run", *one_stage, program=program)
        assert done.returncode == 2, done.stdout + done.stderr
        line, *more = done.stderr.splitlines()
        assert not more, done.stderr
        assert line.startswith(f"error: {tmp_path / 'run'}/") and line.endswith(": File too large")
        return line

    assert "manifest" in limited(1000)
    # Of step 4 or a later one: how many bytes a file of arrays has hangs on how they are compressed.
    assert re.search(r"finetune/checkpoints: the checkpoint of step \d+ \(", limited(20_000))
    done = run(env, tmp_path / "run", *one_stage)
    assert done.returncode == 0, done.stderr
    whole = run(env, tmp_path / "whole", *one_stage)
    assert whole.returncode == 0, whole.stderr
    ours, theirs = (summary_of(tmp_path / name, "finetune") for name in ("run", "whole"))
    assert ours["params_sha256"] == theirs["params_sha256"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ESTALE, "Stale file handle", "PLACE"), "^PLACE: Stale file handle$"),
        (OSError(errno.EIO, "Input/output error", "PLACE"), "^PLACE: Input/output error$"),
        (
            OSError(errno.ENOSPC, "No space left on device", "PLACE"),
            r"PLACE: No space left on device \(\d+\.\d MiB free",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "PLACE/a/b"), r"PLACE/a/b: Disk quota exceeded \(\d.* goes on"),
        (PermissionError(errno.EACCES, "Permission denied", "PLACE"), "^PLACE: Permission denied$"),
        (MemoryError("Unable to allocate 9 GiB"), "out of memory: Unable to allocate 9 GiB; a smaller batch_size"),
        (MemoryError(), "out of memory: MemoryError; "),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes\n  a table"),
            "out of memory on cpu: RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes; a smaller batch_size",
        ),
    ],
    ids=repr,
)
def test_what_the_machine_cannot_give_is_one_line(monkeypatch, capsys, tmp_path, error, says):
    if isinstance(error, OSError):
        error.filename = error.filename.replace("PLACE", str(tmp_path))

    def fail(*_):
        raise error

    monkeypatch.setattr(runs, "run", fail)
    monkeypatch.chdir(ROOT)
    passes = getattr(error, "errno", None) in (errno.ESTALE, errno.EIO)  # a launcher starts all of several again
    assert main.main(["main.py", *CONFIG]) == 2
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert fault(error)[1] == (75 if passes else 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(says.replace("PLACE", re.escape(str(tmp_path))), line.removeprefix("error: "))


def test_an_error_of_jax_that_is_no_want_of_memory_keeps_its_traceback(monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: a fault")

    monkeypatch.setattr(runs, "run", fail)
    monkeypatch.chdir(ROOT)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        main.main(["main.py", *CONFIG])


def test_images_that_no_device_holds_are_refused_before_work_starts(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(system, "device_bytes", lambda: 1597 * 64 - 1)  # one byte less than the digits take
    command = ["main.py", *CONFIG, *NO_RECIPE, "--config.feed=resident()", f"--workdir={tmp_path}"]
    assert main.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: config.pretrain: its images take 0.0 GiB, the memory of one device is 0.0 GiB; ")
    assert {file.name for file in tmp_path.iterdir()} <= {".lock"}


@pytest.mark.parametrize(
    ("platform", "kind", "stats", "says"),
    [
        ("gpu", "NVIDIA H100", {"bytes_limit": 60 * 2**30}, "2 x NVIDIA H100 (gpu), 60.0 GiB each"),
        ("tpu", "TPU v4", None, "2 x TPU v4 (tpu)"),
        ("cpu", "cpu", None, "2 x cpu of 4 core(s), 3.0 GiB of main memory free"),
    ],
)
def test_the_header_says_what_a_run_is_on(monkeypatch, platform, kind, stats, says):
    device = SimpleNamespace(platform=platform, device_kind=kind, memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "local_devices", lambda: [device, device])
    monkeypatch.setattr(system, "available_bytes", lambda: 3 * 2**30)
    monkeypatch.setattr(system, "cores", lambda: 4)
    assert parallel.describe(2) == says
