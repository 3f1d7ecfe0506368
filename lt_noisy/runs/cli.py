"""The program: `python main.py` in a checkout, `lt-noisy` where the package is installed."""

import os
import sys
import warnings

from lt_noisy.system import keep_memory, refuse_unsupported


def start() -> int:
    """Runs the process's own arguments; a signal ends it at once while libraries load, `run` then saves first."""
    refuse_unsupported()
    keep_memory()
    from lt_noisy.training.interrupt import leave_on_signals  # POSIX alone

    leave_on_signals()
    return main(sys.argv)


def main(argv: list[str]) -> int:
    """Returns the exit status: 0 finished, 2 wrong input or no room (143, 130 and 129 leave as SystemExit)."""
    # Here and not above, so that `start` is there before the seconds that they take.
    import jax

    from lt_noisy.config.command_line import USAGE, listed, parse
    from lt_noisy.errors import UserError, say
    from lt_noisy.files import show
    from lt_noisy.runs.listing import listing
    from lt_noisy.runs.report import surroundings
    from lt_noisy.runs.run import run

    if {"-h", "--help"} & set(argv[1:]):
        show(USAGE)
        return 0
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # a second start compiles nothing again
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "lt_noisy", "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # Where it cannot be written a later start compiles again: no reason for two lines of every program.
    warnings.filterwarnings("ignore", "Error writing persistent compilation cache entry", UserWarning)
    try:
        if (name := listed(argv)) is not None:
            show(listing(name))
        else:
            run(*parse(argv))
    except UserError as error:
        say(f"error: {error}", stream=sys.stderr)
        return 2
    except (OSError, MemoryError, jax.errors.JaxRuntimeError) as error:  # a full disk, a full memory
        if (line := surroundings(error)) is None:
            raise
        say(f"error: {line}", stream=sys.stderr)
        return 2
    return 0
