"""`launch/sweep.py`: binding before anything runs, sharing stages, failing, stopping, going on."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import pytest
import sweep
from helpers.commands import HANGS, KILLER, ROOT, started, xla_flags
from helpers.sweeps import STUB, STUB_SOURCES, call, logs, stand_in, wait_until, write_config

from lt_noisy.runs.sweeps import run as sweeps_run
from lt_noisy.runs.sweeps import tables


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
        ([], "return axis('loss', {'C_E': {}, 'C E': {}})", "cell loss=C E: the same config as cell loss=C_E"),
        ([], "return loss + axis('loss', {'plain': {}})", "cell loss=plain: the same config as cell loss=CE"),
        (["--only=seed=0"], "return loss", "--only=seed=0: give AXIS=LABEL (axes here: loss)"),
        (["--only=loss=LA"], "return loss", "--only=loss=LA: no cell has it (loss is CE | GCE)"),
        (["--only=loss=CE", "--only=seed=1"], "return loss + axis('seed', [1])", "no cell has all of --only=loss=CE, "),
        (["--config=absent.py"], "return loss", "no file 'absent.py'"),
        (["--config=README.md"], "return loss", "'README.md' is not a Python file"),
        (["--csv"], "return loss", "--csv goes with --show"),
        (["--figure=gain"], "return loss", "--figure goes with --show"),
        (["--show=grid.json"], "return loss", "--show only prints: it takes no --config"),
    ],
)
def test_bad_input_is_one_line(here, capsys, arguments, body, says):
    write_config(body)
    pathlib.Path("README.md").touch()
    refused(capsys, lambda: call(*arguments), says)
    assert not os.path.exists("runs")


def refused(capsys, run, says):
    """Exit status 2 and one line of error."""
    assert run() == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and says in error and len(error.strip().splitlines()) == 1


def test_a_shared_stage_runs_once_and_goes_on_where_it_was_killed(here, monkeypatch, capsys):
    """The real main.py: two cells at once that need one `base`, which was killed once; a third that no data fits."""
    monkeypatch.setenv("XLA_FLAGS", xla_flags(1))
    write_config("return chain(loss, axis('loss', {'big': {'finetune.batch_size': 5000}}))")
    arguments = ["before step 4", "--config=grid.py", "--workdir=killed", "--store=runs/grid/stages"]
    killed = started(KILLER, arguments, os.environ, here)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    assert call("--jobs=2", "--record=grid.json") == 1
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
    assert call("--record=grid.json") == 0
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
        assert capsys.readouterr().out.strip() == tables.table(record)
    assert (
        pathlib.Path("runs/grid/table.md").read_text().strip() == tables.table(record) == out.split("\n", 1)[1].strip()
    )
    assert sweep.main(["sweep.py", "--show=grid.json", "--csv"]) == 0
    assert capsys.readouterr().out == pathlib.Path("runs/grid/table.csv").read_text()


def test_failed_cells_are_listed_and_run_again(here, monkeypatch, capsys):
    stand_in(monkeypatch)
    kinds = 'axis("kind", {kind: {"base.batch_size": i + 30} for i, kind in enumerate(("bad", "good", "shot"))})'
    body = f'return product({kinds}, axis("seed", range(2)))'
    write_config(body, 'BASELINE = {"kind": "good"}\nFIGURES = {"test.balanced_accuracy": "BA", "wall_seconds": "s"}\n')
    assert call("--jobs=3") == 1
    out = capsys.readouterr().out
    assert out.count("\nfailed: ") == 4 and "failed: kind=bad, seed=1: exit status 2: error: it cannot be\n" in out
    assert "kind=shot, seed=0: killed by SIGKILL: started" in out
    assert "4 cells are not finished" in out and "| kind | BA | s | gain | n |" in out
    assert "| good | 50.0 ± 0.0 | 150.0 ± 0.0 |  | 2 |" in out and "| bad |  |  |  | 0 |" in out
    pathlib.Path("stub.py").write_text(STUB.replace("kind=bad", "kind=none"))
    assert call() == 1
    assert capsys.readouterr().out.count("\nfailed: ") == 2
    counts = {name: text.count("$ python") for name, text in logs().items()}
    assert {name: n for name, n in counts.items() if "good" in name} == {"kind=good,seed=0": 1, "kind=good,seed=1": 1}
    assert all(n == 2 for name, n in counts.items() if "good" not in name)
    assert json.loads(pathlib.Path("runs/grid/record.json").read_text())["code"] == [{"commit": "c"}]
    # A cell whose config changes is another cell; what merely logs is not.
    config = pathlib.Path("grid.py")
    config.write_text(config.read_text().replace("    return c\n", "    c.base.log_every = 'steps(1)'\n    return c\n"))
    assert call() == 1 and "6 cells, 4 fin" in capsys.readouterr().out
    config.write_text(config.read_text().replace("    return c\n", "    c.finetune.batch_size = 8\n    return c\n"))
    assert call() == 1 and "6 cells, 0 fin" in capsys.readouterr().out


def test_a_part_of_a_sweep_runs_first_and_the_rest_later(here, monkeypatch, capsys):
    stand_in(monkeypatch)
    write_config('return product(loss, axis("seed", range(3)))')
    assert call("--only=seed=2", "--only=seed=0", "--only=loss=GCE") == 0
    out = capsys.readouterr().out
    assert "2 cells, 0 finished already" in out and sorted(logs()) == ["loss=GCE,seed=0", "loss=GCE,seed=2"]
    record = json.loads(pathlib.Path("runs/grid/record.json").read_text())
    assert "--only=seed=2 --only=seed=0 --only=loss=GCE" in record["command"] and len(record["cells"]) == 2
    assert call() == 0 and "6 cells, 2 finished already" in capsys.readouterr().out


def test_a_cell_that_ran_other_sources_than_were_planned_is_not_finished(here, monkeypatch, capsys):
    """They were edited while the sweep ran: its table would mix two codes."""
    stand_in(monkeypatch)
    write_config('return axis("kind", {"good": {}, "edited": {"seed": 1}})')
    assert call() == 1
    out = capsys.readouterr().out
    assert "\nfailed: kind=edited: the sources were edited after the sweep began\n" in out
    assert "[1/2] kind=good: balanced accuracy 50.0 %" in out and "1 cells are not finished" in out
    assert call() == 1 and "2 cells, 1 finished already" in capsys.readouterr().out


def test_a_signal_stops_the_cells_and_the_same_command_goes_on(here, monkeypatch, capsys):
    stand_in(monkeypatch)
    write_config('return axis("kind", {"slow": {}, "slow too": {"seed": 1}, "late": {"seed": 2}})')

    def kill():
        wait_until(lambda: len([text for text in logs().values() if "started" in text]) == 2)
        os.kill(os.getpid(), signal.SIGTERM)

    pathlib.Path("runs/grid/cells").mkdir(parents=True)
    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(SystemExit) as stopped:
        call("--jobs=2")
    thread.join()
    assert stopped.value.code == 143
    out = capsys.readouterr().out
    assert out.count(": stopped") == 2 and "failed" not in out and "3 cells are not finished" in out
    assert sorted(text.splitlines()[-1] for text in logs().values()) == ["saved", "saved"]  # `late` never started
    assert call("--jobs=2") == 0
    assert len(logs()) == 3 and "3 cells, 0 finished" in capsys.readouterr().out


# In place of main.py: a cell that holds the lock of its workdir, and works until it is told or may end.
LONG = """
import fcntl, json, os, pathlib, sys, time
workdir = pathlib.Path(next(a.split("=", 1)[1] for a in sys.argv if a.startswith("--workdir=")))
lock = open(workdir / ".lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
if (workdir / "finetune").exists():
    sys.exit(print("finished already"))
print("started", flush=True)
began = time.time()
while "kind=slow" in workdir.name and not os.path.exists("enough") and time.time() < began + HANGS:
    time.sleep(0.05)
for stage in ("base", "finetune"):
    (workdir / stage).mkdir(exist_ok=True)
    (workdir / stage / "summary.json").write_text(json.dumps({"test": {"balanced_accuracy": 0.5}} | SHARED))
"""
SHARED = {"params_sha256": "ab", "wall_seconds": 1, "versions": {}, "machine": {}, "sources_sha256": "planned"}
LONG = LONG.replace("HANGS", str(HANGS)).replace("SHARED", repr(SHARED))


def test_a_cell_that_outlived_a_killed_sweep_is_waited_for(here, monkeypatch, capfd):
    """While it runs no second process is at it, and it takes one of the jobs; others go on."""
    stand_in(monkeypatch, LONG)
    write_config('return axis("kind", {"quick": {"seed": 1}, "slow": {}})')
    program = (
        f"import pathlib, runpy, sys; sweep = runpy.run_path({str(ROOT / 'launch' / 'sweep.py')!r})\n"
        "from lt_noisy.runs.sweeps import run\n"
        "run.MAIN = pathlib.Path('stub.py').absolute()\n"
        f"run.planned_sources = {STUB_SOURCES}\n"
        "sweep['main'](['sweep.py', '--config=grid.py', '--root=runs/grid', '--jobs=2'])"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL) as killed:
        wait_until(lambda: "started" in logs().get("kind=slow", "") and list(here.glob("runs/grid/cells/*/cell.json")))
        killed.kill()
    quick = next(here.glob("runs/grid/cells/*/cell.json"))
    quick.unlink()  # as if it were not finished
    shutil.rmtree(quick.parent / "finetune")

    def stop():
        wait_until(lambda: "still running" in capfd.readouterr().out)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(SystemExit) as stopped:  # with one job the other cell waits, too
        call()
    thread.join()
    assert stopped.value.code == 143 and [text.count("$ python") for text in logs().values()] == [1, 1]

    said = []

    def release():
        wait_until(quick.exists)
        said.extend((capfd.readouterr().out, logs()["kind=slow"]))
        pathlib.Path("enough").touch()

    thread = threading.Thread(target=release)
    thread.start()
    assert call("--jobs=2") == 0
    thread.join()
    assert "kind=slow: still running, started by a sweep that was killed; waiting for it" in said[0]
    assert said[1].count("$ python") == 1  # until it ended
    assert logs()["kind=slow"].count("$ python") == 2 and logs()["kind=slow"].endswith("\nfinished already\n")


@pytest.mark.parametrize("arguments", [["--config=grid.py:v"], ["--config=other.py"], ["--config.seed=1"]])
def test_the_root_of_another_sweep_is_refused(here, monkeypatch, capsys, arguments):
    stand_in(monkeypatch)
    write_config("return loss")
    pathlib.Path("other.py").write_text(pathlib.Path("grid.py").read_text())
    own = ["--config.base.batch_size=8", "--config.finetune.batch_size=8"]
    assert call(*own) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in (here / "runs").rglob("*") if path.is_file()}
    refused(capsys, lambda: call(*own, *arguments), f"--root=runs/grid: holds another sweep, grid.py {own[0]}")
    assert {path: path.read_bytes() for path in (here / "runs").rglob("*") if path.is_file()} == before
    assert call(*reversed(own), f"--config={here / 'grid.py'}") == 0  # the same one


def test_a_sweep_that_never_ended_marks_its_root(here, monkeypatch, capsys):
    write_config("return loss")
    monkeypatch.setattr(sweeps_run, "execute", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call()
    capsys.readouterr()
    refused(capsys, lambda: call(f"--config={here / 'grid.py'}:v"), "holds another sweep, grid.py; choose")
