"""One run: config -> data -> jobs -> identities -> workdir -> stages -> report, each step once."""

import contextlib
import functools
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from lt_noisy import processes, revision
from lt_noisy.config.resolve import Resolved, resolve
from lt_noisy.data import manifest as manifests
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.manifest import Manifest
from lt_noisy.errors import say
from lt_noisy.files import user_path, write_json
from lt_noisy.runs import report
from lt_noisy.runs.card import config_texts, run_card
from lt_noisy.runs.compiled import share_programs
from lt_noisy.runs.jobs import Work, identified, make_jobs, traced
from lt_noisy.runs.rounds import begin
from lt_noisy.runs.seeds import Replica, load_each, replicas, summarised, table
from lt_noisy.runs.starts import count_start
from lt_noisy.runs.training_set import write_skipped
from lt_noisy.runs.workdir import (
    claim,
    default_workdir,
    finished,
    locked,
    place,
    read_json,
    refuse_unshared,
    waited_for,
)
from lt_noisy.stages import together
from lt_noisy.stages.base import Job, Training
from lt_noisy.training import parallel, profile
from lt_noisy.training.host_log import HostLog
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.prune import discard_weights, prune, write_weights


def run(
    config: ConfigDict,
    workdir: str,
    config_name: str = "run",
    store: str = "",
    distributed: str = "off",
    profiled: profile.Steps | None = None,
) -> pathlib.Path:
    """Runs every stage of a config that is not finished yet.

    Args:
      config: from a config file's `get_config`, overrides applied.
      workdir: where artefacts go; the empty string for `default_workdir`.
      config_name: for the default workdir.
      store: where its stages go to be shared with other runs, each linked to from the workdir; the empty string for
        stages of its own, in the workdir.
      distributed: whether this is one of several processes, and how it finds the others (`processes.join`).
      profiled: steps to trace.

    Returns:
      The path of the last stage's `summary.json`, or of that over all of `config.seeds`.

    Raises:
      UserError: anything the user can put right, before work starts where it can be known by then.
      SystemExit: 143 after SIGTERM, 130 after Ctrl-C, 129 after SIGHUP, once the state is saved. Outside of the
        loop, and on a second signal, the process ends at once (see `training.interrupt`).
    """
    # Config: every choice in it is bound before any data is read.
    revision.code()  # asked of git now: what is committed while the run goes on is not what ran
    resolved = resolve(config)

    # Processes: one, unless the command line says otherwise.
    processes.join(distributed, resolved.fields.heartbeat)
    parallel.divide_cpu(resolved.fields.devices)
    processes.refuse_different("config", repr((resolved.texts, [stage.texts for stage in resolved.stages])))
    processes.refuse_different("code", revision.code()["sources_sha256"])
    devices = parallel.make(resolved.fields.parallel, resolved.fields.devices)
    directory = user_path(workdir) if workdir else default_workdir(config_name, resolved)
    share_programs(user_path(store) if store else directory)
    interrupts, host_log = Interrupts(), HostLog(directory)
    interrupts.before_leaving = functools.partial(host_log.write, "left at once for a signal")
    refuse_unshared(directory)
    with interrupts.installed(), locked(directory), contextlib.ExitStack() as held:
        # Seeds: one run, or one for each of them, in a directory of its own.
        runs = replicas(resolved, directory, devices)
        for run in runs:
            if run.directory != directory:
                held.enter_context(locked(run.directory))

        # Data: the training set as a manifest, and the images that it and the test set name.
        loaded = load_each(runs)

        # Jobs: what each stage is given; whatever only the data can tell is refused here.
        jobs = [
            make_jobs(run.resolved, dataset, run.directory, run.devices, interrupts)
            for run, (_, dataset) in zip(runs, loaded, strict=True)
        ]

        # Identities: what makes each stage the same as one that stands finished somewhere.
        works = [identified(run.resolved, own) for run, own in zip(runs, jobs, strict=True)]
        processes.refuse_different("data", repr([[dict(work.identity) for work in own] for own in works]))
        works = [[work._replace(job=work.job._replace(host_log=host_log)) for work in own] for own in works]
        if profiled is not None:  # of several seeds the first: they are trained together
            works[0] = traced(works[0], profiled, directory)

        # Workdir: what other data made is set aside, each stage has its directory, which is of no other; only now is
        # anything written.
        where = user_path(store) if store else None
        works = [_placed(*of_run, where) for of_run in zip(runs, loaded, works, strict=True)]
        (manifest, dataset), first = loaded[0], runs[0]
        say(*report.header(config_name, first.resolved, manifest, dataset, works[0], directory).splitlines())
        if resolved.fields.seeds:
            say(f"{'seeds':<10}{', '.join(map(str, resolved.fields.seeds))}: the above is of the first of them")

        # Stages: those that are not finished run, in order.
        summaries: list[dict[str, Any]] = [{} for _ in runs]
        with host_log.session():
            for of_stage in zip(*works, strict=True):
                for own, summary in zip(summaries, _finish_each(of_stage, resolved.fields.keep), strict=True):
                    own[of_stage[0].stage.name] = summary
                if (trace := of_stage[0].job.trace) is not None:
                    trace.finish()

        # Report.
        if not resolved.fields.seeds:
            path = works[0][-1].job.directory / "summary.json"
            say(*report.final_table(resolved.stages, summaries[0]).splitlines(), always=True)
        else:
            path = directory / "summary.json"
            of_all = summarised(resolved.fields.seeds, [stage.name for stage in resolved.stages], summaries)
            write_json(path, of_all)
            say(*table(of_all).splitlines(), always=True)
        say(f"summary: {path}", always=True)
        return path


