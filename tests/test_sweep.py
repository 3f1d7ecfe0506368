"""`launch/sweep.py`: binding before anything runs, sharing stages, failing, stopping, going on."""

import fcntl
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from conftest import FAST_COMPILE, ROOT

from lt_noisy import run as runs
from lt_noisy import sweeps
from lt_noisy.config import identity_sha256
from lt_noisy.metrics import write_json
from lt_noisy.spec import UserError
from lt_noisy.workdir import claim, link, waited_for

# Two stages of four steps, saved every two; `SWEEP` stands for the body of the file's sweep.
CONFIG = """
from lt_noisy import config
from lt_noisy.sweeps import axis, chain, product, zipped

def get_config(variant=""):
    c = config.default()
    c.dataset = "digits(test_per_class=20)"
    c.longtail = "exponential(ratio=10)"
    c.model = "resnet8(width=4)"
    c.devices = 1
    c.stages = ("base", "finetune")
    values = {"length": "steps(4)", "batch_size": 32, "augment": "digits()", "save_every": "steps(2)"}
    values |= {"eval_every": "percent(100)"}
    c.base = config.section("supervised", **values)
    c.finetune = config.section("supervised", init="base", freeze_encoder=True, **values)
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
    time.sleep(60)
if "kind=bad" in workdir.name:
    print("error: it cannot be")
    print("a last word")
    sys.exit(2)
if "kind=shot" in workdir.name:
    import os
    os.kill(os.getpid(), 9)
(workdir / "finetune").mkdir()
summary = {"test": {"balanced_accuracy": 0.5}, "params_sha256": "ab", "wall_seconds": 1.5}
summary |= {"versions": {"jax": "1"}, "machine": {"cores": 1}}
(workdir / "finetune" / "summary.json").write_text(json.dumps(summary))
"""


