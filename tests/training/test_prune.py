"""What a finished stage keeps, and that a kill while the rest is removed leaves what can be read."""

import shutil

import numpy as np
import pytest

from lt_noisy.errors import UserError
from lt_noisy.training import checkpoint
from lt_noisy.training.checkpoint import Checkpoints, committed, read_final
from lt_noisy.training.prune import KEEPS, discard_weights, prune, write_weights


def _state(seed):
    generator = np.random.default_rng(seed)

    def array(*shape):
        return generator.normal(size=shape).astype(np.float32)

    params = {"encoder": {"kernel": array(64, 30)}}
    parts = {"params": params, "batch_stats": {"encoder": {"mean": array(3)}}, "opt_state": ({"trace": params}, {})}
    return {"state": {**parts, "target": params, "step": np.int32(seed)}, "totals": {}}


@pytest.fixture
def stage(tmp_path):
    """A stage with one network of its own and one in a fold, three checkpoints each."""
    for network in (tmp_path, tmp_path / "fold_0"):
        network.mkdir(exist_ok=True)
        checkpoints = Checkpoints(network / "checkpoints", {"identity": "a"})
        for step in (10, 20, 30):
            checkpoints.save(step, _state(step), 1.5)
        checkpoints.close()
    return tmp_path


def _finish(stage, keep):
    """As a run does around the summary."""
    if keep == "weights":
        write_weights(stage)
    (stage / "summary.json").touch()
    prune(stage, keep)


def _size(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("keep", KEEPS)
def test_later_stages_read_the_same_whatever_is_kept(stage, keep):
    before, size = read_final(stage), _size(stage)
    _finish(stage, keep)
    for network in (stage, stage / "fold_0"):
        arrays = read_final(network)
        read_later = {name for name in before if name.startswith(("state.params", "state.batch_stats"))}
        assert set(arrays) == (read_later if keep == "weights" else set(before))
        assert all(np.array_equal(before[name], array) for name, array in arrays.items())
        assert committed(network / "checkpoints") == {"last": [30], "weights": [], "all": [10, 20, 30]}[keep]
    assert _size(stage) == size if keep == "all" else _size(stage) < size / 2


def test_kept_weights_are_checked_against_their_card(stage):
    _finish(stage, "weights")
    card = stage / "weights" / "00000030.json"
    assert '"identity": "a"' in card.read_text()
    for file in (stage / "weights" / "00000030").rglob("*"):
        if file.is_file() and file.stat().st_size > 4000:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    with pytest.raises(UserError, match="weights: the last checkpoint cannot be used"):
        read_final(stage)


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("keep", ["last", "weights"])
@pytest.mark.parametrize("halfway", [False, True])
@pytest.mark.parametrize("number", range(1, 7))
def test_killed_while_it_removes_it_is_whole_and_the_next_start_ends_it(stage, monkeypatch, keep, number, halfway):
    """Killed at each removal of a directory: before it, or with half of its files gone."""
    before = {network: read_final(network) for network in (stage, stage / "fold_0")}
    rmtree, calls = shutil.rmtree, 0

    def dying(path, ignore_errors=False):
        nonlocal calls
        calls += path.exists()
        if calls == number:
            files = sorted(file for file in path.rglob("*") if file.is_file())
            for file in files[: len(files) // 2 if halfway else 0]:
                file.unlink()
            raise _Killed
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", dying)
    died = False
    try:
        _finish(stage, keep)
    except _Killed:
        died = True
    monkeypatch.undo()
    assert died == (number <= {"last": 4, "weights": 8}[keep])
    for network, arrays in before.items():
        for name, array in read_final(network).items():
            np.testing.assert_array_equal(arrays[name], array)
    prune(stage, keep)
    kept = {"last": "checkpoints", "weights": "weights"}[keep]
    for network in before:
        left = [*network.glob("checkpoints/*"), *network.glob("weights/*")]
        assert set(left) == {network / kept / "00000030", network / kept / "00000030.json"}


def test_killed_before_its_summary_a_stage_goes_on_from_whole_checkpoints(stage):
    write_weights(stage)
    checkpoints = Checkpoints(stage / "checkpoints", {"identity": "a"})
    tree, _ = checkpoints.latest(_state(0))
    checkpoints.close()
    np.testing.assert_array_equal(tree["state"]["opt_state"][0]["trace"]["encoder"]["kernel"], _kernel(30))
    discard_weights(stage)
    assert not list(stage.rglob("weights")) and set(read_final(stage)) > {"state.step"}


def _kernel(seed):
    return _state(seed)["state"]["params"]["encoder"]["kernel"]
