"""Sweeps whose cells other engines run: printed commands, jobs by submitit here, the order in which cells wait."""

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
from helpers.commands import ROOT, xla_flags
from helpers.sweeps import call, logs, stand_in, wait_until, write_config

from lt_noisy.config.command_line import parse
from lt_noisy.config.resolve import resolve
from lt_noisy.runs.sweeps import cluster, job, tables
from lt_noisy.runs.sweeps.cells import Cell
from lt_noisy.runs.sweeps.order import groups, stage_keys
from lt_noisy.runs.sweeps.processes import Planned

HERE = ("--backend=submitit", "--cluster=local", "--slurm.time=600")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory, and a `python` that is this one."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(name, *stages, directory="cells"):
    return Planned(Cell({"name": name}, {}), pathlib.Path(directory) / name, {}, name, [], frozenset(stages))


def named(cells):
    return "".join(cell.sha256 for cell in cells)


def test_the_first_cell_with_a_stage_leads_those_that_share_it():
    """By hand; D shares one stage with A and one with C, which itself waits for A."""
    cells = [
        planned("A", "p1", "d1", "f1"),
        planned("B", "p1", "d1", "f2"),
        planned("C", "p1", "d2", "f1"),
        planned("D", "d1", "d2", "f3"),
        planned("E", "p2"),
        planned("F", "p1"),
    ]
    found = [(named(leaders), named(group)) for leaders, group in groups(cells)]
    assert found == [("", "AE"), ("A", "BCF"), ("AC", "D")]


