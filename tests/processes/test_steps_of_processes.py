"""Two and four processes, jit and pmap: the same gradients and the same first three steps as of one.

In float64, over real connections between processes. `steps_worker.py` takes all steps that there are; here are those
that differ in what they ask of the other devices.
"""

import os
import pickle
import subprocess
import sys

import pytest
from helpers.commands import HANGS, ROOT, xla_flags
from helpers.step_cases import PARTS, distance

CASES = ["losses", "augmented", "moco", "mixnn in_set", "distil"]


def steps(file, count, *modes):
    """What `count` processes with a device each make of the cases, by mode."""
    program = ["tests/helpers/steps_worker.py", str(file), ",".join(modes), *CASES]
    command = [sys.executable, "launch/local_processes.py", str(count), "--", *program]
    environment = {**os.environ, "XLA_FLAGS": xla_flags(1)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    return pickle.loads(file.read_bytes())


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    return steps(tmp_path_factory.mktemp("steps") / "one", 1, "jit")["jit"]


@pytest.mark.parametrize(("count", "modes"), [(2, ("jit", "pmap")), (4, ("jit",))])
def test_processes_agree(of_one, tmp_path, count, modes):
    found = steps(tmp_path / "several", count, *modes)
    assert found.keys() == set(modes) and len(of_one) >= len(CASES)
    for mode, cases in found.items():
        assert cases.keys() == of_one.keys()
        for name, runs in cases.items():
            for (seen, sums), (reference, one_sums) in zip(runs, of_one[name], strict=True):
                for at, (ours, theirs) in enumerate(zip(seen, reference, strict=True)):
                    for part in PARTS:
                        assert distance(ours[part], theirs[part]) < 1e-9, (mode, name, at, part)
                assert distance(sums, one_sums) < 1e-9
