"""Images from a folder with one sub-folder per class."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from lt_noisy import rng
from lt_noisy.data.by_class import held_out_of
from lt_noisy.data.memory import check_fits
from lt_noisy.data.sources.base import HOLD_OUT_SEED, Load, Source, in_memory, listed
from lt_noisy.errors import UserError, first_line

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_TEST_FOLDERS = ("test", "val", "valid", "validation")


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
        root = _existing(path)
        listing = _list_images(root, test_percent)
        _note_skipped(path, listing.other_files)
        _note_outside(path, listing)
        return _source(root, listing, _decode_all(path, listing.images, size))

    return load


def images_under(path: str, size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """All images under a folder, whatever its sub-folders, decoded as `folder` does, and their paths, sorted."""
    root = _existing(path)
    files, other_files = _image_files(root)
    _note_skipped(path, other_files)
    return _decode_all(path, files, size), _paths(root, files)


class _Listing(NamedTuple):
    """The images of a tree in sorted order, with the class and the split of each, and its files that are no images."""

    class_names: list[str]
    images: list[Path]
    labels: list[int]
    is_test: list[bool]
    other_files: list[Path]


def _list_images(root: Path, test_percent: int) -> _Listing:
    """What is in the class folders, once it is sure that every class has images for both splits."""
    test_folder = _test_folder(root)
    train_root = root / "train" if test_folder else root
    class_names = [folder.name for folder in _folders(train_root)]
    if len(class_names) < 2:
        raise UserError(f"{train_root} has {len(class_names)} class folders; at least 2 are needed")
    listing = _Listing(class_names, [], [], [], [])
    for split in sorted((test_folder, "train")) if test_folder else ("",):  # in sorted order, as ids are
        for class_folder in _folders(root / split):
            if class_folder.name not in class_names:
                raise UserError(f"{class_folder} is a class that {train_root} does not have")
            images, other_files = _image_files(class_folder)
            listing.images.extend(images)
            listing.other_files.extend(other_files)
            listing.labels.extend([class_names.index(class_folder.name)] * len(images))
            if test_folder:
                listing.is_test.extend([split == test_folder] * len(images))
            else:
                listing.is_test.extend(_held_out(class_folder, len(images), test_percent))
    if not any(listing.is_test):
        raise UserError(f"{root / test_folder} has no class folders")
    return listing


def _source(root: Path, listing: _Listing, images: np.ndarray) -> Source:
    labels, is_test = np.asarray(listing.labels), np.asarray(listing.is_test)
    splits = []
    for rows in (np.flatnonzero(~is_test), np.flatnonzero(is_test)):
        files = _paths(root, [listing.images[row] for row in rows])
        splits.append(in_memory(rows, labels[rows], images[rows])._replace(files=files))
    return Source(*splits, class_names=tuple(listing.class_names))


def _existing(path: str) -> Path:
    if not Path(path).is_dir():
        raise UserError(f"{path} is not a folder")
    return Path(path)


def _paths(root: Path, files: list[Path]) -> tuple[str, ...]:
    return tuple(file.relative_to(root).as_posix() for file in files)


def _visible(directory: Path) -> list[Path]:
    return sorted((e for e in directory.iterdir() if not e.name.startswith(".")), key=lambda e: e.name)


def _folders(directory: Path) -> list[Path]:
    return [entry for entry in _visible(directory) if entry.is_dir()]


def _test_folder(root: Path) -> str:
    """The folder beside `root/train` that is the test split; the empty string where `root` holds the class folders."""
    folders = [folder.name for folder in _folders(root)]
    found = [name for name in _TEST_FOLDERS if name in folders]
    if "train" in folders and found:
        return found[0]
    lower = {name.lower() for name in folders}
    if lower & {"train", "training"} or (lower and lower <= {*_TEST_FOLDERS}):  # hardly ever meant as classes
        raise UserError(
            f"{root} holds {listed(folders)}: call the splits train and test (or {', '.join(_TEST_FOLDERS[1:])}), or "
            "put the class folders at the top, none of them called train or training"
        )
    return ""


def _files(directory: Path) -> Iterator[Path]:
    for entry in _visible(directory):
        yield from _files(entry) if entry.is_dir() else (entry,)


def _image_files(directory: Path) -> tuple[list[Path], list[Path]]:
    """The images under a folder and its other files, hidden ones in neither; refuses a folder without an image."""
    images, other_files = [], []
    for file in _files(directory):
        (images if file.suffix.lower() in _SUFFIXES else other_files).append(file)
    if not images:
        instead = f" but {_counted(other_files)}" if other_files else ""
        raise UserError(f"{directory} holds no image ({', '.join(_SUFFIXES)}){instead}")
    return images, other_files


def _counted(files: list[Path]) -> str:
    """`"10 files (.heic, .txt)"`."""
    endings = sorted({file.suffix.lower() or "no ending" for file in files})
    return f"{len(files)} file{'s' if len(files) > 1 else ''} ({listed(endings)})"


def _note_skipped(path: str, files: list[Path]) -> None:
    if files:
        print(f"note: {path}: skipped {_counted(files)}; what is read is {', '.join(_SUFFIXES)}", flush=True)


def _note_outside(path: str, listing: _Listing) -> None:
    outside = sorted({*_files(Path(path))} - {*listing.images, *listing.other_files})
    if outside:
        print(
            f"note: {path}: {len(outside)} files outside the class folders are not read ({outside[0]}, ...)", flush=True
        )


def _held_out(class_folder: Path, count: int, percent: int) -> list[bool]:
    """Which of a class's images are test images. Named by class: other classes do not move the draw."""
    if count < 2:
        raise UserError(f"{class_folder} holds one image; a class needs at least 2, one of them for the test")
    ranks = rng.generator(HOLD_OUT_SEED, f"folder test split, class {class_folder.name}").permutation(count)
    return list(ranks < held_out_of(count, percent))


def _decode_all(path: str, files: list[Path], size: int) -> np.ndarray:
    """uint8 [N, size, size, 3], or [N, size, size, 1] where every image is grey."""
    check_fits(len(files), (size, size, 3), path)
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
            broken[row] = first_line(error)
            return False
        images[row] = np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))
        return mode == "L"

    with ThreadPoolExecutor() as pool:
        grey = list(pool.map(fill, range(len(files))))
    if broken:
        first, *rest = [files[row] for row in sorted(broken)]
        more = f"; {len(rest)} more cannot be read either: {listed(rest)}" if rest else ""
        raise UserError(f"{first} cannot be read as an image: {broken[min(broken)]}{more}")
    return images[..., :1] if all(grey) else images
