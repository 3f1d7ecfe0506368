"""A stage of several seeds: one network of each, which the loop trains together."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lt_noisy.data.feed import Stream
from lt_noisy.data.images import kind_of
from lt_noisy.errors import say
from lt_noisy.stages import training
from lt_noisy.stages.base import Followed, Job, Training
from lt_noisy.stages.nonfinite import dumped
from lt_noisy.training.best import Bests
from lt_noisy.training.checkpoint import CHECKPOINTS
from lt_noisy.training.loop import Prepared, Trained, train
from lt_noisy.training.replicas import InTurn, Saved, States, Writers, in_step, joined, signature, vectorises
from lt_noisy.training.watch import Watch


def run(jobs: Sequence[Job], network: Training[Any], section: Any) -> list[dict[str, Any]]:
    """The summaries of a stage for each of these jobs, which differ in their seed and what that draws.

    Seeds whose networks have other lengths or sizes, such as for another number of training examples, or whose
    checkpoints have no step in common, are trained one after the other; a line says so.
    """
    readies = [network.prepare(job, section) for job in jobs]
    followed = [network.follow(job, section, ready) for job, ready in zip(jobs, readies, strict=True)]
    reason = _apart(jobs, readies) if len(jobs) > 1 else ""
    if reason:
        say(f"{jobs[0].name}: {reason}, so seeds {_listed(jobs)} are trained one after the other")
    if reason or len(jobs) == 1:
        each = zip(jobs, readies, followed, strict=True)
        trained, alongside = [training.run_training(job, ready, own.monitor) for job, ready, own in each], {}
    else:
        trained, alongside = _train(jobs, readies, followed), {"trained_with_seeds": [job.seed for job in jobs]}
    return [own.finish(its) | alongside for own, its in zip(followed, trained, strict=True)]


def _listed(jobs: Sequence[Job]) -> str:
    return ", ".join(str(job.seed) for job in jobs)


def _apart(jobs: Sequence[Job], readies: Sequence[Prepared]) -> str:
    """Why one loop cannot train them; the empty string where it can."""
    if readies[0].plan.patience:  # each ends where its run of its own does
        return "early stopping ends each at a step of its own"
    first = signature(readies[0])
    if any(signature(ready) != first for ready in readies[1:]):
        return "not all seeds have as many examples"
    if not in_step([job.directory / CHECKPOINTS for job in jobs]):
        return "their checkpoints have no step in common"
    return ""


def _of_all(jobs: Sequence[Job], readies: Sequence[Prepared], vectorised: bool) -> tuple[Any, Any, Any, Any]:
    """Devices, checkpoints, metrics files and best evaluations of all seeds, each answering as that of one would."""
    kept = [training.kept_by(job, ready) for job, ready in zip(jobs, readies, strict=True)]
    return (
        jobs[0].devices if vectorised else InTurn([job.devices for job in jobs]),
        Saved([checkpoints for checkpoints, _, _ in kept]),
        Writers([writer for _, writer, _ in kept]),
        Bests([best for _, _, best in kept]),
    )


def _train(jobs: Sequence[Job], readies: Sequence[Prepared], followed: Sequence[Followed]) -> list[Trained]:
    """The one loop, for all of them: with the checkpoints, metrics files and figures of each."""
    first = jobs[0]
    vectorised = vectorises([job.devices for job in jobs], kind_of(first.dataset.train_images.shape[1:]))
    say(f"{first.name}: seeds {_listed(jobs)} are trained together, {'vectorised' if vectorised else 'step by step'}")

    def monitor(states: Any) -> dict[str, Any]:
        figures = [own.monitor(state) for own, state in zip(followed, states.each, strict=True)]
        return {name: np.array([own[name] for own in figures]) for name in figures[0]}

    devices, saved, writers, bests = _of_all(jobs, readies, vectorised)
    streams = [ready.batches for ready in readies if isinstance(ready.batches, Stream)]
    try:
        with dumped(jobs, readies):
            trained = train(
                f"{first.name} of seeds {_listed(jobs)}",
                joined(readies, vectorised),
                devices,
                saved,
                writers,
                monitor,
                first.interrupts,
                Watch(first.name, first.host_log, first.trace),
                bests,
            )
    finally:
        for stream in streams:
            stream.close()
    waited = sum(stream.waited for stream in streams) if streams else None
    host, placed = trained.state, trained.device_state
    assert isinstance(host, States) and isinstance(placed, States)
    return [
        trained._replace(state=state, device_state=on_devices, waited=waited, best=best)
        for state, on_devices, best in zip(host.each, placed.each, trained.best, strict=True)
    ]
