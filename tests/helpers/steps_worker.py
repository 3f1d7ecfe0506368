"""One of several processes that take steps: `steps_worker.py FILE MODES CASES`; the first writes what came of them.

{mode: {case: [what `three_steps` returns for equal weights, for others]}}, pickled.
"""

import pathlib
import pickle
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent), str(pathlib.Path(__file__).resolve().parents[2])]

import jax

from lt_noisy import processes

processes.join("env", heartbeat=600.0)  # before anything of JAX is used
jax.config.update("jax_enable_x64", True)

from helpers import loss_cases, step_cases
from helpers.every_step import CASES as EVERY

from lt_noisy.training import parallel

CASES = {**EVERY, "gathering losses": lambda: step_cases.side_by_side(loss_cases.gathering())}


def taken(mode, names):
    """{case: its steps, with equal weights and with others}."""
    devices, found = parallel.make(mode), {}
    for name in names:
        case = CASES[name]()
        call = devices.compile_step(case.step)
        found[name] = [step_cases.three_steps(case, devices, call, weighted) for weighted in (False, True)]
    return found


if __name__ == "__main__":
    file, modes, *names = sys.argv[1:]
    found = {mode: taken(mode, names) for mode in modes.split(",")}
    if processes.first():
        pathlib.Path(file).write_bytes(pickle.dumps(found))
