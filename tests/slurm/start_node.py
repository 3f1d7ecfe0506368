"""A real Slurm of one node on this machine, for tests and for trying `launch/slurm.sbatch` out.

    apt-get install slurm-wlm munge                     # Debian, Ubuntu; no service of theirs need run
    eval "$(python tests/slurm/start_node.py)"          # starts it, unless it runs, and sets SLURM_CONF
    python tests/slurm/start_node.py --stop

Everything is its own: the key and the socket of munge, ports, state, in a directory of the user's. So it works as root
in a container, or as any user, whose jobs alone it runs, and knows nothing of a Slurm that the machine may have.
"""

import argparse
import contextlib
import fcntl
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
SECONDS = 60  # until a daemon that does not answer has failed

# A requeued job waits for cred_expire seconds, 120 by default, before it may start again. Jobs of the partition
# `urgent` pre-empt those of `tests`, which have GraceTime seconds to save.
CONF = """\
ClusterName=lt-noisy
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket,cred_expire=15
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=5
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=tests Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""


class Unavailable(Exception):
    """Slurm is not here or does not start; says what to install or where the log is."""


def directory() -> pathlib.Path:
    """Where this user's node has its files."""
    return pathlib.Path(tempfile.gettempdir()) / f"lt_noisy-slurm-{os.getuid()}"


def start(cpus: int | None = None) -> tuple[pathlib.Path, bool]:
    """Starts the node, unless it runs; returns the path for SLURM_CONF, and whether it did not run.

    Args:
      cpus: of the node, which need not be the machine's: those, and at least 2, unless given.

    Raises:
      Unavailable: a program is missing, or a daemon does not start.
    """
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        raise Unavailable(f"no {', '.join(missing)} here; `apt-get install slurm-wlm munge` brings them on Debian")
    place = directory()
    place.mkdir(mode=0o711, exist_ok=True)
    if place.stat().st_uid != os.getuid():
        raise Unavailable(f"{place} belongs to another user")
    with open(place / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        conf = place / "slurm.conf"
        if _answers(conf):
            return conf, False
        _stop(place)
        _configure(place, conf, cpus or max(2, os.cpu_count() or 1))
        _start(place, conf)
        return conf, True


def stop() -> None:
    """Ends the daemons that `start` started, and their jobs."""
    _stop(directory())


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin")


def _configure(place: pathlib.Path, conf: pathlib.Path, cpus: int) -> None:
    for name in ("state", "spool"):
        shutil.rmtree(place / name, ignore_errors=True)
        (place / name).mkdir()
    key = place / "munge.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
    host, user = socket.gethostname().partition(".")[0], pwd.getpwuid(os.getuid()).pw_name
    conf.write_text(CONF.format(host=host, user=user, ports=_free_ports(2), place=place, cpus=cpus))


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(place: pathlib.Path, conf: pathlib.Path) -> None:
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    own = [f"--{option}={place / name}" for option, name in {**files, "seed-file": "munged.seed"}.items()]
    _run(["munged", *own])
    _run(["slurmctld"], conf)
    _run(["slurmd"], conf)
    end = time.monotonic() + SECONDS
    while not _answers(conf):
        if time.monotonic() > end:
            raise Unavailable(f"the node did not come up in {SECONDS} s: see slurmctld.log and slurmd.log in {place}")
        time.sleep(0.2)


def _run(command: list[str], conf: pathlib.Path | None = None) -> None:
    """Runs a program that goes into the background once it has started."""
    env = {**os.environ, "SLURM_CONF": str(conf)}
    done = subprocess.run([str(_program(command[0])), *command[1:]], env=env, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise Unavailable(f"{command[0]} does not start: {said}")


def _answers(conf: pathlib.Path) -> bool:
    """Whether the controller of this configuration runs, and its node takes jobs."""
    if not conf.exists():
        return False
    env = {**os.environ, "SLURM_CONF": str(conf)}
    done = subprocess.run([str(_program("sinfo")), "-h", "-o", "%T"], env=env, capture_output=True, text=True)
    return done.returncode == 0 and set(done.stdout.split()) & {"idle", "mixed", "allocated", "completing"} != set()


def _stop(place: pathlib.Path) -> None:
    conf = place / "slurm.conf"
    if _answers(conf):
        env = {**os.environ, "SLURM_CONF": str(conf)}
        subprocess.run(["scancel", "--user", str(os.getuid())], env=env, capture_output=True)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and subprocess.check_output(["squeue", "-h"], env=env):
            time.sleep(0.2)
    for name in ("slurmd", "slurmctld", "munged"):
        path = place / f"{name}.pid"
        with contextlib.suppress(OSError, ValueError):
            process = int(path.read_text())
            if pathlib.Path(f"/proc/{process}/comm").read_text().strip() == name:  # no other that has its number now
                os.kill(process, signal.SIGTERM)
                while pathlib.Path(f"/proc/{process}").exists():
                    time.sleep(0.1)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, help="of the node (default: the machine's, at least 2)")
    parser.add_argument("--stop", action="store_true", help="end it")
    chosen = parser.parse_args()
    if chosen.stop:
        stop()
        return 0
    try:
        print(f"export SLURM_CONF={start(chosen.cpus)[0]}")
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
