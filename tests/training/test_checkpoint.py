"""Checkpoints: exact, kept in number, refused when altered, and the one before taken instead."""

import asyncio
import concurrent.futures
import contextlib
import errno
import gc
import json
import logging
import resource
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lt_noisy.errors import UserError
from lt_noisy.hashing import array_sha256, arrays_sha256
from lt_noisy.training.checkpoint import Checkpoints, committed, lasting, read, read_final
from lt_noisy.training.prune import prune, write_weights
from lt_noisy.training.state import flatten, unflatten


def _tree(seed):
    generator = np.random.default_rng(seed)
    return {
        "params": {"encoder": {"kernel": generator.normal(size=(64, 300)).astype(np.float32)}},
        "opt_state": (generator.normal(size=5).astype(np.float32), {}),
        "half": np.asarray(generator.normal(size=3), jnp.bfloat16),
        "step": np.array(seed, np.int32),
    }


def _equal(a, b):
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / "stage" / "checkpoints", {"config": "x"}, keep=2)
    for step in (10, 20, 30, 40):
        checkpoints.save(step, _tree(step), seconds=1.5)
    checkpoints.wait()
    yield checkpoints
    checkpoints.close()


def test_newest_comes_back_exactly(saved):
    tree, card = saved.latest(_tree(0))
    assert _equal(tree, _tree(40))
    assert (card["step"], card["seconds"], card["config"]) == (40, 1.5, "x")
    assert saved.steps() == [20, 30, 40]  # two kept beside the newest
    assert set(read_final(saved.directory.parent)) == set(flatten(_tree(0)))


def test_the_first_of_every_stretch_lasts_beside_the_newest(tmp_path):
    """Of stretches of 25 steps: 30 begins the second (25 itself was not saved), 50 the third, 80 the fourth."""
    directory = tmp_path / "stage" / "checkpoints"
    for steps in ((10, 20, 30, 40), (50, 60, 70, 80, 90, 95)):  # the second as a run that goes on
        checkpoints = Checkpoints(directory, {}, keep=1, every=25)
        for step in steps:
            checkpoints.save(step, {"state": {"params": {"w": np.zeros(2)}}}, seconds=1.0)
        checkpoints.close()
    assert committed(directory) == [30, 50, 80, 90, 95]
    assert [step for step in committed(directory) if lasting(directory, step)] == [30, 50, 80]
    for keep, kept in (("all", [30, 50, 80, 90, 95]), ("last", [30, 50, 80, 95])):
        prune(directory.parent, keep)
        assert committed(directory) == kept
    write_weights(directory.parent)
    prune(directory.parent, "weights")
    assert committed(directory) == []
    assert not lasting(directory, 30)  # without a card


def test_none_without_a_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none", {})
    assert checkpoints.latest(_tree(0)) is None
    checkpoints.close()
    with pytest.raises(UserError, match="no checkpoint"):
        read_final(tmp_path)


def _largest_file(path):
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _damage(kind, path):
    match kind:
        case "flipped bit":
            for file in (p for p in path.rglob("*") if p.is_file() and p.stat().st_size > 10_000):
                _flip(file)
        case "truncated":
            file = _largest_file(path)
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        case "deleted file":
            _largest_file(path).unlink()
        case "no card":
            path.with_suffix(".json").unlink()
        case "altered card":
            card = json.loads(path.with_suffix(".json").read_text())
            path.with_suffix(".json").write_text(json.dumps({**card, "step": 39}))


@pytest.mark.parametrize("kind", ["flipped bit", "truncated", "deleted file", "no card", "altered card"])
def test_corrupt_newest_falls_back_and_says_so(tmp_path, capsys, kind):
    directory = tmp_path / "checkpoints"
    writer = Checkpoints(directory, {})
    writer.save(10, _tree(10), 0.0)
    writer.save(20, _tree(20), 0.0)
    writer.close()
    _damage(kind, directory / "00000020")
    reader = Checkpoints(directory, {})
    tree, card = reader.latest(_tree(0))
    assert card["step"] == 10 and _equal(tree, _tree(10))
    assert "00000020 cannot be used" in capsys.readouterr().out
    reader.save(20, _tree(21), 0.0)  # the run passes the bad one again and replaces it
    reader.wait()
    assert _equal(reader.latest(_tree(0))[0], _tree(21))
    reader.close()


def test_silent_corruption_is_what_the_hash_is_for(saved):
    """A card whose hash is of other content: the arrays read well, and are refused all the same."""
    path = saved.directory / "00000040"
    other = saved.directory / "00000030"
    path.with_suffix(".json").write_text(other.with_suffix(".json").read_text())
    with pytest.raises(UserError, match="does not match its SHA-256"):
        read(path)


def test_a_read_that_fails_waits_for_the_others(saved, monkeypatch):
    """Else they end later, with tracebacks, on an event loop that is closed."""
    one_array, ended = ocp.type_handlers.NumpyHandler.deserialize, []

    async def deserialize(self, infos, args):
        (info,) = infos
        if info.name == "step":
            raise ValueError("DATA_LOSS")
        arrays = await one_array(self, infos, args)
        for _ in range(10):
            await asyncio.sleep(0)
        ended.append(info.name)
        return arrays

    monkeypatch.setattr(ocp.type_handlers.NumpyHandler, "deserialize", deserialize)
    with pytest.raises(ValueError, match="DATA_LOSS"):
        read(saved.directory / "00000040")
    assert sorted(ended) == sorted(set(flatten(_tree(0))) - {"step"})


