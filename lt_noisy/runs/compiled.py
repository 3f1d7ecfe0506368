"""Where compiled programs stay, so that a second start compiles nothing again.

JAX's persistent cache: its keys hold the program, the versions, and what kind of devices there are, of a CPU also its
instruction sets, so that hosts of several kinds can share a directory. Of several processes the first alone writes.
"""

import os
import pathlib
import warnings

import jax
from jax.experimental.compilation_cache import compilation_cache

from lt_noisy import processes

_VARIABLE = "JAX_COMPILATION_CACHE_DIR"  # where it is set nothing here is
_LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def keep_programs() -> None:
    """In the user's cache directory; for the start of the program."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    _keep_in(pathlib.Path(home, "lt_noisy", "xla"))
    if not os.environ.get(_LEAST):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # Where it cannot be written a later start compiles again: no reason for two lines of every program.
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry", UserWarning)


def share_programs(directory: pathlib.Path) -> None:
    """Of several processes in `directory`, which all of them see: their homes may be of one host each."""
    if processes.count() > 1:
        compilation_cache.reset_cache()
        _keep_in(directory.absolute() / ".xla")


def _keep_in(directory: pathlib.Path) -> None:
    if not os.environ.get(_VARIABLE):
        jax.config.update("jax_compilation_cache_dir", str(directory))
