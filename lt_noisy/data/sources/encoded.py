"""Encoded pictures of a data set of records: what becomes of each."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from lt_noisy.data.boxes import Cut
from lt_noisy.data.sources.decoding import decode, decode_cut, decode_stretched


class Form(NamedTuple):
    """The image that an encoded picture becomes: uint8 of `shape` [H, W, C].

    Attributes:
      shape: H, W and C; while `resized` is False that of the picture itself.
      resized: whether pictures are resized to it, without keeping the aspect.
      resize: where it is not 0 the shorter side is resized to so many pixels, and the centre cut out.
    """

    shape: tuple[int, int, int]
    resized: bool
    resize: int = 0

    def pixels(self, encoded: bytes) -> np.ndarray:
        """uint8 [H, W, C]."""
        height, _, channels = self.shape
        if self.resize:
            return decode(io.BytesIO(encoded), height, channels, self.resize)
        if self.resized:
            return decode_stretched(io.BytesIO(encoded), height, channels)
        image = Image.open(io.BytesIO(encoded)).convert("L" if channels == 1 else "RGB")
        return np.asarray(image).reshape(self.shape)

    def cut(self, encoded: bytes, cut: Cut, draws: np.ndarray) -> np.ndarray:
        """uint8 [H, W, C] of the part of the picture that `cut` draws."""
        return decode_cut(io.BytesIO(encoded), self.shape[0], self.shape[-1], cut, draws)

    @property
    def text(self) -> str:
        """Its arguments, for identities."""
        return f"size {self.shape[0] if self.resized else 0}" + (f", resize {self.resize}" if self.resize else "")
