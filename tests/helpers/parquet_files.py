"""Parquet files with pictures, for tests."""

import io

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from lt_noisy.config.spec import bind
from lt_noisy.data.sources import SOURCES


def load(text, root):
    return bind(text.format(tmp=root), SOURCES, "dataset")()


def png(number, label=0):
    out = io.BytesIO()
    pixels = np.random.default_rng([label, number]).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write(file, images, labels, metadata=None, group=4):
    file.parent.mkdir(parents=True, exist_ok=True)
    found = pyarrow.table({"image": images, "label": labels}).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(found, file, row_group_size=group)


def tables(root, **files):
    """A file for each name, with three classes and so many rows."""
    for at, (name, rows) in enumerate(files.items()):
        labels = np.arange(rows) % 3
        write(root / f"{name}.parquet", [png(i, at) for i in range(rows)], labels)
