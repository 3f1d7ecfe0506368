"""What a training leaves whose loss is not finite."""

import json
import re

import numpy as np
import pytest
from helpers.small_job import job

from lt_noisy.config.fields import bind_section, new_section
from lt_noisy.errors import UserError
from lt_noisy.stages import nonfinite, supervised, together

DIVERGES = {"length": "steps(6)", "batch_size": 16, "augment": "none()", "schedule": "constant(lr=1e25)"}
DIVERGES |= {"eval_every": "steps(6)", "save_every": "steps(6)"}


def section(log_every):
    values = {**DIVERGES, "log_every": f"steps({log_every})"}
    return bind_section(new_section(supervised.Section, values, "x"), supervised.Section, "config.train")[0]


def fails(own, bound):
    own.directory.mkdir(exist_ok=True)
    with pytest.raises(UserError) as error:
        together.run([own], supervised.KIND.run, bound)
    assert "\n" not in str(error.value)
    return str(error.value)


def report(directory):
    return json.loads((directory / "nonfinite" / "report.json").read_text())


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_the_batch_of_the_first_step_is_left_however_many_steps_a_line_has(tmp_path, steps_per_call):
    """Known from a run whose lines are of one step each."""
    says = fails(job(tmp_path / "each"), section(1))
    first = int(re.search(r"not finite in steps (\d+)\.\.\1;", says)[1])
    assert 1 < first < 6
    own = job(tmp_path / "range", steps_per_call=steps_per_call)
    own.dataset = own.dataset._replace(ids=100 + own.dataset.ids)
    says = fails(own, section(6))
    path = own.directory / "nonfinite" / "batch.npz"
    assert "in steps 1..6; the last checkpoint" in says and f"The batch of step {first} is in {path}" in says
    found = report(own.directory)
    assert (found["step"], found["steps"], found["steps_not_finite"]) == (first, [1, 6], 7 - first)
    assert found["means_over_steps"]["loss"] in ("nan", "inf") and found["last_line_before"] is None
    assert report(tmp_path / "each")["last_line_before"]["step"] == first - 1

    batch, arrays = supervised.prepare(own, section(6)).batches(first - 1), np.load(path)
    np.testing.assert_array_equal(arrays["rows"], batch["rows"])
    np.testing.assert_array_equal(arrays["ids"], 100 + batch["rows"])
    np.testing.assert_array_equal(arrays["weights"], batch["weights"])
    np.testing.assert_array_equal(arrays["labels"], own.dataset.observed[batch["rows"]])
    np.testing.assert_array_equal(arrays["images"], own.dataset.train_images[batch["rows"]])


def test_of_several_seeds_it_is_that_of_the_one_that_failed(tmp_path):
    jobs = [job(tmp_path / name) for name in "ab"]
    jobs[1].seed = 1
    for own in jobs:
        own.directory.mkdir()
    with pytest.raises(UserError, match=r"number 1 of them: .*The batch of step"):
        together.run(jobs, supervised.KIND.run, section(6))
    assert report(tmp_path / "a")["step"] > 1 and not (tmp_path / "b" / "nonfinite").exists()


def test_its_images_are_bounded_and_a_full_disk_hides_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(nonfinite, "_MOST", 5 * 16 + 3)  # bytes, of images of 16
    own = job(tmp_path / "run")
    fails(own, section(6))
    arrays = np.load(own.directory / "nonfinite" / "batch.npz")
    assert len(arrays["images"]) == 5 and len(arrays["rows"]) == 16

    def full(path, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nonfinite, "write_arrays", full)
    assert fails(job(tmp_path / "full"), section(6)).endswith("is the usual cure")
