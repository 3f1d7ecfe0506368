"""Images from a folder with one sub-folder per class."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lt_noisy.data.sources.base import Load, Split, listed
from lt_noisy.data.sources.content import ids_of
from lt_noisy.data.sources.decoding import is_image
from lt_noisy.data.sources.findings import Finding, settle
from lt_noisy.data.sources.listing import (
    TESTS,
    FromFiles,
    Listed,
    in_order,
    readable,
    reading,
    shown,
    split_of,
    unreadable,
)
from lt_noisy.data.sources.one_label import refuse_folders
from lt_noisy.data.sources.pictures import Pictures, look
from lt_noisy.errors import UserError, did_you_mean
from lt_noisy.files import user_path

_SUFFIXES = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
UNLABELLED = "unlabelled"  # the one class of a folder without any
# What operating systems and disk stations leave: thumbnails, baskets, settings.
_JUNK = {
    "@eaDir",
    "@Recycle",
    "#recycle",
    "#snapshot",
    "$RECYCLE.BIN",
    "__MACOSX",
    "lost+found",
    "Network Trash Folder",
}
_JUNK |= {"System Volume Information", "Temporary Items", "Thumbs.db", "desktop.ini"}


def folder(
    path: str,
    size: int = 64,
    test_percent: int = 20,
    broken: str = "refuse",
    dedupe: bool = False,
    resize: int = 0,
) -> Load:
    """A folder with one sub-folder of images per class, in the style of `photos/cat/1.jpg`.

    Where `path/train` and `path/test` (or else `val`, `valid`, `validation`) exist they are the splits. Otherwise
    about test_percent of each class (at least one image) is held out, by what is in the files, so that neither another
    file nor another class folder moves an image to the other split. Classes are the folder names, sorted, as numbers
    where all are. Hidden files and what operating systems leave are ignored; of other files those that are images by
    their ending or content are read, the rest is counted in a note. An id is a hash of the file's content and, of equal
    files in a split, of its number in the sorted listing; rows are in the order of ids, whatever class a file is in.
    Images are uint8 [N, size, size, 3] (1 channel where all are grey): upright by EXIF, over white where they are
    transparent, the shorter side resized to `size` (bilinear; a large JPEG is decoded at a smaller scale first), the
    centre cut out; of 16-bit greys the upper byte, of an animation the first picture.

    A folder of images without sub-folders has one class, `unlabelled`, for stages that read no labels.

    Args:
      path: the folder.
      size: in pixels.
      test_percent: in 1..99; unused where the folder has splits of its own.
      broken: `refuse` names files that cannot be read; `skip` leaves them out, and the run lists them in
        `skipped_files.csv`.
      dedupe: of equal files in a class and split one is read, of those in both splits the test image; those in
        several classes are left out, for their class is not known. Without it both kinds are counted in a note.
      resize: the shorter side is resized to so many pixels before the centre of size x size is cut out (256 for 224, as
        ImageNet's test images); 0 for `size`.

    Raises:
      UserError: an argument out of range; at load, no folder, fewer than 2 classes, a class without images, a `train`
        (or `training`) without a test folder beside it, a link to a folder that it is in, or files that cannot be read.
    """
    how = reading(size, broken, test_percent, dedupe, resize)
    root = user_path(path)
    return FromFiles(lambda: _list_images(root), how)


def images_under(root: Path, size: int) -> Split:
    """All images under a folder, whatever its sub-folders, read as `folder` reads them; every label is 0."""
    tree = _image_files(_existing(root))
    if not tree.images:
        raise UserError(_without_images(root, tree))
    settle([*tree.loops, _unread(root, tree.other_files)])
    files = tree.images
    seen = look(root, files)
    settle([unreadable(root, files, seen, broken="")])
    whole = readable(seen)
    files, seen = [files[row] for row in whole], [seen[row] for row in whole]
    rows = np.arange(len(files))
    ids = ids_of([one.content for one in seen])
    return split_of(root, files, ids, np.zeros(len(files), np.int32), Pictures(root, files, seen, size), rows)


def image_files(root: Path) -> list[Path]:
    """All image files under a folder, sorted, as `folder` takes them for images."""
    return _image_files(root).images


class _Tree(NamedTuple):
    """The images under a folder in sorted order, its files that are no images, and links that lead round in circles."""

    images: list[Path]
    other_files: list[Path]
    loops: list[Finding]


def _list_images(root: Path) -> Listed:
    """What is in the class folders; where there are none, all images."""
    test_folder = _test_folder(_existing(root))
    train_root = root / "train" if test_folder else root
    class_names = in_order([folder.name for folder in _folders(train_root)])
    refuse_folders(train_root, class_names)
    if not class_names and not test_folder and any(entry.is_file() for entry in _visible(root)):
        return _list_unlabelled(root)
    few = f"{train_root} has {len(class_names)} class folders; at least 2 are needed"
    if not class_names:
        raise UserError(few)
    findings = [] if len(class_names) > 1 else [Finding("one class", True, few)]
    files: list[Path] = []
    other_files: list[Path] = []
    labels: list[int] = []
    is_test: list[bool] = []
    for split in sorted((test_folder, "train")) if test_folder else ("",):
        for class_folder in _folders(root / split):
            name = class_folder.name
            tree = _image_files(class_folder, os.path.realpath(root))
            findings += tree.loops
            trouble = ""
            if name not in class_names:
                trouble = f"{class_folder} is a class that {train_root} does not have"
                class_names.append(name)
            elif not tree.images:
                trouble = _without_images(class_folder, tree)
            elif not test_folder and len(tree.images) < 2:
                trouble = f"{class_folder} holds one image; a class needs at least 2, one of them for the test"
            if trouble:
                entry = {"class": name, "files": [shown(root, file) for file in tree.images]}
                findings.append(Finding("class without images", True, trouble, (entry,)))
            files += tree.images
            other_files += tree.other_files
            labels += [class_names.index(name)] * len(tree.images)
            is_test += [split == test_folder] * len(tree.images)
    if test_folder and not any(is_test):
        findings.append(Finding("no test image", True, f"{root / test_folder} has no class folders"))
    notes = _unread(root, other_files), _outside(root, {*files, *other_files})
    findings += [note for note in notes if note is not None]
    split_known = np.array(is_test, bool) if test_folder else None
    return Listed(root, class_names, files, np.array(labels, np.int32), is_test=split_known, findings=findings)


def _list_unlabelled(root: Path) -> Listed:
    tree = _image_files(root)
    if not tree.images:
        raise UserError(_without_images(root, tree))
    text = f"{root} has no class folders: its images are for stages that read no labels"
    findings = [*tree.loops, Finding("no labels", False, text), _unread(root, tree.other_files)]
    labels = np.zeros(len(tree.images), np.int32)
    found = [finding for finding in findings if finding is not None]
    return Listed(root, [UNLABELLED], tree.images, labels, findings=found)


def _existing(root: Path) -> Path:
    if not root.is_dir():
        where = "" if root.is_absolute() else f" in {Path.cwd()}"
        beside = [path.name for path in root.parent.iterdir() if path.is_dir()] if root.parent.is_dir() else []
        raise UserError(f"{root} is not a folder{where}{did_you_mean(root.name, beside)}")
    return root


def _visible(directory: Path) -> list[Path]:
    entries = (entry for entry in directory.iterdir() if not entry.name.startswith(".") and entry.name not in _JUNK)
    return sorted(entries, key=lambda entry: entry.name)


def _folders(directory: Path) -> list[Path]:
    return [entry for entry in _visible(directory) if entry.is_dir()]


def _test_folder(root: Path) -> str:
    """The folder beside `root/train` that is the test split; the empty string where `root` holds the class folders."""
    folders = [folder.name for folder in _folders(root)]
    found = [name for name in TESTS if name in folders]
    if "train" in folders and found:
        return found[0]
    lower = {name.lower() for name in folders}
    if lower & {"train", "training"} or (lower and lower <= {*TESTS}):  # hardly ever meant as classes
        raise UserError(
            f"{root} holds {listed(folders)}: call the splits train and test (or {', '.join(TESTS[1:])}), or "
            "put the class folders at the top, none of them called train or training"
        )
    return ""


def _files(directory: Path, loops: list[Path], above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All visible files under a folder, sorted; links to a folder that they are in are put into `loops`.

    Args:
      above: the folders that it is in, without links.
    """
    here = os.path.realpath(directory)
    if here in above:
        loops.append(directory)
        return
    for entry in _visible(directory):
        yield from _files(entry, loops, (*above, here)) if entry.is_dir() else (entry,)


def _image_files(directory: Path, *above: str) -> _Tree:
    """What is under a folder, without hidden files."""
    images, other_files, links = [], [], []
    for file in _files(directory, links, above):
        known = file.suffix.lower() in _SUFFIXES or is_image(file)
        (images if known else other_files).append(file)
    loops = []
    for link in links:
        text = f"{link} is a link to {os.path.realpath(link)}, a folder that it is in; remove it"
        loops.append(Finding("link in a circle", True, text, ({"files": [str(link)]},)))
    return _Tree(images, other_files, loops)


def _without_images(directory: Path, tree: _Tree) -> str:
    instead = f" but {_counted(tree.other_files)}" if tree.other_files else ""
    return f"{directory} holds no image ({', '.join(_SUFFIXES)}){instead}"


def _counted(files: list[Path]) -> str:
    """`"10 files (.heic, .txt)"`."""
    endings = sorted({file.suffix.lower() or "no ending" for file in files})
    return f"{len(files)} file{'s' if len(files) > 1 else ''} ({listed(endings)})"


def _unread(root: Path, files: list[Path]) -> Finding | None:
    if not files:
        return None
    text = f"{root}: skipped {_counted(files)}; what is read is {', '.join(_SUFFIXES)}"
    return Finding("no image", False, text, tuple({"files": [shown(root, file)]} for file in files))


def _outside(root: Path, known: set[Path]) -> Finding | None:
    outside = sorted({*_files(root, [])} - known)
    if not outside:
        return None
    text = f"{root}: {len(outside)} files outside the class folders are not read ({outside[0]}, ...)"
    entries = tuple({"files": [shown(root, file)]} for file in outside)
    return Finding("outside the class folders", False, text, entries)
