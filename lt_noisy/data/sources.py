"""Where images come from: TFDS, an `.npz` file, a folder of class sub-folders, or scikit-learn's digits;
and `halves` and `development`, which change the images and the splits of another source.

A factory checks its arguments and returns `load() -> Source`; nothing is read before `load` is called.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from lt_noisy import rng
from lt_noisy.data import tfds_reader
from lt_noisy.data.development import development
from lt_noisy.data.halves import halves
from lt_noisy.errors import UserError

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_TEST_FOLDERS = ("test", "val", "valid", "validation")
_HOLD_OUT_SEED = 0  # the test split is the same in every run, whatever the run's seed


class Split(NamedTuple):
    """One split.

    Attributes:
      ids: int64 [N], unique; an image keeps its id whatever order it is stored in.
      labels: int32 [N], as the source gives them.
      images: `images(rows int [n]) -> uint8 [n, H, W, 3 or 1]`.
      files: where images are files the path of each, from the folder on; else empty.
    """

    ids: np.ndarray
    labels: np.ndarray
    images: Callable[[np.ndarray], np.ndarray]
    files: tuple[str, ...] = ()


class Source(NamedTuple):
    """A data set: train and test split (ids are unique within each) and one name per class."""

    train: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


Load = Callable[[], Source]


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
        builder = tfds_reader.prepared_builder(name)
        splits = [Split(*tfds_reader.read_split(builder, name, split, size)) for split in (train, test)]
        if len({split.images(np.arange(1)).shape for split in splits}) > 1:
            raise UserError(f"tfds {name!r}: train and test images differ in shape; give size=, e.g. size=64")
        return Source(*splits, class_names=tfds_reader.class_names(builder, name))

    return load


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names[:8])) + (", ..." if len(names) > 8 else "")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def npz(path: str) -> Load:
    """Arrays from one `.npz` file, held in memory.

    Keys: train_images, test_images uint8 [N, H, W] or [N, H, W, 1 or 3]; train_labels, test_labels
    integer [N] from 0; train_ids integer [N], unique (optional, else the row). The number of classes is the
    largest training label + 1, each of which has training images, and classes are named by their numbers.
    """

    def load() -> Source:
        try:
            with open(path, "rb") as file:
                arrays = dict(np.load(file, allow_pickle=False))
        except FileNotFoundError:
            raise UserError(f"{path} does not exist") from None
        except Exception as error:  # a broken archive raises anything from OSError to zlib.error
            raise UserError(f"{path} is not a readable .npz file: {_reason(error)}") from None
        for key in ("train_images", "train_labels", "test_images", "test_labels"):
            if key not in arrays:
                raise UserError(f"{path} has no array {key!r} (it has {', '.join(arrays) or 'none'})")
        train = _array_split(path, "train", arrays)
        test = _array_split(path, "test", arrays)
        if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
            raise UserError(f"{path}: train_images and test_images differ in shape after the first axis")
        num_classes = int(train.labels.max()) + 1
        empty = np.setdiff1d(np.arange(num_classes), train.labels)
        if len(empty):  # nothing could be learnt of it, and its prior would be 0
            raise UserError(
                f"{path}: train_labels: no image of {len(empty)} of the {num_classes} classes ({_listed(empty)}); "
                "labels must be 0..C-1 without gaps"
            )
        if test.labels.max() >= num_classes:
            most = f"train_labels only 0..{num_classes - 1}"
            raise UserError(f"{path}: test_labels holds class {test.labels.max()}, {most}")
        return Source(train, test, tuple(map(str, range(num_classes))))

    return load


def _array_split(path: str, name: str, arrays: dict[str, np.ndarray]) -> Split:
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    ids = arrays.get(f"{name}_ids", np.arange(len(labels)))
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
        raise UserError(
            f"{path}: {name}_images is {images.dtype} {list(images.shape)}; "
            "it must be uint8 [N, H, W] or [N, H, W, 1 or 3]"
        )
    for key, array in ((f"{name}_labels", labels), (f"{name}_ids", ids)):
        if array.shape != (len(images),) or array.dtype.kind not in "iu":
            raise UserError(f"{path}: {key} is {array.dtype} {list(array.shape)}; it must be integer [{len(images)}]")
    if not len(images):
        raise UserError(f"{path}: {name}_images is empty")
    if labels.min() < 0:
        raise UserError(f"{path}: {name}_labels holds {labels.min()}; labels count from 0")
    if len(np.unique(ids)) < len(ids):
        raise UserError(f"{path}: {name}_ids holds duplicates; each image needs its own id")
    return _in_memory(ids, labels, images)


def _in_memory(ids: np.ndarray, labels: np.ndarray, images: np.ndarray) -> Split:
    images = images[..., None] if images.ndim == 3 else images
    return Split(ids.astype(np.int64), labels.astype(np.int32), lambda rows: images[rows])


def folder(path: str, size: int = 64, test_percent: int = 20) -> Load:
    """A folder with one sub-folder of images per class, in the style of `photos/cat/1.jpg`.

    Where `path/train` and `path/test` (or else `val`, `valid`, `validation`) exist they are the splits. Otherwise
    test_percent of each class (at least one image) is held out, the same in every run. Classes are the sorted folder
    names. Hidden files are ignored, and, with a note, those whose ending is no image's. An id is the image's row in
    the sorted listing of the whole tree. Every image is decoded at `load` into one uint8 array [N, size, size, 3] (1
    channel where all are grey): upright by EXIF, the shorter side resized to `size` (bilinear), the centre cut out.

    Raises:
      UserError: an argument out of range; at load, no folder, fewer than 2 classes, a class without images, a `train`
        (or `training`) without a test folder beside it, or files that cannot be read.
    """
    if size < 1:
        raise UserError(f"size={size} must be a positive number of pixels")
    if not 1 <= test_percent <= 99:
        raise UserError(f"test_percent={test_percent} must lie in 1..99")

    def load() -> Source:
        root = Path(path)
        if not root.is_dir():
            raise UserError(f"{path} is not a folder")
        held_out = _test_folder(root)
        train_root = root / "train" if held_out else root
        names = [entry.name for entry in _visible(train_root) if entry.is_dir()]
        if len(names) < 2:
            raise UserError(f"{train_root} has {len(names)} class folders; at least 2 are needed")
        files, labels, is_test, skipped = [], [], [], []
        for split in sorted((held_out, "train")) if held_out else ("",):  # in sorted order, as ids are
            for entry in [e for e in _visible(root / split) if e.is_dir()]:
                if entry.name not in names:
                    raise UserError(f"{entry} is a class that {train_root} does not have")
                found, others = _image_files(entry)
                files += found
                skipped += others
                labels += [names.index(entry.name)] * len(found)
                is_test += [split != "train"] * len(found) if split else _held_out(entry, len(found), test_percent)
        if not any(is_test):
            raise UserError(f"{root / held_out} has no class folders")
        _note_skipped(path, skipped)
        unread = sorted({*_files(root)} - {*files, *skipped})
        if unread:
            print(
                f"note: {path}: {len(unread)} files outside the class folders are not read ({unread[0]}, ...)",
                flush=True,
            )
        images = _decode_all(files, size)
        labels, test = np.asarray(labels), np.asarray(is_test)
        paths = np.array([file.relative_to(root).as_posix() for file in files])
        splits = [
            _in_memory(np.flatnonzero(mask), labels[mask], images[mask])._replace(files=tuple(map(str, paths[mask])))
            for mask in (~test, test)
        ]
        return Source(*splits, class_names=tuple(names))

    return load


def images_under(path: str, size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """All images under a folder, whatever its sub-folders, decoded as `folder` does, and their paths, sorted."""
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"{path} is not a folder")
    files, skipped = _image_files(root)
    _note_skipped(path, skipped)
    return _decode_all(files, size), tuple(file.relative_to(root).as_posix() for file in files)


def _visible(directory: Path) -> list[Path]:
    return sorted((e for e in directory.iterdir() if not e.name.startswith(".")), key=lambda e: e.name)


def _test_folder(root: Path) -> str:
    """The folder beside `root/train` that is the test split; the empty string where `root` holds the class folders."""
    folders = [entry.name for entry in _visible(root) if entry.is_dir()]
    found = [name for name in _TEST_FOLDERS if name in folders]
    if "train" in folders and found:
        return found[0]
    lower = {name.lower() for name in folders}
    if lower & {"train", "training"} or (lower and lower <= {*_TEST_FOLDERS}):  # hardly ever meant as classes
        raise UserError(
            f"{root} holds {_listed(folders)}: call the splits train and test (or {', '.join(_TEST_FOLDERS[1:])}), or "
            "put the class folders at the top, none of them called train or training"
        )
    return ""


def _files(directory: Path) -> Iterator[Path]:
    for entry in _visible(directory):
        yield from _files(entry) if entry.is_dir() else (entry,)


def _image_files(directory: Path) -> tuple[list[Path], list[Path]]:
    """The images under a folder and its other files, hidden ones in neither; refuses a folder without an image."""
    images, others = [], []
    for file in _files(directory):
        (images if file.suffix.lower() in _SUFFIXES else others).append(file)
    if not images:
        held = f" but {_counted(others)}" if others else ""
        raise UserError(f"{directory} holds no image ({', '.join(_SUFFIXES)}){held}")
    return images, others


def _counted(files: list[Path]) -> str:
    """`"10 files (.heic, .txt)"`."""
    endings = sorted({file.suffix.lower() or "no ending" for file in files})
    return f"{len(files)} file{'s' if len(files) > 1 else ''} ({_listed(endings)})"


def _note_skipped(path: str, files: list[Path]) -> None:
    if files:
        print(f"note: {path}: skipped {_counted(files)}; what is read is {', '.join(_SUFFIXES)}", flush=True)


def _held_out(entry: Path, count: int, percent: int) -> list[bool]:
    """Which of a class's images are test images. Named by class: other classes do not move the draw."""
    if count < 2:
        raise UserError(f"{entry} holds one image; a class needs at least 2, one of them for the test")
    order = rng.generator(_HOLD_OUT_SEED, f"folder test split, class {entry.name}").permutation(count)
    return list(order < min(count - 1, max(1, count * percent // 100)))


def _decode_all(files: list[Path], size: int) -> np.ndarray:
    """uint8 [N, size, size, 3], or [N, size, size, 1] where every image is grey."""
    images = np.empty((len(files), size, size, 3), np.uint8)
    broken: dict[int, str] = {}  # row -> why

    def fill(row: int) -> bool:
        try:
            with Image.open(files[row]) as file:
                mode, image = file.mode, ImageOps.exif_transpose(file)
                if mode.startswith(("I", "F")):
                    raise ValueError(f"its pixels are not 8-bit but {mode!r}")
                if "transparency" in image.info:
                    image = image.convert("RGBA")
                image = image.convert("RGB")
        except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error ...
            broken[row] = _reason(error)
            return False
        images[row] = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
        return mode == "L"

    with ThreadPoolExecutor() as pool:
        grey = list(pool.map(fill, range(len(files))))
    if broken:
        first, *others = [files[row] for row in sorted(broken)]
        more = f"; {len(others)} more cannot be read either: {_listed(others)}" if others else ""
        raise UserError(f"{first} cannot be read as an image: {broken[min(broken)]}{more}")
    return images[..., :1] if all(grey) else images


def digits(test_per_class: int = 50, canvas: int = 0) -> Load:
    """scikit-learn's handwritten digits: 1797 grey 8x8 images, 10 classes, no download.

    Values 0..16 become 0..255. test_per_class images of each class, the same in every run, are for the test.
    An id is the row in `sklearn.datasets.load_digits`. With `canvas` each digit lies somewhere on a black square of
    so many pixels, its place the same in every run: pixels alone then say little, as of photographs.
    """
    if canvas and canvas < 8:
        raise UserError(f"canvas={canvas} must be 0 (the digit fills its image) or at least 8 pixels")
    if not 1 <= test_per_class <= 173:
        raise UserError(f"test_per_class={test_per_class} must lie in 1..173 (the smallest class has 174 images)")

    def load() -> Source:
        from sklearn.datasets import load_digits  # here, because importing it takes a while

        data = load_digits()
        images = np.rint(data.images * (255 / 16)).astype(np.uint8)
        if canvas:
            corners = rng.generator(_HOLD_OUT_SEED, "digits canvas").integers(0, canvas - 8 + 1, (len(images), 2))
            wide = np.zeros((len(images), canvas, canvas), np.uint8)
            for image, digit, (top, left) in zip(wide, images, corners, strict=True):
                image[top : top + 8, left : left + 8] = digit
            images = wide
        test = np.zeros(len(images), bool)
        for c in range(10):
            order = rng.generator(_HOLD_OUT_SEED, f"digits test split, class {c}").permutation(
                np.flatnonzero(data.target == c)
            )
            test[order[:test_per_class]] = True
        splits = [_in_memory(np.flatnonzero(m), data.target[m], images[m]) for m in (~test, test)]
        return Source(*splits, class_names=tuple("0123456789"))

    return load


SOURCES = {
    "tfds": tfds,
    "npz": npz,
    "folder": folder,
    "digits": digits,
    "halves": halves,
    "development": development,
}
