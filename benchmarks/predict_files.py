"""`lt-noisy predict` on many files beside the forward pass alone: images a second, in turns.

    python benchmarks/predict_files.py runs/photos photos --files=10000 [--json=results/predict_files.json]

The files under the folder are taken again and again until there are so many; five turns have a fifth of them each. A
turn reads, decodes and predicts its files, distances to the training images and rows of the table included, and then
sends the same images, decoded beforehand and in memory, through the network alone. Loading, compilation and the first
batch come before both.
"""

import csv
import io
import time

import arguments
import numpy as np
from records import measured

from lt_noisy.errors import say
from lt_noisy.files import user_path, write_json
from lt_noisy.finished.network import load_network
from lt_noisy.finished.pictures import Read, named_files
from lt_noisy.finished.predict import predictions, table_row
from lt_noisy.finished.run import named

TURNS = 5


def main(argv: list[str]) -> None:
    """Measures, says the figures, and writes them."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("folder")
    parser.add_argument("--files", type=arguments.count, default=10_000)
    parser.add_argument("--json", type=arguments.new_file)
    given = parser.parse_args(argv[1:])
    run, stage = named(given.run)
    network = load_network(run, stage)
    there = named_files([str(user_path(given.folder))])
    each = given.files // TURNS
    files = [there[number % len(there)] for number in range(each)]
    images = Read(files, network).images[np.arange(each)]
    network(images[:512])
    rates = []
    for _ in range(TURNS):
        began = time.perf_counter()
        writer = csv.writer(io.StringIO())
        writer.writerows(table_row(found, 5) for found in predictions(network, files))
        whole = time.perf_counter() - began
        began = time.perf_counter()
        network(images)
        rates.append((each / whole, each / (time.perf_counter() - began)))
        say(f"{rates[-1][0]:.0f} images/s from files, {rates[-1][1]:.0f} forward alone")
    shares = [files_rate / alone for files_rate, alone in rates]
    figures = measured(
        argv,
        files=TURNS * each,
        image_shape=list(network.image_shape),
        model=run.config["model"],
        images_per_second=[round(rate, 1) for rate, _ in rates],
        forward_alone=[round(rate, 1) for _, rate in rates],
        share_median=round(float(np.median(shares)), 3),
        share_range=[round(min(shares), 3), round(max(shares), 3)],
    )
    say(f"median share {figures['share_median']}")
    if given.json is not None:
        write_json(given.json, figures)


if __name__ == "__main__":
    arguments.run(main)
