"""The log of each process: what is in it, and that a kill costs it no more than the line under way."""

import json
import sys

import pytest

from lt_noisy import processes
from lt_noisy.errors import UserError
from lt_noisy.training.host_log import HostLog, memory, read


def test_a_session_tells_of_its_start_and_its_end(tmp_path):
    log = HostLog(tmp_path / "run")
    with log.session():
        log.write("steps", step=3, step_ms={"p50": 1.5})
    with pytest.raises(UserError), log.session():
        raise UserError("the disk is full")
    with pytest.raises(SystemExit), log.session():
        raise SystemExit(143)
    lines = read(tmp_path / "run" / "log" / "process_0.jsonl")
    start = ("process started", "steps", "process finished")
    assert [line["event"] for line in lines] == [*start, start[0], "error", start[0], "process stopped"]
    assert lines[1]["step"] == 3 and lines[1]["step_ms"] == {"p50": 1.5}
    assert lines[4]["error"] == "UserError: the disk is full" and lines[6]["status"] == 143
    assert all(line["host"] and line["time"].endswith("Z") for line in lines)
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)


def test_half_a_line_costs_no_other(tmp_path):
    path = tmp_path / "log" / "process_0.jsonl"
    log = HostLog(tmp_path)
    log.write("steps", step=1)
    with open(path, "a") as file:
        file.write('{"time": "2030-01-01T00:00:00.0')  # killed while it wrote
    assert [line["event"] for line in read(path)] == ["steps"]
    with HostLog(tmp_path).session():
        pass  # nothing to tell
    again = HostLog(tmp_path)
    with again.session():
        again.write("steps", step=2)
    events = [line["event"] for line in read(path)]
    assert events == ["steps", "process started", "steps", "process finished"]


def test_each_process_has_its_own_and_without_a_directory_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "index", lambda: 3)
    HostLog(tmp_path).write("steps")
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["process_3.jsonl"]
    with HostLog().session():
        HostLog().write("steps")


def test_what_cannot_be_written_does_not_stop_a_run(tmp_path):
    (tmp_path / "log").write_text("a file in the place of the directory")
    log = HostLog(tmp_path)
    with log.session():
        log.write("steps")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process takes")
def test_memory_is_that_of_this_process():
    found = json.loads(json.dumps(memory()))
    assert 2**20 < found["host_bytes"] < 2**50
