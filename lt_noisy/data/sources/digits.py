"""scikit-learn's handwritten digits."""

import numpy as np

from lt_noisy import rng
from lt_noisy.data.by_class import shuffled_by_class
from lt_noisy.data.sources.base import HOLD_OUT_SEED, Load, Source, in_memory
from lt_noisy.errors import UserError


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

        pixels, labels = map(np.asarray, load_digits(return_X_y=True))
        images = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        if canvas:
            corners = rng.generator(HOLD_OUT_SEED, "digits canvas").integers(0, canvas - 8 + 1, (len(images), 2))
            wide = np.zeros((len(images), canvas, canvas), np.uint8)
            for image, digit, (top, left) in zip(wide, images, corners, strict=True):
                image[top : top + 8, left : left + 8] = digit
            images = wide
        ids, test = np.arange(len(images)), np.zeros(len(images), bool)
        for rows in shuffled_by_class(labels, ids, 10, HOLD_OUT_SEED, "digits test split"):
            test[rows[:test_per_class]] = True
        splits = [in_memory(ids[mask], labels[mask], images[mask]) for mask in (~test, test)]
        return Source(*splits, class_names=tuple("0123456789"))

    return load
