"""Reading Parquet files with pyarrow: labels whole, pictures by row group."""

import functools
import json
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from lt_noisy.data.sources.one_label import SUPPORTED
from lt_noisy.errors import UserError, first_line

_GROUPS = 4  # row groups that are kept, over all files


def arrow(file: Path) -> ModuleType:
    """pyarrow, with `parquet`; an extra, so that nothing else takes it."""
    try:
        import pyarrow.parquet  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError:
        raise UserError(f"{file}: Parquet takes pyarrow: pip install 'lt_noisy[parquet]'") from None
    return pyarrow


class Labels(NamedTuple):
    """A column of labels.

    Attributes:
      values: integers [N], or texts (dtype object) [N].
      empty: int [n], the rows where there is none; -1 or the empty text stands there.
      names: of the classes, where the file has them for integers; else nothing.
    """

    values: np.ndarray
    empty: np.ndarray
    names: tuple[str, ...]


class Table:
    """One Parquet file with a column of pictures.

    Attributes:
      file: its path.
      image: the column of the pictures.
      rows: how many it has.
      stat: of the file, when it was opened.

    Raises:
      UserError: a file that is not Parquet; a column that is missing, or holds no bytes.
    """

    def __init__(self, file: Path, image: str):
        self.file, self.image, self._arrow = file, image, arrow(file)
        try:
            self.stat = file.stat()
            with self._arrow.parquet.ParquetFile(file) as opened:
                self._footer, self._schema = opened.metadata, opened.schema_arrow
        except (OSError, ValueError) as error:  # pyarrow's errors are of both kinds
            raise UserError(f"{file} cannot be read as Parquet: {first_line(error)}") from None
        sizes = [self._footer.row_group(group).num_rows for group in range(self._footer.num_row_groups)]
        self.rows, self._ends = sum(sizes), np.cumsum(sizes)
        self._nested = self._is_nested()
        self._lock = threading.Lock()

    def _type(self, column: str) -> Any:
        if column not in self._schema.names:
            raise UserError(f"{self.file} has no column {column!r} (it has {', '.join(self._schema.names)})")
        return self._schema.field(column).type

    def _is_nested(self) -> bool:
        """Whether the pictures are the field `bytes` of a struct; refuses what is neither that nor bytes."""
        types, found = self._arrow.types, self._type(self.image)
        nested = types.is_struct(found) and found.get_field_index("bytes") >= 0
        data = found.field("bytes").type if nested else found
        if not types.is_binary(data) and not types.is_large_binary(data):
            raise UserError(
                f"{self.file}: column {self.image!r} is {str(found)[:80]}; it must be the bytes of pictures, or a "
                "struct with the field bytes"
            )
        return nested

    def labels(self, column: str) -> Labels:
        """A column of integers or texts; `UserError` for any other, or one that cannot be read."""
        types, found = self._arrow.types, self._type(column)
        if types.is_dictionary(found):
            found = found.value_type
        texts = types.is_string(found) or types.is_large_string(found)
        if not texts and not types.is_integer(found):
            raise UserError(
                f"{self.file}: column {column!r} is {str(found)[:80]}; labels are integers or texts: {SUPPORTED}"
            )
        try:
            values = self._read(None, column).cast(found).to_pylist()
        except (OSError, ValueError) as error:
            raise UserError(f"{self.file}: column {column!r} cannot be read: {first_line(error)}") from None
        empty = np.array([row for row, value in enumerate(values) if value is None or value == ""], np.int64)
        whole = [("" if texts else -1) if value is None else value for value in values]
        if texts:
            return Labels(np.array(whole, object), empty, ())
        try:
            return Labels(np.array(whole, np.int64), empty, self._names(column))
        except OverflowError:
            raise UserError(f"{self.file}: column {column!r} has a label that int64 does not hold") from None

    def _names(self, column: str) -> tuple[str, ...]:
        """What the Hub's `datasets` calls the classes, or nothing."""
        try:
            known = json.loads((self._schema.metadata or {})[b"huggingface"])
            return tuple(map(str, known["info"]["features"][column]["names"]))
        except (KeyError, TypeError, ValueError):  # of another writer, or no ClassLabel
            return ()

    def _read(self, group: int | None, column: str) -> Any:
        """A column (or a field of it) of one row group, or of all, as pyarrow's array in chunks."""
        with self._arrow.parquet.ParquetFile(self.file, metadata=self._footer) as opened:
            if group is None:
                return opened.read([column]).column(0)
            return opened.read_row_group(group, [column]).column(0)

    def picture(self, row: int) -> bytes:
        """The bytes of the picture in a row; `ValueError` where there are none."""
        group = int(np.searchsorted(self._ends, row, side="right"))
        with self._lock:  # what several threads ask for at once is read once
            cells = _pictures(self, group)
        value = cells[row - int(self._ends[group]) + self._footer.row_group(group).num_rows].as_py()
        data = value["bytes"] if self._nested and value is not None else value
        if not data:
            raise ValueError("the row holds no bytes")
        return data

    def read_pictures(self, group: int) -> Any:
        """The pictures of a row group."""
        return self._read(group, f"{self.image}.bytes" if self._nested else self.image)


@functools.lru_cache(maxsize=_GROUPS)
def _pictures(table: Table, group: int) -> Any:
    return table.read_pictures(group)


class Cell(NamedTuple):
    """One picture of a table: to those who read pictures what a path is (`pictures.File`)."""

    table: Table
    row: int

    def __str__(self) -> str:
        return f"{self.table.file}, row {self.row}"

    def __repr__(self) -> str:
        return f"{self}, column {self.table.image}"

    def read_bytes(self) -> bytes:
        """The picture, encoded."""
        return self.table.picture(self.row)

    def stat(self) -> Any:
        """That of the Parquet file."""
        return self.table.stat
