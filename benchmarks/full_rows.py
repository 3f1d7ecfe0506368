"""Runs at their full length: learning curves and the accuracy of every class, as Markdown tables in percent.

    python benchmarks/full_rows.py NAME=RUN NAME=RUN ... [--json=results/x.json]
    python benchmarks/full_rows.py --show=results/x.json      prints the tables of a record

A RUN is a finished workdir of main.py, NAME what its row is called. Its last stage is shown, which learns from labels
and was tested during training (`eval_every`). All rows have the same classes and number of epochs. The curve has a
column for each tenth of the length at which all rows were tested; the last is what the run ends with. `best` is that of
the best epoch on test, chosen by test accuracy: an oracle, which some published programs report. `hours` are those of
training and testing as the clock has them, the time that the process stood still included.
"""

import json
import pathlib
from typing import Any

import arguments
import numpy as np
import records
from relative_gap import read_stage

from lt_noisy.config.spec import parse
from lt_noisy.data import manifest as manifests
from lt_noisy.errors import UserError
from lt_noisy.files import path_argument, user_path, write_json
from lt_noisy.revision import codes
from lt_noisy.runs.markdown import markdown, percent

KEPT = ("seed", "steps", "parameters", "params_sha256", "code", "versions", "machine")  # of the summary


def named(text: str) -> tuple[str, pathlib.Path]:
    """Name and directory of NAME=RUN, of which only the directory may have more equals signs."""
    name, _, run = text.partition("=")
    if not name or not run:
        raise UserError(f"{text!r} is not NAME=RUN")
    return name, user_path(run)


def read_run(name: str, run: pathlib.Path) -> dict[str, Any]:
    """The row of a run; `UserError` for one that is not finished or was not tested."""
    try:
        stages = json.loads((run / "run.json").read_text())["config"]["stages"]
        manifest = manifests.load(run)
    except OSError as error:
        raise UserError(f"{run}: not a run ({error.filename}: {error.strerror})") from None
    stage = stages[-1]
    identity, summary = read_stage(run / stage)
    lines = [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]
    length = parse(identity.get(f"{stage}.length", "none()"))
    tested = [line for line in lines if "test_accuracy" in line]
    if length.name != "epochs" or "test" not in summary or not tested:
        raise UserError(f"{run}: {stage} was not tested at any epoch of its length")
    epochs = length.kwargs["n"]
    counts = np.bincount(manifest.observed_labels, minlength=manifest.num_classes).tolist()
    return {
        "name": name,
        "stage": stage,
        "epochs": epochs,
        "images": dict(zip(summary["test"]["class_names"], counts, strict=True)),
        "curve": [[round(line["step"] / summary["steps"] * epochs, 2), line["test_accuracy"]] for line in tested],
        "accuracy": summary["test"]["accuracy"],
        "per_class_accuracy": summary["test"]["per_class_accuracy"],
        "best": summary["selection"]["oracle_best_on_test"],
        "hours": round(lines[-1]["seconds"] / 3600, 2),
        "settings": {key: text for key, text in identity.items() if key.startswith(f"{stage}.")},
        **{key: summary[key] for key in KEPT},
    }


def check(rows: list[dict[str, Any]]) -> None:
    """`UserError` for rows of other lengths or training sets than the first."""
    for row in rows:
        for key in ("epochs", "images"):
            if row[key] != rows[0][key]:
                raise UserError(f"{row['name']}: its {key} are not those of {rows[0]['name']}, {rows[0][key]}")


def show(record: dict[str, Any]) -> str:
    """Both tables."""
    rows = record["rows"]
    curves = [{float(epoch): accuracy for epoch, accuracy in row["curve"]} for row in rows]
    tenths = [rows[0]["epochs"] * tenth / 10 for tenth in range(1, 10)]
    tenths = [epoch for epoch in tenths if all(epoch in curve for curve in curves)]
    lines = [["epoch", *(f"{epoch:g}" for epoch in tenths), f"{rows[0]['epochs']:g}, the last", "best", "hours"]]
    classes = [["class (training images)", *(f"{name} ({n:,})" for name, n in rows[0]["images"].items())]]
    for row, curve in zip(rows, curves, strict=True):
        figures = [*(curve[epoch] for epoch in tenths), row["accuracy"], row["best"]["test_accuracy"]]
        lines.append([row["name"], *(percent([figure]) for figure in figures), f"{row['hours']:.1f}"])
        classes.append([row["name"], *(percent([figure]) for figure in row["per_class_accuracy"])])
    return markdown(lines) + "\n\n" + markdown(classes)


def main(argv: list[str]) -> None:
    """Prints the tables and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("runs", nargs="*", help="NAME=RUN of finished runs")
    parser.add_argument("--json", type=arguments.new_file, help="where the record goes")
    parser.add_argument("--show", type=path_argument, help="print the tables of this record, and do nothing else")
    given = parser.parse_intermixed_args(argv[1:])
    if bool(given.runs) == (given.show is not None) or (given.show is not None and given.json):
        raise UserError("the arguments are NAME=RUN of finished runs and --json=FILE, or --show=FILE alone")
    if given.show is not None:
        print(arguments.from_record("--show", given.show, show))
        return
    rows = [read_run(*named(text)) for text in given.runs]
    check(rows)
    record = {
        "command": records.command(argv),
        "code": codes(rows),
        "versions": rows[0]["versions"],
        "rows": rows,
    }
    print(show(record))
    if given.json is not None:
        write_json(given.json, record)


if __name__ == "__main__":
    arguments.run(main)
