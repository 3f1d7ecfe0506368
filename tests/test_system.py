"""What the process asks of its C library, in processes of their own: it cannot be taken back."""

import platform
import subprocess
import sys

import pytest

from lt_noisy import system

CHURN = """
import resource, sys
import numpy as np
from lt_noisy import system
system.keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**24, np.uint8)
before = faults()
for _ in range(20):
    np.ones(2**24, np.uint8)  # 16 MiB, written and freed: 4,096 pages of 4 KiB
print(system.keeps_memory(), faults() - before)
"""


def churn(setting, monkeypatch):
    """Whether the process says that it keeps memory, and the pages that it took from the system."""
    monkeypatch.setenv(system.KEEP_MEMORY, setting)
    done = subprocess.run([sys.executable, "-c", CHURN], capture_output=True, text=True, check=True)
    said, faults = done.stdout.split()
    return said == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_kept_unless_the_environment_says_otherwise(monkeypatch):
    kept, few = churn("1", monkeypatch)
    left, many = churn("0", monkeypatch)
    assert kept and not left
    assert few < 200 and few < many


def test_another_c_library_is_left_alone(monkeypatch):
    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(system.ctypes, "CDLL", absent)
    system.keep_memory()
    assert not system.keeps_memory()
