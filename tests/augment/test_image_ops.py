"""Image operations against independent NumPy and colorsys references."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import published
from PIL import Image

from lt_noisy.augment import image_ops, operations
from lt_noisy.errors import UserError

LUMA = np.array([0.299, 0.587, 0.114])


def image(height=6, width=8, channels=3, seed=0):
    return np.random.default_rng(seed).random((height, width, channels)).astype(np.float32)


@pytest.mark.parametrize("top,left", [(0, 0), (2, 4), (4, 1)])
def test_translate_is_padding_and_cropping(top, left):
    x = image()
    expected = np.pad(x, ((2, 2), (2, 2), (0, 0)))[top : top + 6, left : left + 8]
    np.testing.assert_array_equal(jax.jit(image_ops.translate)(x, 2 - top, 2 - left), expected)


def test_rot90_is_numpys():
    x = image(6, 6)
    rotated = jax.jit(jax.vmap(image_ops.rot90, in_axes=(None, 0)))(x, jnp.arange(-1, 6))
    for k, y in zip(range(-1, 6), rotated, strict=True):
        np.testing.assert_array_equal(y, np.rot90(x, k))


def test_rotation_refuses_oblong_images():
    with pytest.raises(UserError, match="square"):
        image_ops.rot90(image(6, 8), 1)


@pytest.mark.parametrize("box", [(0, 0, 6, 8), (1, 2, 3, 4), (5, 7, 1, 1), (2, 0, 4, 7)])
def test_resized_box_is_bilinear_interpolation_of_the_crop(box):
    top, left, height, width = box
    x = image()
    crop = x[top : top + height, left : left + width].astype(np.float64)

    def stretch(values, size):  # np.interp repeats the edges, as it should
        source = (np.arange(size) + 0.5) * len(values) / size - 0.5
        return np.interp(source, np.arange(len(values)), values)

    expected = np.apply_along_axis(stretch, 0, crop, 6)
    expected = np.apply_along_axis(stretch, 1, expected, 8)
    out = jax.jit(image_ops.resized_box)(x, *(jnp.float32(v) for v in box))
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", [(0, 0, 6, 8), (1, 2, 3, 4), (5, 7, 1, 1), (2, 0, 4, 7), (0, 3, 2, 5)])
def test_resized_box_is_pils(box, method):
    """On float pixels, which PIL does not round, one channel at a time."""
    (top, left, height, width), x = box, image()
    area, resample = (left, top, left + width, top + height), getattr(Image.Resampling, method.upper())
    channels = [Image.fromarray(x[..., c]).crop(area).resize((8, 6), resample) for c in range(3)]
    expected = np.stack([np.asarray(channel) for channel in channels], axis=-1)
    got = jax.jit(image_ops.resized_box, static_argnames="method")(x, *(jnp.float32(v) for v in box), method=method)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("size,row,column", [(4, 3, 3), (3, 0, 7), (5, 5, 0), (1, 2, 2)])
def test_hole_is_clipped_at_the_border(size, row, column):
    x = image() + 1
    expected = x.copy()
    for i in range(6):
        for j in range(8):
            if -(size // 2) <= i - row < size - size // 2 and -(size // 2) <= j - column < size - size // 2:
                expected[i, j] = 0
    np.testing.assert_array_equal(image_ops.hole(x, row, column, size), expected)


def reference_hue(x, turns):
    out = np.empty(x.shape)
    for index in np.ndindex(x.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*x[index].astype(float))
        out[index] = colorsys.hsv_to_rgb((h + turns) % 1, s, v)
    return out


def test_hue_is_colorsys():
    x = image()
    x[0, :3] = [(0.5, 0.5, 0.5), (0, 0, 0), (1, 1, 1)]
    x[1, :6] = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1)]
    adjust = jax.jit(image_ops.adjust_hue)
    for turns in (-0.5, -0.1, 0.0, 0.07, 0.5):
        np.testing.assert_allclose(adjust(x, turns), reference_hue(x, turns), atol=1e-5)


@pytest.mark.parametrize("channels", [3, 1])
def test_grey_is_luma(channels):
    x = image(channels=channels)
    luma = (x @ LUMA)[..., None] if channels == 3 else x
    np.testing.assert_allclose(image_ops.grey(x), np.broadcast_to(luma, x.shape), atol=1e-5)


def test_hue_leaves_one_channel_alone():
    np.testing.assert_array_equal(image_ops.adjust_hue(image(channels=1), 0.3), image(channels=1))


@pytest.mark.parametrize("kernel,sigma", [(3, 0.5), (5, 1.3), (11, 2.0), (1, 1.0)])
def test_blur_is_a_convolution_with_reflected_borders(kernel, sigma):
    x = image()
    half = kernel // 2
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    taps /= taps.sum()
    expected = x.astype(np.float64)
    for axis in (0, 1):
        widths = [(0, 0)] * 3
        widths[axis] = (half, half)
        padded = np.pad(expected, widths, mode="reflect")
        expected = np.apply_along_axis(np.convolve, axis, padded, taps, "valid")
    np.testing.assert_allclose(image_ops.gaussian_blur(x, sigma, kernel), expected, atol=1e-5)


# --- beside torchvision: arrays of `tests/published/with_torch.py` ------------------------------------


def torchvisions(name):
    """The image there in [0, 1], and what torchvision made of it."""
    return published.images(9, 1, 7)[0] / 255, published.load("images")[name]


def test_flip_and_padded_crop_are_torchvisions(x64):
    x, flipped = torchvisions("flip")
    np.testing.assert_allclose(image_ops.flip(x), flipped, rtol=1e-14)
    x, cropped = torchvisions("crop")
    np.testing.assert_allclose(image_ops.translate(x, 2 - 3, 2 - 1), cropped, rtol=1e-14)


@pytest.mark.parametrize("number", range(len(published.BOXES)))
def test_resized_crops_are_torchvisions(x64, number):
    x, expected = torchvisions(f"box{number}")
    box = (jnp.asarray(float(v)) for v in published.BOXES[number])
    np.testing.assert_allclose(jax.jit(image_ops.resized_box)(x, *box), expected, atol=1e-13)


@pytest.mark.parametrize("number", range(len(published.BLURS)))
def test_blur_is_torchvisions(x64, number):
    x, expected = torchvisions(f"blur{number}")
    kernel, sigma = published.BLURS[number]
    np.testing.assert_allclose(image_ops.gaussian_blur(x, sigma, kernel), expected, atol=1e-13)


def test_jitter_is_torchvisions(x64, monkeypatch):
    """Its grey has 0.2989 of red, where PIL and we have 0.299; with that it is equal, up to its hue in float32."""
    orders = enumerate(published.JITTER_ORDERS)
    cases = [(*torchvisions(f"jitter{i}"), jnp.array(order), place) for i, (order, place) in orders]
    *factors, turns = published.JITTER

    def largest_difference():
        made = [operations._jitter(x, jnp.array(factors), order, turns, place) for x, _, order, place in cases]
        return max(np.abs(ours - theirs).max() for ours, (_, theirs, _, _) in zip(made, cases, strict=True))

    assert 1e-5 < largest_difference() < 5e-4
    monkeypatch.setattr(image_ops, "GREY_WEIGHTS", (0.2989, 0.587, 0.114))
    assert largest_difference() < 2e-6
