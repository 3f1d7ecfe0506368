"""Reading a TensorFlow Datasets image classification set without importing TensorFlow.

Only preparing (downloading) a set needs TensorFlow, see `preparing`.
"""

import contextlib
import hashlib
import io
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL
from PIL import Image

from lt_noisy.data.boxes import Cut
from lt_noisy.data.cache import cached
from lt_noisy.data.memory import check_fits
from lt_noisy.data.sources.base import Load, Source, Split, in_memory
from lt_noisy.data.sources.encoded import Form
from lt_noisy.data.sources.keys import Keys, keys_of
from lt_noisy.data.sources.preparing import prepare
from lt_noisy.errors import UserError, did_you_mean, first_line
from lt_noisy.progress import Progress

_CHUNK = 256  # records read and decoded at a time
_WHOLE = 2**30  # bytes
_HASH = hashlib.sha256().digest_size
_READER = f"tfds 3, Pillow {PIL.__version__}"  # changes where pixels may


def prepared_builder(name: str) -> Any:
    """A read-only TFDS builder of a prepared set, prepared now where it was not.

    Looks in `$TFDS_DATA_DIR`, else in TFDS's default directory.

    Raises:
      UserError: unknown name, config or version, or a set that cannot be prepared here.
    """
    import tensorflow_datasets  # here, because importing it takes a while

    def builder() -> Any:
        return tensorflow_datasets.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))

    try:
        found = builder()
        if not found.is_prepared():
            prepare(name, found)
            found = builder()
        # Not `found` itself: only a builder made from the directory knows formats that were converted later.
        return tensorflow_datasets.builder_from_directory(found.data_path)
    except UserError:
        raise
    except tensorflow_datasets.core.DatasetNotFoundError:
        known = tensorflow_datasets.list_builders(with_community_datasets=False)
        raise UserError(f"TFDS has no data set {name!r}{did_you_mean(re.split('[/:]', name)[0], known)}") from None
    except Exception as error:  # TFDS raises half a dozen kinds for a bad name, config, version or directory
        raise UserError(f"TFDS cannot open {name!r}: {first_line(error)}") from None


def class_names(builder: Any, name: str) -> tuple[str, ...]:
    """One name per class; the class's number where the set gives none."""
    return tuple(builder.info.features[keys_of(builder, name).label].names)


def read_split(builder: Any, name: str, split: str, size: int, resize: int = 0, label: str = "") -> Split:
    """One split: ids, labels, images of 1 or 3 channels.

    One pass over the records reads labels and ids; images are read and decoded by row, when asked for. A split whose
    images take up to `_WHOLE` bytes is decoded whole. Later starts find what was read in the cache.

    Images are identified by their pixels, of a split that is not decoded whole by their encoded bytes: preparing a set
    again, elsewhere or with other versions may store the same images in other files.

    Args:
      builder: from `prepared_builder`.
      name: for error messages.
      split: `train`, `test[:80%]` ...
      size: see `tfds`.
      resize: see `tfds`.
      label: see `tfds`.

    Raises:
      UserError: stored in a format that takes TensorFlow to read, no such split, missing files, unlabelled
        images, or (size 0) images of different shapes.
    """
    keys = keys_of(builder, name, label)
    records = _records(builder, name, split, keys.image)
    where = f"tfds {name!r}, split {split!r}"
    height, width, channels = builder.info.features[keys.image].shape  # None for what differs between the images
    channels = 1 if channels == 1 else 3
    if size:
        height = width = size
    form = Form((height, width, channels), size > 0, resize)

    def read_cut(rows: np.ndarray, cut: Cut, draws: np.ndarray) -> np.ndarray:
        def one(row: int, record: dict[str, Any], drawn: np.ndarray) -> np.ndarray:
            with _naming(f"{where}, record {row}"):
                return form.cut(record[keys.image], cut, drawn)

        return np.stack(list(map(one, rows, _read(records, rows, where), draws)))

    if None not in (height, width) and len(records) * height * width * channels <= _WHOLE:
        read = _read_whole(builder, split, records, where, keys, form)
        return read._replace(read_cut=read_cut if size else None)
    columns, sizes = _scan(builder, split, records, where, keys)
    _check_labelled(columns["labels"], where)
    if None in (height, width):
        if len(sizes) > 1:
            raise UserError(f"{where}: images differ in shape; give size=, e.g. size=64")
        width, height = sizes[0].tolist()
        form = form._replace(shape=(height, width, channels))
    images = _decoder(records, where, keys.image, form)
    return _split(columns, images, form)._replace(read_cut=read_cut if size else None)


