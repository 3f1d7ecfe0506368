"""`launch/tpu_pod.sh` against a `gcloud` that plays what a queued resource goes through."""

import json
import os
import signal
import subprocess

import pytest
from helpers.launchers import ROOT, Started, executable

SCRIPT = ROOT / "launch" / "tpu_pod.sh"
pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the workers get a commit: it takes a checkout")

# play.json holds a list a creation of what `describe` answers, one after the other and the last for ever, and what each
# run of main.py does. calls.jsonl gets the arguments; the files `state`, `lives` and `runs` are what there is now.
GCLOUD = """
import json, pathlib, shutil, sys, time

home = pathlib.Path({home!r})
play = json.loads((home / "play.json").read_text())
arguments = sys.argv[1:]
with (home / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
states = home / "states"


def count(name):
    path = home / name
    number = int(path.read_text()) if path.exists() else 0
    path.write_text(str(number + 1))
    return number


if arguments[3] == "create":
    number = count("lives")
    if play["lives"][number] == "refused":
        sys.exit("ERROR: (gcloud.compute.tpus.queued-resources.create) RESOURCE_EXHAUSTED: quota")
    states.write_text(json.dumps(play["lives"][number]))
elif arguments[3] == "describe":
    if not states.exists():
        sys.exit("ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource was not found")
    left = json.loads(states.read_text())
    if left[0] == "unreachable":
        states.write_text(json.dumps(left[1:]))
        sys.exit("ERROR: (gcloud) the network is unreachable")
    print(left[0])
    if len(left) > 1:
        states.write_text(json.dumps(left[1:]))
elif arguments[3] == "delete":
    states.unlink()
elif arguments[3] == "scp":
    shutil.copy(arguments[4], home)
    sys.exit(play.get("install"))
elif arguments[-1].startswith("--command=kill -TERM"):
    (home / "stop").write_text("")
elif "main.py" in arguments[-1]:
    what = play["runs"][count("runs")]
    if what == "preempted":  # the connection hangs
        states.write_text(json.dumps(["SUSPENDING", "SUSPENDED"]))
        time.sleep(60)
    if what == "save":
        while not (home / "stop").exists():
            time.sleep(0.01)
        print("saved")
        sys.exit(143)
    if what == "stay":
        time.sleep(60)
    sys.exit(what)
"""

FLAGS = [
    *("--name=run", "--zone=us-central2-b", "--type=v4-32", "--runtime=tpu-ubuntu2204-base", "--share=10.0.0.2:/runs"),
    "--poll=0.05",
]
RUN = ["--config=configs/x.py", "--workdir=/mnt/share/x", "--config.finetune.loss=gce(q='0.7')"]
PYTHON = "import json, os, sys; print(os.getpid(), os.environ['TFDS_DATA_DIR'], json.dumps(sys.argv))"
WAITED = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]


@pytest.fixture
def launch(tmp_path):
    """Starts it against resources that live so, and runs that end so."""
    started = []

    def start(lives, runs, *flags, **more):
        (tmp_path / "play.json").write_text(json.dumps({"lives": lives, "runs": runs, **more}))
        executable(tmp_path / "bin" / "gcloud", GCLOUD.format(home=str(tmp_path)))
        command = ["bash", SCRIPT, *FLAGS, *flags, "--", *RUN]
        started.append(Started(command, tmp_path / "bin", tmp_path / "output"))
        return started[-1]

    yield start
    for one in started:
        assert one.process.poll() is not None, "still there"


def calls(tmp_path, verb=None):
    """The verbs of gcloud in their order without the looks at the state; or the arguments of one of them."""
    path = tmp_path / "calls.jsonl"
    every = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if verb:
        return [one for one in every if one[3] == verb]
    named = {True: "run", False: "prepare"}
    verbs = [named["main.py" in one[-1]] if one[3] == "ssh" else one[3] for one in every]
    return [one for one in verbs if one != "describe"]


ONE_LIFE = ["create", "scp", "prepare", "run", "delete"]


