"""The command that shows suspicious labels: `lt-noisy review RUN[/STAGE] [--out=DIR] [--limit=N] [--neighbours=3]`.

`index.html` is one page without anything from a network. Its thumbnails are in it, or beside it where they are many.
What is decided stays in the browser and is exported as a CSV, which `lt-noisy apply` takes.
"""

import base64
import html
import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lt_noisy import hashing
from lt_noisy.data.dataset import select
from lt_noisy.data.images import kind_of
from lt_noisy.data.sources.base import Source
from lt_noisy.errors import UserError, say
from lt_noisy.files import exit_status, load_arrays, replacing, user_path
from lt_noisy.finished.arguments import Parser
from lt_noisy.finished.network import resolved_again, trained_features
from lt_noisy.finished.review.neighbours import nearest_of_class
from lt_noisy.finished.review.thumbnails import thumbnails
from lt_noisy.finished.run import FinishedRun, FinishedStage, named
from lt_noisy.finished.suspects import judge, read_suspects
from lt_noisy.runs.compiled import keep_programs

PAGE = "index.html"
_EMBEDDED = 3000  # thumbnails that a page holds itself; more lie beside it
_FOLDER = 1000  # thumbnails in a folder


class Review(NamedTuple):
    """What the page shows.

    Attributes:
      document: JSON-ready, see `page.html`.
      rows: of the source's training split, whose thumbnails the document counts.
    """

    document: dict[str, Any]
    rows: list[int]


def make_review(run: FinishedRun, stage: FinishedStage, source: Source, limit: int, neighbours: int) -> Review:
    """The suspects of a stage, each with its nearest training images.

    Args:
      source: the run's, as it is now; images that are gone since are left out.
      limit: of suspects; 0 for all.
      neighbours: how many of each class; 0 for none.
    """
    listed = read_suspects(stage.directory)
    ids, observed, wrong = load_arrays(stage.directory / "label_quality.npz", "ids", "observed", "wrong_probability")
    row_of = {key: row for row, key in enumerate(ids.tolist())}
    in_source = {key: row for row, key in enumerate(source.train.ids.tolist())}
    there = [suspect for suspect in listed if suspect.id in in_source]
    if gone := len(listed) - len(there):
        say(f"note: {gone} of {len(listed)} suspects are no more in the data and are left out")
    shown = there[:limit] if limit else there
    label_of = {name: label for label, name in enumerate(run.class_names)}
    nearby = np.full((len(shown), 0), -1, np.int64)
    if neighbours and shown:
        kept = np.array([key in in_source for key in ids.tolist()])
        rows = np.flatnonzero(kept)
        place = np.cumsum(kept) - 1  # of a row of the run among those that are kept
        source_rows = np.array([in_source[key] for key in ids[rows].tolist()], np.int64)
        features = trained_features(run, stage, select(source, source_rows, observed[rows], observed[rows], True))
        queries = place[[row_of[suspect.id] for suspect in shown]]
        trusted = wrong[rows] < 0.5
        both = [
            nearest_of_class(
                features, observed[rows], trusted, queries, np.array([label_of[c] for c in names]), neighbours
            )
            for names in ([s.label for s in shown], [s.suggested for s in shown])
        ]
        nearby = np.where(np.hstack(both) < 0, -1, source_rows[np.hstack(both)])
    pictures: dict[int, int] = {}  # row of the source -> its number among the thumbnails

    def number(row: int) -> int:
        return -1 if row < 0 else pictures.setdefault(row, len(pictures))

    suspects = [
        [
            str(suspect.id),
            suspect.file,
            label_of[suspect.label],
            label_of[suspect.suggested],
            round(suspect.wrong_probability, 4),
            number(in_source[suspect.id]),
            [number(row) for row in near[:neighbours].tolist()],
            [number(row) for row in near[neighbours:].tolist()],
        ]
        for suspect, near in zip(shown, nearby, strict=True)
    ]
    document = {
        "run": str(run.directory),
        "stage": stage.name,
        "key": hashing.arrays_sha256({"ids": ids, "observed": observed, "wrong": wrong})[:16],
        "judged": len(ids),
        "classes": list(run.class_names),
        "suspects": suspects,
    }
    return Review(document, list(pictures))


def write_page(review: Review, source: Source, out: Path, size: int) -> Path:
    """Writes the page and its thumbnails into `out`; returns the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = thumbnails(source.train, review.rows, size)
    if len(review.rows) <= _EMBEDDED:
        images = [base64.b64encode(picture).decode() for picture in pictures]
    else:
        images = []
        for number, picture in enumerate(pictures):
            folder = out / "thumbnails" / f"{number // _FOLDER:03}"
            if number % _FOLDER == 0:
                folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:06}.jpg").write_bytes(picture)
    with replacing(out / PAGE, "w", errors="backslashreplace") as file:
        file.write(page({**review.document, "images": images, "folder": _FOLDER}))
    return out / PAGE


def page(document: dict[str, Any]) -> str:
    """The HTML of a document."""
    text = importlib.resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    # Nothing in a script element is escaped but what could end it.
    data = json.dumps(document).replace("<", "\\u003c")
    return text.replace("{{title}}", html.escape(document["run"])).replace("{{data}}", data)


def review(argv: Sequence[str]) -> int:
    """Makes the page that the arguments (those after `review`) ask for; returns the exit status."""
    return exit_status(lambda: _review(argv))


def _review(argv: Sequence[str]) -> int:
    parser = Parser("review", description="A page on which to look at the labels that are probably wrong.")
    parser.add_argument("run", help="the directory of a run, or of one of its stages: runs/photos/folds")
    parser.add_argument("--out", type=user_path, help="where the page goes (RUN/review)")
    parser.add_argument("--limit", type=int, default=0, help="of suspects, the most suspicious first; 0 for all")
    parser.add_argument("--neighbours", type=int, default=3, help="training images of each class to compare with")
    parser.add_argument("--size", type=int, default=160, help="of a thumbnail's longer side, in pixels")
    given = parser.parse_args(argv)
    if given.limit < 0 or given.neighbours < 0 or given.size < 8:
        raise UserError("review: --limit and --neighbours are at least 0, --size at least 8")
    run, name = named(given.run)
    stage = judge(run, name)
    if kind_of(run.image_shape) != "images":
        raise UserError(f"review: the data of {run.directory} are vectors, which nobody can look at")
    keep_programs()
    source = resolved_again(run).fields.dataset()
    made = make_review(run, stage, source, given.limit, given.neighbours)
    path = write_page(made, source, given.out or run.directory / "review", given.size)
    say(
        f"{path}: {len(made.document['suspects'])} suspects of {made.document['judged']} labels; open it in a browser, "
        "decide, export decisions.csv, then:",
        f"  lt-noisy apply {run.directory} decisions.csv",
    )
    return 0
