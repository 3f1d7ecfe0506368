"""Trains as a config file says: `python main.py --config=configs/digits_lt_noise.py [--config.x=...]`."""

import os
import signal
import sys

if __name__ == "__main__":  # quiet while libraries load; `run` installs handlers that save first
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import jax

from lt_noisy.config.command_line import USAGE, parse
from lt_noisy.errors import UserError
from lt_noisy.runs.run import run


def main(argv: list[str]) -> int:
    """Returns the exit status: 0 finished, 2 wrong input (130 and 143 leave as SystemExit)."""
    if {"-h", "--help"} & set(argv[1:]):
        print(USAGE)
        return 0
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # a second start compiles nothing again
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "lt_noisy", "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
        run(*parse(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a file where a directory should be
        print(f"error: {error.filename or 'writing'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
