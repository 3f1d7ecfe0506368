"""What imbalance costs a representation: the relative gap of finished runs, as a Markdown table in percent.

    python benchmarks/relative_gap.py RUN RUN ... [--json=results/relative_gap.json]

Delta(n, r) = (A(n, 1) - A(n, r)) / A(n, 1) of Liu et al., "Self-supervised learning is more robust to dataset
imbalance" (ICLR 2022), A the accuracy of a probe after training on n images; here r is largest over smallest class.
Ours: A is balanced accuracy, and there are kNN and few-shot probes. A RUN is a workdir of main.py; its control has
config.longtail='balanced(...)' (or another of ratio 1) and the same data set, noise, n and seed. Runs of one row agree
in all settings but the seed, from the first stage to the probe: what else differs would pass for a gap. The probes
must learn on the same images, so not on `data=manifest()`.
"""

import json
import pathlib
from collections import defaultdict
from typing import Any, NamedTuple

import arguments
import numpy as np
import records

from lt_noisy.config.spec import parse
from lt_noisy.data import manifest as manifests
from lt_noisy.errors import UserError, say
from lt_noisy.evaluation.probes import relative_gap
from lt_noisy.files import path_argument, write_json
from lt_noisy.revision import codes
from lt_noisy.runs.markdown import markdown, percent
from lt_noisy.runs.workdir import finished


class Probed(NamedTuple):
    """One probe stage of one run; runs with the same `row` differ by seed and must agree in `settings`."""

    run: pathlib.Path
    seed: int
    row: dict[str, Any]
    settings: dict[str, Any]
    summary: dict[str, Any]


def read_run(run: pathlib.Path) -> list[Probed]:
    """The probe stages of a run; raises `UserError` for one that is not finished or has none."""
    if not (run / "manifest.json").is_file():
        raise UserError(f"{run}: not a finished run, it has no manifest.json")
    manifest = manifests.load(run)
    data, noise, longtail = (manifest.recipe.get(name) for name in ("dataset", "noise", "longtail"))
    if None in (data, noise, longtail):
        raise UserError(f"{run}: the recipe of its manifest must name dataset, noise and longtail")
    row = {"data": data if noise == "none()" else f"{data}, {noise}", "n": len(manifest.ids), "longtail": longtail}
    profile = parse(longtail)
    counts = profile.kwargs.get("counts", np.bincount(manifest.clean_labels).tolist())
    row["ratio"] = 1.0 if profile.name == "balanced" else profile.kwargs.get("ratio") or max(counts) / min(counts)
    names, found = sorted(path.parent.name for path in run.glob("*/identity.json")), []
    for name in names:
        identity, summary = read_stage(run / name)
        if identity[f"{name}.kind"] == "probe":
            stage = identity[f"{name}.init"]
            own = {"probe_stage": name, "stage": stage, "kind": read_stage(run / stage)[0][f"{stage}.kind"]}
            found.append(Probed(run, identity["seed"], row | own, settings(run / name), summary))
    if not found:
        raise UserError(f"{run}: no probe stage among its stages ({', '.join(names) or 'it has none'})")
    return found


