"""The program in a child that need not import it: forked from a server that has, so that a run costs no start.

A child of its own, with its own environment, arguments and output, as the command would be; what the start of Python
and the imports do is for the tests that start the command itself. JAX reads most of its settings while it is imported:
a child whose settings differ from this process's is not for here (`fits`).
"""

import atexit
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import unittest.mock
from multiprocessing.context import ForkServerContext

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_PRELOADED = [
    "lt_noisy.runs.run",
    "lt_noisy.runs.compiled",
    "lt_noisy.runs.listing",
    "lt_noisy.config.command_line",
    "tests.helpers.warm",
]


def fits(env):
    """Whether JAX, imported here, would be set as a child with `env` wants it."""
    return _settings(env) == _settings(os.environ)


def run(script, arguments, env, cwd, timeout):
    """As `subprocess.run([python, script, *arguments], capture_output=True, text=True)`."""
    command = [str(script), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as directory:
        written = [pathlib.Path(directory, name) for name in ("out", "err")]
        child = _context().Process(target=_child, args=(command, dict(env), str(cwd), [str(path) for path in written]))
        child.start()
        child.join(timeout)
        if child.is_alive():
            child.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        status = child.exitcode
        child.close()
        out, err = (path.read_text() if path.exists() else "" for path in written)
    return subprocess.CompletedProcess(command, status, out, err)


def _settings(env):
    return {name: value for name, value in env.items() if name.startswith(("JAX_", "PYTHON", "TF_"))}


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)  # of no effect once the server runs
    # From where it imports, and with a directory that is of no test.
    with contextlib.chdir(_ROOT), unittest.mock.patch.object(tempfile, "tempdir", None):
        multiprocessing.forkserver.ensure_running()
    return context


def _child(command, env, cwd, outputs):
    for path, descriptor in zip(outputs, (1, 2), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = command
    sys.path.insert(0, str(pathlib.Path(cwd, command[0]).parent))  # as Python does for a script
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()