def test_cells_share_what_no_choice_of_theirs_reaches(monkeypatch):
    """Of two stages: what each choice leaves alone, from the choices of a config that pre-trains without labels."""
    monkeypatch.chdir(ROOT)

    def keys(*overrides):
        resolved = resolve(parse(["main.py", "--config=configs/digits_lt_noise.py:small", *overrides])[0])
        return stage_keys(resolved, dict.fromkeys(("pretrain", "finetune"), "sources"))

    plain = keys()
    shared = {
        "--config.finetune.loss=gce(q=0.7)": 1,
        "--config.noise=symmetric(rate=0.1)": 1,  # pre-training reads no labels
        "--config.longtail=exponential(ratio=50)": 0,
        "--config.seed=1": 0,
        "--config.pretrain.batch_size=16": 0,  # and all that reads it
        "--config.finetune.log_every=steps(1)": 2,
    }
    assert len(plain) == 2
    assert {override: len(plain & keys(override)) for override in shared} == shared
    for decides in (
        ["--config.validation=0.1"],
        ["--config.noise=before_longtail(symmetric(rate=0.4))"],
    ):  # who is there
        other = [text.replace("0.4", "0.1") for text in decides]
        other = other if other != decides else [*decides, "--config.noise=symmetric(rate=0.1)"]
        assert not keys(*decides) & keys(*other)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--record=."], "'.' is no file in a directory that exists"),
        (["--record=absent/grid.json"], "'absent/grid.json' is no file in a directory that exists"),
        (["--backend=ray"], "--backend: invalid choice: 'ray'"),
        (["--slurm.time=5"], "--slurm.time=5 goes with --backend=submitit"),
        (["--cluster=local", "--backend=print"], "--cluster goes with --backend=submitit"),
        (["--backend=print", "--jobs=2"], "--jobs goes with a backend that runs the cells"),
        (["--backend=submitit", "--cluster=local"], "--slurm.time=MINUTES is needed"),
        ([*HERE, "--slurm.time=1:00"], "--slurm.time=1:00: a number from 1 on, of minutes"),
        ([*HERE, "--slurm.time"], "--slurm.time=True: a number from 1 on, of minutes"),
        ([*HERE, "--slurm.nodes"], "--slurm.nodes=True: a number from 1 on"),
        ([*HERE, "--slurm.array=0-3"], "--slurm.array: that is for the sweep to set"),
        ([*HERE, "--slurm.job-name=x"], "--slurm.job_name: that is for the sweep to set"),
        ([*HERE, "--slurm.ntasks=2"], "--slurm.ntasks: give --slurm.nodes and --slurm.ntasks_per_node"),
        ([*HERE, "--slurm.ntasks_per_node=2"], "--cluster=local: a cell is one process there"),
        ([*HERE, "--slurm.nodes=2", "--slurm.gpus_per_node=4"], "one process has one GPU"),
        ([*HERE, "--slurm.ntasks_per_node=2", "--slurm.gpus_per_node=h100:4"], "h100:4: one process has one GPU"),
        ([*HERE, "--slurm.ntasks_per_node=4", "--slurm.gpus_per_node=h100:4"], "a cell is one process there"),
    ],
)
def test_settings_that_no_cell_could_have_are_one_line(here, capsys, arguments, says):
    write_config("return loss")
    assert call(*arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and says in error and len(error.strip().splitlines()) == 1
    assert not os.path.exists("runs")


@pytest.mark.parametrize(
    ("missing", "says"),
    [("sbatch", "there is no Slurm here (no sbatch)"), ("submitit", "pip install 'lt_noisy[slurm]'")],
)
def test_what_is_missing_for_jobs_is_said(here, monkeypatch, capsys, missing, says):
    write_config("return loss")
    monkeypatch.setenv("PATH", str(here))
    if missing == "submitit":
        monkeypatch.setitem(sys.modules, "submitit", None)
    assert call("--backend=submitit", "--slurm.time=5") == 2
    assert says in capsys.readouterr().err


def test_printed_commands_are_run_by_anything_and_tabulated_by_the_same_command(here, monkeypatch, capsys):
    """As a shell reads them."""
    stand_in(monkeypatch)
    write_config("return product(axis('kind', {'a b': {}, \"it's $HOME\": {'seed': 1}}), loss)")
    printing = ("--backend=print", "--config.finetune.augment=digits(  )")
    assert call(*printing) == 0
    out, error = capsys.readouterr()
    assert error.startswith("4 cells, 0 finished already\n") and "4 cells are not finished" in error
    lines = out.splitlines()
    assert len(lines) == 4 and all(line.startswith("python stub.py --config=grid.py --workdir=") for line in lines)
    for line in lines[1:]:
        subprocess.run(["sh", "-c", line], check=True, stdout=subprocess.DEVNULL)
    assert call(*printing) == 0
    out, error = capsys.readouterr()
    assert out.splitlines() == lines[:1] and "4 cells, 3 finished already" in error
    subprocess.run(["sh", "-c", lines[0]], check=True, stdout=subprocess.DEVNULL)
    assert call(*printing, "--record=grid.json") == 0
    out, error = capsys.readouterr()
    record = json.loads(pathlib.Path("grid.json").read_text())
    assert out == "" and error.split("\n", 1)[1].strip() == tables.table(record)
    assert [cell["process_seconds"] for cell in record["cells"]] == [None] * 4 and record["process_seconds"] == 0
    assert "--backend=print '--config.finetune.augment=digits(  )'" in record["command"]


def test_jobs_fail_alone_and_run_again(here, monkeypatch, capsys):
    """By submitit, which starts them as processes of its own here."""
    stand_in(monkeypatch)
    write_config('return axis("kind", {"bad": {}, "good": {"seed": 1}})')
    assert call(*HERE) == 1
    out = capsys.readouterr().out
    assert "kind=good: balanced accuracy 50.0 %" in out
    assert "\nfailed: kind=bad: exit status 2: error: it cannot be\n" in out and "1 cells are not finished" in out
    pathlib.Path("stub.py").write_text(pathlib.Path("stub.py").read_text().replace("kind=bad", "kind=none"))
    assert call(*HERE) == 0
    assert "2 cells, 1 finished already" in capsys.readouterr().out
    assert {name: text.count("$ python stub.py") for name, text in logs().items()} == {"kind=bad": 2, "kind=good": 1}
    assert not list(pathlib.Path("runs").rglob("failed.json"))
    record = json.loads(pathlib.Path("runs/grid/record.json").read_text())
    assert "--backend=submitit --cluster=local --slurm.time=600" in record["command"]
    assert all(cell["process_seconds"] > 0 for cell in record["cells"])


def test_a_job_whose_time_is_up_is_saved_and_goes_on(here, monkeypatch, capsys):
    """SIGUSR2, which is what submitit's worker hears of it; also where its process gets that, too."""
    program = "import os\nopen('worker', 'a').write(f'{os.getppid()} {os.getpid()}')\n"
    stand_in(monkeypatch)
    pathlib.Path("stub.py").write_text(
        pathlib.Path("stub.py").read_text().replace("import json", program + "import json", 1)
    )
    write_config('return axis("kind", {"slow": {}})')
    worker = pathlib.Path("worker")

    def tell():
        wait_until(lambda: "started" in logs().get("kind=slow", ""))
        for process in reversed(worker.read_text().split()):
            os.kill(int(process), signal.SIGUSR2)

    thread = threading.Thread(target=tell)
    thread.start()
    assert call(*HERE) == 0
    thread.join()
    lines = logs()["kind=slow"].splitlines()
    assert [line for line in lines if not line.startswith("$")] == ["started", "saved", "started"]
    assert capsys.readouterr().out.count("[1/1] kind=slow: balanced accuracy 50.0 %") == 1


# A cell of several processes, or of one, under what submitit's worker would be; says when it is queued again.
WORKER = """
import pathlib, signal, sys
from lt_noisy.runs.sweeps import job
from lt_noisy.runs.sweeps.cells import Cell
from lt_noisy.runs.sweeps.processes import Planned
job.PATIENCE_SECONDS = job.SPREAD_SECONDS = 0.5
pathlib.Path("cell").mkdir(exist_ok=True)
signal.signal(signal.SIGUSR2, lambda *_: sys.exit("queued again"))
planned = Planned(Cell({}, {}), pathlib.Path("cell"), {}, "hash", ["end.py"], frozenset())
print(repr(job.CellJob(planned)()))
"""


def worker_env(tasks=1, rank=0):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "7"}
    return env | {"SUBMITIT_LOCAL_NTASKS": str(tasks), "SUBMITIT_LOCAL_GLOBALID": str(rank), "SUBMITIT_FOLDER": "."}


