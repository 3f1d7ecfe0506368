"""Averaged, best and early stopped weights in whole runs of vectors: resume, several seeds, later stages, one error."""

import signal

import numpy as np
import pytest
from helpers import layouts
from helpers.commands import KILLER, metrics_of, plain_json, run, summary_of
from ml_collections import ConfigDict

from lt_noisy.config.resolve import default, section
from lt_noisy.errors import UserError
from lt_noisy.runs.run import run as run_config
from lt_noisy.training.checkpoint import CHECKPOINTS, committed, final

CONFIG = ["--config=tests/helpers/features_config.py"]
TRAIN = {
    "length": "steps(12)",
    "batch_size": 8,
    "augment": "none()",
    "schedule": "constant(lr=0.1)",
    "log_every": "steps(2)",
    "eval_every": "steps(2)",
    "save_every": "steps(4)",
    "ema": 0.5,
}


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    root = tmp_path_factory.mktemp("vectors")
    layouts.features(root)
    return f"features(path='{root}/features.npz')"


def config(vectors, **values):
    c = default()
    c.dataset, c.validation, c.model, c.devices = vectors, 0.2, "mlp(hidden=4)", 1
    c.stages = ("base", "mixnn", "later")
    c.base = section("supervised", early_stopping="patience(evaluations=2)", **TRAIN)
    c.mixnn = section("mixnn", warmup=1, correct_from=0, correct_every=1, **TRAIN)
    c.later = section("supervised", init="base", freeze_encoder=True, **{**TRAIN, "ema": 0.0})
    c.update(ConfigDict(values))
    return c


@pytest.fixture(scope="module")
def both(vectors, tmp_path_factory):
    """Seeds 0 and 3 in one process."""
    workdir = tmp_path_factory.mktemp("kept-seeds")
    run_config(config(vectors, seeds=(0, 3)), str(workdir))
    return workdir


def test_seeds_beside_each_other_keep_what_each_keeps_alone(vectors, both, tmp_path, capsys):
    run_config(config(vectors, seed=3), str(tmp_path))
    out = capsys.readouterr().out
    for stage in ("base", "mixnn", "later"):
        ours, theirs = summary_of(both / "seed_3", stage), summary_of(tmp_path, stage)
        assert ours["best_weights"] == theirs["best_weights"]
        if stage == "base":  # the others are vectorised, which rounds otherwise
            assert ours["params_sha256"] == theirs["params_sha256"]
            assert metrics_of(both / "seed_3", stage) == metrics_of(tmp_path, stage)
        for place in ("", "best"):
            arrays = [final(root / stage / place)[0] for root in (both / "seed_3", tmp_path)]
            for name in arrays[0]:
                np.testing.assert_allclose(arrays[0][name], arrays[1][name], rtol=1e-3, atol=1e-4, err_msg=name)
        for directory in (both / "seed_3" / stage, tmp_path / stage):
            arrays, card = final(directory / "best")
            assert card["step"] == theirs["selection"]["best_on_validation"]["step"] == theirs["best_weights"]["step"]
            assert {name.split(".")[1] for name in arrays} == {"params", "batch_stats"}
    assert "trained_with_seeds" in summary_of(both / "seed_0", "mixnn")
    base = summary_of(tmp_path, "base")
    assert base["stopped_early"] == {"planned_steps": 12, "evaluations_without_a_better_one": 2} and base["steps"] < 12
    assert base["examples_seen"] == 8 * base["steps"]
    assert base["selection"]["last"]["step"] == base["steps"]
    assert f"base: stopped early, at step {base['steps']} of 12" in out
    assert "stopped early" in out.partition("later: ")[2]  # in the table at the end


def test_seeds_that_stop_early_are_trained_one_after_the_other(both, vectors, tmp_path, capsys):
    run_config(config(vectors, seeds=(0, 3), stages=("base",)), str(tmp_path))
    said = "base: early stopping ends each at a step of its own, so seeds 0, 3 are trained one after the other"
    assert said in capsys.readouterr().out
    ours, theirs = (summary_of(place / "seed_0", "base")["params_sha256"] for place in (tmp_path, both))
    assert ours == theirs


def test_a_later_stage_starts_from_the_average(both):
    base, _ = final(both / "seed_0" / "base")
    later, _ = final(both / "seed_0" / "later")
    names = [name for name in later if name.startswith("state.params.encoder.")]
    assert names
    for name in names:  # frozen
        np.testing.assert_array_equal(later[name], base[name])
        assert np.any(base[name] != base[name.replace("state.", "state.last.", 1)])


def test_a_killed_run_keeps_the_same(env, vectors, tmp_path):
    """In every way that a run keeps weights, at once; the bits of one that was not killed."""
    fields = {**TRAIN, "length": "steps(40)", "early_stopping": "patience(evaluations=3)"}
    overrides = [f"--config.base.{name}={value}" for name, value in fields.items()]
    overrides += [f"--config.dataset={vectors}", "--config.validation=0.2", "--config.stages=('base',)"]
    overrides += [f"--config.labels.pool={vectors}", "--config.base.loss=elr()"]
    whole = run(env, tmp_path / "whole", *overrides, config=CONFIG)
    assert whole.returncode == 0, whole.stderr
    for moment, resumed in (("before step 6", ""), ("during a save", "base: resuming from step")):
        dead = run(env, tmp_path / "killed", *overrides, config=CONFIG, program=(KILLER, moment))
        assert dead.returncode == -signal.SIGKILL and resumed in dead.stdout
    done = run(env, tmp_path / "killed", *overrides, config=CONFIG)
    assert done.returncode == 0 and "base: resuming from step" in done.stdout, done.stderr
    assert "Warning" not in done.stderr
    ours, theirs = (summary_of(tmp_path / name, "base") for name in ("killed", "whole"))
    assert "stopped_early" in theirs and committed(tmp_path / "killed" / "base" / CHECKPOINTS)[-1] == theirs["steps"]
    for key in ("steps", "stopped_early", "best_weights", "params_sha256", "test", "selection", "label_quality"):
        assert ours[key] == theirs[key]
    arrays = [final(tmp_path / name / "base" / "best")[0] for name in ("killed", "whole")]
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name])


def test_a_run_without_validation_cannot_stop_early(vectors, tmp_path):
    with pytest.raises(UserError) as error:
        run_config(config(vectors, validation=0.0), str(tmp_path))
    assert str(error.value) == (
        "config.base.early_stopping: nothing is held out; set --config.validation=0.1, say, or 'none()'"
    )
    assert not list(tmp_path.rglob("*.json"))


def test_what_is_stopped_for_belongs_to_the_stage(vectors, tmp_path):
    """Where evaluations decide when it ends, their cadence is part of its identity, and else it is not."""
    run_config(config(vectors, stages=("base", "later")), str(tmp_path))
    run_config(config(vectors, stages=("base", "later"), later={"eval_every": "steps(4)"}), str(tmp_path))
    with pytest.raises(UserError, match=r"base\.eval_every: steps\(n=2\) -> steps\(n=4\)"):
        run_config(config(vectors, stages=("base",), base={"eval_every": "steps(4)"}), str(tmp_path))
    assert plain_json((tmp_path / "base" / "identity.json").read_text())["base.eval_every"] == "steps(n=2)"
