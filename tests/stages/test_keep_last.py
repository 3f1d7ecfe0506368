"""The last, short batch of an epoch: steps, resume, devices, and what is refused."""

import json

import jax
import numpy as np
import pytest
from helpers.small_job import IMAGES, job
from helpers.step_cases import distance, in_precision

from lt_noisy import rng
from lt_noisy.config.fields import bind_section, new_section
from lt_noisy.errors import UserError
from lt_noisy.models.vectors import mlp
from lt_noisy.stages import STAGES, supervised, training
from lt_noisy.training import loop
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.progress import Stopwatch

BATCH, LAST = 8, 6
TRAIN = {"length": "epochs(3)", "batch_size": BATCH, "keep_last": True, "augment": "none()", "log_every": "steps(1)"}
PRETRAIN = {"objective": "simclr(hidden=8, size=4)"}
SIMSIAM = {"objective": "simsiam(hidden=8, size=4)"}


def section(kind="supervised", **changed):
    cls = STAGES[kind].section
    return bind_section(new_section(cls, {**TRAIN, **changed}, kind), cls, "config.train")[0]


def lines(directory):
    found = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def train(job, interrupted_before=None):
    """The trained state; with a signal that arrives before a step, and the rest in a second start."""

    def prepare():
        with jax.enable_x64(False):  # float32, as a run makes it
            ready = supervised.prepare(job, section(save_every="steps(100)"))
        return ready._replace(state=in_precision(ready.state), batches=lambda step: in_precision(ready.batches(step)))

    def refresh(step, state):
        if step == interrupted_before:
            job.interrupts.pending = 15
        return state

    job.directory.mkdir(exist_ok=True)
    if interrupted_before is not None:
        with pytest.raises(SystemExit):
            training.run_training(job, prepare()._replace(refresh=refresh), lambda state: {})
        job.interrupts = Interrupts()
    return training.run_training(job, prepare(), lambda state: {})


def test_three_epochs_see_every_image_three_times(tmp_path):
    ready = supervised.prepare(job(tmp_path), section())
    expected = []
    for epoch in range(3):
        rows = rng.generator(0, "train/order", epoch).permutation(IMAGES)
        expected += [rows[:8], rows[8:16], rows[16:]]
    assert ready.plan.total == 9 and ready.plan.examples_seen == 3 * IMAGES
    assert ready.plan._replace(total=8).examples_seen == 2 * IMAGES + 16
    for step, rows in enumerate(expected):
        np.testing.assert_array_equal(ready.batches(step)["rows"], rows)
    plain = supervised.prepare(job(tmp_path), section(keep_last=False)).plan
    assert plain.total == 6 and plain.examples_seen == 48


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("step", [2, 4])  # its last is step 2's short batch, or in the middle of the second epoch
def test_a_run_that_goes_on_is_the_same_run(tmp_path, mode, step, capsys):
    whole = train(job(tmp_path / "whole", mode))
    cut = train(job(tmp_path / "cut", mode), interrupted_before=step)
    assert f"resuming from step {step + 1} of 9" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, whole.state, cut.state)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole") and len(lines(tmp_path / "cut")) == 9


def test_devices_and_modes_agree(x64, tmp_path):
    states = [train(job(tmp_path / f"{mode}{n}", mode, n)).state for mode, n in (("jit", 1), ("jit", 2), ("pmap", 2))]
    assert int(states[0].step) == 9
    for state in states[1:]:
        assert distance(state.params, states[0].params) < 1e-9
        assert distance(state.batch_stats, states[0].batch_stats) < 1e-9


def test_the_short_batch_counts_as_many_images_as_it_has_and_its_compilation_takes_no_time(tmp_path, monkeypatch):
    seen = []

    class Watch(Stopwatch):
        def called(self, step, steps, images):
            counted = self.counting and self.started is not None
            super().called(step, steps, images)
            seen.append((steps, images, counted))

    monkeypatch.setattr(loop, "Stopwatch", Watch)
    train(job(tmp_path / "run"))
    first = [(1, BATCH, False), (1, BATCH, True), (1, LAST, False)]  # each size compiles once
    assert seen == first + [(1, BATCH, True), (1, BATCH, True), (1, LAST, True)] * 2


@pytest.mark.parametrize(
    ("kind", "given", "changed", "says"),
    [
        ("supervised", {"devices": 4}, {}, "config.train.keep_last: the last batch of 22 images has 6, which do not"),
        ("supervised", {"steps_per_call": 2}, {}, "keep_last: a last batch of 6 images runs in a call of its own; set"),
        ("self_supervised", {"images": 17, "devices": 1}, PRETRAIN, "takes batches of at least 2 images, not 1"),
        ("self_supervised", {"images": 17, "devices": 1}, SIMSIAM, "keep_last: a batch of 1 is one example, of which"),
    ],
)
def test_what_does_not_fit_is_one_line_before_work(tmp_path, kind, given, changed, says):
    with pytest.raises(UserError) as error:
        STAGES[kind].check(job(tmp_path, **given), section(kind, **changed))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_devices_that_normalise_for_themselves_want_two_examples_each(tmp_path):
    small = section("self_supervised", **SIMSIAM, batch_size=2, keep_last=False, length="steps(3)")
    STAGES["self_supervised"].check(job(tmp_path), small)
    alone = job(tmp_path)
    alone.norm_axis = None
    with pytest.raises(UserError, match=r"batch_size: a batch of 2 on 2 devices, each .* BatchNorm in the projector"):
        STAGES["self_supervised"].check(alone, small)
    of_vectors = job(tmp_path, images=17, devices=1)
    of_vectors.encoder = mlp(hidden=4)
    with pytest.raises(UserError, match=r"keep_last: a batch of 1 .* BatchNorm in the model leaves nothing; set it to"):
        STAGES["supervised"].check(of_vectors, section())


def test_an_epoch_of_whole_batches_leaves_all_as_it_is(tmp_path):
    """24 images: nothing is left over, so that several steps a call are no matter either."""
    fields = {"length": "steps(6)", "log_every": "steps(2)"}
    several = job(tmp_path, images=24, steps_per_call=2)
    plans = [supervised.prepare(several, section(keep_last=keep, **fields)).plan for keep in (False, True)]
    assert plans[0] == plans[1] and plans[0].epoch.steps == 3


def test_weights_that_begin_late_are_as_short_as_their_batch(tmp_path):
    """Class-balanced weights from step 5 on, over the short batches 5 and 8 too."""
    bound = section(
        reweight="deferred(inverse_frequency(), start=0.5)", sampler="deferred(class_balanced(), start=0.8)"
    )
    at = supervised.prepare(job(tmp_path), bound).batches
    sizes = [(len(at(step)["rows"]), len(at(step)["weights"])) for step in range(9)]
    assert sizes == [(8, 8), (8, 8), (6, 6)] * 3
    assert len(np.unique(at(5)["weights"])) > 1
