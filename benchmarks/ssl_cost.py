"""What a training step of each self-supervised objective costs, relative to a supervised one.

    python benchmarks/ssl_cost.py --model='resnet20(width=16)' --batch=128 --size=32 --json=results/ssl_cost_cpu.json
    python benchmarks/ssl_cost.py --show=results/ssl_cost_cpu.json      prints the table of a record

Bare compiled steps on random images that are already on the device, at the objectives' default sizes: augmentation,
forward and backward passes, update. All are measured in turns, `--rounds` times, and the medians of the ratios taken,
since the clock of a shared machine drifts. Cost is per image, not per view.
"""

import pathlib
import statistics
import time

import arguments
import jax
import numpy as np
import records

from lt_noisy import files
from lt_noisy.config.resolve import default, resolve, section
from lt_noisy.config.spec import bind
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.longtail import LONGTAILS
from lt_noisy.data.manifest import build
from lt_noisy.data.noise import NOISES
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.runs.card import run_card
from lt_noisy.runs.jobs import make_job
from lt_noisy.runs.markdown import markdown
from lt_noisy.training import parallel
from lt_noisy.training.interrupt import Interrupts

STEPS = {  # named as benchmarks/ssl_table.py names the methods
    "supervised": {},
    "simclr": {"objective": "simclr()"},
    "moco": {"objective": "moco()"},
    "moco (asymmetric)": {"objective": "moco(symmetric=False)"},
    "byol": {"objective": "byol()"},
    "simsiam": {"objective": "simsiam()"},
    "simclr + SAM": {"objective": "simclr()", "ascent": "sam(rho=0.5, adaptive=True)"},
    "simsiam + SAM": {"objective": "simsiam()", "ascent": "sam(rho=0.5, adaptive=True)"},
    "rotation": {"objective": "rotation()", "augment": "cifar()"},
    "rotation (all four)": {"objective": "rotation(every=True)", "augment": "cifar()"},
}


def random_dataset(size: int, images: int) -> Dataset:
    """Random images [images, size, size, 3] of 10 classes."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    labels, ids = (np.arange(images) % 10).astype(np.int32), np.arange(images)
    split = Split(ids, labels, lambda rows: pixels[rows])
    names = tuple(map(str, range(10)))
    return Dataset(pixels, labels, labels, ids, pixels[:10], labels[:10], names, Source(split, split, names))


def compiled_steps(resolved, dataset, devices):
    """{name: a function that runs one call of the compiled step, to be waited for}, and the steps in a call."""
    calls = {}
    for stage in resolved.stages:
        job = make_job(resolved, stage, pathlib.Path("."), dataset, dataset, devices, Interrupts())
        ready = stage.kind.prepare(job, stage.section)
        step = ready.phases[0].step
        batch = ready.batches(0)
        if job.steps_per_call > 1:
            batch = {name: np.stack([x] * job.steps_per_call) for name, x in batch.items()}
        totals = parallel.zeros(step, ready.state, ready.data, ready.batches(0))
        call = devices.compile_step(step, job.steps_per_call)
        carry = [devices.replicate(ready.state), devices.replicate(totals)]
        data = devices.replicate(ready.data)

        def once(call=call, carry=carry, data=data, batch=batch):
            carry[:] = call(*carry, data, batch)
            return carry[1]

        jax.block_until_ready(once())  # compiles
        calls[stage.name] = once
    return calls, job.steps_per_call


def seconds(once, repeats: int) -> float:
    """Seconds of one call, over `repeats` of them."""
    began = time.perf_counter()
    for _ in range(repeats):
        out = once()
    jax.block_until_ready(out)
    return (time.perf_counter() - began) / repeats


def show(record: dict) -> str:
    """The record as a Markdown table."""
    lines = [[r["name"], f"{r['images_per_second']:,.0f}", f"{r['relative_cost']:.2f}"] for r in record["rows"]]
    return markdown([["step", "images/s", "cost relative to supervised"], *lines])


def main(argv: list[str]) -> None:
    """Measures, or shows a record."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--model", default="resnet20(width=16)")
    parser.add_argument("--precision", default="float32")
    for name, number in {"batch": 128, "size": 32, "rounds": 5, "repeats": 3, "steps_per_call": 1}.items():
        parser.add_argument(f"--{name}", type=arguments.count, default=number)
    outputs = parser.add_mutually_exclusive_group()
    outputs.add_argument("--json", type=arguments.new_file, help="where the record goes")
    outputs.add_argument("--show", type=files.path_argument, help="print the table of this record, and do nothing else")
    given = parser.parse_args(argv[1:])
    if given.show is not None:
        print(arguments.from_record("--show", given.show, show))
        return
    c = default()
    c.model, c.precision, c.steps_per_call = given.model, given.precision, given.steps_per_call
    names = {name: f"stage{i}" for i, name in enumerate(STEPS)}
    for name, fields in STEPS.items():
        kind = "self_supervised" if fields else "supervised"
        c[names[name]] = section(kind, batch_size=given.batch, length="epochs(1000)", **fields)
    c.stages = tuple(names.values())
    resolved = resolve(c)
    devices = parallel.make("jit", 0)
    dataset = random_dataset(given.size, max(4 * given.batch, 64))
    calls, per_call = compiled_steps(resolved, dataset, devices)
    rounds = []
    for _ in range(given.rounds):
        rounds.append({name: seconds(calls[names[name]], given.repeats) for name in STEPS})
        print(" ".join(f"{name}: {1e3 * s / per_call:.0f} ms" for name, s in rounds[-1].items()), flush=True)
    labels, ids = dataset.clean, dataset.ids
    recipe = bind("none()", LONGTAILS, "longtail"), bind("none()", NOISES, "noise")
    manifest = build(labels, ids, 10, dataset.class_names, *recipe, 0, {})
    card = run_card(resolved, manifest, devices)
    record = {
        "command": records.command(argv),
        "options": {k: v for k, v in vars(given).items() if k not in ("json", "show")},
        "rows": [
            {
                "name": name,
                "images_per_second": given.batch * per_call / statistics.median(r[name] for r in rounds),
                "relative_cost": statistics.median(r[name] / r["supervised"] for r in rounds),
                "relative_cost_rounds": [round(r[name] / r["supervised"], 3) for r in rounds],
            }
            for name in STEPS
        ],
        "code": [card["code"]],
        "versions": card["versions"],
        "machine": card["machine"],
    }
    print(show(record))
    if given.json is not None:
        files.write_json(given.json, record)


if __name__ == "__main__":
    arguments.run(main)