def gaps(probed: list[Probed]) -> list[dict[str, Any]]:
    """A row for each imbalance, probe stage and kind of probe, with its figures (0..1) by seed.

    Raises `UserError` for runs that do not pair one to one, or that differ in more than seed and training set.
    """
    controls, imbalanced, groups, rows = {}, {}, defaultdict(list), []
    for one in sorted(probed, key=lambda one: one.seed):
        row, is_control = one.row, one.row["ratio"] == 1
        pair = f"with n={row['n']}, seed {one.seed}, probe stage {row['probe_stage']!r} and data {row['data']}"
        side, key = (controls, pair) if is_control else (imbalanced, (pair, row["longtail"]))
        if key in side:
            what = "balanced controls" if is_control else f"runs of {row['longtail']}"
            raise UserError(f"{side[key].run} and {one.run}: two {what} {pair}")
        side[key] = one
    for (pair, _), one in imbalanced.items():
        if pair not in controls:
            raise UserError(f"{one.run}: no balanced control {pair}")
        groups[tuple(one.row.values())].append((controls[pair], one))
    for pair in sorted(set(controls) - {pair for pair, _ in imbalanced}):  # a run was forgotten, or lacks this probe
        raise UserError(f"{controls[pair].run}: a control, but no imbalanced run {pair}")

    for pairs in groups.values():
        first = pairs[0][0]
        for one in (one for pair in pairs for one in pair):
            for key in sorted(k for k, _ in first.settings.items() ^ one.settings.items()):
                a, b = first.settings.get(key, "absent"), one.settings.get(key, "absent")
                raise UserError(f"{first.run} and {one.run} differ in more than the training set: {key}: {a} and {b}")
        for kind, shots in ((kind, shots) for kind in ("linear", "knn") for shots in first.summary["probes"]):
            figure, probe = ("balanced_accuracy", kind) if shots == "all" else ("mean", f"{kind}, {shots} per class")
            figures = [tuple(one.summary["probes"][shots][kind][figure] for one in pair) for pair in pairs]
            row = {**pairs[0][1].row, "probe": probe, "seeds": [one.seed for _, one in pairs]}
            row |= {"balanced": [a for a, _ in figures], "imbalanced": [b for _, b in figures]}
            rows.append(row | {"relative_gap": [relative_gap(a, b) for a, b in figures]})
    # Stages probed alike beside each other, for they are what is compared.
    return sorted(rows, key=lambda r: (r["data"], r["n"], r["ratio"], r["longtail"], "knn" in r["probe"], r["probe"]))


def show(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table, in percent, mean and standard deviation over the seeds."""
    lines = [["data", "stage probed", "probe", "n", "ratio", "A balanced", "A imbalanced", "relative gap"]]
    for row in rows:
        cells = [row["data"], f"{row['stage']} ({row['kind']}) by {row['probe_stage']}", row["probe"], str(row["n"])]
        cells.append(f"{row['ratio']:.4g} ({parse(row['longtail']).name})")
        cells += [percent(row[figure]) for figure in ("balanced", "imbalanced", "relative_gap")]
        lines.append(cells)
    return markdown(lines)


def read_stage(stage: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Identity and summary of a finished stage; raises `UserError` for one that is not."""
    try:
        identity = json.loads((stage / "identity.json").read_text())
        summary = finished(stage, identity)
    except (OSError, ValueError):  # a `UserError` about files that do not belong together is one
        summary = None
    if summary is None:
        raise UserError(f"{stage.parent}: not a finished run, {stage.name} lacks a whole identity.json or summary.json")
    return identity, summary


def read_summaries(run: pathlib.Path) -> list[dict[str, Any]]:
    """The summaries of all finished stages of a run."""
    return [json.loads(path.read_text()) for path in sorted(run.glob("*/summary.json"))]


def settings(stage: pathlib.Path, drop: tuple[str, ...] = ("inputs.",)) -> dict[str, str]:
    """What made a probe and the stages before it: all but the seed and, of those before, their training set."""
    identity, _ = read_stage(stage)
    own = {key: str(value) for key, value in identity.items() if key != "seed" and not key.startswith(drop)}
    for key in (key for key in identity if key.startswith("inputs.")):
        own |= settings(stage.parent / key.removeprefix("inputs."), ("inputs.", "data."))
    return own


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("runs", type=path_argument, nargs="+", help="finished runs")
    parser.add_argument("--json", type=arguments.new_file, help="where the record goes")
    given = parser.parse_intermixed_args(argv[1:])
    probed = [one for run in given.runs for one in read_run(run)]
    rows = gaps(probed)
    say(*show(rows).splitlines())
    if given.json is not None:  # with the versions of the runs, all of them where they differ
        names = sorted({name for one in probed for name in one.summary["versions"]})
        versions = {n: ", ".join(sorted({one.summary["versions"].get(n, "none") for one in probed})) for n in names}
        command = records.command(argv)
        made_by = codes(summary for run in given.runs for summary in read_summaries(run))
        write_json(given.json, {"command": command, "code": made_by, "versions": versions, "rows": rows})


if __name__ == "__main__":
    arguments.run(main)