# In place of main.py: counts what it is told while it saves, for a second.
SAVING = """
import os, signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
open("pid", "w").write(str(os.getpid()))
while not told:
    time.sleep(0.05)
time.sleep(2.0)
open("told", "w").write(str(len(told)))
sys.exit(143)
"""


@pytest.mark.parametrize("to_all", [False, True])
def test_a_job_that_is_told_to_end_has_its_process_save_once(here, to_all):
    """As Slurm tells it: the worker alone, or every process of the job (the canary is of the worker's group)."""
    pathlib.Path("end.py").write_text(SAVING)
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(command, env=worker_env(), stderr=subprocess.PIPE, start_new_session=True) as worker:
        wait_until(lambda: os.path.exists("pid") and pathlib.Path("pid").read_text())
        if to_all:
            os.killpg(worker.pid, signal.SIGTERM)
            os.kill(int(pathlib.Path("pid").read_text()), signal.SIGTERM)
        else:
            worker.terminate()
        assert worker.stderr is not None
        assert worker.stderr.read() == b"queued again\n"
    assert pathlib.Path("told").read_text() == "1"


@pytest.mark.parametrize(
    ("tasks", "rank", "end", "says"),
    [
        (1, 0, "sys.exit(0)", "''"),
        (1, 0, "sys.exit(2)", "'exit status 2: no output'"),
        (1, 0, "sys.exit(75)", "'exit status 75: no output'"),
        (1, 0, "sys.exit(143)", "queued again"),
        (1, 0, "os.kill(os.getpid(), 15)", "queued again"),
        (2, 0, "sys.exit(143)", "queued again"),
        (2, 0, "sys.exit(75)", "queued again"),
        (2, 0, "os.kill(os.getpid(), 9)", "queued again"),
        (2, 0, "sys.exit(2)", "'exit status 2: no output'"),
        (2, 1, "sys.exit(2)", "''"),
        (2, 1, "sys.exit(0)", "''"),
    ],
)
def test_what_becomes_of_a_job_by_the_exit_status_of_its_process(here, tasks, rank, end, says):
    pathlib.Path("end.py").write_text(
        f"import os, sys\nassert ('--distributed=auto' in sys.argv) == ({tasks} > 1)\n{end}"
    )
    env = worker_env(tasks, rank)
    done = subprocess.run([sys.executable, "-c", WORKER], env=env, capture_output=True, text=True)
    assert says in (done.stdout + done.stderr).splitlines(), done
    assert os.path.exists("cell/cell.json") == (rank == 0 and "(0)" in end)
    failed = job.failure(planned("cell", directory="."), "7")
    assert (failed is not None) == ("exit status" in says) and job.failure(planned("cell", directory="."), "8") is None


