"""Trackers: one field, imported only where named, each step told of once however often a run is killed.

TensorBoard's files are read as it reads them. Weights & Biases and MLflow are stood in for, and tried for themselves
where they are installed (`pip install '.[wandb,mlflow]'`), without a network.
"""

import glob
import os
import pathlib
import struct
import subprocess
import sys

import pytest
from helpers import tracker_packages
from helpers.commands import ROOT

from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.training.trackers import TRACKERS, Tracked, Trackers, Tracking
from lt_noisy.training.writer import Writer


def _writer(directory, trackers):
    return Writer(directory, bind(trackers, TRACKERS, "config.trackers"), directory.name, {"seed": 0})


def _killed_twice(directory, trackers):
    """Steps 1 to 6, killed after 4 and again after 3, each time back to 2; then to the end."""
    directory.mkdir(parents=True)
    for step, last in ((0, 4), (2, 3), (2, 6)):
        writer = _writer(directory, trackers)
        writer.begin(step)
        for k in range(step + 1, last + 1):
            writer.write(k, {"loss": k / 2, "seconds": 0.5})
        writer.close(last == 6)


def test_a_package_that_is_not_named_is_not_imported():
    code = (
        "import sys; from lt_noisy.training.trackers import TRACKERS; TRACKERS['none'](); "
        "print({'tensorboardX', 'wandb', 'mlflow', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize(
    ("package", "spec", "extra"),
    [("tensorboardX", "tensorboard", "tensorboard"), ("wandb", "wandb(project=x)", "wandb"), ("mlflow",) * 3],
)
def test_a_package_that_is_missing_is_asked_for_in_one_line(monkeypatch, package, spec, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        UserError, match=rf"^config\.trackers: .*{package} is not installed .*pip install '\.\[{extra}\]'$"
    ):
        bind(f"several({spec})", TRACKERS, "config.trackers")


def _events(directory):
    """(step, {tag: value}) as TensorBoard has them: in the order of the files, without what a restart makes void."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    kept = []
    for path in sorted(glob.glob(f"{directory}/events.out.tfevents.*")):
        data = pathlib.Path(path).read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
            if event.session_log.status == SessionLog.START:
                kept = [(step, values) for step, values in kept if step < event.step]
            if event.summary.value:
                kept.append((event.step, {value.tag: value.simple_value for value in event.summary.value}))
    return kept


def test_tensorboard_shows_each_step_once_after_kills(tmp_path):
    _killed_twice(tmp_path / "run" / "pretrain", "tensorboard")
    shown = _events(tmp_path / "run" / "pretrain")
    losses = [(step, values["loss"]) for step, values in shown if "loss" in values]
    assert losses == [(k, k / 2) for k in range(1, 7)]
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("name", "ends"), [("wandb", [1, 1, 0]), ("mlflow", ["KILLED", "RUNNING", "KILLED", "RUNNING", "FINISHED"])]
)
def test_a_resumed_run_goes_on_in_the_same_one_and_no_step_is_told_twice(tmp_path, monkeypatch, name, ends):
    runs = {}
    monkeypatch.setitem(sys.modules, name, getattr(tracker_packages, name)(runs))
    _killed_twice(tmp_path / "run" / "pretrain", name)
    (told,) = runs.values()
    assert told["steps"] == [1, 2, 3, 4, 5, 6] and told["ends"] == ends
    assert told["asked"]["name"] == "run/pretrain"
    _killed_twice(tmp_path / "run" / "finetune", f"several({name}())")
    assert [run["steps"] for run in runs.values()] == 2 * [[1, 2, 3, 4, 5, 6]]


def test_two_of_one_kind_are_refused():
    """They would share the place where a run's id is remembered."""
    with pytest.raises(UserError, match=r"^config\.trackers: several: tensorboard is there twice$"):
        bind("several(tensorboard(), several(tensorboard()))", TRACKERS, "config.trackers")


def test_a_tracker_that_fails_is_left_out_and_one_that_cannot_be_opened_is_one_line(tmp_path, capsys):
    class Failing:
        def __init__(self, run):
            self.run, self.steps = run, []

        def write(self, step, values):
            self.steps.append(step)
            if self.run.name == "fails" and step == 2:
                raise ConnectionError("no network\nand more")

        def close(self, finished):
            self.steps.append(finished)

    opened = {}

    def opening(name):
        def open_it(run):
            opened[name] = Failing(run._replace(name=name))
            return opened[name]

        return open_it

    run = Tracked("finetune", tmp_path / "finetune", {}, 0, 0)
    tracking = Tracking(Trackers({"a": opening("fails"), "b": opening("stays")}), run)
    for step in (1, 2, 3):
        tracking.write(step, {"loss": 1.0})
    tracking.close(True)
    assert opened["fails"].steps == [1, 2] and opened["stays"].steps == [1, 2, 3, True]
    (note,) = capsys.readouterr().out.splitlines()
    assert note.startswith("note: a is left out from here on (no network); ")

    def unreachable(run):
        raise RuntimeError("api key\nnot configured")

    with pytest.raises(UserError, match=r"^config\.trackers: wandb cannot be opened \(api key\)$"):
        Tracking(Trackers({"wandb": unreachable}), run)


def test_the_workdir_is_named_for_networks_of_a_stage_too(tmp_path):
    for name in ("finetune", "folds/fold_0"):
        assert Tracked(name, tmp_path / "mine" / name, {"seed": 3}, 0, 0).workdir == "mine"
        assert Tracked(name, tmp_path / "mine" / "seed_3" / name, {"seed": 3}, 0, 0).workdir == "mine/seed_3"


def test_wandb_itself_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed: the stand-in alone was tested")
    monkeypatch.setenv("WANDB_MODE", "offline")
    _killed_twice(tmp_path / "run" / "pretrain", "wandb(project=test)")
    runs = glob.glob(f"{tmp_path}/run/pretrain/wandb/offline-run-*/*.wandb")
    assert len(runs) == 3 and len({os.path.basename(run) for run in runs}) == 1  # one id


def test_mlflow_itself_in_a_directory(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: the stand-in alone was tested")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "store").as_uri()
    _killed_twice(tmp_path / "run" / "pretrain", f"mlflow(experiment=test, uri='{uri}')")
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    assert (run.info.status, run.info.run_name, run.data.params) == ("FINISHED", "run/pretrain", {"seed": "0"})
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(k, k / 2) for k in range(1, 7)]
