"""The command that shows suspicious labels: `lt-noisy review RUN[/STAGE] [--out=DIR] [--limit=N] [--neighbours=3]`.

`index.html` is one page without anything from a network. Its thumbnails are in it, or beside it where they are many.
What is decided stays in the browser and is exported as a CSV, which `lt-noisy apply` takes.
"""

import base64
import html
import importlib.resources
import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lt_noisy import hashing
from lt_noisy.config.arguments import Parser
from lt_noisy.data.by_class import rows_of
from lt_noisy.data.dataset import select
from lt_noisy.data.images import kind_of
from lt_noisy.data.sources.base import Source
from lt_noisy.errors import UserError, say
from lt_noisy.files import exit_status, has_text, load_arrays, path_argument, replacing
from lt_noisy.finished.network import resolved_again, trained_features
from lt_noisy.finished.review.neighbours import nearest_of_class
from lt_noisy.finished.review.thumbnails import thumbnails
from lt_noisy.finished.run import FinishedRun, FinishedStage, named
from lt_noisy.finished.suspects import judge, read_suspects
from lt_noisy.runs.compiled import keep_programs

PAGE = "index.html"
_THUMBNAILS = "thumbnails"
_OURS = "<title>Labels to look at: "  # in every page
_EMBEDDED = 3000  # thumbnails that a page holds itself; more lie beside it
_FOLDER = 1000  # thumbnails in a folder


class Judged(NamedTuple):
    """Of `label_quality.npz`: ids int64 [N], observed int32 [N], wrong_probability float64 [N]."""

    ids: np.ndarray
    observed: np.ndarray
    wrong_probability: np.ndarray


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
    source_row = {key: row for row, key in enumerate(source.train.ids.tolist())}
    there = [suspect for suspect in listed if suspect.id in source_row]
    if gone := len(listed) - len(there):
        say(f"note: {gone} of {len(listed)} suspects are no more in the data and are left out")
    shown = there[:limit] if limit else there
    judged = Judged(*load_arrays(stage.directory / "label_quality.npz", *Judged._fields))
    label = {name: number for number, name in enumerate(run.class_names)}
    pairs = [(label[suspect.label], label[suspect.suggested]) for suspect in shown]
    nearby = _nearby(run, stage, source, judged, [suspect.id for suspect in shown], np.array(pairs, int), neighbours)
    pictures: dict[int, int] = {}  # row of the source -> its number among the thumbnails

    def numbers(rows: Sequence[int]) -> list[int]:
        return [pictures.setdefault(row, len(pictures)) for row in rows if row >= 0]

    suspects = [
        [
            str(suspect.id),  # more digits than a number of JavaScript has
            suspect.file,
            *pair,
            round(suspect.wrong_probability, 4),
            *numbers([source_row[suspect.id]]),
            *(numbers(rows) for rows in near),
        ]
        for suspect, pair, near in zip(shown, pairs, nearby.tolist(), strict=True)
    ]
    document = {
        "run": str(run.directory),
        "command": f"lt-noisy apply {shlex.quote(str(run.directory))} decisions.csv",
        "stage": stage.name,
        "key": hashing.arrays_sha256(judged._asdict())[:16],
        "judged": len(judged.ids),
        "classes": list(run.class_names),
        "suspects": suspects,
    }
    return Review(document, list(pictures))


def _nearby(
    run: FinishedRun,
    stage: FinishedStage,
    source: Source,
    judged: Judged,
    ids: Sequence[int],
    pairs: np.ndarray,
    neighbours: int,
) -> np.ndarray:
    """Rows of the source's training split, int64 [S, 2, neighbours]: of each suspect's class, and of the suggested one.

    -1 where there are fewer. None is a suspect itself.

    Args:
      ids: S ids of suspects.
      pairs: int [S, 2], class and suggested class of each.
    """
    if not neighbours or not ids:
        return np.zeros((len(ids), 2, 0), np.int64)
    rows = rows_of(judged.ids, source.train.ids)
    there = rows >= 0
    rows, observed = rows[there], judged.observed[there]
    features = trained_features(run, stage, select(source, rows, observed, observed, stored=True))
    if features is None:
        say(f"note: no neighbours are shown: {stage.name} starts from no encoder, and the run has no classifier")
        return np.zeros((len(ids), 2, 0), np.int64)
    queries, trusted = rows_of(np.array(ids), judged.ids[there]), judged.wrong_probability[there] < 0.5
    found = [nearest_of_class(features, observed, trusted, queries, classes, neighbours) for classes in pairs.T]
    return np.where(np.stack(found, 1) < 0, -1, rows[np.stack(found, 1)])


