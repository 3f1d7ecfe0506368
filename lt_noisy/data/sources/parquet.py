"""Pictures in Parquet files, as the Hugging Face Hub keeps them."""

import glob
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lt_noisy.data.sources.base import Load, listed, numbered
from lt_noisy.data.sources.findings import Finding
from lt_noisy.data.sources.listing import TESTS, FromFiles, Listed, in_order, numbers, reading, shown
from lt_noisy.data.sources.one_label import refuse_texts
from lt_noisy.data.sources.parquet_files import Cell, Labels, Table
from lt_noisy.errors import UserError
from lt_noisy.files import user_path

_SPLITS = {"train": "train", "training": "train", **{name: name for name in TESTS}}


def parquet(
    path: str,
    image: str = "image",
    label: str = "label",
    size: int = 64,
    test_percent: int = 20,
    broken: str = "refuse",
    dedupe: bool = False,
    resize: int = 0,
) -> Load:
    """Pictures in Parquet files in the layout of the Hugging Face Hub, which takes pyarrow alone to read.

    Columns: `image`, a struct with `bytes` (a picture as it would lie in a file) or those bytes themselves; `label`,
    numbers or texts. Numbers are called what the file's `huggingface` metadata call them, else by themselves; texts are
    sorted, as numbers where all are. A file is of the split that is a word of its name, or else of a folder's that it
    is in: `test-00000-of-00001.parquet`, `test/0000.parquet`. `test` is the test set, or where there is none `val`,
    `valid` or `validation`; of these one is read. Files that say nothing are for training. Where no file is for the
    test, about `test_percent` of each class are held out by what is in the pictures. Ids, pixels and copies of a
    picture are as in `folder`, where a picture's name is its file and its row, counted from 0.

    Pictures stay in their files. To read one its row group is read whole, and the last few groups are kept: files are
    read once in order, decoded pixels of up to 1 GiB are kept as of `folder`, and beyond that, or where whole pictures
    are cut (`whole_crop`), each step reads a group for nearly every picture. So a large set wants small groups, as
    `pyarrow.parquet.write_table(..., row_group_size=100)` writes them.

    Args:
      path: a file, a folder with any number of them below it, or a pattern such as 'data/*.parquet'.
      image: what that column is called.
      label: what that column is called.
      size: pictures become size x size, as in `folder`.
      test_percent: in 1..99; unused where files are for the test.
      broken: `refuse` or `skip`, as in `folder`.
      dedupe: as in `folder`.
      resize: as in `folder`.

    Raises:
      UserError: at load, pyarrow or files that are missing, a file that is not Parquet, a column that is missing or of
        another type, an empty or unknown label (its row is named), fewer than 2 classes, pictures that cannot be read.
    """
    how = reading(size, broken, test_percent, dedupe, resize)

    def list_files() -> Listed:
        findings: list[Finding] = []
        root, files = _found(user_path(path))
        splits = _used(root, {file: _split_of(root, file) for file in files}, findings)
        columns = _opened(root, list(splits), image, label, findings)
        names, labels = _classes(columns, label)
        cells = [Cell(table, row) for table in columns for row in range(table.rows)]
        tests = np.repeat([splits[table.file] != "train" for table in columns], [table.rows for table in columns])
        divided = set(splits.values()) != {"train"}
        rows = _labelled(root, cells, labels, columns, label, len(names), findings)
        if len(names) < 2:
            text = f"{root}: {len(names)} class in column {label!r}; at least 2 are needed"
            findings.append(Finding("one class", True, text))
        return Listed(
            root=root,
            class_names=names,
            files=[cells[row] for row in rows],
            labels=labels[rows],
            is_test=tests[rows] if divided else None,
            findings=findings,
        )

    return FromFiles(list_files, how)


def _found(given: Path) -> tuple[Path, list[Path]]:
    """The files that are meant, sorted, and the folder that all of them are below."""
    if given.is_file():
        return given.parent, [given]
    if given.is_dir():
        root, files = given, sorted(given.rglob("*.parquet"))
    else:
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), given.parts))
        files = sorted(Path(file) for file in glob.glob(str(given), recursive=True) if Path(file).is_file())
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(root).parts)]
    if not files:
        raise UserError(f"{given}: there is no Parquet file")
    return root, files


