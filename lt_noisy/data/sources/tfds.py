"""Reading a TensorFlow Datasets image classification set without importing TensorFlow.

Only preparing (downloading) a set needs TensorFlow, see `preparing`.
"""

import io
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from lt_noisy.data.memory import check_fits
from lt_noisy.data.sources.base import Load, Source, Split
from lt_noisy.data.sources.preparing import prepare
from lt_noisy.errors import UserError, did_you_mean, first_line

_CHUNK = 256  # records read and decoded at a time


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


def _keys(builder: Any, name: str) -> tuple[str, str]:
    """The names of the image and the label feature, once it is sure that the set has them."""
    features = dict(builder.info.features.items())
    keys = builder.info.supervised_keys or ("image", "label")
    image, label = (features.get(key) if isinstance(key, str) else None for key in keys)
    is_set = (type(image).__name__, type(label).__name__) == ("Image", "ClassLabel")
    if not is_set or getattr(image, "np_dtype", None) != np.uint8:
        listing = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in sorted(features.items()))
        raise UserError(f"tfds {name!r} is not a set of 8-bit images with one class label (it has {listing})")
    return keys


def class_names(builder: Any, name: str) -> tuple[str, ...]:
    """One name per class; the class's number where the set gives none."""
    return tuple(builder.info.features[_keys(builder, name)[1]].names)


def read_split(builder: Any, name: str, split: str, size: int) -> tuple[np.ndarray, np.ndarray, Callable]:
    """Ids int64 [N], labels int32 [N] and `images(rows int [n]) -> uint8 [n, H, W, 1 or 3]` of one split.

    One pass over the records reads labels and ids; images are read and decoded by row, when asked for.

    Args:
      builder: from `prepared_builder`.
      name: for error messages.
      split: `train`, `test[:80%]` ...
      size: images become [size, size]; 0 leaves them as they are.

    Raises:
      UserError: stored in a format that takes TensorFlow to read, no such split, missing files, unlabelled
        images, or (size 0) images of different shapes.
    """
    image_key, label_key = _keys(builder, name)
    records = _records(builder, name, split, image_key)
    where = f"tfds {name!r}, split {split!r}"
    height, width, channels = builder.info.features[image_key].shape  # None for what differs between the images
    if size:
        height = width = size
    sized = None not in (height, width)
    labels, numbers, sizes = _scan(records, where, label_key, "" if sized else image_key)
    if min(labels) < 0:
        raise UserError(f"{where}: some images have no label; name another split")
    if len(sizes) > 1:
        raise UserError(f"{where}: images differ in shape; give size=, e.g. size=64")
    if not sized:
        ((width, height),) = sizes
    images = _decoder(records, where, image_key, (height, width, 1 if channels == 1 else 3), resized=size > 0)
    return _ids(numbers), np.asarray(labels, np.int32), images


def _scan(
    records: Any, where: str, label_key: str, image_key: str
) -> tuple[list[int], list[int | None], set[tuple[int, int]]]:
    """Labels and numbers (see `_trailing_integer`) of all records, and, unless `image_key` is empty, the image sizes.

    A size is (width, height), of which only the image's header is parsed.
    """
    labels, numbers, sizes = [], [], set()
    for start in range(0, len(records), _CHUNK):
        for record in _read(records, range(start, min(start + _CHUNK, len(records))), where):
            labels.append(int(record[label_key]))
            numbers.append(_trailing_integer(record.get("id")))
            if image_key:
                sizes.add(Image.open(io.BytesIO(record[image_key])).size)
    return labels, numbers, sizes


def _ids(numbers: list[int | None]) -> np.ndarray:
    """The numbers int64 [N], or the rows where one is missing or comes twice."""
    numbered = None not in numbers and len(set(numbers)) == len(numbers)
    return np.asarray(numbers if numbered else np.arange(len(numbers)), np.int64)


def _decoder(
    records: Any, where: str, image_key: str, shape: tuple[int, int, int], resized: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """`images(rows int [n]) -> uint8 [n, *shape]`, read and decoded by several threads."""
    height, width, channels = shape

    def images(rows: np.ndarray) -> np.ndarray:
        check_fits(len(rows), shape, where)
        out = np.empty((len(rows), *shape), np.uint8)

        def fill(start: int) -> None:
            for i, record in enumerate(_read(records, rows[start : start + _CHUNK], where), start):
                image = Image.open(io.BytesIO(record[image_key])).convert("L" if channels == 1 else "RGB")
                if resized:
                    image = image.resize((width, height), Image.Resampling.BILINEAR)
                out[i] = np.asarray(image).reshape(shape)

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


def _trailing_integer(value: Any) -> int | None:
    if not isinstance(value, (bytes, int, np.integer)):
        return None
    match = re.search(r"\d{1,18}$", value.decode(errors="replace") if isinstance(value, bytes) else str(value))
    return int(match.group()) if match else None


def tfds(name: str, size: int = 0, train: str = "train", test: str = "test") -> Load:
    """Any TensorFlow Datasets image classification set, read in its stored format without TensorFlow.

    The set is looked for in `$TFDS_DATA_DIR`, else in TFDS's default directory. Where it is not prepared, a
    second Python process tries to download and prepare it (that takes TensorFlow and a network). Labels
    and ids are read at once; images stay on disk, encoded, until their rows are asked for. An id is the
    trailing integer of the `id` feature (`train_00042` -> 42); where any is missing or not unique, the row.

    Args:
      name: TFDS name, `name`, `name/config` or `name:version`.
      size: images are resized (bilinear, without keeping the aspect) to size x size; 0 leaves them as they
        are, and then all must have one shape.
      train: split to train on; slices such as `'train[:80%]'` are allowed.
      test: split to test on.
    """
    if size < 0:
        raise UserError(f"size={size} must be 0 (images as they are) or a positive number of pixels")

    def load() -> Source:
        builder = prepared_builder(name)
        splits = [Split(*read_split(builder, name, split, size)) for split in (train, test)]
        if len({split.images(np.arange(1)).shape for split in splits}) > 1:
            raise UserError(f"tfds {name!r}: train and test images differ in shape; give size=, e.g. size=64")
        return Source(*splits, class_names=class_names(builder, name))

    return load