@pytest.fixture(scope="module")
def sweep():
    """The module `launch/sweep.py`."""
    spec = importlib.util.spec_from_file_location("sweep", ROOT / "launch" / "sweep.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_config(body, tail=""):
    pathlib.Path("grid.py").write_text(CONFIG.replace("SWEEP", body) + tail)


def call(sweep, *arguments):
    return sweep.main(["sweep.py", "--config=grid.py", "--root=runs/grid", *arguments])


def logs():
    """{labels: what the processes of the cell wrote}, `$` lines for commands among it."""
    return {p.parent.name.rpartition("-")[0]: p.read_text() for p in pathlib.Path("runs/grid/cells").glob("*/log.txt")}


def test_nothing_starts_before_every_cell_binds(here):
    """As a process of its own, which also tells that planning leaves the accelerator to the cells."""
    write_config('return product(axis("bad", {"no": {}, "yes": {"finetune.batch_size": 1.5}}), loss)')
    program = (
        "import runpy, sys; from jax._src import xla_bridge\n"
        f"main = runpy.run_path({str(ROOT / 'launch' / 'sweep.py')!r})['main']\n"
        "status = main(['sweep.py', '--config=grid.py', '--root=runs/grid'])\n"
        "assert not xla_bridge._backends, xla_bridge._backends; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cell bad=yes, loss=CE: ") and "batch_size" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not os.path.exists("runs")


@pytest.mark.parametrize(
    ("arguments", "body", "says"),
    [
        (["--config.finetune.los=x"], "return loss", "cell loss=CE: --config.finetune.los: "),
        (["--config.seed=3"], 'return product(loss, axis("seed", [1]))', "--config.seed=3 has no effect"),
        (["--jobs=0"], "return loss", "--jobs is at least 1"),
        (["--seeds=3"], "return loss", "--seeds=3"),
        ([], "return 1 / 0", "grid.py: ZeroDivisionError"),
        ([], "return loss + axis('loss', {'C_E': {}, 'C E': {}})", "the same config as cell loss=C_E"),
        (["--config=absent.py"], "return loss", "no file 'absent.py'"),
        (["--show=grid.py"], "return loss", "not the record of a sweep"),
    ],
)
def test_bad_input_is_one_line(sweep, here, capsys, arguments, body, says):
    write_config(body)
    assert call(sweep, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and len(error.strip().splitlines()) == 1
    assert not os.path.exists("runs")


def test_a_shared_stage_runs_once_and_goes_on_where_it_was_killed(sweep, here, monkeypatch, capsys, tmp_path_factory):
    """The real main.py: two cells at once that need one `base`, which was killed once; a third that no data fits."""
    monkeypatch.setenv("XLA_FLAGS", FAST_COMPILE)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp().parent / "xla-cache"))
    write_config("return chain(loss, axis('loss', {'big': {'finetune.batch_size': 5000}}))")
    killer = [sys.executable, str(ROOT / "tests" / "killer.py"), "before step 4", "--config=grid.py"]
    killed = subprocess.run([*killer, "--workdir=killed", "--store=runs/grid/stages"], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    assert call(sweep, "--jobs=2", "--record=grid.json") == 1
    out = capsys.readouterr().out
    assert "failed: loss=big: exit status 2: error: config.finetune.batch_size: 5000" in out
    stages = sorted(path.name.rpartition("-")[0] for path in pathlib.Path("runs/grid/stages").iterdir())
    assert stages == ["base", "finetune", "finetune"]
    base = next(pathlib.Path("runs/grid/stages").glob("base-*"))
    ran = [text for text in logs().values() if "base: resuming from step 2 of 4" in text]
    shared = [text for text in logs().values() if "base: finished already, skipped" in text]
    assert len(ran) == len(shared) == 1
    cell = next(pathlib.Path("runs/grid/cells").glob("*GCE*"))
    assert os.readlink(cell / "base") == f"../../stages/{base.name}"
    assert not os.path.exists("grid.json") and "2 cells" not in out

    write_config("return loss")  # without the one that fails: all is there already
    assert call(sweep, "--record=grid.json") == 0
    out = capsys.readouterr().out
    assert out.startswith("2 cells, 2 finished already")
    record = json.loads(pathlib.Path("grid.json").read_text())
    assert record["command"] == "python launch/sweep.py --config=grid.py --root=runs/grid --record=grid.json --jobs=1"
    assert str(here) not in json.dumps(record) and str(ROOT) not in json.dumps(record)
    assert len({c["params_sha256"] for c in record["cells"]}) == 2 and record["versions"][0]["jax"]
    summary = json.loads((cell / "finetune" / "summary.json").read_text())
    assert record["cells"][1]["figures"]["balanced accuracy"] == summary["test"]["balanced_accuracy"]
    assert record["cells"][1]["overrides"] == {"finetune.loss": "gce(q=0.7)"}
    for file in ("grid.json", "runs/grid/record.json"):
        assert sweep.main(["sweep.py", f"--show={file}"]) == 0
        assert capsys.readouterr().out.strip() == sweeps.table(record)
    assert (
        pathlib.Path("runs/grid/table.md").read_text().strip() == sweeps.table(record) == out.split("\n", 1)[1].strip()
    )
    assert sweep.main(["sweep.py", "--show=grid.json", "--csv"]) == 0
    assert capsys.readouterr().out == pathlib.Path("runs/grid/table.csv").read_text()


def test_failed_cells_are_listed_and_run_again(sweep, here, monkeypatch, capsys):
    pathlib.Path("stub.py").write_text(STUB)
    monkeypatch.setattr(sweep, "MAIN", here / "stub.py")
    body = 'return product(axis("kind", {"bad": {}, "good": {}, "shot": {}}), axis("seed", range(2)))'
    write_config(body, 'BASELINE = {"kind": "good"}\nFIGURES = {"test.balanced_accuracy": "BA", "wall_seconds": "s"}\n')
    assert call(sweep, "--jobs=3") == 1
    out = capsys.readouterr().out
    assert out.count("\nfailed: ") == 4 and "failed: kind=bad, seed=1: exit status 2: error: it cannot be\n" in out
    assert "kind=shot, seed=0: killed by SIGKILL: started" in out
    assert "4 cells are not finished" in out and "| kind | BA | s | gain | n |" in out
    assert "| good | 50.0 ± 0.0 | 150.0 ± 0.0 |  | 2 |" in out and "| bad |  |  |  | 0 |" in out
    pathlib.Path("stub.py").write_text(STUB.replace("kind=bad", "kind=none"))
    assert call(sweep) == 1
    assert capsys.readouterr().out.count("\nfailed: ") == 2
    counts = {name: text.count("$ python") for name, text in logs().items()}
    assert {name: n for name, n in counts.items() if "good" in name} == {"kind=good,seed=0": 1, "kind=good,seed=1": 1}
    assert all(n == 2 for name, n in counts.items() if "good" not in name)
    # A cell whose config changes is another cell; what merely logs is not.
    assert call(sweep, "--config.finetune.log_every=steps(1)") == 1 and "6 cells, 4 fin" in capsys.readouterr().out
    assert call(sweep, "--config.finetune.batch_size=8") == 1 and "6 cells, 0 fin" in capsys.readouterr().out


def test_cells_that_would_wait_for_a_stage_let_others_go_first(sweep, here, monkeypatch):
    """Of each noise three cells need one `base`, which reads observed labels."""
    write_config(
        'noise = axis("noise", {"none": {}, "some": {"noise": "symmetric(rate=0.2)"}})\n'
        '    return product(noise, axis("q", {q: {"finetune.loss": f"gce(q={q})"} for q in (0.5, 0.6, 0.7)}))'
    )
    started = []

    class Child:
        """Ends after four looks at it."""

        def __init__(self, planned):
            self.planned, self.looks, self.process = planned, 0, SimpleNamespace(poll=self.poll, returncode=0)
            started.append(tuple(planned.cell.labels.values()))

        def poll(self):
            self.looks += 1
            return 0 if self.looks > 4 else None

    monkeypatch.setattr(sweep, "Child", Child)
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0)
    planned = sweep.plan(sweep.read_sweep("grid.py").cells, "grid.py", here, [])
    sweep.run_all(planned, 2, SimpleNamespace(pending=None), lambda child: None)
    by_hand = [("none", 0.5), ("some", 0.5), ("none", 0.6), ("none", 0.7), ("some", 0.6), ("some", 0.7)]
    assert started == by_hand  # the two bases side by side; once they are there, the order of the sweep
    started.clear()
    sweep.run_all(planned[:3], 3, SimpleNamespace(pending=None), lambda child: None)
    assert started == [("none", 0.5), ("none", 0.6), ("none", 0.7)]  # nothing else to do: they wait for their base