def test_the_end_of_a_job_is_seen_by_its_files_and_told_by_its_state(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "UNSEEN_SECONDS", -1.0)
    cell = planned("cell", directory=tmp_path)
    cell.directory.mkdir()
    (tmp_path / "7_1_0_log.err").write_text("one\nslurmstepd: error: killed\n\n")

    def end(state):
        return cluster._end(cell, "7_1", {"7_1": state} if state else {}, {}, tmp_path)

    assert end("PENDING") is None and end("RUNNING") is None and end("COMPLETING") is None
    assert end("OUT_OF_MEMORY") == (None, "job 7_1: OUT_OF_MEMORY: slurmstepd: error: killed")
    assert end("") == (None, "job 7_1: gone from the queue: slurmstepd: error: killed")
    monkeypatch.setattr(cluster, "UNSEEN_SECONDS", 3600.0)  # a file system of several machines may show it late
    assert end("COMPLETED") is None
    (cell.directory / "failed.json").write_text('{"job": "7_1", "error": "bad", "process_seconds": 3.0}')
    assert end("COMPLETED") == (3.0, "bad") and end("RUNNING") is None
    (cell.directory / "cell.json").write_text('{"sha256": "cell", "process_seconds": 4.0}')
    assert end("COMPLETED") == (4.0, "")


def test_cells_in_the_queue_are_left_to_it(here, monkeypatch, capsys):
    """A stand-in for squeue knows one pending job of two submissions; then it does not answer."""
    stand_in(monkeypatch)
    write_config("return loss")
    assert call("--backend=print") == 0
    capsys.readouterr()
    hashes = []
    monkeypatch.setattr(cluster, "refuse_queued", lambda todo, root: hashes.extend(cell.sha256 for cell in todo))
    assert call("--backend=print") == 0
    capsys.readouterr()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setenv("PATH", f"{here / 'bin'}:{os.environ['PATH']}")
    stand_in(monkeypatch)
    pathlib.Path("runs/grid/jobs").mkdir()
    for name, content in (("a", hashes), ("b", hashes[:1])):
        pathlib.Path(f"runs/grid/jobs/{name}.json").write_text(json.dumps({"cells": content}))
    squeue = here / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\nprintf 'a|1|12_1|PENDING\\na|0|12_0|FAILED\\nb|N/A|13|CANCELLED\\n'\n")
    squeue.chmod(0o755)
    for backend in ("print", "local"):
        assert call(f"--backend={backend}") == 2
        error = capsys.readouterr().err
        assert "1 of its cells are in Slurm's queue" in error and error.endswith("scancel 12 removes them\n")
    squeue.write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    assert call() == 2 and "squeue: no controller" in capsys.readouterr().err


def test_one_sweep_by_every_backend(here, monkeypatch, capsys, tmp_path_factory):
    """The real main.py: a printed command makes the stage that the job of the other cell takes from the store."""
    monkeypatch.setenv("XLA_FLAGS", xla_flags(1))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp().parent / "xla-cache"))
    write_config("return loss")
    assert call("--backend=print") == 0
    first = capsys.readouterr().out.splitlines()[0]
    subprocess.run(["sh", "-c", first], check=True, stdout=subprocess.DEVNULL)
    assert call(*HERE) == 0
    out = capsys.readouterr().out
    assert "2 cells, 1 finished already" in out and "[1/1] loss=GCE: balanced accuracy " in out
    assert "base: finished already, skipped" in logs()["loss=GCE"]
    record = json.loads(pathlib.Path("runs/grid/record.json").read_text())
    assert len({cell["params_sha256"] for cell in record["cells"]}) == 2
    shutil.rmtree("runs/grid/jobs")  # what submitit leaves may go
    assert sweep.main(["sweep.py", "--config=grid.py", "--root=runs/grid"]) == 0
    assert capsys.readouterr().out.split("\n", 1)[1].strip() == tables.table(record)
