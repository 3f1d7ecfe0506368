"""What self-supervised stages of finished runs have learnt, as a Markdown table in percent.

    python benchmarks/ssl_table.py RUN RUN ... [--cost=results/ssl_cost_cpu.json] [--json=results/ssl_x.json]
    python benchmarks/ssl_table.py --show=results/ssl_x.json      prints the table of a record

A RUN is a workdir of main.py. One row for each stage that learns a representation without labels, with the probe
stage that reads it where there is one; runs that differ by the seed alone share a row (mean and standard deviation).
What else differs between the rows is shown: the data in columns, the settings of rows that would look alike after the
method. All linear probes of a table have the same settings. kNN is on a balanced bank of the training set's size,
beside that of the stage's own random initialisation and of the normalised pixels; `linear` is the probe on the full
training split, `tail` its accuracy on the classes with fewest images (below 20, or where there are none the last
third). Std is the channel std of the features over the ideal 1 / sqrt(D). Loss is the mean of the first and of the
last logged interval. Cost is that of a step relative to a supervised one, from a record of benchmarks/ssl_cost.py (of
SAM for rwSAM).
"""

import json
import pathlib
import statistics
from typing import Any

import arguments
import records
from relative_gap import read_stage, read_summaries, settings

from lt_noisy.config.spec import parse
from lt_noisy.data import manifest as manifests
from lt_noisy.errors import UserError
from lt_noisy.files import path_argument, write_json
from lt_noisy.revision import codes
from lt_noisy.runs.markdown import markdown, percent

FIGURES = {
    "kNN": "knn_balanced_bank",
    "kNN, random init": "knn_initial",
    "kNN, pixels": "knn_pixels",
    "linear": "linear",
    "linear, tail": "linear_tail",
}


def read_run(run: pathlib.Path) -> list[dict[str, Any]]:
    """A row for each representation in a run, with its figures (0..1) of this seed."""
    if not (run / "manifest.json").is_file():
        raise UserError(f"{run}: not a run, it has no manifest.json")
    recipe = manifests.load(run).recipe
    stages = {path.parent.name: read_stage(path.parent) for path in sorted(run.glob("*/identity.json"))}
    probes: dict[str, dict[str, Any]] = {}
    linear: dict[str, str] = {}
    for name, (identity, summary) in stages.items():
        if (
            identity[f"{name}.kind"] != "probe"
            or identity[f"{name}.data"] != "full()"
            or "all" not in summary["probes"]
        ):
            continue
        probed = identity[f"{name}.init"]
        if probed in probes:
            raise UserError(f"{run}: two probes of {probed} on the full split, {name} is one of them")
        probes[probed], linear[probed] = summary["probes"]["all"]["linear"], identity[f"{name}.linear"]
    rows = []
    for name, (identity, summary) in stages.items():
        if "representation" not in summary:
            continue
        lines = [json.loads(line) for line in (run / name / "metrics.jsonl").read_text().splitlines()]
        logged = [line["loss"] for line in lines if "loss" in line]
        seen = {name: figure for name, figure in summary["representation"].items() if figure is not None}
        figures = {**seen, "loss_first": logged[0], "loss_last": logged[-1]}
        figures["std"] = figures["channel_std"] / figures["channel_std_ideal"]
        figures |= {key: summary[key] for key in ("train_seconds", "images_per_second", "params_sha256")}
        if name in probes:
            tail = probes[name]["groups"]
            tail = tail["few" if tail["few"]["num_classes"] else "tail_third"]["accuracy"]
            figures |= {"linear": probes[name]["balanced_accuracy"]} | ({} if tail is None else {"linear_tail": tail})
        data = {key: recipe.get(key) for key in ("dataset", "longtail", "noise")}
        row = {**data, "method": _method(run / name), "steps": summary["steps"], "batch_size": summary["batch_size"]}
        row["model"] = identity["model"]
        row["settings"] = settings(run / name, ("inputs.", "data."))
        rows.append({**row, "seed": identity["seed"], "probe": linear.get(name), "figures": figures})
    if not rows:
        raise UserError(f"{run}: no finished stage that learns a representation")
    return rows


def _method(stage: pathlib.Path) -> str:
    """A short name for what a stage does."""
    identity, _ = read_stage(stage)
    own = {
        key.removeprefix(f"{stage.name}."): text for key, text in identity.items() if key.startswith(f"{stage.name}.")
    }
    if own["kind"] == "distil":
        experts, base = own["experts"] != "none()", own["base"] != "none()"
        return f"distilled from {'base and experts' if experts and base else 'experts' if experts else 'base'}"
    objective = parse(own["objective"])
    variants = {("moco", "symmetric", False): " (asymmetric)", ("rotation", "every", True): " (all four)"}
    name = objective.name + "".join(variants.get((objective.name, *item), "") for item in objective.kwargs.items())
    if own["ascent"] == "none()":
        return name
    if own["ascent_weights"] == "none()":
        return f"{name} + SAM"
    weights, _ = read_stage(stage.parent / own["ascent_weights"])
    oracle = parse(weights[f"{own['ascent_weights']}.estimator"]).name == "class_oracle"
    return f"{name} + rwSAM{' (class oracle)' if oracle else ''}"


