"""Which code made a result: in and outside of checkouts, what a stage runs, and what a store serves after an edit."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers import layouts
from helpers.commands import ROOT

from lt_noisy import revision
from lt_noisy.config.resolve import default, resolve, section
from lt_noisy.runs.workdir import planned_sources, stage_sources
from lt_noisy.training import loop

# A pre-training and a fine-tuning of two steps each, as a sweep of one cell.
CONFIG = """
from lt_noisy.config.resolve import default, section
from lt_noisy.runs.sweeps.cells import axis

def get_config(variant=""):
    c = default()
    c.dataset = "features(path='features.npz')"
    c.model = "mlp(hidden=8)"
    c.devices = 1
    c.stages = ("pretrain", "finetune")
    values = {"length": "steps(2)", "batch_size": 8, "eval_every": "percent(100)"}
    c.pretrain = section(
        "self_supervised",
        objective="simclr(hidden=16, size=8)",
        monitor="knn(k=5)",
        augment="noise(0.3)",
        **values,
    )
    c.finetune = section("supervised", init="pretrain", augment="none()", **values)
    return c

def sweep(variant):
    return axis("seed", [0])
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the package, main.py and launch/; its directory is in no checkout that knows it."""
    directory = tmp_path / "project"
    for name in ("lt_noisy", "launch"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", directory)
    return directory


def evaluate(directory, expression, **variables):
    """An expression about `revision`, in a process that imports the package of `directory`."""
    program = f"import json; from lt_noisy import revision; print(json.dumps({expression}))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=directory, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def git(directory, *arguments):
    settings = ["-c", "user.name=x", "-c", "user.email=x@y.invalid", "-c", "commit.gpgsign=false"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # nobody else's checkout
    done = subprocess.run(["git", "-C", str(directory), *settings, *arguments], env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_code_in_a_checkout(project):
    outside = evaluate(project, "revision.code()")
    assert (outside["commit"], outside["changed"]) == (None, None) and len(outside["sources_sha256"]) == 64

    git(project.parent, "init", "-q")  # of another project, that has this one in a directory of its own
    (project.parent / "other").touch()
    git(project.parent, "add", "other")
    git(project.parent, "commit", "-q", "-m", "other")
    assert evaluate(project, "revision.code()") == outside

    (project / ".gitignore").write_text("__pycache__/\nignored*\n")
    git(project, "init", "-q")
    git(project, "add", ".")
    assert evaluate(project, "revision.code()") == outside  # no commit yet
    git(project, "commit", "-q", "-m", "first")
    commit = git(project, "rev-parse", "HEAD")
    clean = {**outside, "commit": commit, "changed": False}
    assert len(commit) == 40 and evaluate(project, "revision.code()") == clean
    assert evaluate(project, "revision.code()", PATH="") == outside  # no git
    assert evaluate(project, "revision.code()", GIT_DIR=str(project.parent / ".git")) == clean  # as in a hook

    (project / "notes.txt").touch()
    (project / "lt_noisy" / "notes.txt").touch()
    assert evaluate(project, "revision.code()") == clean
    edit(project / "main.py", "import sys\n", "import sys  # edited\n")
    assert evaluate(project, "revision.code()") == {**clean, "changed": True}
    git(project, "checkout", "-q", "main.py")
    edit(project / "lt_noisy" / "losses" / "plain.py", "-log_softmax", "-2.0 * log_softmax")
    edited = evaluate(project, "revision.code()")
    assert edited["changed"] and edited["sources_sha256"] != clean["sources_sha256"]
    git(project, "checkout", "-q", "lt_noisy")
    assert evaluate(project, "revision.code()") == clean
    for name in ("untracked.py", "ignored.py"):
        (project / "lt_noisy" / "losses" / name).touch()
        added = evaluate(project, "revision.code()")
        assert added["changed"] and added["sources_sha256"] != clean["sources_sha256"]
        (project / "lt_noisy" / "losses" / name).unlink()


def test_what_a_stage_runs():
    supervised, pretraining, mixnn = (
        set(revision.closure(f"lt_noisy.stages.{kind}")) for kind in ("supervised", "self_supervised", "mixnn")
    )
    assert {"lt_noisy.losses", "lt_noisy.losses.plain", "lt_noisy.training.loop", "lt_noisy.augment"} <= supervised
    assert {"lt_noisy", "lt_noisy.stages", "lt_noisy.stages.training", "lt_noisy.stages.supervised"} <= supervised
    assert (
        not {"lt_noisy.runs.run", "lt_noisy.runs.report", "lt_noisy.config.resolve", "lt_noisy.stages.mixnn"}
        & supervised
    )
    assert "lt_noisy.objectives" in pretraining - supervised
    assert not {"lt_noisy.losses", "lt_noisy.stages.supervised"} & pretraining
    assert supervised < mixnn  # which imports its network


def test_a_closure_has_all_that_python_loads():
    program = "import sys, lt_noisy.losses; print(*(n for n in sys.modules if n.partition('.')[0] == 'lt_noisy'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "lt_noisy.losses.plain" in loaded and loaded <= set(revision.closure("lt_noisy.losses"))


def test_closures_and_hashes_by_hand(tmp_path):
    files = {
        "__init__.py": "__version__ = '0'\n",
        "a.py": "import json\n\nfrom lt_noisy import b\n\n\ndef f():\n    from lt_noisy.inner import d\n",
        "b.py": "import lt_noisy.c as c\nfrom lt_noisy import __version__\n",
        "c.py": "x = 1\n",
        "inner/__init__.py": "from lt_noisy.inner.e import table\n",
        "inner/d.py": "from .. import c\nfrom .f import y\n",
        "inner/e.py": "table = {}\n",
        "inner/f.py": "from . import d\n\ny = 1\n",
        "g.py": "from lt_noisy.inner import table\n",
    }
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        for name, text in files.items():
            path = directory / "lt_noisy" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.replace("\n", "\r\n" if directory == there else "\n").encode())
        shutil.copy(revision.__file__, directory / "lt_noisy" / "revision.py")
    names = ["lt_noisy", "lt_noisy.a", "lt_noisy.b", "lt_noisy.c", "lt_noisy.inner", "lt_noisy.inner.d"]
    assert evaluate(here, "revision.closure('lt_noisy.a')") == [*names, "lt_noisy.inner.f"]
    with_table = ["lt_noisy", "lt_noisy.g", "lt_noisy.inner", "lt_noisy.inner.e"]
    assert evaluate(here, "revision.closure('lt_noisy.g')") == with_table

    hashes = "[revision.sources_sha256('lt_noisy.a'), revision.sources_sha256('lt_noisy.g')]"
    a, g = evaluate(here, hashes)
    assert evaluate(there, hashes) == [a, g] and a != g
    (here / "lt_noisy" / ".#a.py").symlink_to("nowhere")  # an editor's lock
    edit(here / "lt_noisy" / "inner" / "f.py", "y = 1", "y = 2")
    changed_a, same_g = evaluate(here, hashes)
    assert changed_a != a and same_g == g
    (there / "lt_noisy" / "inner" / "e.py").rename(there / "lt_noisy" / "inner" / "h.py")  # the same content
    edit(there / "lt_noisy" / "inner" / "__init__.py", "inner.e", "inner.h")
    same_a, changed_g = evaluate(there, hashes)
    assert changed_g != g and same_a != a  # the `__init__` on the way is edited


def test_code_in_a_few_characters():
    code = {"commit": "3bfb9e0d819b", "changed": False, "sources_sha256": "c877a7a16774"}
    assert revision.describe(code) == "3bfb9e0"
    assert revision.describe({**code, "changed": True}) == "3bfb9e0, changed (sources c877a7a)"
    assert revision.describe({**code, "commit": None, "changed": None}) == "sources c877a7a"
    assert revision.describe(None) == revision.describe(revision.UNRECORDED) == "unrecorded code"
    assert revision.codes([{"code": code}, {}, {"code": dict(code)}]) == [code, revision.UNRECORDED]


def test_a_checkpoint_of_other_code_is_gone_on_from_with_a_note(capsys):
    card = {"sources_sha256": "a", "code": {"commit": "3bfb9e0d819b", "changed": False, "sources_sha256": "a"}}
    loop._warn_if_elsewhere(card, {**card, "code": {"commit": "7bc1f0d"}})  # a commit of nothing that the stage runs
    assert capsys.readouterr().out == ""
    edited = {"sources_sha256": "b", "code": {**card["code"], "changed": True, "sources_sha256": "c877a7a16774"}}
    loop._warn_if_elsewhere(card, edited)
    note = capsys.readouterr().out
    assert "written with other code (code: 3bfb9e0 -> 3bfb9e0, changed (sources c877a7a)); the run goes on" in note


def test_the_sources_of_a_stage_are_also_those_of_its_model_and_of_what_it_reads(monkeypatch):
    c = default()
    c.base, c.tuned = section("supervised"), section("supervised", init="base")
    c.stages = ("base", "tuned")
    base, tuned = (resolved := resolve(c)).stages
    planned = planned_sources(resolved)
    assert planned == {"base": stage_sources(base, {}), "tuned": stage_sources(tuned, {"base": planned["base"]})}
    assert stage_sources(tuned, {"base": "made by others"}) != planned["tuned"] != planned["base"]
    with monkeypatch.context() as edited:
        edited.setitem(revision.SOURCES, "lt_noisy/models/resnet.py", b"")
        revision.sources_sha256.cache_clear()
        again = planned_sources(resolved)
    revision.sources_sha256.cache_clear()
    assert again["base"] != planned["base"] and again["tuned"] != planned["tuned"]


@pytest.mark.parametrize("path", sorted((ROOT / "results").rglob("*.json")), ids=lambda path: path.stem)
def test_every_record_names_its_code_or_says_that_it_cannot(path):
    made_by = json.loads(path.read_text())["code"]
    names = {"commit", "changed", "sources_sha256"}
    codes = made_by if isinstance(made_by, list) else [made_by]
    assert codes and all(code == revision.UNRECORDED or names <= code.keys() for code in codes)


def test_a_store_serves_what_the_same_sources_made_and_nothing_else(project, env):
    """A sweep before and after an edit of what none of its stages runs, then of the loss of the second."""
    (project / "grid.py").write_text(CONFIG)
    layouts.features(project)

    def sweep():
        command = [sys.executable, "launch/sweep.py", "--config=grid.py", "--root=runs/grid"]
        done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, json.loads((project / "runs/grid/record.json").read_text())

    def stages(name):
        return set((project / "runs/grid/stages").glob(f"{name}-*"))

    out, first = sweep()
    assert out.startswith("1 cells, 0 finished already")
    (code,) = first["code"]
    assert code == evaluate(project, "revision.code()") and code["commit"] is None
    (finetune,), (cell,) = stages("finetune"), (project / "runs/grid/cells").iterdir()
    summary = json.loads((finetune / "summary.json").read_text())
    card = json.loads((finetune / "checkpoints" / "00000002.json").read_text())
    assert summary["code"] == card["code"] == code
    assert len(summary["sources_sha256"]) == 64 and summary["sources_sha256"] == card["sources_sha256"]

    edit(project / "lt_noisy" / "runs" / "report.py", '"""What a run', '"""All that a run')
    out, second = sweep()
    assert out.startswith("1 cells, 1 finished already") and second == first

    edit(project / "lt_noisy" / "losses" / "plain.py", "at_target(-log_softmax", "2.0 * at_target(-log_softmax")
    out, third = sweep()
    assert out.startswith("1 cells, 0 finished already")
    assert third["cells"][0]["params_sha256"] != first["cells"][0]["params_sha256"]
    assert third["code"][0] == code and third["code"][1] != code and len(third["code"]) == 2  # one of either stage
    assert len(stages("pretrain")) == 1 and len(stages("finetune")) == 2 and finetune in stages("finetune")
    (log,) = (path.read_text() for path in project.glob("runs/grid/cells/*/log.txt") if path.parent != cell)
    assert "pretrain: finished already, skipped" in log and "finetune: finished already" not in log

    # What a workdir is linked to is served without the store, too, but not in silence.
    command = [sys.executable, "main.py", "--config=grid.py", f"--workdir={cell}", "--config.seed=0"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and notes[0].startswith(f"note: finetune was made by {revision.describe(code)}, and its ")
    assert done.stdout.count("finished already, skipped") == 2
