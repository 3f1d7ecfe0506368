"""Runs main.py and sends its own process a signal at a chosen moment: `stopper.py SIGTERM MOMENT [arguments]`."""

import os
import pathlib
import signal
import sys
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import jax
import jax.numpy as jnp
from helpers.commands import HANGS
from jax.experimental.compilation_cache import compilation_cache

import main
from lt_noisy.runs import run, seeds
from lt_noisy.stages import supervised, training
from lt_noisy.training.checkpoint import Checkpoints

NUMBER = getattr(signal, sys.argv[1]) if len(sys.argv) > 1 else signal.SIGTERM


def _stop():
    os.kill(os.getpid(), NUMBER)


def _stop_and_hang(*_):
    """For moments at which nothing is to be waited for."""
    _stop()
    time.sleep(HANGS)


def _compile(*_):
    """Nothing but compilation, one after the other, and the signal in the middle of one."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # which heeds that once

    def many(x):
        for i in range(1500):
            x = jnp.sin(x) * (1.0 + i)
        return x

    lowered = jax.jit(many).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32))
    threading.Timer(0.5, _stop).start()
    while True:
        lowered.compile()


def _before(place, name, what):
    """Has `place.name` do `what` first, the first time."""
    original = getattr(place, name)

    def replacement(*args, **kwargs):
        setattr(place, name, original)
        what()
        return original(*args, **kwargs)

    setattr(place, name, replacement)


def _twice():
    """A second signal comes once the first is known."""
    _stop()
    time.sleep(0.5)
    _stop_and_hang()


MOMENTS = {
    "in data loading": lambda: _before(seeds, "make", _stop_and_hang),
    "in a compilation": lambda: _before(training, "initial_state", _compile),
    "before the loop": lambda: _before(training, "initial_state", _stop_and_hang),
    "in an evaluation": lambda: _before(supervised, "classification", _stop),
    "during a save": lambda: _before(Checkpoints, "save", _stop),
    "during a save, twice": lambda: _before(Checkpoints, "save", _twice),
    "while the summary is written": lambda: _before(run, "write_json", _stop_and_hang),
}

if __name__ == "__main__":
    signal.signal(NUMBER, signal.SIG_DFL)  # of tests under nohup a child would inherit that a hang-up is ignored
    MOMENTS[sys.argv[2]]()
    sys.exit(main.main(["main.py", *sys.argv[3:]]))
