"""What a record says beside its figures."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from lt_noisy import revision, system
from lt_noisy.runs.card import versions


def command(argv: Sequence[str]) -> str:
    """The command line of a script of this folder."""
    return " ".join([f"python benchmarks/{pathlib.Path(argv[0]).name}", *argv[1:]])


def measured(argv: Sequence[str], **figures: Any) -> dict[str, Any]:
    """The record, JSON-ready, of what this process has measured: with its command, machine, versions and code."""
    machine = {"device": jax.devices()[0].device_kind, "cores": system.cores()}
    alone = f"taskset -c {min(os.sched_getaffinity(0))} " if system.cores() == 1 < (os.cpu_count() or 1) else ""
    return {
        "command": alone + command(argv),
        **figures,
        "machine": machine,
        "versions": versions(),
        "code": [revision.code()],
    }
