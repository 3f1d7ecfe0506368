"""One run: config -> data -> jobs -> identities -> workdir -> stages -> report, each step once."""

import contextlib
import pathlib
import time
from typing import Any

from ml_collections import ConfigDict

from lt_noisy import revision
from lt_noisy.config.resolve import resolve
from lt_noisy.data import manifest as manifests
from lt_noisy.errors import say
from lt_noisy.files import user_path, write_json
from lt_noisy.runs import report
from lt_noisy.runs.card import run_card
from lt_noisy.runs.jobs import Work, identified, make_jobs
from lt_noisy.runs.rounds import begin
from lt_noisy.runs.training_set import load
from lt_noisy.runs.workdir import claim, default_workdir, finished, locked, place, waited_for
from lt_noisy.training import parallel
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.training.prune import discard_weights, prune, write_weights


def run(config: ConfigDict, workdir: str, config_name: str = "run", store: str = "") -> pathlib.Path:
    """Runs every stage of a config that is not finished yet.

    Args:
      config: from a config file's `get_config`, overrides applied.
      workdir: where artefacts go; the empty string for `default_workdir`.
      config_name: for the default workdir.
      store: where its stages go to be shared with other runs, each linked to from the workdir; the empty string for
        stages of its own, in the workdir.

    Returns:
      The path of the last stage's `summary.json`.

    Raises:
      UserError: anything the user can put right, before work starts where it can be known by then.
      SystemExit: 143 after SIGTERM, 130 after Ctrl-C, 129 after SIGHUP, once the state is saved. Outside of the
        loop, and on a second signal, the process ends at once (see `training.interrupt`).
    """
    # Config: every choice in it is bound before any data is read.
    revision.code()  # asked of git now: what is committed while the run goes on is not what ran
    resolved = resolve(config)
    devices = parallel.make(resolved.fields.parallel, resolved.fields.devices)
    directory = user_path(workdir) if workdir else default_workdir(config_name, resolved)
    interrupts = Interrupts()
    with interrupts.installed(), locked(directory):
        # Data: the training set as a manifest, and the images that it and the test set name.
        manifest, dataset = load(resolved, directory)

        # Jobs: what each stage is given; whatever only the data can tell is refused here.
        jobs = make_jobs(resolved, dataset, directory, devices, interrupts)

        # Identities: what makes each stage the same as one that stands finished somewhere.
        works = identified(resolved, jobs)

        # Workdir: what other data made is set aside, each stage has its directory, which is of no other; only now is
        # anything written.
        begin(works, resolved, manifest, directory)
        works = place(works, run_card(resolved, manifest, devices), user_path(store) if store else None)
        if not (directory / "manifest.json").exists():
            manifests.save(manifest, directory)
        say(*report.header(config_name, resolved, manifest, dataset, works, directory).splitlines())

        # Stages: those that are not finished run, in order.
        summaries = {work.stage.name: _finish(work, resolved.fields.keep) for work in works}

        # Report.
        path = works[-1].job.directory / "summary.json"
        say(*report.final_table(resolved.stages, summaries).splitlines())
        say(f"summary: {path}")
        return path


def _finish(work: Work, keep: str) -> dict[str, Any]:
    """Runs a stage that is not finished; returns its summary. Only one process at a time is in its directory.

    Args:
      keep: of the checkpoints of a stage that runs now (see `training.prune`).
    """
    stage, job, identity = work.stage, work.job, work.identity
    with contextlib.ExitStack() as held:
        summary = finished(job.directory, identity)
        if summary is None:
            held.enter_context(waited_for(job.directory))
            summary = finished(job.directory, identity)  # by the process that was waited for
        if summary is not None:
            say(f"{stage.name}: finished already, skipped")
            prune(job.directory, summary.get("keep", "all"))  # what a kill left, of the run that finished it
            if summary.get("sources_sha256") != job.card["sources_sha256"]:
                say(
                    f"note: {stage.name} was made by {revision.describe(summary.get('code'))}, and its sources or "
                    f"what it reads have changed since; remove {job.directory} to run it again"
                )
            return summary
        began = time.perf_counter()
        claim(job.directory, identity)
        discard_weights(job.directory)
        results = stage.kind.run(job, stage.section)
        summary = {
            "stage": stage.name,
            "seed": job.seed,
            **results,
            "wall_seconds": round(time.perf_counter() - began, 3),
            "keep": keep,
            "identity_sha256": job.card["identity"],
            **{key: job.card[key] for key in ("manifest_sha256", "code", "sources_sha256", "versions", "machine")},
        }
        if keep == "weights":
            write_weights(job.directory)
        write_json(job.directory / "summary.json", summary)
        prune(job.directory, keep)
        return summary
