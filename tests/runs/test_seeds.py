"""`config.seeds`: each seed is its own run, bit for bit where the step is, and a summary stands above them."""

import json
import re
import statistics

import pytest
from helpers import layouts
from helpers.commands import KILLER, metrics_of, plain_json, run, summary_of
from ml_collections import ConfigDict

from lt_noisy.config.resolve import default, section
from lt_noisy.errors import UserError
from lt_noisy.runs.run import run as run_config
from lt_noisy.stages import STAGES
from lt_noisy.stages.base import Training

TRAIN = {
    "length": "steps(4)",
    "batch_size": 16,
    "augment": "digits()",
    "schedule": "cosine(lr=0.05)",
    "log_every": "steps(2)",
    "eval_every": "steps(2)",
    "save_every": "steps(2)",
}
SSL = {**TRAIN, "augment": "simclr_digits()", "monitor": "none()"}


def config(**values):
    """Every kind that trains one network, and one that does not; what is drawn by the seed is in every one."""
    c = default()
    c.dataset = "digits(test_per_class=5)"
    c.longtail = "explicit(counts=(12, 10, 8, 8, 8, 6, 6, 6, 6, 6))"
    c.noise = "symmetric(rate=0.4)"
    c.model = "resnet8(width=4)"
    c.devices = 1
    c.stages = ("moco", "distil", "elr", "mixnn", "balanced")
    c.moco = section("self_supervised", objective="moco(queue=32, hidden=16, size=8)", **SSL)
    c.distil = section("distil", base="moco", experts="none()", hidden=8, **SSL)
    c.elr = section("supervised", init="distil", loss="elr()", **TRAIN)
    c.mixnn = section("mixnn", warmup=1, correct_from=0, correct_every=1, **TRAIN)
    c.balanced = section("classifier", init="elr")
    c.update(ConfigDict(values))
    return c


ALL = config().stages


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Seeds 0 and 3 in one process."""
    workdir = tmp_path_factory.mktemp("seeds")
    path = run_config(config(seeds=(0, 3)), str(workdir))
    assert path == workdir / "summary.json"
    return workdir


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Seed 3, the run of its own."""
    workdir = tmp_path_factory.mktemp("alone")
    run_config(config(seed=3), str(workdir))
    return workdir


def test_every_kind_of_one_network_is_among_the_stages():
    trained = {kind for kind, its in STAGES.items() if isinstance(its.run, Training)}
    assert trained == {config()[name].kind for name in ALL} - {"classifier"}


@pytest.mark.parametrize("stage", ALL)
def test_a_seed_beside_another_is_its_own_run_bit_for_bit(both, alone, stage):
    ours, theirs = summary_of(both / "seed_3", stage), summary_of(alone, stage)
    of_time = {"train_seconds", "wall_seconds", "images_per_second", "trained_with_seeds"}
    assert {k: v for k, v in ours.items() if k not in of_time} == {k: v for k, v in theirs.items() if k not in of_time}
    if stage != "balanced":
        assert ours["trained_with_seeds"] == [0, 3]
        assert metrics_of(both / "seed_3", stage) == metrics_of(alone, stage)
        assert summary_of(both / "seed_0", stage)["params_sha256"] != ours["params_sha256"]


def test_a_seed_has_the_directory_of_its_own_run(both, alone):
    def tree(root):
        found = [path.relative_to(root) for path in root.rglob("*") if "checkpoints/" not in str(path)]
        return sorted(str(path) for path in found if path.parts[0] != "log")  # of a process, which trains all seeds

    assert tree(both / "seed_3") == tree(alone)
    assert (both / "seed_3" / "manifest.json").read_text() == (alone / "manifest.json").read_text()


def test_a_seed_can_be_run_again_by_itself_and_is_finished(both, capsys):
    before = (both / "seed_3" / "elr" / "summary.json").read_text()
    run_config(config(seed=3), str(both / "seed_3"))
    out = capsys.readouterr().out
    assert all(f"{stage}: finished already, skipped" in out for stage in ALL)
    assert (both / "seed_3" / "elr" / "summary.json").read_text() == before


def test_the_summary_is_mean_and_deviation_of_what_each_seed_says(both, capsys):
    run_config(config(seeds=(0, 3)), str(both))  # finished: says it again
    out = capsys.readouterr().out
    summary = plain_json((both / "summary.json").read_text())
    assert summary["seeds"] == [0, 3] and list(summary["stages"]) == list(ALL)
    values = [summary_of(both / f"seed_{seed}", "elr")["test"]["balanced_accuracy"] for seed in (0, 3)]
    found = summary["stages"]["elr"]["test.balanced_accuracy"]
    assert found["seeds"] == dict(zip(("0", "3"), values, strict=True))
    assert found["mean"] == statistics.mean(values) and found["std"] == statistics.stdev(values)
    mean, std = 100 * found["mean"], 100 * found["std"]
    assert f"{mean:.1f} ± {std:.1f} % ({100 * values[0]:.1f}, {100 * values[1]:.1f})" in out


