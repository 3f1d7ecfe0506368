"""One run: config -> training set -> stages -> summaries. Everything a run prints of itself is in `report.py`."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import time
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from lt_noisy import __version__, revision
from lt_noisy.config.identity import identity_sha256, stage_identity
from lt_noisy.config.resolve import Resolved, Stage, resolve
from lt_noisy.data import manifest as manifests
from lt_noisy.data.dataset import Dataset, Part, choose, hold_out, select
from lt_noisy.data.sources.base import Source
from lt_noisy.errors import UserError
from lt_noisy.files import write_json
from lt_noisy.runs import report
from lt_noisy.runs.workdir import (
    claim,
    default_workdir,
    finished,
    link,
    locked,
    stage_sources,
    unlink_unused,
    waited_for,
)
from lt_noisy.stages.base import Input, Job
from lt_noisy.training import parallel
from lt_noisy.training.interrupt import Interrupts


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
      SystemExit: 143 after SIGTERM, 130 after Ctrl-C.
    """
    resolved = resolve(config)
    devices = parallel.make(resolved.fields.parallel, resolved.fields.devices)
    directory = pathlib.Path(workdir) if workdir else default_workdir(config_name, resolved)
    interrupts = Interrupts()
    with interrupts.installed(), locked(directory):
        return _run_stages(resolved, directory, devices, interrupts, config_name, store)


def _run_stages(
    resolved: Resolved,
    workdir: pathlib.Path,
    devices: parallel.Jit | parallel.Pmap,
    interrupts: Interrupts,
    config_name: str,
    store: str,
) -> pathlib.Path:
    source = resolved.fields.dataset()
    manifest = training_set(resolved, source, workdir)
    dataset = hold_out(load_dataset(source, manifest), resolved.fields.validation, resolved.fields.seed)
    card = run_card(resolved, manifest, devices)
    jobs, identities = [], {}
    others = {text: choose(data, dataset) for text, data in dict(_chosen(resolved)).items()}
    for stage in resolved.stages:  # every check before the first stage starts
        own = others.get(stage.texts.get("data"), dataset)
        job = make_job(resolved, stage, workdir, own, dataset, devices, interrupts)
        measured = stage.kind.check(job, stage.section)
        identity = stage_identity(
            resolved,
            stage,
            measured,
            devices.num_devices,
            own.identity(stage.kind.labels(stage.section)),
            {name: identities[name] for name in stage.inputs.values()},
        )
        identities[stage.name] = identity_sha256(identity)
        jobs.append((stage, job, identity))
    sources: dict[str, str | None] = {}  # that made the stages as they stand finished, or that will make them
    for i, (stage, job, identity) in enumerate(jobs):
        now = stage_sources(stage, {name: sources[name] for name in stage.inputs.values()})
        if store:
            link(job.directory, pathlib.Path(store), identity, now)
        else:
            unlink_unused(job.directory)
        summary = finished(job.directory, identity)  # refuses a directory of another run
        sources[stage.name] = now if summary is None else summary.get("sources_sha256")
        card = {**card, "identity": identities[stage.name], "sources_sha256": now}
        jobs[i] = (stage, job._replace(card=card), identity)
    if not (workdir / "manifest.json").exists():  # only now: a refused run leaves none to refuse the corrected one
        manifests.save(manifest, workdir)
    print(report.header(config_name, resolved, manifest, dataset, jobs[0][1], workdir), flush=True)

    summaries = {stage.name: _finish(stage, job, identity) for stage, job, identity in jobs}
    path = jobs[-1][1].directory / "summary.json"
    print(report.final_table(resolved.stages, summaries), flush=True)
    print(f"summary: {path}", flush=True)
    return path


