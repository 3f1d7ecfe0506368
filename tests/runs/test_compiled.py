"""Where compiled programs are kept, and that hosts of other CPUs can share the place."""

import os
import platform
import subprocess
import sys

import jax
import pytest
from helpers.commands import FAST_COMPILE

from lt_noisy import processes
from lt_noisy.runs.compiled import keep_programs, share_programs


@pytest.fixture
def directory(monkeypatch):
    """What the cache's directory is set to, in place of JAX's own setting."""
    found = []

    def update(name, value):
        if name == "jax_compilation_cache_dir":
            found[:] = [value]

    monkeypatch.setattr(jax.config, "update", update)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    return found


def test_one_process_has_it_in_the_users_cache_and_several_in_what_they_share(directory, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    keep_programs()
    share_programs(tmp_path / "run")
    assert directory == [str(tmp_path / "home" / "lt_noisy" / "xla")]
    monkeypatch.setattr(processes, "count", lambda: 2)
    share_programs(tmp_path / "run")
    assert directory == [str(tmp_path / "run" / ".xla")]


def test_what_the_user_sets_stands(directory, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/xla")
    monkeypatch.setattr(processes, "count", lambda: 2)
    keep_programs()
    share_programs(tmp_path / "run")
    assert directory == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86-64 are compared")
def test_a_key_of_the_cache_holds_the_instruction_sets_of_a_cpu():
    """Or a host would load what was compiled for instructions that it lacks."""
    program = (
        "import jax; from jax._src.lib import xla_client; "
        "print(xla_client.get_topology_for_devices(jax.devices()).fingerprint())"
    )
    prints = []
    for flags in ("", FAST_COMPILE, "--xla_cpu_max_isa=SSE4_2"):
        environment = {**os.environ, "XLA_FLAGS": flags}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        prints.append(done.stdout)
    own, other_flags, older = prints
    assert own == other_flags and (own != older)
