"""Several seeds of one config: a run of each, in a directory of its own, and what they give together.

`workdir/seed_3` is laid out as the workdir of a run with `config.seed=3`, with the same identities: it can be gone on
with by itself, shared by a store, and read by whatever reads a run. Above them is a `summary.json` of all.
"""

import dataclasses
import functools
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lt_noisy import processes, system
from lt_noisy.config.resolve import Resolved
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.manifest import Manifest
from lt_noisy.errors import UserError
from lt_noisy.runs.markdown import percent
from lt_noisy.runs.sweeps.tables import FIGURES, figures
from lt_noisy.runs.training_set import dataset_of, is_resident, make
from lt_noisy.training import parallel
from lt_noisy.training.replicas import divided


class Replica(NamedTuple):
    """The run of one seed: its config, its directory and its devices."""

    resolved: Resolved
    directory: pathlib.Path
    devices: parallel.Jit | parallel.Pmap


def replicas(resolved: Resolved, directory: pathlib.Path, devices: parallel.Jit | parallel.Pmap) -> list[Replica]:
    """The runs that a config asks for: one for each of `config.seeds`, else the one of `config.seed`.

    The source is read once, and devices and the threads that read images are shared out.

    Raises:
      UserError: several seeds in several processes.
    """
    fields = resolved.fields
    if not fields.seeds:
        return [Replica(resolved, directory, devices)]
    if processes.count() > 1:
        raise UserError(
            "config.seeds: several seeds are of one process; start a run for each, or set --distributed=off"
        )
    workers = (fields.feed.workers or system.cores() or 1) // len(fields.seeds)
    shared = {
        "dataset": functools.cache(fields.dataset),
        "feed": fields.feed._replace(workers=max(workers, 1)),
        "seeds": (),
    }
    found = []
    for seed, own in zip(fields.seeds, divided(devices, len(fields.seeds)), strict=True):
        its = Resolved(
            dataclasses.replace(fields, **shared, seed=seed),
            {**resolved.texts, "seed": seed, "seeds": ()},
            resolved.stages,
        )
        found.append(Replica(its, directory / f"seed_{seed}", own))
    return found


def load_each(runs: Sequence[Replica]) -> list[tuple[Manifest, Dataset]]:
    """Manifest and data of each run (`training_set`); images that are the same are held once."""
    each = [make(run.resolved, run.directory) for run in runs]
    resident = is_resident(runs[0].resolved, each, [id(run.devices) for run in runs])
    found: list[tuple[Manifest, Dataset]] = []
    for run, made in zip(runs, each, strict=True):
        dataset = dataset_of(run.resolved, made, resident)
        found.append((made.manifest, _sharing(dataset, found[0][1]) if found else dataset))
    return found


def _sharing(dataset: Dataset, first: Dataset) -> Dataset:
    """`dataset` with those images of `first` that are its own, too."""
    if isinstance(dataset.test_images, np.ndarray) and isinstance(first.test_images, np.ndarray):
        dataset = dataset._replace(test_images=first.test_images)
    if np.array_equal(dataset.ids, first.ids):
        dataset = dataset._replace(train_images=first.train_images)
    return dataset


def summarised(seeds: Sequence[int], stages: Sequence[str], summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the runs of several seeds give together: of every stage its headline figures (`tables.FIGURES`).

    Args:
      seeds: of the runs.
      stages: in order.
      summaries: of each run, those of its stages by name.

    Returns:
      `stages.<stage>.<figure>`: `mean`, `std` (of a sample, n - 1; None of one seed) and `seeds`, {seed: value}, over
      the seeds that have the figure; and of every stage `params_sha256` by seed, where it has one.
    """
    found: dict[str, Any] = {}
    for stage in stages:
        own = dict(zip(map(str, seeds), (run[stage] for run in summaries), strict=True))
        by_seed = {seed: figures(summary, {path: path for path in FIGURES}) for seed, summary in own.items()}
        found[stage] = {}
        for path in FIGURES:
            values = {seed: value for seed, its in by_seed.items() if (value := its[path]) is not None}
            if values:
                std = statistics.stdev(values.values()) if len(values) > 1 else None
                found[stage][path] = {"mean": statistics.mean(values.values()), "std": std, "seeds": values}
        hashes = {seed: summary["params_sha256"] for seed, summary in own.items() if "params_sha256" in summary}
        found[stage] |= {"params_sha256": hashes} if hashes else {}
    return {"seeds": list(seeds), "stages": found}


def table(summary: Mapping[str, Any]) -> str:
    """The same in lines, in percent: of each figure mean, standard deviation and each seed's."""
    lines = [f"of seeds {', '.join(map(str, summary['seeds']))}: mean ± standard deviation (each)"]
    for stage, its in summary["stages"].items():
        lines.append(f"{stage}:")
        for path, title in FIGURES.items():
            if path in its:
                values = list(its[path]["seeds"].values())
                each = ", ".join(percent([value]) for value in values)
                lines.append(f"  {title:<40}{percent(values)} % ({each})")
    return "\n".join(lines)
