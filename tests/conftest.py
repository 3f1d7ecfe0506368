"""Eight CPU devices and strict promotion for every test and its children; the tiny run of the command line's tests."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

# Set before JAX starts, and inherited by child processes: no dtype and no rank changes unless the code says so.
os.environ.update(JAX_PLATFORMS="cpu", JAX_NUMPY_DTYPE_PROMOTION="strict", JAX_NUMPY_RANK_PROMOTION="raise")
# The suite is mostly compilation of programs that run once on tiny shapes: do not optimise them.
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {FAST_COMPILE}"

ROOT = pathlib.Path(__file__).resolve().parent.parent

# 20 pre-training steps and 16 of fine-tuning, saved and logged every 5 and 4.
CONFIG = [
    "--config=configs/digits_lt_noise.py:small",
    "--config.devices=1",
    "--config.model=resnet8(width=4)",
    "--config.dataset=digits(test_per_class=20)",
    "--config.pretrain.length=steps(20)",
    "--config.pretrain.log_every=steps(5)",
    "--config.pretrain.eval_every=steps(10)",
    "--config.pretrain.save_every=steps(5)",
    "--config.finetune.length=steps(16)",
    "--config.finetune.log_every=steps(4)",
    "--config.finetune.eval_every=steps(8)",
    "--config.finetune.save_every=steps(4)",
]

NO_RECIPE = ["--config.longtail=none()", "--config.noise=none()"]

SSL = ["--config=tests/helpers/ssl_config.py"]  # every stage kind of self-supervised learning

NOISY = ["--config=tests/helpers/noisy_config.py"]  # and every one of learning from noisy labels

KILLER = ROOT / "tests" / "helpers" / "killer.py"


@pytest.fixture(scope="session")
def env(tmp_path_factory):
    """The environment of a child: one CPU device, and a compilation cache that all children share."""
    cache = tmp_path_factory.getbasetemp().parent / "xla-cache"
    return {
        **os.environ,
        "XLA_FLAGS": FAST_COMPILE,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
    }


def run(env, workdir, *overrides, program=("main.py",), config=CONFIG):
    """main.py (or `program`) as a child process; `env` is the fixture."""
    command = [sys.executable, *map(str, program), *config, f"--workdir={workdir}", *overrides]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)


def summary_of(workdir, stage):
    """A stage's summary."""
    return json.loads((workdir / stage / "summary.json").read_text())


def metrics_of(workdir, stage):
    """Its metrics file without times."""
    lines = [json.loads(line) for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
