"""The program as its users start it: tiny runs, as child processes, and what they leave."""

import json
import os
import pathlib
import subprocess
import sys

from helpers import forked

# The suite is mostly compilation of programs that run once on tiny shapes: do not optimise them, and write fusions in
# LLVM directly, not by way of MLIR, which takes longer. The latter is an option of older XLA; newer ignores it.
FAST_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
SOONER = "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"


def xla_flags(devices: int) -> str:
    """XLA_FLAGS for so many CPU devices, after those that are there already (the last of equal names counts)."""
    given = os.environ.get("XLA_FLAGS", "")
    return f"{given} --xla_force_host_platform_device_count={devices} {FAST_COMPILE} {SOONER}"


def by_way_of_mlir(env):
    """`env` for runs of *different* programs that have equal bits: the other way contracts what a fusion holds."""
    return {**env, "XLA_FLAGS": env["XLA_FLAGS"].replace(SOONER, "")}


HANGS = 3600  # seconds until what waits gives up: what takes so long has hung, on any machine

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

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

KILLER, STOPPER = (ROOT / "tests" / "helpers" / name for name in ("killer.py", "stopper.py"))


def run(env, workdir, *overrides, program=("main.py",), config=CONFIG):
    """main.py (or `program`) as a child process; `env` is the fixture."""
    script, *arguments = *map(str, program), *config, f"--workdir={workdir}", *overrides
    if script in ("main.py", str(KILLER), str(STOPPER)):
        return started(script, arguments, env)
    command = [sys.executable, script, *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=HANGS)


def started(script, arguments, env, cwd=ROOT):
    """A script as a child process that imports the program at the least cost."""
    if forked.fits(env):
        return forked.run(script, arguments, env, cwd, HANGS)
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=HANGS)


def plain_json(text):
    """What JSON says; NaN and the infinities, which Python reads and JSON does not know, are errors."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def summary_of(workdir, stage):
    """A stage's summary."""
    return plain_json((workdir / stage / "summary.json").read_text())


def metrics_of(workdir, stage):
    """Its metrics file without times."""
    lines = [plain_json(line) for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
