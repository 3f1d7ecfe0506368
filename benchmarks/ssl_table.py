"""What self-supervised stages of finished runs have learnt, as a Markdown table in percent.

    python benchmarks/ssl_table.py RUN RUN ... [--json=results/ssl_x.json]
    python benchmarks/ssl_table.py --show=results/ssl_x.json      prints the table of a record

A RUN is a workdir of main.py. One row for each stage that learns a representation without labels, with the probe
stage that reads it where there is one; runs that differ by the seed alone share a row (mean and standard deviation).
kNN is on a balanced bank of the training set's size, beside that of the stage's own random initialisation and of the
normalised pixels; `linear` is the probe on the full training split, `few` its accuracy on the classes rarest in the
manifest. Std is the channel std of the features over the ideal 1 / sqrt(D). Loss is the mean of the first and of the
last logged interval.
"""

import json
import pathlib
import statistics
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from relative_gap import read_stage

from lt_noisy.data import manifest as manifests
from lt_noisy.metrics import write_json
from lt_noisy.spec import UserError, parse

FIGURES = {
    "kNN": "knn_balanced_bank",
    "kNN, random init": "knn_initial",
    "kNN, pixels": "knn_pixels",
    "linear": "linear",
    "few": "linear_few",
}


def read_run(run: pathlib.Path) -> list[dict[str, Any]]:
    """A row for each representation in a run, with its figures (0..1) of this seed."""
    if not (run / "manifest.json").is_file():
        raise UserError(f"{run}: not a run, it has no manifest.json")
    recipe = manifests.load(run).recipe
    stages = {path.parent.name: read_stage(path.parent) for path in sorted(run.glob("*/identity.json"))}
    probes = {
        identity[f"{name}.init"]: summary["probes"]["all"]["linear"]
        for name, (identity, summary) in stages.items()
        if identity[f"{name}.kind"] == "probe" and "all" in summary["probes"]
    }
    rows = []
    for name, (identity, summary) in stages.items():
        if "representation" not in summary:
            continue
        lines = [json.loads(line) for line in (run / name / "metrics.jsonl").read_text().splitlines()]
        logged = [line["loss"] for line in lines if "loss" in line]
        figures = {**summary["representation"], "loss_first": logged[0], "loss_last": logged[-1]}
        figures["std"] = figures["channel_std"] / figures["channel_std_ideal"]
        figures |= {key: summary[key] for key in ("train_seconds", "images_per_second", "params_sha256")}
        if name in probes:
            figures["linear"] = probes[name]["balanced_accuracy"]
            tail = probes[name]["groups"]
            figures["linear_few"] = tail["few" if tail["few"]["num_classes"] else "tail_third"]["accuracy"]
        own = {key.removeprefix(f"{name}."): text for key, text in identity.items() if key.startswith(f"{name}.")}
        row = {"data": recipe.get("dataset"), "longtail": recipe.get("longtail"), "model": identity["model"]}
        row |= {"method": _method(own), "steps": summary["steps"], "batch_size": summary["batch_size"], "stage": own}
        rows.append({**row, "seeds": [identity["seed"]], "figures": {k: [v] for k, v in figures.items()}})
    if not rows:
        raise UserError(f"{run}: no finished stage that learns a representation")
    return rows


def _method(own: dict[str, Any]) -> str:
    """A short name for what a stage does."""
    if own["kind"] == "distil":
        return f"distilled from {own['teachers']}"
    name = parse(own["objective"]).name
    if own["ascent"] == "none()":
        return name
    return f"{name} + {'SAM' if own['ascent_weights'] == 'none()' else 'rwSAM'}"


def merge(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that differ by the seed alone, as one."""
    merged: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = json.dumps({k: v for k, v in row.items() if k not in ("seeds", "figures")}, sort_keys=True)
        if key not in merged:
            merged[key] = row
            continue
        known = merged[key]
        if row["figures"]["params_sha256"][0] in known["figures"]["params_sha256"]:
            continue  # a stage that two runs share
        if set(row["seeds"]) & set(known["seeds"]):
            raise UserError(f"{row['method']}: two runs of seed {row['seeds'][0]} with the same settings")
        known["seeds"] += row["seeds"]
        for name, values in row["figures"].items():
            known["figures"].setdefault(name, []).extend(values)
    return list(merged.values())


def show(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    lines = [
        f"| method | steps x batch | {' | '.join(FIGURES)} | std | rank | loss |",
        "|---" * (len(FIGURES) + 5) + "|",
    ]
    for row in record["rows"]:
        figures = row["figures"]
        cells = [row["method"], f"{row['steps']} x {row['batch_size']}"]
        cells += [_mean_std(figures[key], 100) if key in figures else "" for key in FIGURES.values()]
        collapsed = ", collapsed" if any(figures["collapsed"]) else ""
        cells.append(f"{statistics.mean(figures['std']):.2f}{collapsed}")
        cells.append(f"{statistics.mean(figures['effective_rank']):.0f}")
        cells.append(" to ".join(f"{statistics.mean(figures[key]):.3g}" for key in ("loss_first", "loss_last")))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_std(values: list[float], unit: float) -> str:
    mean = f"{unit * statistics.mean(values):.1f}"
    return f"{mean} ± {unit * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    named = dict(argument.removeprefix("--").split("=", 1) for argument in argv[1:] if argument.startswith("--"))
    runs = [pathlib.Path(argument) for argument in argv[1:] if not argument.startswith("--")]
    if set(named) - {"json", "show"} or bool(runs) == ("show" in named):
        raise UserError("the arguments are finished runs and --json=FILE, or --show=FILE")
    if "show" in named:
        print(show(json.loads(pathlib.Path(named["show"]).read_text())))
        return
    rows = merge([row for run in runs for row in read_run(run)])
    summaries = [json.loads(path.read_text()) for run in runs for path in sorted(run.glob("*/summary.json"))]
    record = {
        "command": " ".join(["python benchmarks/ssl_table.py", *argv[1:]]),
        "versions": summaries[0]["versions"],
        "machine": summaries[0]["machine"],
        "rows": rows,
    }
    print(show(record))
    if "json" in named:
        write_json(pathlib.Path(named["json"]), record)


if __name__ == "__main__":
    try:
        main(sys.argv)
    except UserError as error:
        sys.exit(f"error: {error}")
