"""One number of channels for all images of a run: that of its own data set, 1 where all of it is grey and else 3.

Whatever else a run reads, pools of unlabelled images and other data sets, is brought to it. Vectors are brought to
nothing: all of a run have one length.
"""

import numpy as np

from lt_noisy.data.images import described, kind_of
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.errors import UserError

_LUMA = (19595, 38470, 7471)  # ITU-R 601 in 65536ths, as Pillow has it
_BLOCK = 2**22  # pixels converted at a time


def shape_of(split: Split) -> tuple[int, ...]:
    """The shape of an image of the split; one is read where that tells it."""
    return split.shape or split.images(np.arange(1)).shape[1:]


def channels_of(split: Split) -> int:
    """How many channels the images of a split have."""
    return shape_of(split)[-1]


def to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Images uint8 [n, H, W, 3 or 1] with `channels` channels: grey three times, or the luma of colours."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    grey = np.empty((*images.shape[:-1], 1), np.uint8)
    step = max(_BLOCK // (images.shape[1] * images.shape[2]), 1)
    for start in range(0, len(images), step):
        colours = images[start : start + step].astype(np.uint32)
        luma = sum(weight * colours[..., i] for i, weight in enumerate(_LUMA)) + 2**15
        grey[start : start + step, ..., 0] = luma >> 16
    return grey


def split_like(split: Split, shape: tuple[int, ...]) -> Split:
    """`split` in a run on images of this shape: with as many channels, whatever their size.

    Raises:
      UserError: images beside vectors, or vectors of another length.
    """
    own = shape_of(split)
    if kind_of(own) != kind_of(shape) or (kind_of(own) == "vectors" and own != shape):
        raise UserError(f"a data set of {described(own)} cannot stand beside the run's {described(shape)}")
    return split_in(split, shape[-1])


def split_in(split: Split, channels: int) -> Split:
    """`split` with so many channels; images are converted as they are read."""
    if channels_of(split) == channels:
        return split
    known, read_cut = split.content, split.read_cut
    return split._replace(
        images=lambda rows: to_channels(split.images(rows), channels),
        content=known and (lambda rows: f"{known(rows)} in {channels} channels"),
        read_cut=read_cut and (lambda rows, cut, draws: to_channels(read_cut(rows, cut, draws), channels)),
        shape=split.shape and (*split.shape[:-1], channels),
    )


def source_in(source: Source, channels: int) -> Source:
    """Both splits of a source with so many channels."""
    return source._replace(train=split_in(source.train, channels), test=split_in(source.test, channels))


def source_like(source: Source, shape: tuple[int, ...]) -> Source:
    """Both splits of a source in a run on images of this shape (`split_like`)."""
    return source._replace(train=split_like(source.train, shape), test=split_like(source.test, shape))


def unified(source: Source) -> Source:
    """A source whose splits agree: in colour where either is."""
    return source_in(source, max(channels_of(source.train), channels_of(source.test)))
