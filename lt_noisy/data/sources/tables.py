"""Images that a table or plain lists name."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lt_noisy.data.sources.base import Load, listed, numbered
from lt_noisy.data.sources.findings import Finding, repeated_ids
from lt_noisy.data.sources.listing import TESTS, FromFiles, Listed, in_order, numbers, reading, shown
from lt_noisy.data.sources.one_label import refuse_columns, refuse_texts
from lt_noisy.data.sources.parquet_files import arrow
from lt_noisy.errors import UserError, first_line
from lt_noisy.files import cell_text, user_path

Rows = list[tuple[int, Mapping[str, str]]]  # the line of each, and its cells
Pairs = tuple[Sequence[str], np.ndarray]  # N paths and int [N] labels


def table(
    path: str,
    images: str = "",
    size: int = 64,
    test_percent: int = 20,
    broken: str = "refuse",
    resize: int = 0,
    image: str = "image",
    label: str = "label",
) -> Load:
    """Images that a table names: CSV, TSV or Parquet with a heading, one row an image.

    Columns: `image`, a path below `images`, and `label`, a class name or number. Where they are there also
    `clean_label`, the true class, which metrics alone see; `split`, `train` or `test` (or `val`, `valid`,
    `validation`); and `id`, an integer of its own for each row. `test` is the test set, or where no row has it `val`,
    `valid` or `validation`; of these one is read. Without `split` about `test_percent` of the images are held out by
    what is in their files, without `id` ids are of that too, both as in `folder`. Classes are those of `label`, sorted,
    as numbers where all are.

    Args:
      path: the table, `.csv`, `.tsv` or `.parquet` (which takes pyarrow: pip install 'lt_noisy[parquet]').
      images: the folder that paths are below; by default that of the table.
      size: images become size x size, as in `folder`.
      test_percent: in 1..99.
      broken: as in `folder`.
      resize: as in `folder`.
      image: what that column is called.
      label: what that column is called.

    Raises:
      UserError: at load, no such file or column, an empty cell (its line is named), an unknown split, ids that are no
        integers or not unique, fewer than 2 classes, files that cannot be read.
    """
    how = reading(size, broken, test_percent, resize=resize)
    file = user_path(path)
    root = user_path(images) if images else file.parent

    def list_files() -> Listed:
        findings: list[Finding] = []
        rows = _used(file, _read(file), findings)
        refuse_columns(str(file), [dict(row) for _, row in rows], label)
        rows = _whole_rows(file, rows, (image, label), findings)
        refuse_texts(f"{file}: column {label!r}", (row[label] for _, row in rows))
        names = in_order(sorted({row[label] for _, row in rows}))
        if len(names) < 2:
            text = f"{file}: {len(names)} class in column {label!r}; at least 2 are needed"
            findings.append(Finding("one class", True, text))
        number = {name: at for at, name in enumerate(names)}
        given = np.array([number[row[label]] for _, row in rows], np.int64)
        clean = _clean(file, rows, number, given, findings)
        is_test = _is_test(file, rows, findings)
        paths = [root / row[image] for _, row in rows]
        ids = _ids(file, rows, [shown(root, path) for path in paths], findings)
        return Listed(root, names, paths, given, is_test=is_test, clean=clean, ids=ids, findings=findings)

    return FromFiles(list_files, how)


def _read(file: Path) -> Rows:
    kind = file.suffix.lower()
    if kind not in (".csv", ".tsv", ".parquet"):
        raise UserError(f"{file}: a table is a .csv, .tsv or .parquet file")
    try:
        rows = _parquet(file) if kind == ".parquet" else _separated(file, "\t" if kind == ".tsv" else ",")
    except FileNotFoundError:
        raise UserError(f"{file} does not exist") from None
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are of both kinds
        raise UserError(f"{file} cannot be read as a table: {first_line(error)}") from None
    if not rows:
        raise UserError(f"{file} has no rows")
    return rows


def _separated(file: Path, separator: str) -> Rows:
    with open(file, newline="", encoding="utf-8-sig") as opened:
        reader = csv.DictReader(opened, delimiter=separator)
        cells = ({key: cell_text(value or "") for key, value in row.items() if key is not None} for row in reader)
        # The inner reader's lines: those of the outer are wrong after empty ones.
        return [(reader.reader.line_num, row) for row in cells]


def _parquet(file: Path) -> Rows:
    rows = arrow(file).parquet.read_table(file).to_pylist()
    cells = [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    return list(enumerate(cells, 2))  # the lines that they would have in a CSV


def _used(file: Path, rows: Rows, findings: list[Finding]) -> Rows:
    """The rows but those of a second test set."""
    if "split" not in rows[0][1]:
        return rows
    names = [row["split"].lower() for _, row in rows]
    test, *others = [name for name in TESTS if name in names] or [""]
    left = [line for (line, _), name in zip(rows, names, strict=True) if name in others]
    if left:
        text = f"{file}: {len(left)} rows called {' or '.join(others)} are not read: the test set is {test}"
        findings.append(Finding("second test set", False, text, tuple({"line": line} for line in left)))
    return [row for row, name in zip(rows, names, strict=True) if name not in others]


def _whole_rows(file: Path, rows: Rows, columns: Sequence[str], findings: list[Finding]) -> Rows:
    """The rows without an empty cell in these columns."""
    for column in columns:
        if column not in rows[0][1]:
            raise UserError(f"{file} has no column {column!r} (it has {', '.join(rows[0][1])})")
        empty = [line for line, row in rows if not row[column]]
        _note_lines(f"{file}: column {column!r} is empty in line {listed(empty)}", empty, findings)
    return [(line, row) for line, row in rows if all(row[column] for column in columns)]


def _note_lines(text: str, lines: Sequence[int], findings: list[Finding]) -> None:
    if lines:
        findings.append(Finding("wrong line", True, text, tuple({"line": line} for line in lines)))


def _clean(
    file: Path, rows: Rows, number: Mapping[str, int], given: np.ndarray, findings: list[Finding]
) -> np.ndarray | None:
    """The clean labels, int [N]; the given one where it is that of no image."""
    if not rows or "clean_label" not in rows[0][1]:
        return None
    wrong = [(line, row["clean_label"]) for line, row in rows if row["clean_label"] not in number]
    if wrong:
        text = f"{file}, line {wrong[0][0]}: clean_label {wrong[0][1]!r} is the label of no image"
        more = f", nor are those of {len(wrong) - 1} more lines" if len(wrong) > 1 else ""
        _note_lines(text + more, [line for line, _ in wrong], findings)
    return np.array([number.get(row["clean_label"], own) for (_, row), own in zip(rows, given, strict=True)])


def _ids(file: Path, rows: Rows, names: Sequence[str], findings: list[Finding]) -> np.ndarray | None:
    """The ids, int [N]; below 0 where it is no whole number."""
    if not rows or "id" not in rows[0][1]:
        return None
    found = [_whole_number(row["id"]) for _, row in rows]
    wrong = [line for (line, _), number in zip(rows, found, strict=True) if number is None]
    _note_lines(f"{file}: column 'id' is no whole number in line {listed(wrong)}", wrong, findings)
    ids = [-1 - at if number is None else number for at, number in enumerate(found)]
    if repeated := repeated_ids(ids, names, f"{file}: column 'id' has a number twice"):
        findings.append(repeated)
    return np.array(ids, np.int64)


def _is_test(file: Path, rows: Rows, findings: list[Finding]) -> np.ndarray | None:
    """bool [N]; what is neither training nor test image is taken for the former."""
    if not rows or "split" not in rows[0][1]:
        return None
    names = [row["split"].lower() for _, row in rows]
    unknown = [line for (line, _), name in zip(rows, names, strict=True) if name not in ("train", *TESTS)]
    text = f"{file}: column 'split' is neither train nor {', '.join(TESTS)} in line {listed(unknown)}"
    _note_lines(text, unknown, findings)
    return np.array([name in TESTS for name in names])


def filelist(
    train: str, test: str, images: str, classes: str = "", size: int = 64, broken: str = "refuse", resize: int = 0
) -> Load:
    """Images that two lists name, `path label` on each line, the label a number from 0.

    Args:
      train: the list of training images.
      test: that of test images.
      images: the folder that paths are below.
      classes: a file with the name of a class on each line; by default they are called by their numbers. To a name that
        several have that number is added.
      size: as in `folder`.
      broken: as in `folder`.
      resize: as in `folder`.

    Raises:
      UserError: at load, a list that is not there, a line without a label, a label without a class, a class without
        training images, files that cannot be read.
    """
    how = reading(size, broken, resize=resize)
    root, lists = user_path(images), [user_path(file) for file in (train, test)]

    def list_files() -> Listed:
        findings: list[Finding] = []
        first, second = (pairs(file, findings) for file in lists)
        class_names = numbered(lines(user_path(classes))) if classes else numbers(first[1])
        return both(root, class_names, first, second, findings)

    return FromFiles(list_files, how)


def both(
    root: Path,
    class_names: Sequence[str],
    train: Pairs,
    test: Pairs,
    findings: Sequence[Finding],
    flags: np.ndarray | None = None,
) -> Listed:
    """The files and labels of two splits below `root`; `flags` int8 [N] of the training labels (`Split.flags`)."""
    labels = np.concatenate([train[1], test[1]])
    files = [root / file for part in (train, test) for file in part[0]]
    if flags is not None:
        flags = np.append(flags, np.full(len(test[0]), -1, np.int8))
    is_test = np.arange(len(labels)) >= len(train[0])
    return Listed(root, class_names, files, labels, is_test=is_test, flags=flags, findings=findings)


def lines(file: Path) -> list[str]:
    """The lines of a text file that say something."""
    return [line for _, line in _numbered(file)]


def _numbered(file: Path) -> list[tuple[int, str]]:
    """The same, each with its number, counted from 1."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{file} does not exist") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text: {first_line(error)}") from None
    return [(at, line.strip()) for at, line in enumerate(text.splitlines(), 1) if line.strip()]


def _whole_number(text: str) -> int | None:
    """The number from 0 on that a text is, where int64 holds it."""
    digits = text.lstrip("0")  # of which `int` refuses some thousands
    number = int(digits or 0) if text.isdecimal() and len(digits) < 20 else 2**63
    return number if number < 2**63 else None


def pairs(file: Path, findings: list[Finding]) -> Pairs:
    """N paths and int [N] labels of `path label` lines; a path may have spaces. Lines of another form are found.

    The last tab comes before the label, or where a number does not follow one the last space.
    """
    files, labels, wrong = [], [], []
    for at, line in _numbered(file):
        for separator in "\t ":
            name, _, text = line.rpartition(separator)
            label = _whole_number(text)
            if name and label is not None:
                files.append(name.strip())
                labels.append(label)
                break
        else:
            wrong.append({"line": at, "text": line})
    if wrong:
        first, more = wrong[0], f", nor are {len(wrong) - 1} more lines" if len(wrong) > 1 else ""
        text = f"{file}, line {first['line']}: {first['text']!r} is not a path and a label{more}"
        findings.append(Finding("wrong line", True, text, tuple(wrong)))
    elif not files:
        raise UserError(f"{file} is empty")
    return files, np.array(labels, np.int64)