def test_a_run_from_creation_to_deletion(launch, tmp_path):
    status, output = launch([WAITED], [0], "--spot").finish()
    assert status == 0 and calls(tmp_path) == ONE_LIFE, output
    place = ["run", "--zone=us-central2-b"]
    kind = ["--node-id=run", "--accelerator-type=v4-32", "--runtime-version=tpu-ubuntu2204-base", "--spot"]
    assert calls(tmp_path, "create") == [["compute", "tpus", "queued-resources", "create", *place, *kind]]
    assert calls(tmp_path, "delete")[0][4:] == [*place, "--force", "--quiet"]
    copy, (prepare, run) = calls(tmp_path, "scp")[0], calls(tmp_path, "ssh")
    assert copy[2] == prepare[2] == run[2] == "tpu-vm" and copy[5:] == ["run:", *place[1:], "--worker=all"]
    assert prepare[4:-1] == run[4:-1] == [*place, "--worker=all"]
    assert "mount -t nfs 10.0.0.2:/runs /mnt/share" in prepare[-1] and "-e '.[tpu]'" in prepare[-1]
    assert [f"run is {state}" in output for state in WAITED] == [True] * 3


def test_the_workers_get_the_arguments_as_they_were(launch, tmp_path):
    """The texts that they are sent, run in a shell where they find this program for python."""
    assert launch([["ACTIVE"]], [0]).finish()[0] == 0
    text = calls(tmp_path, "ssh")[1][-1].removeprefix("--command=")
    directory = tmp_path / text.split()[1]
    executable(directory / ".venv" / "bin" / "python", PYTHON)
    executable(tmp_path / "bin" / "flock", "#!/bin/sh\n")  # which macOS has not
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True)
    process, data, arguments = done.stdout.split(" ", 2)
    assert data == "/mnt/share/tfds"
    assert json.loads(arguments)[1:] == ["main.py", *RUN, "--distributed=auto"]
    assert (tmp_path / "lt_noisy.pid").read_text().strip() == process  # what a signal is sent to
    prepare = calls(tmp_path, "ssh")[0][-1].removeprefix("--command=")
    assert subprocess.run(["bash", "-n", "-c", prepare]).returncode == 0


def test_the_workers_get_this_commit(launch, tmp_path):
    """What prepares them, run beside what was copied, with stand-ins for what only such a machine has."""
    assert launch([["ACTIVE"]], [0]).finish()[0] == 0
    prepare = calls(tmp_path, "ssh")[0][-1].removeprefix("--command=")
    for name in ("mountpoint", "python3"):
        executable(tmp_path / "bin" / name, "#!/bin/sh\n")
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    for _ in range(2):  # the second finds it installed
        subprocess.run(["bash", "-c", prepare], cwd=tmp_path, env=environment, check=True)
    (checkout,) = (path.parent for path in tmp_path.glob("*/installed"))
    command = ["git", "rev-parse", "HEAD"]
    here, there = (subprocess.run(command, cwd=at, capture_output=True, text=True).stdout for at in (ROOT, checkout))
    assert here == there and checkout.name == f"lt_noisy-{here[:12]}" and (checkout / "main.py").is_file()


def test_pre_emption_creates_it_again_and_runs_the_same_command(launch, tmp_path):
    status, output = launch([WAITED, WAITED], ["preempted", 0], "--spot").finish()
    assert status == 0, output
    assert "the run ended with status 143" in output  # ended here: the connection hung
    assert calls(tmp_path) == [*ONE_LIFE, *ONE_LIFE]
    creations, runs = calls(tmp_path, "create"), calls(tmp_path, "ssh")[1::2]
    assert creations[0] == creations[1] and runs[0] == runs[1]
    assert calls(tmp_path, "delete")[0][-2:] == ["--force", "--quiet"]  # its nodes are gone, it is not


def test_wrong_input_is_not_run_again(launch, tmp_path):
    assert launch([WAITED], [2]).finish()[0] == 2
    assert calls(tmp_path) == ONE_LIFE


def test_a_crash_is_run_again_on_the_same_resource_within_a_bound(launch, tmp_path):
    status, output = launch([["ACTIVE"]], [134] * 3, "--restarts=2").finish()
    assert status == 134 and "gave up: 2 restarts" in output
    assert calls(tmp_path) == ["create", *["scp", "prepare", "run"] * 3, "delete"]


def test_pre_emptions_have_the_same_bound(launch, tmp_path):
    status, _ = launch([["ACTIVE"]] * 3, ["preempted"] * 3, "--restarts=2").finish()
    assert status == 143 and calls(tmp_path) == ONE_LIFE * 3


