"""Two and four processes, jit and pmap: the same gradients and the same first three steps as of one.

In float64, over real connections between processes, of the steps that differ in what they ask of the other devices.
Several devices of one process take all steps there are (`test_parallel`).
"""

import os
import pickle
import subprocess
import sys

import pytest
from helpers import objective_cases
from helpers.commands import HANGS, ROOT, xla_flags
from helpers.step_cases import PARTS, distance

MOCO = objective_cases.small("moco")
CASES = ["gathering losses", "augmented", MOCO, "mixnn in_set(k=3)", "distil"]
FEW = [*CASES[:2], "mixnn in_set(k=3)"]


def steps(file, count, mode, cases):
    """What `count` processes with a device each make of the cases."""
    program = ["tests/helpers/steps_worker.py", str(file), mode, *cases]
    command = [sys.executable, "launch/local_processes.py", str(count), "--", *program]
    environment = {**os.environ, "XLA_FLAGS": xla_flags(1)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    return pickle.loads(file.read_bytes())[mode]


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    return steps(tmp_path_factory.mktemp("steps") / "one", 1, "jit", CASES)


@pytest.mark.parametrize(("count", "mode", "cases"), [(2, "jit", CASES), (2, "pmap", CASES[:2]), (4, "jit", FEW)])
def test_processes_agree(of_one, tmp_path, count, mode, cases):
    found = steps(tmp_path / "several", count, mode, cases)
    assert list(found) == cases and list(of_one) == CASES
    for name, runs in found.items():
        for (seen, sums), (reference, one_sums) in zip(runs, of_one[name], strict=True):
            for at, (ours, theirs) in enumerate(zip(seen, reference, strict=True)):
                for part in PARTS:
                    assert distance(ours[part], theirs[part]) < 1e-9, (name, at, part)
            assert distance(sums, one_sums) < 1e-9
