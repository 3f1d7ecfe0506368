"""Images from a folder with one sub-folder per class."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lt_noisy import rng
from lt_noisy.data.sources.base import HOLD_OUT_SEED, Load, Source, in_memory, listed, reason
from lt_noisy.errors import UserError

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
            in_memory(np.flatnonzero(mask), labels[mask], images[mask])._replace(files=tuple(map(str, paths[mask])))
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
            f"{root} holds {listed(folders)}: call the splits train and test (or {', '.join(_TEST_FOLDERS[1:])}), or "
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
    return f"{len(files)} file{'s' if len(files) > 1 else ''} ({listed(endings)})"


def _note_skipped(path: str, files: list[Path]) -> None:
    if files:
        print(f"note: {path}: skipped {_counted(files)}; what is read is {', '.join(_SUFFIXES)}", flush=True)


def _held_out(entry: Path, count: int, percent: int) -> list[bool]:
    """Which of a class's images are test images. Named by class: other classes do not move the draw."""
    if count < 2:
        raise UserError(f"{entry} holds one image; a class needs at least 2, one of them for the test")
    order = rng.generator(HOLD_OUT_SEED, f"folder test split, class {entry.name}").permutation(count)
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
            broken[row] = reason(error)
            return False
        images[row] = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
        return mode == "L"

    with ThreadPoolExecutor() as pool:
        grey = list(pool.map(fill, range(len(files))))
    if broken:
        first, *others = [files[row] for row in sorted(broken)]
        more = f"; {len(others)} more cannot be read either: {listed(others)}" if others else ""
        raise UserError(f"{first} cannot be read as an image: {broken[min(broken)]}{more}")
    return images[..., :1] if all(grey) else images