def test_a_creation_that_is_refused(launch, tmp_path):
    status, output = launch(["refused"], []).finish()
    assert status == 1 and "RESOURCE_EXHAUSTED: quota" in output
    assert calls(tmp_path) == ["create"]


def test_a_resource_that_is_taken_away_before_it_is_used_has_it_too(launch, tmp_path):
    status, output = launch([["SUSPENDED"]] * 4, [], "--restarts=2").finish()
    assert status == 1 and "gave up: 2 restarts" in output
    assert calls(tmp_path) == ["create", "delete"] * 4


def test_a_request_that_fails_is_not_made_again(launch, tmp_path):
    status, output = launch([["ACCEPTED", "FAILED"]], []).finish()
    assert status == 1 and "it was never there" in output
    assert calls(tmp_path) == ["create", "delete"]


def test_what_cannot_be_installed_is_not_tried_again(launch, tmp_path):
    assert launch([["ACTIVE"]], [], install=7).finish()[0] == 7
    assert calls(tmp_path) == ["create", "scp", "delete"]


def test_a_state_that_cannot_be_read_is_asked_for_again(launch, tmp_path):
    status, output = launch([["unreachable", "ACTIVE"]], [0]).finish()
    assert status == 0 and "the network is unreachable" in output and calls(tmp_path) == ONE_LIFE


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_lets_the_workers_save_and_deletes(launch, tmp_path, name):
    running = launch([["ACTIVE"]], ["save"])
    running.wait_for((tmp_path / "runs").exists, "run")
    os.killpg(running.process.pid, signal.Signals[name])  # as a terminal does: gcloud itself must not hear it
    status, output = running.finish()
    assert status == 143 and "saved" in output.splitlines(), output
    assert calls(tmp_path, "ssh")[-1][-1] == "--command=kill -TERM $(cat ~/lt_noisy.pid)"
    assert calls(tmp_path)[-1] == "delete" and calls(tmp_path).count("run") == 1


def test_a_second_signal_waits_for_nothing(launch, tmp_path):
    running = launch([["ACTIVE"]], ["stay"])
    running.wait_for((tmp_path / "runs").exists, "run")
    running.process.send_signal(signal.SIGINT)
    running.wait_for((tmp_path / "stop").exists, "message to the workers")
    running.process.send_signal(signal.SIGINT)
    assert running.finish()[0] == 130 and calls(tmp_path)[-1] == "delete"


def test_a_signal_in_the_queue_deletes(launch, tmp_path):
    running = launch([["WAITING_FOR_RESOURCES"]], [])
    running.wait_for(lambda: "WAITING_FOR_RESOURCES" in running.text(), "queue")
    running.process.send_signal(signal.SIGINT)
    assert running.finish()[0] == 130 and calls(tmp_path) == ["create", "delete"]


def test_what_is_kept_is_found_again(launch, tmp_path):
    status, output = launch([WAITED], [0, 0], "--keep").finish()
    assert status == 0 and "run is kept, and costs" in output
    assert launch([WAITED], [0, 0]).finish()[0] == 0
    assert calls(tmp_path) == [*ONE_LIFE[:-1], *ONE_LIFE[1:]]


def test_a_dry_run_asks_for_nothing(launch, tmp_path):
    status, output = launch([], [], "--dry_run").finish()
    assert status == 0 and calls(tmp_path) == []
    (tmp_path / "output.sh").write_text("\n".join(line for line in output.splitlines() if "tpu_pod:" not in line))
    (tmp_path / "play.json").write_text(json.dumps({"lives": [["ACTIVE"]], "runs": [0]}))
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["bash", tmp_path / "output.sh"], env=environment, check=True)
    assert calls(tmp_path) == ONE_LIFE  # what it printed are commands


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--name="], "--name is needed"),
        (["--restarts=many"], "--restarts is a number, not 'many'"),
        (["--poll="], "--poll is a number of seconds above 0, not ''"),
        (["--poll=0.0"], "--poll is a number of seconds above 0, not '0.0'"),
        (["--config=x"], "'--config=x' is no flag of tpu_pod.sh; those of main.py come after --"),
        (["--", "--config=x"], "give main.py a --workdir=/mnt/share/...: "),
    ],
)
def test_wrong_flags_are_one_line(flags, message):
    done = subprocess.run(["bash", SCRIPT, *FLAGS, *flags], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1
