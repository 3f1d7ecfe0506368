"""A Slurm of one node for the tests that need a real one, and a `python` for its jobs."""

import fcntl
import os
import pathlib
import subprocess
import sys

import pytest
import start_node
from helpers.commands import ROOT


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """A directory for PATH whose `python` is this one, whatever that is called."""
    place = tmp_path_factory.mktemp("bin")
    (place / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (place / "python").chmod(0o755)
    return place


@pytest.fixture(scope="session")
def slurm(env, python):
    """The environment of a running Slurm: one that was started by hand, or one that ends with the last who uses it."""
    place = start_node.directory()
    try:
        place.mkdir(mode=0o711, exist_ok=True)
    except OSError as error:
        pytest.skip(f"{place}: {error.strerror}")
    with open(place / ".users", "w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        ours = place / ".of_tests"
        try:
            conf, started = start_node.start()
        except start_node.Unavailable as error:
            pytest.skip(f"{error} (tests/slurm/start_node.py starts a Slurm)")
        if started:
            ours.touch()
        path = f"{python}:{os.environ.get('PATH', '')}"
        yield {**env, "SLURM_CONF": str(conf), "PATH": path, "PYTHONPATH": f"{ROOT}:{pathlib.Path(__file__).parent}"}
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another worker's tests go on
            return
        if ours.exists():
            ours.unlink()
            start_node.stop()


@pytest.fixture
def ask(slurm):
    """`ask(program, *arguments)`: what a program of Slurm says."""

    def call(*command):
        done = subprocess.run(command, env=slurm, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done
        return done.stdout.strip()

    return call