def _read_whole(
    builder: Any,
    split: str,
    records: Any,
    where: str,
    keys: Keys,
    form: Form,
) -> Split:
    """As `read_split`: all records decoded in one pass, or the arrays of an earlier one from the cache."""

    def make() -> dict[str, np.ndarray]:
        check_fits(len(records), form.shape, where)
        images = np.empty((len(records), *form.shape), np.uint8)
        contents = np.empty((len(records), _HASH), np.uint8)

        def fill(start: int) -> list[tuple[int, int, int, int | None]]:
            read = _read(records, range(start, min(start + _CHUNK, len(records))), where)
            for i, record in enumerate(read, start):
                images[i] = _pixels(form, record[keys.image], f"{where}, record {i}")
                contents[i] = _hashed(images[i].data)
            return [keys.facts(record) for record in read]

        with ThreadPoolExecutor() as pool:
            parts = list(pool.map(fill, range(0, len(records), _CHUNK)))
        return {**keys.columns(itertools.chain.from_iterable(parts)), "images": images, "contents": contents}

    key = {"reader": _READER, "files": _files(builder), "split": split, "form": form, "label": keys.given}
    arrays = dict(cached(key, make))
    images = arrays.pop("images")
    _check_labelled(arrays["labels"], where)
    return _split(arrays, in_memory(arrays["ids"], arrays["labels"], images).images, form)


def _files(builder: Any) -> list[tuple[str, int, int]]:
    """Path, size and time of change of the prepared files."""
    files = sorted(file for file in pathlib.Path(builder.data_path).iterdir() if file.is_file())
    return [(str(file), stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()]]


def _hashed(content: bytes | memoryview) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def _split(columns: dict[str, np.ndarray], images: Callable[[np.ndarray], np.ndarray], form: Form) -> Split:
    """Of `Keys.columns` and the hash of each image, `contents` uint8 [N, 32]."""
    own = {name: np.array(column) for name, column in columns.items()}  # not those that the cache maps into memory
    contents = own["contents"]

    def content(rows: np.ndarray) -> str:
        digest = hashlib.sha256(f"{form.shape}, {form.text}".encode())
        digest.update(np.ascontiguousarray(contents[rows]).data)
        return digest.hexdigest()

    return Split(own["ids"], own["labels"], images, content=content, clean=own.get("clean"), flags=own.get("flags"))


def _check_labelled(labels: Sequence[int] | np.ndarray, where: str) -> None:
    if min(labels) < 0:
        raise UserError(f"{where}: some images have no label; name another split")


def _scan(
    builder: Any,
    split: str,
    records: Any,
    where: str,
    keys: Keys,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`Keys.columns` of all records with the hash of each picture, and the sizes that there are, int [n, 2]."""

    def make() -> dict[str, np.ndarray]:
        facts, contents, sizes = [], [], set()
        progress = Progress(f"reading the labels of {where}", len(records))
        for start in range(0, len(records), _CHUNK):
            read = _read(records, range(start, min(start + _CHUNK, len(records))), where)
            facts += [keys.facts(record) for record in read]
            contents += [_hashed(record[keys.image]) for record in read]
            sizes.update(_size(record[keys.image], f"{where}, record {row}") for row, record in enumerate(read, start))
            progress.add(len(read))
        return {**keys.columns(facts), "contents": np.stack(contents), "sizes": np.array(sorted(sizes))}

    columns = dict(cached({"scan": _READER, "files": _files(builder), "split": split, "label": keys.given}, make))
    return columns, columns.pop("sizes")


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """A picture that Pillow cannot identify or decode, or takes for a bomb, is one line."""
    try:
        yield
    except MemoryError:
        raise
    except PIL.UnidentifiedImageError:  # whose text names an address in memory
        raise UserError(f"{where}: the picture cannot be read (of no kind that is known)") from None
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error ...
        raise UserError(f"{where}: the picture cannot be read ({first_line(error)})") from None


def _size(encoded: bytes, where: str) -> tuple[int, int]:
    """(width, height), of which only the picture's header is parsed."""
    with _naming(where):
        return Image.open(io.BytesIO(encoded)).size


def _pixels(form: Form, encoded: bytes, where: str) -> np.ndarray:
    with _naming(where):
        return form.pixels(encoded)


def _decoder(records: Any, where: str, image_key: str, form: Form) -> Callable[[np.ndarray], np.ndarray]:
    """`images(rows int [n]) -> uint8 [n, H, W, C]`, read and decoded by several threads."""

    def images(rows: np.ndarray) -> np.ndarray:
        check_fits(len(rows), form.shape, where)
        out = np.empty((len(rows), *form.shape), np.uint8)

        def fill(start: int) -> None:
            for i, record in enumerate(_read(records, rows[start : start + _CHUNK], where), start):
                out[i] = _pixels(form, record[image_key], f"{where}, record {rows[i]}")

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(0, len(rows), _CHUNK)))
        return out

    return images


