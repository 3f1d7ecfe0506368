"""Data sets with real label noise, in the layouts that their authors publish.

Test sets are the clean ones. Training labels are the noisy ones as published, of which nobody knows which are wrong:
metrics against clean labels take them as right.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lt_noisy.data.sources.base import Load, listed, numbered
from lt_noisy.data.sources.findings import Finding
from lt_noisy.data.sources.listing import FromFiles, Listed, reading
from lt_noisy.data.sources.tables import Pairs, both, lines, pairs
from lt_noisy.errors import UserError
from lt_noisy.files import user_path

_CLOTHES = (
    *("T-shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker"),
    *("Jacket", "Down Coat", "Suit", "Shawl", "Dress", "Vest", "Underwear"),
)


def _found(root: Path, name: str, folders: Sequence[str]) -> str:
    """`name`, below the first of `folders` that has it; below the first of them where none has."""
    for folder in folders:
        if (root / folder / name).exists():
            return str(Path(folder, name))
    return str(Path(folders[0], name))


def clothing1m(
    path: str,
    train: str = "noisy_train",
    test: str = "clean_test",
    size: int = 224,
    broken: str = "refuse",
    resize: int = 0,
) -> Load:
    """Clothing1M: 14 classes, a million images with labels from the web, 10,526 clean test images.

    Args:
      path: the folder with `images/`, `noisy_train_key_list.txt`, `noisy_label_kv.txt`, `clean_test_key_list.txt`,
        `clean_label_kv.txt`. Keys may begin with `images/` or not.
      train: `noisy_train` or `clean_train`.
      test: `clean_test` or `clean_val`.
      size: as in `folder`.
      broken: as in `folder`.
      resize: as in `folder`.

    References:
      Xiao et al., "Learning from Massive Noisy Labeled Data for Image Classification" (2015).
    """
    how = reading(size, broken, resize=resize)
    for name, value, known in (
        ("train", train, ("noisy_train", "clean_train")),
        ("test", test, ("clean_test", "clean_val")),
    ):
        if value not in known:
            raise UserError(f"{name}={value!r} is one of {', '.join(known)}")
    root = user_path(path)

    def part(name: str, findings: list[Finding]) -> Pairs:
        table = f"{name.partition('_')[0]}_label_kv.txt"
        files, labels = pairs(root / table, findings)
        label_of = dict(zip(files, labels.tolist(), strict=True))
        keys = lines(root / f"{name}_key_list.txt")
        unlabelled = [key for key in keys if key not in label_of]
        _no_label(f"{root}: no label of {listed(unlabelled)} in {table}", unlabelled, findings)
        known = [key for key in keys if key in label_of]
        files = [key if key.startswith("images/") else f"images/{key}" for key in known]  # a million: not by looking
        return files, np.array([label_of[key] for key in known], np.int64)

    def list_files() -> Listed:
        findings: list[Finding] = []
        return both(root, _CLOTHES, part(train, findings), part(test, findings), findings)

    return FromFiles(list_files, how)


def _no_label(text: str, files: Sequence[str], findings: list[Finding]) -> None:
    if files:
        findings.append(Finding("file without a label", True, text, tuple({"files": [file]} for file in files)))


def webvision(
    path: str, classes: int = 1000, parts: str = "google", size: int = 224, broken: str = "refuse", resize: int = 0
) -> Load:
    """WebVision 1.0: images that Google and Flickr found for the classes of ImageNet, and a clean validation set.

    Mini-WebVision, on which papers compare, is `classes=50, parts='google'`: 65,944 training and 2,500 test images.

    Args:
      path: the folder with `info/`, `google/`, `flickr/`, `val_images_256/`.
      classes: the first so many.
      parts: `google`, `flickr` or `both`.
      size: as in `folder`.
      broken: as in `folder`.
      resize: as in `folder`.

    References:
      Li et al., "WebVision Database" (2017).
    """
    how = reading(size, broken, resize=resize)
    if parts not in ("google", "flickr", "both"):
        raise UserError(f"parts={parts!r} is one of google, flickr, both")
    if classes < 2:
        raise UserError(f"classes={classes} must be 2 or more")
    root = user_path(path)

    def first(files: Sequence[str], labels: np.ndarray) -> Pairs:
        rows = np.flatnonzero(labels < classes)
        return [files[int(row)] for row in rows], labels[rows]

    def list_files() -> Listed:
        findings: list[Finding] = []
        lists = [
            pairs(root / "info" / f"train_filelist_{name}.txt", findings)
            for name in ("google", "flickr")
            if parts in (name, "both")
        ]
        train = first([file for files, _ in lists for file in files], np.concatenate([labels for _, labels in lists]))
        files, labels = pairs(root / "info" / "val_filelist.txt", findings)
        files, labels = first(files, labels)
        test = [_found(root, file, ("val_images_256", "")) for file in files], labels
        synsets = [line.partition(" ")[2].partition(",")[0] or line for line in lines(root / "info" / "synsets.txt")]
        return both(root, numbered(synsets[:classes]), train, test, findings)

    return FromFiles(list_files, how)


def cnwl(
    path: str, colour: str = "red", rate: float = 0.4, size: int = 84, broken: str = "refuse", resize: int = 0
) -> Load:
    """Controlled Noisy Web Labels on Mini-ImageNet: 100 classes, a share of the images replaced by wrong ones.

    Red noise is from the web, blue noise is clean images with flipped labels. Which labels are wrong the file names of
    red noise tell, for metrics alone: those of ImageNet, which begin with `n`, are right, those from the web wrong.

    Args:
      path: `mini-imagenet`, with `split/`, `class_name.txt` and the images in `all_images/` or `noisy_images/`.
      colour: `red` or `blue`.
      rate: of a list `split/COLOUR_noise_nl_RATE`, to one digit behind the point.
      size: as in `folder`.
      broken: as in `folder`.
      resize: as in `folder`.

    References:
      Jiang et al., "Beyond Synthetic Noise" (2020).
    """
    how = reading(size, broken, resize=resize)
    if colour not in ("red", "blue"):
        raise UserError(f"colour={colour!r} is one of red, blue")
    if round(rate, 1) != rate:
        raise UserError(
            f"rate={rate} must be one of the lists' rates, such as 0.4: they have one digit behind the point"
        )
    root = user_path(path)

    def part(name: str, findings: list[Finding]) -> Pairs:
        files, labels = pairs(root / "split" / name, findings)
        return [_found(root, file, ("all_images", "noisy_images", "")) for file in files], labels

    def list_files() -> Listed:
        findings: list[Finding] = []
        chosen = root / "split" / f"{colour}_noise_nl_{rate:.1f}"
        if not chosen.exists():
            there = sorted(file.name for file in (root / "split").glob(f"{colour}_noise_nl_*"))
            raise UserError(f"{chosen} does not exist (there are {', '.join(there) or 'no such lists'})")
        names = [line.split(maxsplit=1)[-1] for line in lines(root / "class_name.txt")]
        train, test = (part(name, findings) for name in (chosen.name, "clean_validation"))
        from_web = np.array([not Path(file).name.startswith("n") for file in train[0]], np.int8)
        return both(root, numbered(names), train, test, findings, from_web if colour == "red" else None)

    return FromFiles(list_files, how)


def animal10n(path: str, size: int = 64, broken: str = "refuse", resize: int = 0) -> Load:
    """Animal-10N: 50,000 training and 5,000 test images of five pairs of animals.

    Args:
      path: the folder with `training/` and `testing/`, whose files are called `LABEL_ID.jpg`.
      size: as in `folder`.
      broken: as in `folder`.
      resize: as in `folder`.

    References:
      Song et al., "SELFIE" (2019).
    """
    how = reading(size, broken, resize=resize)
    root = user_path(path)

    def part(name: str, findings: list[Finding]) -> Pairs:
        if not (root / name).is_dir():
            raise UserError(f"{root / name} is not a folder")
        files = sorted(file.name for file in (root / name).iterdir() if not file.name.startswith("."))
        numbers = [re.match(r"(\d)_", file) for file in files]
        unnamed = [file for file, number in zip(files, numbers, strict=True) if number is None]
        text = f"{root / name}: {listed(unnamed)} is not called LABEL_ID.jpg"
        _no_label(text, [f"{name}/{file}" for file in unnamed], findings)
        named = [f"{name}/{file}" for file, number in zip(files, numbers, strict=True) if number is not None]
        return named, np.array([int(m.group(1)) for m in numbers if m], np.int64)

    def list_files() -> Listed:
        findings: list[Finding] = []
        return both(root, [*"0123456789"], part("training", findings), part("testing", findings), findings)

    return FromFiles(list_files, how)


def food101n(path: str, food101: str, size: int = 224, broken: str = "refuse", resize: int = 0) -> Load:
    """Food-101N: 310,000 images from the web; tested on Food-101's 25,250 images.

    Args:
      path: `Food-101N_release`, with `images/` and `meta/imagelist.tsv`, `meta/classes.txt`; where there is
        `meta/verified_train.tsv` the labels that it says are right or wrong are told apart in metrics.
      food101: `food-101`, with `images/` and `meta/test.txt`.
      size: as in `folder`.
      broken: as in `folder`.
      resize: as in `folder`.

    References:
      Lee et al., "CleanNet" (2018).
    """
    how = reading(size, broken, resize=resize)
    root, other = user_path(path), user_path(food101)

    def list_files() -> Listed:
        findings: list[Finding] = []

        def part(names: Sequence[str], images: Path, ending: str, where: Path) -> Pairs:
            labels = [number.get(name.partition("/")[0], -1) for name in names]
            unknown = [name for name, label in zip(names, labels, strict=True) if label < 0]
            _no_label(f"{where}: {listed(unknown)}: no such class in meta/classes.txt", unknown, findings)
            files = [str(images / f"{name}{ending}") for name, label in zip(names, labels, strict=True) if label >= 0]
            return files, np.array([label for label in labels if label >= 0], np.int64)

        classes = lines(root / "meta" / "classes.txt")[1:]
        number = {name: at for at, name in enumerate(classes)}
        lists = root / "meta" / "imagelist.tsv", other / "meta" / "test.txt"
        train = part(lines(lists[0])[1:], Path("images"), "", lists[0])
        test = part(lines(lists[1]), (other / "images").absolute(), ".jpg", lists[1])
        flags = _verified(root / "meta" / "verified_train.tsv", train[0])
        return both(root, classes, train, test, findings, flags)

    return FromFiles(list_files, how)


def _verified(file: Path, names: Sequence[str]) -> np.ndarray | None:
    """Flags int8 [N] (`Split.flags`) of files `images/KEY`: a list has lines `KEY TAB 1 or 0`, 1 of a right label."""
    if not file.exists():
        return None
    said = {f"images/{key}": flag for key, _, flag in (line.rpartition("\t") for line in lines(file)[1:])}
    return np.array([{"1": 0, "0": 1}.get(said.get(name, ""), -1) for name in names], np.int8)