def _placed(
    run: Replica, loaded: tuple[Manifest, Dataset], works: list[Work], store: pathlib.Path | None
) -> list[Work]:
    """The works of a run, each with its directory and card."""
    resolved, directory, devices = run
    manifest, dataset = loaded

    def write() -> list[Mapping[str, Any]]:
        begin(works, resolved, manifest, directory)
        placed = place(works, run_card(resolved, manifest, devices), store)
        if not (directory / "manifest.json").exists():
            manifests.save(manifest, directory)
        write_skipped(dataset.source, directory)
        if read_json(directory / "run.json") != (description := describe(resolved, dataset)):
            write_json(directory / "run.json", description)
        count_start(directory, [work.stage.name for work in works])
        return [work.job.card for work in placed]

    cards = processes.once(write)
    return [work._replace(job=work.job._replace(card=card)) for work, card in zip(works, cards, strict=True)]


def describe(resolved: Resolved, dataset: Dataset) -> dict[str, Any]:
    """What `run.json` says: all that is needed to use the run's networks without its data."""
    description = {
        "config": config_texts(resolved),
        "class_names": dataset.class_names,
        "image_shape": dataset.train_images.shape[1:],
    }
    return json.loads(json.dumps(description))  # as it is read: tuples are lists


def _finish_each(works: Sequence[Work], keep: str) -> list[dict[str, Any]]:
    """The summaries of a stage in every run: of one network it is trained together, else it runs seed by seed."""
    if isinstance(works[0].stage.kind.run, Training):
        return _finish(works, keep)
    return [_finish([work], keep)[0] for work in works]


def _finish(works: Sequence[Work], keep: str) -> list[dict[str, Any]]:
    """Runs a stage where it is not finished; returns its summaries. Only one process at a time is in a directory.

    Args:
      works: the stage, of one seed or of several.
      keep: of the checkpoints of a stage that runs now (see `training.prune`).
    """
    summaries: dict[pathlib.Path, dict[str, Any]] = {}
    with contextlib.ExitStack() as held:
        # In one order: two that wait for each other never do.
        for work in sorted(works, key=lambda work: work.job.directory.resolve()):
            summary = _finished(work, held)
            if summary is not None:
                summaries[work.job.directory] = summary
        todo = [work for work in works if work.job.directory not in summaries]
        began = time.perf_counter()
        for work in todo:
            processes.once(functools.partial(_claim, work.job.directory, work.identity))
            work.job.host_log.write("stage started", stage=work.stage.name, seed=work.job.seed)
        for work, results in zip(todo, _results(todo), strict=True):
            job = work.job
            summary = {
                "stage": work.stage.name,
                "seed": job.seed,
                **results,
                "wall_seconds": round(time.perf_counter() - began, 3),
                "keep": keep,
                "identity_sha256": job.card["identity"],
                **{key: job.card[key] for key in ("manifest_sha256", "code", "sources_sha256", "versions", "machine")},
            }
            processes.once(functools.partial(_complete, job.directory, summary, keep))
            job.host_log.write("stage finished", stage=work.stage.name, seed=job.seed)
            summaries[job.directory] = summary
    return [summaries[work.job.directory] for work in works]


def _finished(work: Work, held: contextlib.ExitStack) -> dict[str, Any] | None:
    """The summary of a stage that stands finished; of another None, and its directory is then `held`."""
    job, identity = work.job, work.identity
    read = functools.partial(finished, job.directory, identity)
    summary = processes.once(read)
    if summary is None:
        held.enter_context(waited_for(job.directory))
        summary = processes.once(read)  # by the process that was waited for
    if summary is None:
        return None
    name = work.stage.name
    say(f"{name}: finished already, skipped")
    # What a kill left, of the run that finished it.
    processes.once(functools.partial(prune, job.directory, summary.get("keep", "all")))
    if summary.get("sources_sha256") != job.card["sources_sha256"]:
        say(
            f"note: {name} was made by {revision.describe(summary.get('code'))}, and its sources or "
            f"what it reads have changed since; remove {job.directory} to run it again"
        )
    return summary


def _results(works: Sequence[Work]) -> list[dict[str, Any]]:
    """What the kind of a stage says of it, for each seed that has not run it yet."""
    if not works:
        return []
    stage = works[0].stage
    jobs = [_arrived(work.job) for work in works]
    if isinstance(stage.kind.run, Training):
        return together.run(jobs, stage.kind.run, stage.section)
    return [stage.kind.run(job, stage.section) for job in jobs]


def _arrived(job: Job) -> Job:
    """The job with what earlier stages have made for it."""
    dataset = job.arrived(job.dataset)
    return job._replace(dataset=dataset, training_set=dataset if job.training_set is job.dataset else job.training_set)


def _claim(directory: pathlib.Path, identity: Mapping[str, Any]) -> None:
    claim(directory, identity)
    discard_weights(directory)


def _complete(directory: pathlib.Path, summary: Mapping[str, Any], keep: str) -> None:
    if keep == "weights":
        write_weights(directory)
    write_json(directory / "summary.json", summary)
    prune(directory, keep)