def _records(builder: Any, name: str, split: str, image_key: str) -> Any:
    """A TFDS data source (`len`, `__getitems__`) whose images stay encoded bytes."""
    from tensorflow_datasets import decode

    try:
        records = builder.as_data_source(split=split, decoders={image_key: decode.SkipDecoding()})
    except NotImplementedError:
        raise UserError(
            f"tfds {name!r} is prepared as {builder.info.file_format.value}, which takes TensorFlow to read; "
            "convert it: pip install apache-beam '.[prepare]' && "
            "python -m tensorflow_datasets.scripts.convert_format "
            f"--dataset_version_dir={builder.data_path} --out_file_format=array_record"
        ) from None
    except Exception as error:  # an unknown or malformed split: no common base
        raise UserError(f"tfds {name!r}, split {split!r}, cannot be read: {first_line(error)}") from None
    if not len(records):
        raise UserError(f"tfds {name!r}, split {split!r}, has no images")
    return records


def _read(records: Any, rows: Iterable[int], where: str) -> list[dict[str, Any]]:
    try:
        return records.__getitems__([int(row) for row in rows])
    except RuntimeError as error:  # what array_record raises for a missing or damaged file
        raise UserError(f"{where}: the prepared files are damaged, prepare it again: {first_line(error)}") from None


def tfds(name: str, size: int = 0, train: str = "train", test: str = "test", resize: int = 0, label: str = "") -> Load:
    """Any TensorFlow Datasets image classification set, read in its stored format without TensorFlow.

    The set is looked for in `$TFDS_DATA_DIR`, else in TFDS's default directory. Where it is not prepared, a
    second Python process tries to download and prepare it (that takes TensorFlow and a network). Labels
    and ids are read at once; images stay on disk, encoded, until their rows are asked for. An id is the
    trailing integer of the `id` feature (`train_00042` -> 42); where any is missing or not unique, the row.

    Args:
      name: TFDS name, `name`, `name/config` or `name:version`.
      size: images are resized (bilinear, without keeping the aspect) to size x size; 0 leaves them as they
        are, and then all must have one shape.
      resize: where it is not 0 the aspect is kept: the shorter side is resized to so many pixels, at least `size`, and
        the centre cut out.
      train: split to train on; slices such as `'train[:80%]'` and sums such as `'train+extra'` (SVHN) are allowed.
      test: split to test on.
      label: of sets with several the one to train on, such as `worse_label` of `cifar10_n`: the set's own label is the
        true one then, which metrics alone see. What a set says of its labels (`is_clean`) goes to them too.
    """
    if size < 0:
        raise UserError(f"size={size} must be 0 (images as they are) or a positive number of pixels")
    if resize and not 0 < size <= resize:
        raise UserError(f"resize={resize} is of the shorter side, of which size={size} pixels are cut out: give both")

    def load() -> Source:
        builder = prepared_builder(name)
        splits = [read_split(builder, name, train, size, resize, label), read_split(builder, name, test, size, resize)]
        if len({split.images(np.arange(1)).shape for split in splits}) > 1:
            raise UserError(f"tfds {name!r}: train and test images differ in shape; give size=, e.g. size=64")
        return Source(*splits, class_names=class_names(builder, name))

    return load
