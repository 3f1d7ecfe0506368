"""Augmentation on the device, in pure JAX, but for what is cut as it is read: the table of recipes and operations."""

from lt_noisy.augment.base import compose, none
from lt_noisy.augment.operations import (
    blur,
    colour,
    crop,
    cutout,
    dropout,
    flip,
    grey,
    jitter,
    noise,
    normalise,
    resize,
    resized_crop,
    rotate90,
    whole_crop,
    whole_window,
)
from lt_noisy.augment.recipes import cifar, digits, simclr_cifar, simclr_digits
from lt_noisy.config.spec import table

AUGMENTS = table(
    {
        "none": none,
        "compose": compose,
        "normalise": normalise,
        "colour": colour,
        "crop": crop,
        "flip": flip,
        "resize": resize,
        "resized_crop": resized_crop,
        "whole_crop": whole_crop,
        "whole_window": whole_window,
        "jitter": jitter,
        "grey": grey,
        "blur": blur,
        "rotate90": rotate90,
        "cutout": cutout,
        "noise": noise,
        "dropout": dropout,
        "cifar": cifar,
        "simclr_cifar": simclr_cifar,
        "digits": digits,
        "simclr_digits": simclr_digits,
    }
)
