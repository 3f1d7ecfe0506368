"""Training on a folder of pictures that stays on the disk: speed, waiting, and memory as the folder grows.

    python benchmarks/streaming.py --folder=photos --images=2000,20000 [--size=96] [--epochs=2] [--json=FILE]

Each number of images is a process of its own: a supervised stage on so many of the folder's pictures, evenly chosen,
decoded anew for every batch, none kept. `waiting` is the share of the training time in which the loop had no batch;
memory is the most that the process held by the end of each epoch, so that a leak shows.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import arguments
from records import measured

from lt_noisy import system
from lt_noisy.config.resolve import default, section
from lt_noisy.data.sources import pictures
from lt_noisy.errors import UserError, say
from lt_noisy.files import path_argument, write_json
from lt_noisy.runs.markdown import markdown
from lt_noisy.runs.run import run
from lt_noisy.training import loop


def peak_mib() -> int:
    """The most memory that this process has held."""
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


def measure(table: str, given: Any) -> None:
    """Trains on the pictures of a table, and prints what it took as JSON."""
    pictures._WHOLE = 0  # nothing is kept: a folder of any size is read as a large one is
    peaks, log = [], loop.Log.add

    def watched(*given: Any) -> None:
        peaks.append(peak_mib())
        log(*given)

    setattr(loop.Log, "add", watched)  # noqa: B010 (a type checker knows the method's own signature)
    c = default()
    c.dataset = f"table(path='{table}', images='/', size={given.size}, test_percent=1)"
    c.model, c.feed, c.devices = given.model, f"streamed(workers={given.workers})", 1
    c.train = section("supervised", length=f"epochs({given.epochs})", batch_size=given.batch, eval_every="percent(100)")
    c.stages = ("train",)
    with tempfile.TemporaryDirectory() as directory:
        summary = json.loads(run(c, directory).read_text())
    seconds = summary["examples_seen"] / summary["images_per_second"]
    print(
        json.dumps(
            {
                "images_per_second": summary["images_per_second"],
                "waiting": round(summary["seconds_waiting_for_images"] / seconds, 4),
                "peak_mib_by_epoch": peaks,
            }
        )
    )


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--folder", type=path_argument, required=True, help="class folders, as `folder` reads them")
    parser.add_argument("--images", default="2000,20000", help="numbers of images")
    for name, number in {"size": 96, "epochs": 2, "batch": 64}.items():
        parser.add_argument(f"--{name}", type=arguments.count, default=number)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--model", default="resnet8(width=8)")
    parser.add_argument("--json", type=arguments.new_file)
    parser.add_argument("--table", help="our own process, which this script starts")
    given = parser.parse_args(argv[1:])
    if given.table:
        measure(given.table, given)
        return
    files = sorted(file for file in given.folder.glob("*/*") if file.is_file())
    rows = []
    for number in (arguments.count(text) for text in given.images.split(",")):
        if number > len(files):
            raise UserError(f"--images={number}: {given.folder} has {len(files)}")
        chosen = [files[i * len(files) // number] for i in range(number)]
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as table:
            table.write("image,label\n" + "".join(f'"{file.absolute()}","{file.parent.name}"\n' for file in chosen))
            table.flush()
            done = subprocess.run(
                [sys.executable, *argv, f"--table={table.name}"], stdout=subprocess.PIPE, text=True, check=False
            )
        if done.returncode:
            raise UserError(f"the run on {number} images ended with {done.returncode}")
        rows.append({"images": number, **json.loads(done.stdout.splitlines()[-1])})
    say(*show(rows).splitlines())
    if given.json is not None:
        write_json(given.json, measured(argv, rows=rows))


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    body = [
        [
            f"{row['images']:,}",
            f"{row['images_per_second']:,.0f}",
            f"{100 * row['waiting']:.1f} %",
            ", ".join(f"{peak:,}" for peak in row["peak_mib_by_epoch"]),
        ]
        for row in rows
    ]
    return markdown([["images", "images/s", "waiting for images", "most memory by epoch, MiB"], *body])


if __name__ == "__main__":
    system.keep_memory()
    arguments.run(main)
