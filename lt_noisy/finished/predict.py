"""The command that uses a trained classifier: `lt-noisy predict RUN IMAGES... [--out=FILE.csv] [--top=5]`."""

import contextlib
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from lt_noisy.config.arguments import Parser, new_file
from lt_noisy.data.images import kind_of
from lt_noisy.errors import UserError, printable, say
from lt_noisy.files import exit_status, replacing, safe_cell
from lt_noisy.finished.network import Network, load_network
from lt_noisy.finished.pictures import Read, named_files
from lt_noisy.finished.run import named
from lt_noisy.progress import Progress
from lt_noisy.runs.compiled import keep_programs

_BLOCK = 4096  # files whose outputs are in memory at once


class Prediction(NamedTuple):
    """What a network says of one file.

    Attributes:
      file: the picture.
      classes: names of the most probable classes, most probable first.
      probabilities: of those.
      distance: to the nearest training image, 1 - cosine similarity of features; None where no reference is known.
      unlike_training: whether it is farther than all but 1 % of the test images were; None likewise.
      fault: why it could not be read; then all else is empty.
    """

    file: Path
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    distance: float | None = None
    unlike_training: bool | None = None
    fault: str = ""


def predictions(network: Network, files: Sequence[Path], top: int = 5) -> Iterator[Prediction]:
    """What the network says of each file, in order; `top` classes of each."""
    progress = Progress("predicting files", len(files))
    for start in range(0, len(files), _BLOCK):
        block = files[start : start + _BLOCK]
        read = Read(block, network)
        logits, features = network(read.images, progress)
        probabilities = softmax(np.asarray(logits, np.float64), axis=-1)
        order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
        reference = network.reference
        distances = None if reference is None else reference.distances(features)
        for row, file in enumerate(block):
            if row in read.faults:
                yield Prediction(file, fault=read.faults[row])
                continue
            classes = tuple(network.class_names[c] for c in order[row])
            found = Prediction(file, classes, tuple(probabilities[row, order[row]].tolist()))
            if reference is not None and distances is not None:
                distance = float(distances[row])
                found = found._replace(distance=distance, unlike_training=distance > reference.threshold)
            yield found


def predict(argv: Sequence[str]) -> int:
    """Predicts what the arguments (those after `predict`) name; the exit status is 1 where a file cannot be read."""
    return exit_status(lambda: _predict(argv))


def _predict(argv: Sequence[str]) -> int:
    parser = Parser("predict", description="Classes of pictures by a finished run's network, as a CSV.")
    parser.add_argument("run", help="the directory of a run, or of one of its stages: runs/photos/finetune")
    parser.add_argument("images", nargs="+", help="pictures, folders of pictures, tables with a column `file`")
    parser.add_argument("--out", type=new_file, help="the CSV; without it, it goes to standard output")
    parser.add_argument("--top", type=int, default=5, help="how many classes of each picture (5)")
    given = parser.parse_args(argv)
    if given.top < 1:
        raise UserError(f"predict: --top is at least 1, not {given.top}")
    run, stage = named(given.run)
    if kind_of(run.image_shape) != "images":
        raise UserError(f"predict: the data of {run.directory} are vectors, and no pictures")
    files = named_files(given.images)
    keep_programs()  # the second call compiles nothing
    network = load_network(run, stage, few=True)
    top = min(given.top, len(network.class_names))
    counts = {"unlike": 0, "faulty": 0}
    # Where the table goes to standard output nothing else does.
    said_to = contextlib.nullcontext() if given.out is not None else contextlib.redirect_stdout(sys.stderr)
    with Printed(sys.stdout) if given.out is None else _table(given.out) as target, said_to:
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(_heading(top))
        for found in predictions(network, files, top):
            counts["unlike"] += found.unlike_training is True
            counts["faulty"] += bool(found.fault)
            writer.writerow([safe_cell(cell) for cell in table_row(found, top)])
    say(_said(len(files), counts, given.out), stream=sys.stderr if given.out is None else sys.stdout)
    return 1 if counts["faulty"] else 0


class Printed(contextlib.nullcontext[Any]):
    """A stream as a target of rows: what it cannot encode, such as a file's name that is no text, is escaped."""

    def __enter__(self) -> Any:
        return self

    def write(self, text: str) -> None:
        """As of a file."""
        stream = self.enter_result
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _table(path: Path) -> contextlib.AbstractContextManager[Any]:
    return replacing(path, "w", newline="", encoding="utf-8-sig", errors="surrogateescape")


def _heading(top: int) -> list[str]:
    others = [name for k in range(2, top + 1) for name in (f"class_{k}", f"probability_{k}")]
    return ["file", "class", "probability", "unlike_training", "distance", *others, "fault"]


def table_row(found: Prediction, top: int) -> list[object]:
    """The cells of a file's row in the CSV."""
    if found.fault:
        return [str(found.file), *[""] * (2 * top + 2), printable(found.fault)]
    pairs = [cell for name, p in zip(found.classes, found.probabilities, strict=True) for cell in (name, f"{p:.4f}")]
    distance = "" if found.distance is None else f"{found.distance:.4f}"
    unlike = "" if found.unlike_training is None else int(found.unlike_training)
    return [str(found.file), *pairs[:2], unlike, distance, *pairs[2:], ""]


def _said(number: int, counts: dict[str, int], out: Path | None) -> str:
    where = "" if out is None else f"{out}: "
    unlike = f", {counts['unlike']} unlike the training images" if counts["unlike"] else ""
    faulty = f", {counts['faulty']} could not be read (column `fault`)" if counts["faulty"] else ""
    return f"{where}{number} {'file' if number == 1 else 'files'}{unlike}{faulty}"
