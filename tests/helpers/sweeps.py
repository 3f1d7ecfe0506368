"""Sweeps of a tiny config, and of a stand-in for main.py, as `launch/sweep.py` runs them in the current directory."""

import pathlib
import time

import sweep
from helpers.commands import HANGS

from lt_noisy.runs.sweeps import run as sweeps_run

# Two stages of four steps, saved every two; `SWEEP` stands for the body of the file's sweep.
CONFIG = """
from lt_noisy.config.resolve import default, section
from lt_noisy.runs.sweeps.cells import axis, chain, product

def get_config(variant=""):
    c = default()
    c.dataset = "digits(test_per_class=20)"
    c.longtail = "exponential(ratio=10)"
    c.model = "resnet8(width=4)"
    c.devices = 1
    c.stages = ("base", "finetune")
    values = {"length": "steps(4)", "batch_size": 32, "augment": "digits()", "save_every": "steps(2)"}
    values |= {"eval_every": "percent(100)"}
    c.base = section("supervised", **values)
    c.finetune = section("supervised", init="base", freeze_encoder=True, **values)
    return c

def sweep(variant):
    loss = axis("loss", {"CE": {}, "GCE": {"finetune.loss": "gce(q=0.7)"}})
    SWEEP
"""

# In place of main.py: a cell that writes what a run leaves, as its labels in the name of the workdir say.
STUB = """
import json, pathlib, signal, sys, time
workdir = pathlib.Path(next(a.split("=", 1)[1] for a in sys.argv if a.startswith("--workdir=")))
signal.signal(signal.SIGTERM, lambda *_: (print("saved"), sys.exit(143)))
print("started", flush=True)
if "kind=slow" in workdir.name and not (workdir / "again").exists():
    (workdir / "again").touch()
    time.sleep(HANGS)
if "kind=bad" in workdir.name:
    print("error: it cannot be")
    print("a last word")
    sys.exit(2)
if "kind=shot" in workdir.name:
    import os
    os.kill(os.getpid(), 9)
summary = {"test": {"balanced_accuracy": 0.5}, "params_sha256": "ab", "wall_seconds": 1.5}
summary |= {"versions": {"jax": "1"}, "machine": {"cores": 1}, "code": {"commit": "c"}}
summary |= {"sources_sha256": "edited" if "kind=edited" in workdir.name else "planned"}
for stage in ("base", "finetune"):
    (workdir / stage).mkdir(parents=True, exist_ok=True)
    (workdir / stage / "summary.json").write_text(json.dumps(summary))
""".replace("HANGS", str(HANGS))

STUB_SOURCES = "lambda resolved: dict.fromkeys((stage.name for stage in resolved.stages), 'planned')"


def stand_in(monkeypatch, program=STUB):
    """`program` in place of main.py."""
    pathlib.Path("stub.py").write_text(program)
    monkeypatch.setattr(sweeps_run, "MAIN", pathlib.Path("stub.py").absolute())
    monkeypatch.setattr(sweeps_run, "planned_sources", eval(STUB_SOURCES))


def write_config(body, tail=""):
    pathlib.Path("grid.py").write_text(CONFIG.replace("SWEEP", body) + tail)


def call(*arguments):
    return sweep.main(["sweep.py", "--config=grid.py", "--root=runs/grid", *arguments])


def logs():
    """{labels: what the processes of the cell wrote}, `$` lines for commands among it."""
    return {p.parent.name.rpartition("-")[0]: p.read_text() for p in pathlib.Path("runs/grid/cells").glob("*/log.txt")}


def wait_until(ready):
    """Polls."""
    assert any(ready() or time.sleep(0.05) for _ in range(20 * HANGS))