def merge(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that differ by the seed alone as one, each figure a list over `seeds` (left out where a seed lacks it).

    Raises `UserError` for two runs of one seed, and for linear probes of different kinds or settings.
    """
    probes = sorted({row["probe"] for row in rows if row["probe"] is not None})
    if len(probes) > 1:
        raise UserError(f"linear probes of different settings, {' and '.join(probes)}: make a table of each")
    merged: dict[str, dict[str, Any]] = {}
    for row in rows:
        common = {k: v for k, v in row.items() if k not in ("seed", "probe", "figures")}
        by_seed = merged.setdefault(json.dumps(common, sort_keys=True), {**common, "by_seed": {}})["by_seed"]
        known = by_seed.setdefault(row["seed"], {})
        if known and known["params_sha256"] != row["figures"]["params_sha256"]:
            raise UserError(f"{row['method']}: two runs of seed {row['seed']} with the same settings")
        known.update(row["figures"])  # a stage that two runs share may be probed in one of them
    for row in merged.values():
        by_seed = row.pop("by_seed")
        names = set.intersection(*map(set, by_seed.values()))
        row["seeds"] = sorted(by_seed)
        row["figures"] = {name: [by_seed[seed][name] for seed in row["seeds"]] for name in sorted(names)}
    return list(merged.values())


def show(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    costs = any("relative_cost" in row for row in record["rows"])
    data = [key for key in ("dataset", "longtail", "noise") if len({row[key] for row in record["rows"]}) > 1]
    titles = ["method", *data, "model", "steps x batch", *FIGURES, "std", "rank", "loss", *["cost"] * costs]
    lines = [titles]
    seen = [(row["method"], *(row[key] for key in data), *_short(row)) for row in record["rows"]]
    for row, looks in zip(record["rows"], seen, strict=True):
        figures = row["figures"]
        alike = [other["settings"] for other, its in zip(record["rows"], seen, strict=True) if its == looks]
        own = [f"{k}={v}" for k, v in row["settings"].items() if any(other.get(k) != v for other in alike)]
        cells = [", ".join([row["method"], *own]), *looks[1:]]
        cells += [percent(figures[key]) if key in figures else "" for key in FIGURES.values()]
        collapsed = ", collapsed" if any(figures["collapsed"]) else ""
        cells.append(f"{statistics.mean(figures['std']):.2f}{collapsed}")
        cells.append(f"{statistics.mean(figures['effective_rank']):.0f}")
        cells.append(" to ".join(f"{statistics.mean(figures[key]):.3g}" for key in ("loss_first", "loss_last")))
        if costs:
            cells.append(f"{row['relative_cost']:.1f}" if "relative_cost" in row else "")
        lines.append(cells)
    return markdown(lines)


def _short(row: dict[str, Any]) -> tuple[str, str]:
    """Model, and steps x batch."""
    return parse(row["model"]).name, f"{row['steps']} x {row['batch_size']}"


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("runs", type=path_argument, nargs="*", help="finished runs")
    parser.add_argument("--cost", type=path_argument, help="a record of benchmarks/ssl_cost.py")
    parser.add_argument("--json", type=arguments.new_file, help="where the record goes")
    parser.add_argument("--show", type=path_argument, help="print the table of this record, and do nothing else")
    given = parser.parse_intermixed_args(argv[1:])
    if bool(given.runs) == (given.show is not None) or (given.show is not None and (given.cost or given.json)):
        raise UserError("the arguments are finished runs, --cost=FILE and --json=FILE, or --show=FILE alone")
    if given.show is not None:
        print(arguments.from_record("--show", given.show, show))
        return
    costs = {} if given.cost is None else arguments.from_record("--cost", given.cost, _costs)
    rows = merge([row for run in given.runs for row in read_run(run)])
    for row in rows:
        if (name := row["method"].replace("rwSAM", "SAM")) in costs:
            row["relative_cost"] = costs[name]
    summaries = [summary for run in given.runs for summary in read_summaries(run)]
    record = {
        "command": records.command(argv),
        "code": codes(summaries),
        "versions": summaries[0]["versions"],
        "machine": summaries[0]["machine"],
        "rows": rows,
    }
    print(show(record))
    if given.json is not None:
        write_json(given.json, record)


def _costs(record: dict[str, Any]) -> dict[str, float]:
    return {row["name"]: row["relative_cost"] for row in record["rows"]}


if __name__ == "__main__":
    arguments.run(main)
