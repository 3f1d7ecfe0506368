"""Pictures of people's own: which files are meant, and their pixels as a network takes them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lt_noisy.data.images import Stored, kind_of
from lt_noisy.data.sources.decoding import decode, decode_stretched, grey
from lt_noisy.data.sources.folder import image_files
from lt_noisy.errors import UserError, first_line
from lt_noisy.files import cell_text, user_path
from lt_noisy.finished.network import Network

_TABLES = (".csv", ".tsv", ".txt")
_COLUMNS = ("file", "path", "filename", "image")  # what the column of files is called, the first that is there


def named_files(names: Sequence[str]) -> list[Path]:
    """The files that are meant, each once, in order: files, all images under folders, those that tables list.

    Args:
      names: of a picture, a folder, or a table: `.csv` and `.tsv` with a column `file` (or path, filename, image),
        `.txt` with a path a line; paths there begin at the table.

    Raises:
      UserError: one that is not there, a folder without images, a table without such a column.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = user_path(name)
        if path.is_dir():
            files = image_files(path)
            if not files:
                raise UserError(f"{path} holds no image")
        elif not path.is_file():
            raise UserError(f"{path} does not exist")
        else:
            files = _listed(path) if path.suffix.lower() in _TABLES else [path]
        found |= dict.fromkeys(files)
    return list(found)


def _listed(table: Path) -> list[Path]:
    text = table.read_text(encoding="utf-8-sig", errors="surrogateescape")
    if table.suffix.lower() == ".txt":
        return [table.parent / line for line in map(str.strip, text.splitlines()) if line]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if table.suffix.lower() == ".tsv" else ",")
    try:
        column = next((name for name in _COLUMNS if name in (reader.fieldnames or ())), None)
        if column is None:
            there = ", ".join(map(str, reader.fieldnames or ())) or "none"
            raise UserError(f"{table} has no column {' or '.join(_COLUMNS)} (its columns: {there})")
        return [table.parent / cell_text(row[column]) for row in reader if row[column]]
    except csv.Error as error:
        raise UserError(f"{table}, line {reader.line_num + 1}, cannot be read as a table: {error}") from None


class Read:
    """The pixels of files for a network, decoded when they are asked for.

    Attributes:
      images: uint8 [N, H, W, C]; black where a file cannot be read.
      faults: what is wrong with those that could not be read so far, by row.
    """

    def __init__(self, files: Sequence[Path], network: Network):
        if kind_of(network.image_shape) != "images":
            raise UserError("this network takes vectors, and no pictures")
        height, width, channels = network.image_shape
        if height != width:
            raise UserError(
                f"this network takes images of {width} x {height} pixels: only square ones are made of files"
            )
        self.faults: dict[int, str] = {}

        def one(row: int) -> np.ndarray:
            try:
                if network.fit.stretched:
                    pixels = decode_stretched(files[row], height, 3)
                else:
                    pixels = decode(files[row], height, 3, network.fit.resize)
            except FileNotFoundError:
                self.faults[row] = "it does not exist"
            except Exception as error:  # Pillow's decoders raise errors of many kinds
                self.faults[row] = first_line(error)
            else:
                return grey(pixels) if channels == 1 else pixels
            return np.zeros(network.image_shape, np.uint8)

        self.images = Stored(
            lambda rows: np.stack([one(row) for row in rows.tolist()]), np.arange(len(files)), network.image_shape
        )