def test_many_reads_that_fail_leave_nothing_behind(tmp_path, caplog, monkeypatch):
    arrays = {f"w{i}": np.random.default_rng(i).normal(size=(64, 300)).astype(np.float32) for i in range(50)}
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(10, arrays, 0.0)
    checkpoints.close()
    for file in (tmp_path / "00000010").rglob("*"):
        if file.is_file() and file.stat().st_size > 100_000:
            content = np.frombuffer(file.read_bytes(), np.uint8).copy()
            content[::997] ^= 1
            file.write_bytes(content.tobytes())
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with pytest.raises(ValueError):
        read(tmp_path / "00000010")
    gc.collect()
    assert not complaints and not [record for record in caplog.records if record.name == "asyncio"]


def test_fallen_back_behind_corrupt_ones_the_good_ones_are_kept(tmp_path):
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory, {}, keep=1)
    for step in (10, 20, 30):
        checkpoints.save(step, _tree(step), 0.0)
    checkpoints.wait()
    assert checkpoints.steps() == [20, 30]
    _damage("truncated", directory / "00000030")
    assert checkpoints.latest(_tree(0))[1]["step"] == 20
    checkpoints.save(25, _tree(25), 0.0)
    checkpoints.close()
    assert checkpoints.steps() == [20, 25, 30]  # 20 stays until 25 is whole; 30 goes when the run comes to it


def test_none_usable_is_refused_and_nothing_is_lost(tmp_path):
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory, {"identity": "a"})
    checkpoints.save(10, _tree(10), 0.0)
    checkpoints.close()
    other = Checkpoints(directory, {"identity": "b"})
    with pytest.raises(UserError, match="can be used; remove it to start from step 0"):
        other.latest(_tree(0))
    other.close()
    assert other.steps() == [10]


def test_leftovers_of_a_killed_save_are_swept(tmp_path):
    (tmp_path / "00000010.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "00000010.json").write_text("{}")
    checkpoints = Checkpoints(tmp_path, {})
    assert checkpoints.latest(_tree(0)) is None
    checkpoints.close()
    assert not list(tmp_path.iterdir())


def test_another_model_is_one_line():
    flat = flatten(_tree(0))
    with pytest.raises(UserError, match="another model"):
        unflatten({**_tree(0), "new": np.zeros(1)}, flat)
    with pytest.raises(UserError, match=r"params.encoder.kernel is \(64, 300\), not \(2, 2\)"):
        unflatten({**_tree(0), "params": {"encoder": {"kernel": np.zeros((2, 2))}}}, flat)


def test_hashes_see_every_bit_dtype_and_shape():
    a = np.arange(6, dtype=np.float32)
    assert array_sha256(a) == array_sha256(a.copy())
    b = a.copy()
    b.view(np.uint8)[3] ^= 1
    different = [b, a.astype(np.float64), a.reshape(2, 3), -a]
    assert len({array_sha256(x) for x in [a, *different]}) == 5
    assert arrays_sha256(flatten({"x": a, "y": b})) != arrays_sha256(flatten({"x": b, "y": a}))


@contextlib.contextmanager
def _small_files(limit):
    """No file grows beyond `limit` bytes: an error of the system in whatever thread writes, for the superuser, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_is_one_error_of_the_system_and_the_one_before_stays(tmp_path, capfd):
    checkpoints = Checkpoints(tmp_path / "checkpoints", {})
    checkpoints.save(10, _tree(10), 0.0)
    checkpoints.wait()
    with _small_files(20_000), pytest.raises(OSError) as error:
        checkpoints.save(20, _tree(20), 0.0)
        checkpoints.wait()
    assert error.value.errno == errno.EFBIG and error.value.filename == str(tmp_path / "checkpoints")
    assert error.value.strerror == "the checkpoint of step 20 (0.1 MiB) cannot be written: File too large"
    assert not list((tmp_path / "checkpoints").glob("00000020*/**/*.json"))  # a directory in the making at most
    assert checkpoints.steps() == [10] and _equal(checkpoints.latest(_tree(0))[0], _tree(10))
    checkpoints.save(20, _tree(20), 0.0)  # once there is room
    checkpoints.close()
    assert checkpoints.steps() == [10, 20]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_in_a_thread_of_orbax(tmp_path, monkeypatch, caplog, number):
    checkpoints = Checkpoints(tmp_path, {})

    async def serialize(self, values, infos, args=None):
        raise OSError(number, "it is full")

    monkeypatch.setattr(ocp.type_handlers.NumpyHandler, "serialize", serialize)
    with pytest.raises(OSError, match=r"the checkpoint of step 10 .* cannot be written: ") as error:
        checkpoints.save(10, _tree(10), 0.0)
        checkpoints.wait()
    checkpoints.close()
    assert error.value.errno == number
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # a thread may still make an empty directory
    assert not [record for record in caplog.records if record.exc_info]


def test_what_a_failed_save_leaves_to_its_closed_event_loop_is_not_told(tmp_path, caplog):
    """A worker that returns after its loop was closed, and a task that was never ended: each of Python's own logs."""
    Checkpoints(tmp_path, {}).close()
    loop, gate = asyncio.new_event_loop(), threading.Event()

    async def leave():
        loop.run_in_executor(None, gate.wait)
        return asyncio.ensure_future(asyncio.sleep(3600))

    executor = concurrent.futures.ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    task = loop.run_until_complete(leave())
    loop.close()
    gate.set()
    executor.shutdown()
    del task
    gc.collect()
    assert not caplog.records
    logging.getLogger("asyncio").error("something else")
    assert len(caplog.records) == 1