def test_a_signal_stops_the_cells_and_the_same_command_goes_on(sweep, here, monkeypatch, capsys):
    pathlib.Path("stub.py").write_text(STUB)
    monkeypatch.setattr(sweep, "MAIN", here / "stub.py")
    write_config('return axis("kind", {"slow": {}, "slow too": {"seed": 1}, "late": {"seed": 2}})')

    def kill():
        while len([text for text in logs().values() if "started" in text]) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    pathlib.Path("runs/grid/cells").mkdir(parents=True)
    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(SystemExit) as stopped:
        call(sweep, "--jobs=2")
    thread.join()
    assert stopped.value.code == 143
    out = capsys.readouterr().out
    assert out.count(": stopped") == 2 and "failed" not in out and "3 cells are not finished" in out
    assert sorted(text.splitlines()[-1] for text in logs().values()) == ["saved", "saved"]  # `late` never started
    assert call(sweep, "--jobs=2") == 0
    assert len(logs()) == 3 and "3 cells, 0 finished" in capsys.readouterr().out


HOLD = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(1, flush=True); time.sleep(60)"


def holder(directory):
    """A process that holds the lock of a stage's directory."""
    directory.mkdir(parents=True, exist_ok=True)
    child = subprocess.Popen([sys.executable, "-c", HOLD, directory / ".lock"], stdout=subprocess.PIPE)
    child.stdout.readline()
    child.stdout.close()
    return child


def test_a_stage_under_way_is_waited_for_and_a_killed_one_taken_over(tmp_path, capfd):
    child = holder(tmp_path / "base")

    def kill():
        while "waiting" not in capfd.readouterr().out:
            time.sleep(0.05)
        child.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with waited_for(tmp_path / "base"):
        thread.join()
        assert child.wait() == -signal.SIGKILL
        with open(tmp_path / "base" / ".lock") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_was_waited_for_is_not_done_again(tmp_path, capfd):
    """`finished` is asked again under the lock; a stage that is finished needs no lock at all."""
    identity, directory = {"seed": 0}, tmp_path / "base"
    child = holder(directory)

    def finish():
        while "waiting" not in capfd.readouterr().out:
            time.sleep(0.05)
        claim(directory, identity)
        write_json(directory / "summary.json", {"identity_sha256": identity_sha256(identity), "wall_seconds": 3})
        child.kill()

    stage = SimpleNamespace(name="base", kind=SimpleNamespace(run=None))  # to run it would be an error
    job = SimpleNamespace(directory=directory)
    thread = threading.Thread(target=finish)
    thread.start()
    assert runs._finish(stage, job, identity)["wall_seconds"] == 3
    thread.join()
    child.wait()
    with holder(directory) as child:
        assert runs._finish(stage, job, identity)["wall_seconds"] == 3
        child.kill()
    assert capfd.readouterr().out == 2 * "base: finished already, skipped\n"  # and nothing of waiting


def test_links_to_the_store(tmp_path):
    store, base = tmp_path / "store", tmp_path / "run" / "base"
    base.parent.mkdir()
    link(base, store, {"seed": 0})
    first = os.readlink(base)
    assert first.startswith("../store/base-") and base.is_dir()
    link(base, store, {"seed": 0})
    link(base, store, {"seed": 1})  # nothing was started there
    assert os.readlink(base) != first
    claim(base, {"seed": 1})
    with pytest.raises(UserError, match=r"holds another run of this stage \(seed: 1 -> 2\)"):
        link(base, store, {"seed": 2})
    (tmp_path / "run" / "own").mkdir()
    with pytest.raises(UserError, match="own is a directory where a link would go"):
        link(tmp_path / "run" / "own", store, {"seed": 0})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--store=.*file: cannot be written"):
        link(tmp_path / "run" / "other", tmp_path / "file", {})
