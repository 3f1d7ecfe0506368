"""How many images published data sets have, to be held against what is on the disk, or to plan without any of it."""

from collections.abc import Mapping
from typing import Any

from lt_noisy.config.spec import Call

# Source, its arguments that settle the number, split, images. What is only known in round numbers is not here.
_COUNTS: tuple[tuple[str, Mapping[str, Any], str, int], ...] = (
    ("tfds", {"name": "cifar10", "train": "train"}, "train", 50_000),
    ("tfds", {"name": "cifar10", "test": "test"}, "test", 10_000),
    ("tfds", {"name": "cifar100", "train": "train"}, "train", 50_000),
    ("tfds", {"name": "cifar100", "test": "test"}, "test", 10_000),
    ("tfds", {"name": "svhn_cropped", "train": "train"}, "train", 73_257),
    ("tfds", {"name": "svhn_cropped", "train": "extra"}, "train", 531_131),
    ("tfds", {"name": "svhn_cropped", "test": "test"}, "test", 26_032),
    ("tfds", {"name": "imagenet_lt", "train": "train"}, "train", 115_846),
    ("tfds", {"name": "imagenet_lt", "test": "validation"}, "test", 20_000),
    ("tfds", {"name": "imagenet_lt", "test": "test"}, "test", 50_000),
    ("tfds", {"name": "i_naturalist2018", "train": "train"}, "train", 437_513),
    ("tfds", {"name": "i_naturalist2018", "test": "validation"}, "test", 24_426),
    ("clothing1m", {"train": "noisy_train"}, "train", 1_000_000),
    ("clothing1m", {"train": "clean_train"}, "train", 47_570),
    ("clothing1m", {"test": "clean_test"}, "test", 10_526),
    ("clothing1m", {"test": "clean_val"}, "test", 14_313),
    ("webvision", {"classes": 50, "parts": "google"}, "train", 65_944),
    ("webvision", {"classes": 50}, "test", 2_500),
    ("webvision", {"classes": 1000}, "test", 50_000),
    ("cnwl", {"colour": "red", "rate": 0.3}, "train", 49_985),
    ("cnwl", {"colour": "red", "rate": 0.4}, "train", 50_010),
    ("cnwl", {"colour": "red", "rate": 0.5}, "train", 49_962),
    ("cnwl", {"colour": "red", "rate": 0.8}, "train", 50_008),
    ("cnwl", {"colour": "red"}, "train", 50_000),  # the other rates
    ("cnwl", {}, "test", 5_000),
    ("animal10n", {}, "train", 50_000),
    ("animal10n", {}, "test", 5_000),
    ("food101n", {}, "test", 25_250),
)


def published_counts(spec: Call) -> dict[str, int]:
    """{`train`, `test`: images that the set of this spec has}, only what is known.

    Args:
      spec: parsed from its canonical text, every argument by name.
    """
    arguments = {**spec.kwargs}
    if spec.name == "tfds":
        arguments["name"] = str(arguments["name"]).partition(":")[0]
    found: dict[str, int] = {}
    for source, needed, split, count in _COUNTS:
        if source == spec.name and needed.items() <= arguments.items():
            found.setdefault(split, count)
    return found


# Classes, and pixels to a side where all images have as many, by source or by name in TFDS. All are in colour.
_CLASSES = {
    "cifar10": 10,
    "cifar100": 100,
    "svhn_cropped": 10,
    "imagenet_lt": 1000,
    "i_naturalist2018": 8142,
    "clothing1m": 14,
    "cnwl": 100,
    "animal10n": 10,
    "food101n": 101,
}
_PIXELS = {"cifar10": 32, "cifar100": 32, "svhn_cropped": 32}


def published_form(spec: Call) -> tuple[int, tuple[int, int, int]] | None:
    """(classes, shape [H, W, C] of an image) of the set of this spec, as for `published_counts`; None if not known."""
    name = str(spec.kwargs.get("name", spec.name)).partition(":")[0]
    classes = _CLASSES.get(name, spec.kwargs.get("classes"))
    pixels = spec.kwargs.get("size") or _PIXELS.get(name)
    return (classes, (pixels, pixels, 3)) if classes and pixels else None