def _split_of(root: Path, file: Path) -> str:
    """The split that is a word of the file's name, or of the nearest folder's; `train` where none is."""
    for part in reversed(file.relative_to(root).parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return "train"


def _used(root: Path, splits: Mapping[Path, str], findings: list[Finding]) -> dict[Path, str]:
    """The files that are read, with their splits: for training, and of one test set."""
    known = set(splits.values())
    if "train" not in known:
        raise UserError(f"{root}: no file is for training: all are called {' or '.join(sorted(known))}")
    test = next((name for name in TESTS if name in known), "")
    if left := sorted(known - {"train", test}):
        text = f"{root}: files called {' or '.join(left)} are not read: the test set is {test}"
        entries = tuple({"files": [shown(root, file)]} for file, split in splits.items() if split in left)
        findings.append(Finding("second test set", False, text, entries))
    return {file: split for file, split in splits.items() if split in ("train", test)}


def _opened(root: Path, files: Sequence[Path], image: str, label: str, findings: list[Finding]) -> dict[Table, Labels]:
    """The tables that can be read, with their labels; of the others each is a finding."""
    columns: dict[Table, Labels] = {}
    faults: list[Finding] = []
    for file in files:
        try:
            table = Table(file, image)
            columns[table] = table.labels(label)
        except UserError as error:
            entry = {"files": [shown(root, file)], "why": str(error).removeprefix(str(file)).lstrip(": ")}
            faults.append(Finding("unreadable file", True, str(error), (entry,)))
    if not columns:
        raise UserError(faults[0].text)
    findings += faults
    return columns


def _classes(columns: Mapping[Table, Labels], label: str) -> tuple[list[str], np.ndarray]:
    """The names of the classes, and the label int [N] of each row of all files, -1 where it is empty."""
    first, one = next(iter(columns.items()))
    for table, column in columns.items():
        if column.names != one.names or column.values.dtype.kind != one.values.dtype.kind:
            raise UserError(f"{table.file}: column {label!r} has other classes than that of {first.file}")
    values = np.concatenate([column.values for column in columns.values()])
    if values.dtype.kind == "O":
        refuse_texts(f"{first.file}: column {label!r}", values)
        names = in_order(sorted(set(values) - {""}))
        number = {name: at for at, name in enumerate(names)}
        return names, np.array([number.get(name, -1) for name in values], np.int64)
    return list(numbered(one.names)) or numbers(values), values


def _labelled(
    root: Path,
    cells: Sequence[Cell],
    labels: np.ndarray,
    columns: Mapping[Table, Labels],
    label: str,
    num_classes: int,
    findings: list[Finding],
) -> np.ndarray:
    """The rows int [n] whose label is that of a class; those without a label, or with another, are found."""
    empty = np.zeros(len(cells), bool)
    start = 0
    for table, column in columns.items():
        empty[start + column.empty] = True
        start += table.rows
        if len(column.empty):
            text = f"{table.file}: column {label!r} is empty in row {listed(column.empty)}"
            entries = tuple({"files": [shown(root, Cell(table, row))]} for row in column.empty.tolist())
            findings.append(Finding("file without a label", True, text, entries))
    placed = (labels >= 0) & (labels < num_classes)
    strange = np.flatnonzero(~placed & ~empty).tolist()
    if strange:
        text = f"{cells[strange[0]]}: label {labels[strange[0]]} is none of the {num_classes} classes"
        if labels[strange[0]] < 0:  # what the Hub's sets have in place of a label that is kept secret
            text += "; files without labels are left out by a pattern, such as path='data/train-*'"
        entries = tuple({"files": [shown(root, cells[row])], "label": int(labels[row])} for row in strange)
        findings.append(Finding("label without a class", True, text, entries))
    return np.flatnonzero(placed)
