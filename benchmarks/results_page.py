"""Writes docs/results.md and docs/plan.md, and the table of results in README.md, from the records in results/.

    python benchmarks/results_page.py

The texts are docs/results.md.jinja and docs/plan.md.jinja; every figure in them is read from a record, or computed from
one, while they are filled in. A test holds the files equal to what this script would write.
"""

import json
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

import arguments
import convolutions
import cpu_peer
import decode
import features_peer
import full_rows
import jinja2
import keep_memory
import messy_folder
import relative_gap
import scanned_blocks
import seeds
import ssl_cost
import ssl_table
import streaming
import weak_scaling

from lt_noisy.runs.markdown import markdown, percent
from lt_noisy.runs.planning.accelerators import ACCELERATORS
from lt_noisy.runs.sweeps import tables

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: written by benchmarks/results_page.py -->\n", "<!-- end of results -->"
PAGES = ("results", "plan")
Labels = Mapping[str, Any]


def record(name: str) -> dict[str, Any]:
    """A record, or the summary of a stage, by its path in results/ without the ending."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def value(name: str, path: str) -> Any:
    """An entry of a record by its dotted path."""
    found: Any = record(name)
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


def number(name: str, path: str) -> str:
    """An entry with three decimals."""
    return f"{value(name, path):.3f}"


def share(name: str, path: str, digits: int = 1) -> str:
    """An entry between 0 and 1, in percent."""
    return f"{100 * value(name, path):.{digits}f}"


def minutes(name: str) -> str:
    """What a sweep's processes took together."""
    return f"{record(name)['process_seconds'] / 60:.0f}"


def process_seconds(name: str) -> float:
    """What a process of a sweep took in the median."""
    return statistics.median(cell["process_seconds"] for cell in record(name)["cells"])


def shares(name: str, title: str, **labels: Any) -> dict[Any, float]:
    """{seed: the figure `title`} of the cells of a sweep's record that have these labels; some, with no seed twice."""
    cells = [cell for cell in record(name)["cells"] if labels.items() <= cell["labels"].items()]
    found = {cell["labels"].get("seed"): cell["figures"][title] for cell in cells}
    if not found or len(found) < len(cells):
        raise ValueError(f"{name}: {len(cells)} cells have the labels {labels}, of {len(found)} seeds")
    return found


def mean(name: str, title: str, **labels: Any) -> str:
    """Mean, and of several seeds the standard deviation, in percent."""
    return percent(list(shares(name, title, **labels).values()))


def gains(name: str, a: Labels, b: Labels, title: str = "balanced accuracy") -> list[float]:
    """What the cells of `a` have more than those of `b`, seed by seed."""
    ours, theirs = shares(name, title, **a), shares(name, title, **b)
    if ours.keys() != theirs.keys():
        raise ValueError(f"{name}: {a} and {b} have other seeds")
    return [ours[seed] - theirs[seed] for seed in ours]


def gain(name: str, a: Labels, b: Labels, title: str = "balanced accuracy") -> str:
    """The mean of `gains`, in percent."""
    return f"{100 * statistics.mean(gains(name, a, b, title)):.1f}"


def probes(stage: str) -> str:
    """The linear probe's accuracy on the rare classes over the three seeds of the semi-synthetic experiment."""
    seeds = [record(f"semi_synthetic_small/seed{seed}_{stage}")["probes"]["all"]["linear"] for seed in range(3)]
    return percent([seed["groups"]["few"]["accuracy"] for seed in seeds])


def front_table() -> str:
    """The README's table: the task, what plain training gives, what a method gives, the record."""
    grid = {"name": "digits_grid", "title": "balanced accuracy"}
    ten, fifty = {"noise": "symmetric", "ratio": 10}, {"noise": "imbalance", "ratio": 50}
    plain = {"init": "scratch", "loss": "CE"}
    listed, wrong = value("own_images", "head.1"), share("own_images", "wrong", 0)
    short = {"name": "cifar10_lt_short", "title": "balanced accuracy"}
    lines = [
        ["task", "cross-entropy", "method", "record"],
        [
            "digits, ratio 10, 40 % symmetric noise (5 seeds)",
            mean(**grid, **plain, **ten),
            f"SimCLR, then logit adjustment in SuperLoss: {mean(**grid, init='SSL', loss='LA+SL', **ten)}",
            "digits_grid.json",
        ],
        [
            "digits, ratio 50, 40 % imbalance noise (5 seeds)",
            mean(**grid, **plain, **fifty),
            f"SimCLR, then logit adjustment: {mean(**grid, init='SSL', loss='LA', **fifty)}",
            "digits_grid.json",
        ],
        [
            "CIFAR-10-LT, ratio 100, no noise, 10 epochs (1 seed)",
            mean(**short, loss="CE"),
            f"LDAM-DRW {mean(**short, loss='LDAM-DRW')}, logit adjustment {mean(**short, loss='LA')}",
            "cifar10_lt_short.json",
        ],
        [
            "CIFAR-10-LT, ratio 100, no noise, ResNet-32, the published 200 epochs (1 seed)",
            f"{share('cifar10_lt_full', 'rows.1.accuracy')} (published: 70.4)",
            f"LDAM-DRW {share('cifar10_lt_full', 'rows.0.accuracy')} (published: 77.0)",
            "cifar10_lt_full.json",
        ],
        [
            "find the wrong labels of CIFAR-10N-LT, 3 epochs (1 seed)",
            "",
            f"AUROC {value('cifar10n_small/folds', 'label_quality.wrong_probability.auroc'):.3f}, out of sample",
            "cifar10n_small",
        ],
        [
            "find the wrong files of a messy folder (1 seed)",
            "",
            f"{listed['wrong']} of the first {listed['files']} listed are wrong ({wrong} % of all are)",
            "own_images.json",
        ],
        [
            "CIFAR-10, 40 % noise, 2,500 images, 20 epochs (1 seed)",
            mean("cifar10_mixnn_small", "balanced accuracy", method="CE"),
            f"MixNN {mean('cifar10_mixnn_small', 'balanced accuracy', method='MixNN')}: it does not pay so early",
            "cifar10_mixnn_small.json",
        ],
    ]
    head, *rows = lines
    return markdown([head, *([*row[:3], f"[{row[3]}](results/{row[3]})"] for row in rows)])


