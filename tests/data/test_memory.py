"""Images that memory does not hold are refused before they are read, with both numbers."""

import numpy as np
import pytest
from PIL import Image

from lt_noisy import system
from lt_noisy.config import spec
from lt_noisy.data import sources
from lt_noisy.errors import UserError

GIB = 2**30


@pytest.fixture
def four_gib(monkeypatch):
    monkeypatch.setattr(system, "available_bytes", lambda: 4 * GIB)


def _refused(text, match):
    with pytest.raises(UserError, match=match) as error:
        spec.bind(text, sources.SOURCES, "dataset")()
    assert "\n" not in str(error.value)


def test_a_folder(tmp_path, four_gib):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    split = spec.bind(f"folder(path='{tmp_path}', size=20000)", sources.SOURCES, "dataset")().train
    shown = f"{tmp_path}: 4 images of 20000x20000x3 take 4.5 GiB of memory, 4.0 GiB are free; .* smaller size="
    with pytest.raises(UserError, match=shown):
        split.images(np.arange(4))
    assert len(spec.bind(f"folder(path='{tmp_path}', size=4)", sources.SOURCES, "dataset")().train.ids) == 4


def test_arrays(tmp_path, monkeypatch):
    images, labels = np.zeros((4, 2048, 1024, 3), np.uint8), np.arange(4)
    arrays = {"train_images": images, "train_labels": labels, "test_images": images[:2], "test_labels": labels[:2]}
    np.savez_compressed(tmp_path / "data.npz", **arrays)  # what counts is what they take once they are read
    text = f"npz(path='{tmp_path}/data.npz')"
    monkeypatch.setattr(system, "available_bytes", lambda: 30 * 2**20)
    _refused(text, "data.npz takes 0.0 GiB of memory, 0.0 GiB are free; all of it must fit")
    monkeypatch.setattr(system, "available_bytes", lambda: 40 * 2**20)
    source = spec.bind(text, sources.SOURCES, "dataset")()
    monkeypatch.setattr(system, "available_bytes", lambda: 15 * 2**20)
    assert source.train.images(np.arange(4)).nbytes == images.nbytes  # all of them are the array itself
    with pytest.raises(UserError, match="3 images of 2048x1024x3"):  # to choose from them is to copy
        source.train.images(np.arange(3))


def test_what_is_free_is_known_here_and_below_what_the_machine_has():
    free = system.available_bytes()
    assert free is None or 0 < free < 2**50


def test_the_limits_of_a_control_group_count(monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    8388608 kB\n",
        "/proc/self/cgroup": "0::/jobs/one\n",
        "/sys/fs/cgroup/jobs/memory.max": f"{3 * GIB}\n",
        "/sys/fs/cgroup/jobs/memory.current": f"{2 * GIB}\n",
        "/sys/fs/cgroup/jobs/memory.stat": f"anon 1\ninactive_file {GIB}\n",
        "/sys/fs/cgroup/jobs/one/memory.max": "max\n",
        "/sys/fs/cgroup/jobs/one/memory.current": "5\n",
    }
    monkeypatch.setattr(system, "_read", lambda path: files.get(path, ""))
    assert system.available_bytes() == 2 * GIB  # of 3, one in use that the kernel cannot take back
    del files["/sys/fs/cgroup/jobs/memory.max"]
    assert system.available_bytes() == 8 * GIB
    files.clear()
    assert system.available_bytes() is None
