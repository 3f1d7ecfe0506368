"""The program: `python main.py` in a checkout, `lt-noisy` where the package is installed."""

import importlib
import sys
import traceback
import warnings

from lt_noisy.system import keep_memory, refuse_unsupported

# The function of the same name in this module takes what follows it.
COMMANDS = {
    "check": "lt_noisy.runs.check",
    "export": "lt_noisy.finished.export.command",
    "predict": "lt_noisy.finished.predict",
    "review": "lt_noisy.finished.review.command",
    "apply": "lt_noisy.finished.apply",
    "report": "lt_noisy.finished.report.command",
}


def start() -> int:
    """Runs the process's own arguments; a signal ends it at once while libraries load, `run` then saves first."""
    refuse_unsupported()
    keep_memory()
    from lt_noisy.training.interrupt import leave_on_signals  # POSIX alone

    leave_on_signals()
    return main(sys.argv)


def main(argv: list[str]) -> int:
    """Returns the exit status: 0 finished, 1 where a command found faults in its input, 2 wrong input or no room, 75
    what may be gone at the next start.

    143, 130 and 129 leave as SystemExit.
    """
    # Here and not above, so that `start` is there before the seconds that they take.
    from lt_noisy import processes, terminal
    from lt_noisy.config.command_line import USAGE, listed, parse
    from lt_noisy.errors import UserError, did_you_mean, first_line, quieted
    from lt_noisy.files import fault, show

    command = COMMANDS.get(argv[1] if len(argv) > 1 else "", "")
    if {"-h", "--help"} & set(argv[1:]) and not command:  # the commands have their own
        show(USAGE)
        return 0
    # At twice as many pixels it is an error, which names the file.
    warnings.filterwarnings("ignore", "Image size .* exceeds limit", Warning)
    if command:
        return getattr(importlib.import_module(command), argv[1])(argv[2:])
    if len(argv) > 1 and not argv[1].startswith("-"):
        near = did_you_mean(argv[1], COMMANDS)
        return processes.failed(f"there is no command {argv[1]!r}{near} (there are {', '.join(COMMANDS)})", 2)
    if "--plan" in argv:
        from lt_noisy.runs.planning.plan import plan

        return plan(argv)
    import jax

    from lt_noisy.runs.compiled import keep_programs
    from lt_noisy.runs.listing import listing
    from lt_noisy.runs.run import run

    keep_programs()
    try:
        if (name := listed(argv)) is not None:
            show(listing(name))
        else:
            command = parse(argv)
            with quieted(command.quiet):
                run(*command[:-1])
    except UserError as error:
        return processes.failed(str(error), 2)
    except (OSError, MemoryError, jax.errors.JaxRuntimeError) as error:  # a full disk, a full memory, a lost process
        if (found := fault(error)) is None:
            processes.broken(error)
            raise
        return processes.failed(*found)
    except Exception as error:
        terminal.close()
        traceback.print_exc()
        return processes.failed(f"{type(error).__name__}: {first_line(error)}", 1)
    return 0
