"""`launch/gpu_pod.sh` against an `ssh` that runs the command here."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.launchers import PROGRAM, ROOT, Started, check_contract, contracts, executable

SCRIPT = ROOT / "launch" / "gpu_pod.sh"

# As the real one: the options, a host, and the rest as one text for a shell there.
SSH = """#!/bin/sh
cd {home}
while [ "$1" = -o ]; do shift 2; done
echo "$1" >> hosts
[ "$1" != unreachable ] || exit 255
host=$1
shift
if [ "$host" = breaks ] && [ ! -e broken ]; then # the connection; what it started lives
    sh -c "$*" > broken 2>&1 &
    until [ -e started.1 ]; do sleep 0.05; done
    exit 255
fi
exec sh -c "$*"
"""

OVERRIDE = "--config.finetune.loss=superloss(gce(q=0.7), lam='a b')"


@pytest.fixture
def launch(tmp_path):
    """Starts it on hosts a and b, in a directory whose main.py does what the plan says: a list a start, by process."""
    started = []

    def start(plan, *flags, hosts="me@a,b"):
        executable(tmp_path / "bin" / "ssh", SSH.format(home=tmp_path))
        (tmp_path / "main.py").write_text(PROGRAM)
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        flags = [f"--hosts={hosts}", f"--directory={tmp_path}", f"--python={sys.executable}", *flags]
        command = ["bash", SCRIPT, *flags, "--", "--config=configs/x.py", OVERRIDE]
        started.append(Started(command, tmp_path / "bin", tmp_path / "output"))
        return started[-1]

    yield start
    for one in started:
        assert one.process.poll() is not None, "still there"


def listening(tmp_path, count=2):
    return lambda: len(list(tmp_path.glob("started.*"))) == count


def all_gone(output):
    """Waits until no process of a run is there any more."""
    for _ in range(1000):
        if not [one for one in contracts(output) if alive(one["pid"])]:
            return True
        time.sleep(0.01)
    return False


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_host_gets_the_contract_and_the_arguments_as_they_were(launch, tmp_path):
    status, output = launch([["finish", "finish"]]).finish()
    assert status == 0, output
    found = contracts(output)
    check_contract(found, 2, "a:12355")  # the host without the user
    assert {tuple(one["arguments"]) for one in found} == {("--config=configs/x.py", OVERRIDE, "--distributed=env")}
    assert {one["JAX_LOCAL_DEVICE_IDS"] for one in found} == {None}
    assert sorted((tmp_path / "hosts").read_text().split()) == ["b", "me@a"]
    assert sorted(line.split(" ")[0] for line in output.splitlines()) == ["[b]", "[me@a]"]


def test_what_the_environment_says_of_data_and_compiler_goes_along(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=1 --b='2'")
    status, output = launch([["finish", "finish"]]).finish()
    assert status == 0 and [one["XLA_FLAGS"] for one in contracts(output)] == ["--a=1 --b='2'"] * 2


def test_a_process_a_gpu(launch, tmp_path):
    (tmp_path / "hosts.txt").write_text("# the rack\na\n\nb  # slow\n")
    plan = [["finish"] * 4]
    status, output = launch(plan, "--gpus=2", "--port=77", hosts=tmp_path / "hosts.txt").finish()
    assert status == 0, output
    found = contracts(output)
    check_contract(found, 4, "a:77")
    assert [one["JAX_LOCAL_DEVICE_IDS"] for one in found] == ["0", "1", "0", "1"]
    assert {line.split(" ")[0] for line in output.splitlines()} == {"[a:0]", "[a:1]", "[b:0]", "[b:1]"}


def test_wrong_input_ends_all_and_is_not_run_again(launch):
    status, output = launch([["save", "exit 2"]]).finish()
    assert status == 2 and "starting all again" not in output


def test_the_kill_of_one_ends_the_other_and_both_start_again(launch, tmp_path):
    status, output = launch([["save", "die"], ["finish", "finish"]]).finish()
    assert status == 0 and "[me@a] saved" in output, output
    assert "b ended with status 137, so the others end too" in output
    assert "status 137: starting all again (1 of 3)" in output
    assert [path.read_text() for path in tmp_path.glob("started.*")] == ["..", ".."]


def test_what_does_not_end_by_itself_is_killed_after_the_grace(launch):
    status, output = launch([["stay", "die"]], "--grace=1", "--restarts=0").finish()
    assert status == 137 and "gave up with status 137: 0 restarts" in output
    assert all_gone(output)


@pytest.mark.parametrize("status", [143, 75, 134])
def test_what_was_stopped_from_outside_is_started_again_so_often(launch, status):
    plan = [[f"exit {status}", "save"]] * 3
    assert launch(plan, "--restarts=2").finish()[0] == status


def test_wrong_input_goes_before_what_it_made_of_the_others(launch):
    status, output = launch([["wrong", "die"]]).finish()
    assert status == 2 and "b ended with status 137" in output and "again" not in output


def test_what_a_broken_connection_left_is_killed_before_all_start_again(launch, tmp_path):
    status, output = launch([["save", "stay"], ["finish", "finish"]], hosts="a,breaks").finish()
    assert status == 0 and "status 255: starting all again (1 of 3)" in output
    assert all_gone((tmp_path / "broken").read_text())


def test_a_program_that_fails_is_not_started_again(launch):
    status, output = launch([["exit 1", "save"]]).finish()
    assert status == 1 and "again" not in output


def test_a_lost_connection_is_tried_again(launch):
    status, output = launch([["save", "save"]] * 2, "--restarts=1", hosts="a,unreachable").finish()
    assert status == 255 and "status 255: starting all again (1 of 1)" in output


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_reaches_all_and_nothing_starts_again(launch, tmp_path, name):
    running = launch([["save", "save"]])
    running.wait_for(listening(tmp_path), "start")
    os.killpg(running.process.pid, signal.Signals[name])  # as a terminal or a supervisor does
    status, output = running.finish()
    assert status == 143 and "[me@a] saved" in output and "[b] saved" in output, output
    assert "starting" not in output


def test_a_second_signal_kills(launch, tmp_path):
    running = launch([["stay", "stay"]])
    running.wait_for(listening(tmp_path), "start")
    for said in ("all save and stop", ""):
        running.process.send_signal(signal.SIGTERM)
        if said:
            running.wait_for(lambda: said in running.text(), said)  # noqa: B023
    status, output = running.finish()
    assert status == 143 and all_gone(output)


def test_a_dry_run_prints_what_a_shell_can_run(launch, tmp_path):
    status, output = launch([["finish", "finish"]], "--dry_run").finish()
    assert status == 0 and not (tmp_path / "hosts").exists()
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    printed = subprocess.run(["sh"], input=output, env=environment, capture_output=True, text=True).stdout
    check_contract(contracts(printed), 2, "a:12355")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--hosts="], "--hosts is needed"),
        (["--hosts=no/file"], "--hosts: there is no file 'no/file'"),
        (["--hosts=,"], "--hosts names none"),
        (["--hosts=a", "--gpus=0"], "--gpus is at least 1"),
        (["--hosts=a", "--restarts=many"], "--restarts is a number, not 'many'"),
        (["--hosts=a", "--restarts="], "--restarts is a number, not ''"),
        (["--hosts=a", "--gpus=all"], "--gpus is a number, not 'all'"),
        (["--hosts=a", "--config=x"], "'--config=x' is no flag of gpu_pod.sh; those of main.py come after --"),
    ],
)
def test_wrong_flags_are_one_line(flags, message):
    done = subprocess.run(["bash", SCRIPT, *flags], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