def _finish(stage: Stage, job: Job, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a stage that is not finished; returns its summary. Only one process at a time is in its directory."""
    with contextlib.ExitStack() as held:
        summary = finished(job.directory, identity)
        if summary is None:
            held.enter_context(waited_for(job.directory))
            summary = finished(job.directory, identity)  # by the process that was waited for
        if summary is not None:
            print(f"{stage.name}: finished already, skipped", flush=True)
            if summary.get("sources_sha256") != job.card["sources_sha256"]:
                print(
                    f"note: {stage.name} was made by {revision.describe(summary.get('code'))}, and its sources or "
                    f"what it reads have changed since; remove {job.directory} to run it again",
                    flush=True,
                )
            return summary
        began = time.perf_counter()
        claim(job.directory, identity)
        results = stage.kind.run(job, stage.section)
        summary = {
            "stage": stage.name,
            "seed": job.seed,
            **results,
            "wall_seconds": round(time.perf_counter() - began, 3),
            "identity_sha256": job.card["identity"],
            **{key: job.card[key] for key in ("manifest_sha256", "code", "sources_sha256", "versions", "machine")},
        }
        write_json(job.directory / "summary.json", summary)
        return summary


def _chosen(resolved: Resolved) -> list[tuple[str, Any]]:
    """(text, bound value) of every `data` field that asks for something else than the run's training set."""
    choices = [(s.texts["data"], s.section.data) for s in resolved.stages if "data" in s.texts]
    return [(text, data) for text, data in choices if data is not Part.MANIFEST]


def _inputs(resolved: Resolved, stage: Stage, workdir: pathlib.Path) -> dict[str, Input]:
    """The stages that `stage` reads by field, with those they read in turn."""
    stages = {s.name: s for s in resolved.stages}
    read = {field: stages[name] for field, name in stage.inputs.items()}
    return {f: Input(workdir / s.name, s.section, s.texts, _inputs(resolved, s, workdir)) for f, s in read.items()}


def make_job(
    resolved: Resolved,
    stage: Stage,
    workdir: pathlib.Path,
    dataset: Dataset,
    training_set: Dataset,
    devices: parallel.Jit | parallel.Pmap,
    interrupts: Interrupts,
) -> Job:
    """What `stage` is given in this run, to work on `dataset`; its card is still empty.

    Args:
      training_set: the run's own, which `dataset` is too unless the stage chose another.
    """
    fields = resolved.fields
    # On CPU a convolution inside scan is 18 to 50 times slower; durations keep the configured multiple.
    on_cpu = jax.default_backend() == "cpu"
    return Job(
        name=stage.name,
        directory=workdir / stage.name,
        seed=fields.seed,
        encoder=fields.model,
        dtype=fields.precision,
        norm_axis=fields.batch_norm,
        devices=devices,
        steps_per_call=1 if on_cpu else fields.steps_per_call,
        dataset=dataset,
        training_set=training_set,
        inputs=_inputs(resolved, stage, workdir),
        multiple=fields.steps_per_call,
        card={},
        tensorboard=fields.tensorboard,
        interrupts=interrupts,
    )


def training_set(resolved: Resolved, source: Source, workdir: pathlib.Path) -> manifests.Manifest:
    """The run's manifest, built or loaded; nothing is written.

    Building is a pure function of source and recipe, so it is done again on every start: a manifest
    that is already in the workdir must be the same one.
    """
    fields, texts = resolved.fields, resolved.texts
    recipe = {name: texts[name] for name in ("dataset", "longtail", "noise")}
    if fields.manifest is None:
        manifest = manifests.build(
            source.train.labels,
            source.train.ids,
            source.num_classes,
            source.class_names,
            fields.longtail,
            fields.noise,
            fields.seed,
            recipe,
        )
    else:
        for name in ("longtail", "noise"):
            if texts[name] != "none()":
                raise UserError(
                    f"config.{name}: the manifest of config.manifest already fixes the training set; "
                    f"set --config.{name}='none()'"
                )
        manifest = manifests.load(fields.manifest)
        if manifest.num_classes != source.num_classes:
            raise UserError(
                f"config.manifest: made for {manifest.num_classes} classes, the data has {source.num_classes}"
            )
        manifests.verify(manifest, source.train.labels, source.train.ids)
    if (workdir / "manifest.json").exists():
        stored = manifests.load(workdir)
        if manifests.digest(stored) != manifests.digest(manifest):
            raise UserError(
                f"{workdir} holds another run: its manifest differs ({_differing(stored, manifest)}); "
                "choose another --workdir, or remove it"
            )
        return stored
    return manifest


def _differing(a: manifests.Manifest, b: manifests.Manifest) -> str:
    """`manifests.diff` in a few words: recipe fields in full, ids by their number."""
    found = manifests.diff(a, b)
    parts = [f"{field}: {old} -> {new}" for field, (old, new) in found.pop("recipe", {}).items()]
    parts += [key if what is True else f"{key}: {len(what)}" for key, what in found.items()]
    return "; ".join(parts)


def load_dataset(source: Source, manifest: manifests.Manifest) -> Dataset:
    """The manifest's images and labels, and the test set, in memory."""
    rows = manifests.verify(manifest, source.train.labels, source.train.ids)
    return select(source, rows, manifest.observed_labels, manifest.clean_labels)


def run_card(resolved: Resolved, manifest: manifests.Manifest, devices: parallel.Jit | parallel.Pmap) -> dict[str, Any]:
    """What a checkpoint says of its run: everything that a bit-identical resume depends on."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    device = jax.local_devices()[0]
    return {
        "config": {**resolved.texts, **{stage.name: stage.texts for stage in resolved.stages}},
        "code": revision.code(),
        "versions": {
            "lt_noisy": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "machine": {
            "device": device.device_kind,
            "devices": devices.num_devices,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "parallel": resolved.fields.parallel,
        },
        "manifest_sha256": manifests.digest(manifest),
    }