def accelerators() -> str:
    """What the accelerators that can be planned for can do, and by whom."""
    lines = [["name", "", "bfloat16, TFLOP/s", "float32", "memory, GB", "GB/s", "interconnect, GB/s", "source"]]
    for name, one in ACCELERATORS.items():
        peaks = [f"{number / 1e12:,.0f}" for number in (one.bfloat16, one.float32)]
        rest = [f"{number / 1e9:,.0f}" for number in (one.memory, one.bandwidth, one.interconnect)]
        lines.append([f"`{name}`", one.name, *peaks, *rest, one.source])
    return markdown(lines)


def operations(name: str, system: str) -> dict[int, tuple[float, float]]:
    """{devices: operations of a device, counted and on paper} of a system in the record of weak scaling."""
    rows = [row for row in record(name)["rows"] if row["system"].startswith(system)]
    return {row["devices"]: (row["counted"]["flops"], row["paper"]["flops"]) for row in rows}


def over(name: str, system: str) -> str:
    """How many percent of the operations of one device are no convolutions and matrix products."""
    counted, paper = operations(name, system)[1]
    return f"{100 * (counted - paper) / counted:.1f}"


def growth(name: str, system: str) -> str:
    """How many percent more a device computes where there are the most of them than where it is alone."""
    found = operations(name, system)
    return f"{100 * (found[max(found)][0] / found[1][0] - 1):.2f}"


def page(name: str) -> str:
    """The text of docs/NAME.md."""
    functions = {
        "record": record,
        "value": value,
        "number": number,
        "share": share,
        "minutes": minutes,
        "process_seconds": process_seconds,
        "percent": percent,
        "mean": mean,
        "gain": gain,
        "probes": probes,
        "table": lambda name: tables.table(record(name)),
        "across": lambda name, figure: tables.table_across(record(name), ("noise", "ratio"), figure),
        "ssl": lambda name: ssl_table.show(record(name)),
        "cost": lambda name: ssl_cost.show(record(name)),
        "peer": lambda name: cpu_peer.show(record(name)["rows"]),
        "seeds": lambda name: seeds.show(record(name)["rows"]),
        "kept": lambda name: keep_memory.show(record(name)["rows"]),
        "streamed": lambda name: streaming.show(record(name)["rows"]),
        "readers": lambda name: decode.show(record(name)["rows"]),
        "forms": lambda name: convolutions.show(record(name)["rows"]),
        "scanned": lambda name: scanned_blocks.show(record(name)["rows"]),
        "ceiling": lambda name: statistics.median(row["gflop_per_second"]["ceiling"] for row in record(name)["rows"]),
        "reviewed": lambda name: messy_folder.show_compared(record(name)["runs"]),
        "suspects": lambda name: messy_folder.show(record(name)),
        "features": lambda name: features_peer.show(record(name)["rows"]),
        "full": lambda name: full_rows.show(record(name)),
        "gaps": lambda name: relative_gap.show(record(name)["rows"]),
        "scaling": lambda name: weak_scaling.show(record(name)["rows"]),
        "published": lambda name: weak_scaling.show_published(record(name)["published"]),
        "tpu": lambda name: weak_scaling.show_tpu(record(name)["tpu"]),
        "over": over,
        "growth": growth,
        "accelerators": accelerators,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "docs"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    return environment.get_template(f"{name}.md.jinja").render(functions)


def readme(text: str) -> str:
    """README.md with its table of results as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"README.md has no {BEGIN!r} with {END!r} after it")
    return before + BEGIN + front_table() + "\n" + END + after


def main(argv: list[str]) -> None:
    """Writes the files."""
    arguments.Parser(description=__doc__).parse_args(argv[1:])
    for name in PAGES:
        (ROOT / "docs" / f"{name}.md").write_text(page(name))
    (ROOT / "README.md").write_text(readme((ROOT / "README.md").read_text()))


if __name__ == "__main__":
    arguments.run(main)
