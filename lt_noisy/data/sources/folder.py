"""Images from a folder with one sub-folder per class."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from lt_noisy.data.memory import check_fits
from lt_noisy.data.sources.base import Load, Source, Split, listed
from lt_noisy.data.sources.content import content_of, held_out, ids_of
from lt_noisy.errors import UserError, first_line, say
from lt_noisy.files import user_path

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_TEST_FOLDERS = ("test", "val", "valid", "validation")


def folder(path: str, size: int = 64, test_percent: int = 20) -> Load:
    """A folder with one sub-folder of images per class, in the style of `photos/cat/1.jpg`.

    Where `path/train` and `path/test` (or else `val`, `valid`, `validation`) exist they are the splits. Otherwise
    about test_percent of each class (at least one image) is held out, by what is in the files, so that neither another
    file nor another class folder moves an image to the other split. Classes are the sorted folder names. Hidden files
    are ignored, and, with a note, those whose ending is no image's. An id is a hash of the file's content and, of equal
    files in a split, of its number in the sorted listing; rows are in the order of ids, whatever class a file is in.
    Every image is decoded at `load` into one uint8 array [N, size, size, 3] (1 channel where all are grey): upright by
    EXIF, the shorter side resized to `size` (bilinear), the centre cut out.

    Raises:
      UserError: an argument out of range; at load, no folder, fewer than 2 classes, a class without images, a `train`
        (or `training`) without a test folder beside it, or files that cannot be read.
    """
    if size < 1:
        raise UserError(f"size={size} must be a positive number of pixels")
    if not 1 <= test_percent <= 99:
        raise UserError(f"test_percent={test_percent} must lie in 1..99")
    root = user_path(path)

    def load() -> Source:
        listing = _list_images(root)
        _note_skipped(root, listing.other_files)
        _note_outside(root, listing)
        return _source(root, listing, size, test_percent)

    return load


def images_under(root: Path, size: int) -> Split:
    """All images under a folder, whatever its sub-folders, read as `folder` reads them; every label is 0."""
    files, other_files = _image_files(_existing(root))
    _note_skipped(root, other_files)
    images, contents = _read_all(root, files, size)
    return _split(root, files, ids_of(contents), np.zeros(len(files), np.int32), images, np.arange(len(files)))


class _Listing(NamedTuple):
    """The images of a tree in sorted order, with the class of each, and its files that are no images.

    `is_test` has the split of each where folders say it, else nothing.
    """

    class_names: list[str]
    images: list[Path]
    labels: list[int]
    is_test: list[bool]
    other_files: list[Path]


def _list_images(root: Path) -> _Listing:
    """What is in the class folders, once it is sure that every class has images for both splits."""
    _existing(root)
    test_folder = _test_folder(root)
    train_root = root / "train" if test_folder else root
    class_names = [folder.name for folder in _folders(train_root)]
    if len(class_names) < 2:
        raise UserError(f"{train_root} has {len(class_names)} class folders; at least 2 are needed")
    listing = _Listing(class_names, [], [], [], [])
    for split in sorted((test_folder, "train")) if test_folder else ("",):
        for class_folder in _folders(root / split):
            if class_folder.name not in class_names:
                raise UserError(f"{class_folder} is a class that {train_root} does not have")
            images, other_files = _image_files(class_folder)
            listing.images.extend(images)
            listing.other_files.extend(other_files)
            listing.labels.extend([class_names.index(class_folder.name)] * len(images))
            if test_folder:
                listing.is_test.extend([split == test_folder] * len(images))
            elif len(images) < 2:
                raise UserError(f"{class_folder} holds one image; a class needs at least 2, one of them for the test")
    if test_folder and not any(listing.is_test):
        raise UserError(f"{root / test_folder} has no class folders")
    return listing


def _source(root: Path, listing: _Listing, size: int, test_percent: int) -> Source:
    images, contents = _read_all(root, listing.images, size)
    labels, is_test = np.asarray(listing.labels, np.int32), np.asarray(listing.is_test, bool)
    if not listing.is_test:
        is_test = held_out(contents, labels, len(listing.class_names), test_percent)
    splits = []
    for rows in (np.flatnonzero(~is_test), np.flatnonzero(is_test)):
        ids = ids_of([contents[row] for row in rows])  # a split apart: an image keeps its id beside a new test image
        splits.append(_split(root, listing.images, ids, labels[rows], images, rows))
    return Source(*splits, class_names=tuple(listing.class_names))


def _split(
    root: Path, files: list[Path], ids: np.ndarray, labels: np.ndarray, images: np.ndarray, rows: np.ndarray
) -> Split:
    """A split in the order of its ids: ids and labels [n] of these rows [n] of `files` and `images`."""
    order = np.argsort(ids)
    rows = rows[order]
    paths = tuple(files[row].relative_to(root).as_posix() for row in rows)
    return Split(ids[order], labels[order], lambda positions: images[rows[positions]], paths)


def _existing(root: Path) -> Path:
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    return root


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


def _note_skipped(root: Path, files: list[Path]) -> None:
    if files:
        say(f"note: {root}: skipped {_counted(files)}; what is read is {', '.join(_SUFFIXES)}")


def _note_outside(root: Path, listing: _Listing) -> None:
    outside = sorted({*_files(root)} - {*listing.images, *listing.other_files})
    if outside:
        say(f"note: {root}: {len(outside)} files outside the class folders are not read ({outside[0]}, ...)")


def _read_all(root: Path, files: list[Path], size: int) -> tuple[np.ndarray, list[bytes]]:
    """uint8 [N, size, size, 3], or [N, size, size, 1] where every image is grey; and the `content_of` of each file."""
    check_fits(len(files), (size, size, 3), str(root))
    images, contents = np.empty((len(files), size, size, 3), np.uint8), [b""] * len(files)
    broken: dict[int, str] = {}  # row -> why

    def fill(row: int) -> bool:
        try:
            contents[row] = content_of(files[row])
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
    return images[..., :1] if all(grey) else images, contents