def check_place(out: Path) -> None:
    """Refuses a directory in which a page would take the place of what is none of ours."""
    taken = [name for name in (PAGE, _THUMBNAILS) if (out / name).exists()]
    if taken and not has_text(out / PAGE, _OURS):
        raise UserError(f"review: {out / taken[0]} is of no review; give another place: --out=DIR")


def write_page(review: Review, source: Source, out: Path, size: int) -> Path:
    """Writes the page and its thumbnails into `out`, where `check_place` lets it; returns the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    pictures, beside = thumbnails(source.train, review.rows, size), out / ".lt_noisy-thumbnails"
    shutil.rmtree(beside, ignore_errors=True)  # of one that was killed
    if len(review.rows) <= _EMBEDDED:
        images = [base64.b64encode(picture).decode() for picture in pictures]
    else:
        images = []
        for number, picture in enumerate(pictures):
            folder = beside / f"{number // _FOLDER:03}"
            if number % _FOLDER == 0:
                folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:06}.jpg").write_bytes(picture)
    shutil.rmtree(out / _THUMBNAILS, ignore_errors=True)  # of an earlier page, by other numbers
    if beside.exists():
        beside.rename(out / _THUMBNAILS)
    with replacing(out / PAGE, "w", errors="backslashreplace") as file:
        file.write(page({**review.document, "images": images, "folder": _FOLDER}))
    return out / PAGE


def page(document: dict[str, Any]) -> str:
    """The HTML of a document."""
    text = importlib.resources.files("lt_noisy.finished.review").joinpath("page.html").read_text(encoding="utf-8")
    # Nothing in a script element is escaped but what could end it.
    data = json.dumps(document).replace("<", "\\u003c")
    return text.replace("{{title}}", html.escape(document["run"])).replace("{{data}}", data)


def write_review(
    run: FinishedRun, stage: str, out: Path, limit: int = 0, neighbours: int = 3, size: int = 160
) -> tuple[Path, Review]:
    """Writes the page on which to look at the suspects of a run into `out`; returns its path, and what it shows.

    Args:
      stage: which judged the labels; "" for the one that `suspects.judge` takes.
      limit: of suspects, the most suspicious first; 0 for all.
      neighbours: training images of each class to compare with.
      size: of a thumbnail's longer side, in pixels.

    Raises:
      UserError: `out` holds what is no review, the data are vectors, a number is too small, no stage judged labels.
    """
    if limit < 0 or neighbours < 0 or size < 8:
        raise UserError("review: limit and neighbours are at least 0, size at least 8")
    judged = judge(run, stage)
    if kind_of(run.image_shape) != "images":
        raise UserError(f"review: the data of {run.directory} are vectors, which nobody can look at")
    check_place(out)
    source = resolved_again(run).fields.dataset()
    made = make_review(run, judged, source, limit, neighbours)
    return write_page(made, source, out, size), made


def review(argv: Sequence[str]) -> int:
    """Makes the page that the arguments (those after `review`) ask for; returns the exit status."""
    return exit_status(lambda: _review(argv))


def _review(argv: Sequence[str]) -> int:
    parser = Parser("review", description="A page on which to look at the labels that are probably wrong.")
    parser.add_argument("run", help="the directory of a run, or of one of its stages: runs/photos/folds")
    parser.add_argument("--out", type=path_argument, help="where the page goes (RUN/review)")
    parser.add_argument("--limit", type=int, default=0, help="of suspects, the most suspicious first; 0 for all")
    parser.add_argument("--neighbours", type=int, default=3, help="training images of each class to compare with")
    parser.add_argument("--size", type=int, default=160, help="of a thumbnail's longer side, in pixels")
    given = parser.parse_args(argv)
    run, stage = named(given.run)
    out = given.out or run.directory / "review"
    keep_programs()
    written, made = write_review(run, stage, out, given.limit, given.neighbours, given.size)
    say(
        f"{written}: {len(made.document['suspects'])} suspects of {made.document['judged']} labels; open it in a "
        "browser, decide, export decisions.csv, then:",
        f"  {made.document['command']}",
    )
    return 0
