"""What a run leaves beside its results: tracker, log, trace, parameters, checkpoints that last."""

import pytest
from helpers.commands import run, summary_of

from lt_noisy.training.checkpoint import committed
from lt_noisy.training.host_log import read

OPTIONS = (
    "--config.stages=('finetune',)",
    "--config.finetune.init=none()",
    "--config.trackers=tensorboard",
    "--config.finetune.keep_every=steps(8)",
    "--profile=3:4",
)


@pytest.fixture(scope="module")
def finished(env, tmp_path_factory):
    """A run of 16 steps, and what it printed."""
    workdir = tmp_path_factory.mktemp("operations")
    done = run(env, workdir, *OPTIONS)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_log_trace_tracker_and_parameters_are_in_the_workdir(finished):
    workdir, out = finished
    events = [line["event"] for line in read(workdir / "log" / "process_0.jsonl")]
    assert events[:3] == ["process started", "stage started", "started"]
    assert events[-3:] == ["finished", "stage finished", "process finished"]
    assert events.count("steps") == 4
    assert len(list((workdir / "profile" / "process_0").rglob("*.xplane.pb"))) == 1
    assert f"steps 3:4 of finetune are in {workdir}/profile/process_0" in out
    assert len(list((workdir / "finetune").glob("events.out.tfevents.*"))) == 1
    count = f"{summary_of(workdir, 'finetune')['parameters']:,}"
    assert f"finetune: {count} parameters (encoder " in out
    assert f"Total: {count} -- " in (workdir / "finetune" / "parameters.txt").read_text()


def test_the_first_checkpoint_of_a_stretch_stays_in_a_finished_stage(finished):
    assert committed(finished[0] / "finetune" / "checkpoints") == [8, 16]
