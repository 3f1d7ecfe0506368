"""Whole recipes of augmentation, and the statistics that they normalise by."""

from lt_noisy.augment.base import Augment, compose
from lt_noisy.augment.operations import crop, cutout, flip, grey, jitter, normalise, resized_crop

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DIGITS_MEAN = (0.305,)  # of scikit-learn's 8x8 digits, scaled to [0, 1]
DIGITS_STD = (0.376,)
# As a config writes them.
NORMALISE_CIFAR = f"normalise({CIFAR_MEAN}, {CIFAR_STD})"
NORMALISE_SOLO_LEARN = f"normalise({CIFAR_MEAN}, (0.2470, 0.2435, 0.2616))"  # theirs for CIFAR-10
NORMALISE_IMAGENET = f"normalise({IMAGENET_MEAN}, {IMAGENET_STD})"
NORMALISE_DIGITS = f"normalise({DIGITS_MEAN}, {DIGITS_STD})"


def cifar() -> Augment:
    """The supervised CIFAR recipe: pad-4 crop, flip, normalise.

    CIFAR-10's usual constants, for CIFAR-100 too, as in the code of LDAM and of the papers that build on it.
    """
    return compose(crop(4), flip(), normalise(CIFAR_MEAN, CIFAR_STD))


def simclr_cifar() -> Augment:
    """Self-supervised views at 32 pixels: SimCLR's for CIFAR (Chen et al. 2020, B.9), which has no blur.

    Boxes cover at least 0.2 of the image, as SimSiam and later work have it on CIFAR (SimCLR: 0.08).

    References:
      Chen et al. (2020), B.9.
    """
    return compose(
        resized_crop(0.2, 1.0),
        flip(),
        jitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        grey(0.2),
        normalise(CIFAR_MEAN, CIFAR_STD),
    )


def digits() -> Augment:
    """8x8 digits, one channel, mild: a shift by one pixel, a little light. No flip: it would break labels."""
    return compose(crop(1), jitter(0.2, 0.2, 0.0, 0.0), normalise(DIGITS_MEAN, DIGITS_STD))


def simclr_digits() -> Augment:
    """8x8 digits, one channel, as self-supervised views: gentle box, shift, light, small hole; no flip."""
    return compose(
        resized_crop(0.5, 1.0),
        crop(1),
        jitter(0.4, 0.4, 0.0, 0.0),
        normalise(DIGITS_MEAN, DIGITS_STD),
        cutout(2),
    )
