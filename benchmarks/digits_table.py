"""The README's digits table: initialisation x loss, two ratios, several seeds, in one recorded loop.

    python benchmarks/digits_table.py --seeds=0,1,2,3,4 --json=results/digits_table.json
    python benchmarks/digits_table.py --show=results/digits_table.json      prints the table of a record

Runs that share a seed and a ratio share their training set and their pre-training (a link to the finished
stage, which is skipped because its identity is the same). Interrupted, the same command goes on. Overrides for
choosing settings, on other seeds than the table's: --set=finetune.length='epochs(80)'.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import statistics
import sys

import jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lt_noisy.metrics import write_json
from lt_noisy.run import run
from lt_noisy.spec import UserError

LOSSES = {
    "CE": "cross_entropy()",
    "LA": "logit_adjusted(tau=1.0)",
    "LA+SL": None,  # the config's own: logit adjustment inside SuperLoss, t = log C
    "LA+SL, t mean": "superloss(logit_adjusted(tau=1.0), lam=1.0, threshold=running_mean)",
}
INITS = {"scratch": "none()", "SSL": "pretrain"}
FIGURES = {
    "balanced accuracy": lambda s: s["test"]["balanced_accuracy"],
    "last three classes": lambda s: s["test"]["last_three_classes"]["accuracy"],
    "wrong labels memorised": lambda s: s["train"]["memorised"],
}


def get_config():
    """The digits config, fresh."""
    spec = importlib.util.spec_from_file_location("digits", ROOT / "configs" / "digits_lt_noise.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def cell(root: pathlib.Path, ratio: float, seed: int, init: str, loss: str, overrides: dict[str, str]) -> dict:
    """One run of the table; returns its summary."""
    c = get_config()
    c.seed, c.longtail = seed, f"exponential(ratio={ratio})"
    c.finetune.init = INITS[init]
    if LOSSES[loss]:
        c.finetune.loss = LOSSES[loss]
    if init == "scratch":
        c.stages = ("finetune",)
    for name, value in overrides.items():
        with c.unlocked():
            c.update_from_flattened_dict({name: value == "True" or value})
    workdir = root / f"ratio{ratio}-seed{seed}-{init}-{loss.replace(', ', '-').replace(' ', '')}"
    shared = root / f"ratio{ratio}-seed{seed}-pretrain"
    if init == "SSL":
        workdir.mkdir(parents=True, exist_ok=True)
        shared.mkdir(exist_ok=True)
        if not (workdir / "pretrain").is_symlink():
            os.symlink(shared.resolve(), workdir / "pretrain")
    with open(root / "log.txt", "a") as log, contextlib.redirect_stdout(log):
        path = run(c, str(workdir))
    summary = json.loads(path.read_text())
    if init == "SSL":
        pretrain = json.loads((shared / "summary.json").read_text())
        summary["knn_balanced_bank"] = pretrain["representation"]["knn_balanced_bank"]
        summary["pretrain_seconds"] = pretrain["wall_seconds"]
    return summary


def show(record: dict) -> str:
    """The record as a Markdown table, in percent, mean and standard deviation over the seeds.

    The gain is that in balanced accuracy over cross-entropy from scratch, seed by seed.
    """
    lines = [
        f"| ratio | init | loss | {' | '.join(FIGURES)} | gain |",
        f"|---|---|---|{'---|' * len(FIGURES)}---|",
    ]
    base = {row["ratio"]: row for row in record["rows"] if (row["init"], row["loss"]) == ("scratch", "CE")}
    for row in record["rows"]:
        values = [_mean_std(row[figure]) for figure in FIGURES]
        if row["ratio"] in base:
            pairs = zip(row["balanced accuracy"], base[row["ratio"]]["balanced accuracy"], strict=True)
            values.append(_mean_std([ours - theirs for ours, theirs in pairs]) if row is not base[row["ratio"]] else "")
        lines.append(f"| {row['ratio']} | {row['init']} | {row['loss']} | {' | '.join(values)} |")
    return "\n".join(lines)


def _mean_std(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def main(argv: list[str]) -> None:
    """Runs the grid, or shows a record."""
    options = {"seeds": "", "json": "", "show": "", "ratios": "10,50", "inits": "scratch,SSL"}
    options["root"] = "runs/digits_table"
    overrides = {}
    for argument in argv[1:]:
        name, _, value = argument.lstrip("-").partition("=")
        if name == "set":
            field, _, text = value.partition("=")
            overrides[field] = text
        elif name in options:
            options[name] = value
        else:
            sys.exit(f"error: unknown argument {argument!r}")
    if options["show"]:
        print(show(json.loads(pathlib.Path(options["show"]).read_text())))
        return
    if not options["seeds"]:
        sys.exit("error: which seeds? e.g. --seeds=0,1,2,3,4")
    seeds = [int(s) for s in options["seeds"].split(",")]
    root, rows, summary = pathlib.Path(options["root"]), [], {}
    root.mkdir(parents=True, exist_ok=True)
    cache = os.path.join(os.path.expanduser("~/.cache"), "lt_noisy", "xla")
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", cache))
    for ratio in (int(r) for r in options["ratios"].split(",")):
        cells = {(init, loss): [] for init in options["inits"].split(",") for loss in LOSSES}
        for seed in seeds:
            for (init, loss), summaries in cells.items():
                summary = cell(root, ratio, seed, init, loss, overrides)
                summaries.append(summary)
                print(f"{ratio} {seed} {init} {loss}: {summary['test']['balanced_accuracy']:.3f}", flush=True)
        for (init, loss), summaries in cells.items():
            row = {"ratio": ratio, "init": init, "loss": loss}
            row |= {name: [figure(s) for s in summaries] for name, figure in FIGURES.items()}
            row["params_sha256"] = [s["params_sha256"] for s in summaries]
            row["wall_seconds"] = [s["wall_seconds"] for s in summaries]
            if init == "SSL":
                row["knn_balanced_bank"] = [s["knn_balanced_bank"] for s in summaries]
                row["pretrain_seconds"] = [s["pretrain_seconds"] for s in summaries]
            rows.append(row)
    record = {
        "command": "python benchmarks/digits_table.py " + " ".join(argv[1:]),
        "config": get_config().to_dict(),
        "overrides": overrides,
        "seeds": seeds,
        "seconds": round(sum(sum(row["wall_seconds"]) for row in rows)),
        "versions": summary["versions"],
        "machine": summary["machine"],
        "rows": rows,
    }
    print(show(record))
    if options["json"]:
        write_json(pathlib.Path(options["json"]), record)


if __name__ == "__main__":
    try:
        main(sys.argv)
    except UserError as error:
        sys.exit(f"error: {error}")