def test_seeds_on_devices_of_their_own_are_their_own_runs_too(alone, tmp_path):
    c = config(seeds=(2, 3), stages=("moco",), devices=2)
    run_config(c, str(tmp_path))
    ours, theirs = summary_of(tmp_path / "seed_3", "moco"), summary_of(alone, "moco")
    assert ours["params_sha256"] == theirs["params_sha256"] and ours["machine"]["devices"] == 1


# Vectors, whose networks compile at once and are vectorised.


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    root = tmp_path_factory.mktemp("vectors")
    layouts.features(root)
    return {
        "config": ["--config=tests/helpers/features_config.py"],
        "overrides": [
            f"--config.dataset=features(path='{root}/features.npz')",
            f"--config.labels.pool=features(path='{root}/features.npz')",
            "--config.model=mlp(hidden=8)",
            "--config.validation=0.0",
            "--config.base.save_every=steps(4)",
            "--config.base.log_every=steps(2)",
        ],
    }


def of_vectors(env, vectors, workdir, *overrides, program=("main.py",)):
    return run(env, workdir, *vectors["overrides"], *overrides, config=vectors["config"], program=program)


def test_vectorised_seeds_go_through_stages_of_every_sort(env, vectors, tmp_path):
    done = of_vectors(env, vectors, tmp_path, "--config.seeds=(0, 1)")
    assert done.returncode == 0, done.stderr
    assert "base: seeds 0, 1 are trained together, vectorised" in done.stdout
    assert "Warning" not in done.stderr
    stages = [path.parent.name for path in (tmp_path / "seed_1").glob("*/summary.json")]
    assert len(stages) == 8
    hashes = [[summary_of(tmp_path / f"seed_{k}", s).get("params_sha256", k) for s in stages] for k in (0, 1)]
    assert all(a != b for a, b in zip(*hashes, strict=True))


def test_a_kill_resumes_all_seeds_from_the_checkpoint_that_all_have(env, vectors, tmp_path):
    """One run, each process of which is killed where the moment says."""
    seeds = ["--config.seeds=(0, 1)", "--config.stages=('base',)", "--config.base.length=steps(16)"]
    whole = of_vectors(env, vectors, tmp_path / "whole", *seeds)
    assert whole.returncode == 0, whole.stderr
    resumes = {
        "before step 11": "",
        "between the saves of two seeds": "from step 8 of",
        "during a save": "from step 12 of",
    }
    for moment, resumed in resumes.items():
        killed = of_vectors(env, vectors, tmp_path / "killed", *seeds, program=(KILLER, moment))
        assert killed.returncode == -9 and resumed in killed.stdout, (moment, killed.stdout)
    rest = of_vectors(env, vectors, tmp_path / "killed", *seeds)
    assert rest.returncode == 0 and re.search("resuming from step (12|16) of 16", rest.stdout), rest.stderr
    for seed in (0, 1):
        ours, theirs = (tmp_path / name / f"seed_{seed}" for name in ("killed", "whole"))
        assert summary_of(ours, "base")["params_sha256"] == summary_of(theirs, "base")["params_sha256"]
        assert metrics_of(ours, "base") == metrics_of(theirs, "base")
    # A finished seed stands; another joins it.
    more = of_vectors(env, vectors, tmp_path / "killed", "--config.seeds=(0, 1, 2)", *seeds[1:])
    assert more.returncode == 0, more.stderr
    assert more.stdout.count("base: finished already, skipped") == 2
    assert json.loads((tmp_path / "killed" / "summary.json").read_text())["seeds"] == [0, 1, 2]


BAD = {
    "twice": ({"seeds": (1, 2, 1)}, "config.seeds: (1, 2, 1) names a seed twice"),
    "seed too": ({"seeds": (1, 2), "seed": 3}, "config.seed=3 and config.seeds=(1, 2): set one of them"),
    "a text": ({"seeds": ("a",)}, "config.seeds: whole numbers of at least 0"),
    "negative": ({"seeds": (-1, 0)}, "config.seeds: whole numbers of at least 0"),
    "a truth value": ({"seeds": (True, 0)}, "config.seeds: whole numbers of at least 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_seeds_are_one_line_before_work_starts(case, tmp_path):
    values, says = BAD[case]
    with pytest.raises(UserError) as error:
        run_config(config(**values), str(tmp_path / "run"))
    assert says in str(error.value) and not (tmp_path / "run").exists()


def test_what_the_data_refuses_is_refused_before_a_seed_writes(tmp_path):
    with pytest.raises(UserError, match=r"batch_size: 500 is not between 1 and"):
        run_config(config(seeds=(0, 1), moco={"batch_size": 500}), str(tmp_path))
    assert not list(tmp_path.rglob("*.json"))
