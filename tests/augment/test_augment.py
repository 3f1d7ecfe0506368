"""Augmentation: what is drawn, how operations compose, recipes and batches. Pixels: test_image_ops.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy import augment, rng
from lt_noisy.augment import base as aug
from lt_noisy.augment import image_ops, operations, recipes
from lt_noisy.config.spec import bind
from lt_noisy.data.boxes import draw_box
from lt_noisy.errors import UserError

LUMA = np.array([0.299, 0.587, 0.114])


def image(height=6, width=8, channels=3, seed=0):
    return np.random.default_rng(seed).random((height, width, channels)).astype(np.float32)


def keys(count, seed=0):
    return rng.per_example(rng.stream(seed, "test"), jnp.arange(count))


def build(text):
    return bind(text, augment.AUGMENTS, "augment")


def train(text, count, x):
    """`count` augmentations of one image."""
    return np.asarray(jax.jit(jax.vmap(build(text).train, in_axes=(0, None)))(keys(count), x))


# Geometry


def test_crop_reaches_every_offset_equally_often():
    x = image()
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    crops = [padded[i : i + 6, j : j + 8] for i in range(3) for j in range(3)]
    out = train("crop(pad=1)", 900, x)
    hits = np.array([[np.array_equal(o, c) for c in crops] for o in out])
    assert hits.sum(1).tolist() == [1] * 900
    assert np.all(np.abs(hits.sum(0) - 100) < 45)


def test_a_crop_out_of_sight_is_refused():
    train("crop(pad=5)", 2, image(6, 8))
    with pytest.raises(UserError, match="pad=6 shifts images of 6x8 pixels out of sight"):
        train("crop(pad=6)", 2, image(6, 8))


def test_flip_mirrors_columns_at_the_rate():
    x = image()
    out = train("flip(p=0.25)", 1000, x)
    flipped = np.array([np.array_equal(o, x[:, ::-1]) for o in out])
    kept = np.array([np.array_equal(o, x) for o in out])
    assert np.all(flipped ^ kept)
    assert abs(flipped.mean() - 0.25) < 0.05


def test_rotate90_is_uniform():
    x = image(6, 6)
    out = train("rotate90()", 800, x)
    which = [next(k for k in range(4) if np.array_equal(o, np.rot90(x, k))) for o in out]
    assert np.all(np.abs(np.bincount(which, minlength=4) - 200) < 60)


def reference_box(shapes, place, size, area, aspect):
    """torchvision's get_params, in float64, from given uniform draws."""
    height, width = size
    for u, v in shapes.astype(np.float64):
        target = height * width * (area[0] + u * (area[1] - area[0]))
        ratio = np.exp(np.log(aspect[0]) + v * (np.log(aspect[1]) - np.log(aspect[0])))
        w, h = round(np.sqrt(target * ratio)), round(np.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(place[0] * (height - h + 1)), int(place[1] * (width - w + 1)), h, w
    h, w = height, width
    if width / height < aspect[0]:
        h = round(width / aspect[0])
    elif width / height > aspect[1]:
        w = round(height * aspect[1])
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    "size,area,aspect",
    [
        ((32, 32), (0.2, 1.0), (3 / 4, 4 / 3)),
        ((8, 40), (0.9, 1.0), (3 / 4, 4 / 3)),  # nothing fits: too wide
        ((40, 8), (0.9, 1.0), (3 / 4, 4 / 3)),  # too high
        ((10, 12), (1.0, 1.0), (0.9, 1.4)),  # fits now and then
    ],
)
def test_boxes_are_torchvisions(size, area, aspect):
    generator = np.random.default_rng(0)
    shapes, places = generator.random((64, 10, 2), np.float32), generator.random((64, 2), np.float32)
    draw = jax.jit(jax.vmap(lambda s, p: jnp.stack(draw_box(s, p, size, area, aspect, jnp))))
    expected = [reference_box(s, p, size, area, aspect) for s, p in zip(shapes, places, strict=True)]
    np.testing.assert_array_equal(draw(shapes, places), expected)
    cut = build(f"whole_crop({area[0]}, {area[1]}, {aspect[0]}, {aspect[1]})").cut  # the same on the host
    drawn = [cut(np.append(s, p), size[1], size[0], 7) for s, p in zip(shapes, places, strict=True)]
    assert drawn == [(left, top, width, height) for top, left, height, width in expected]


def test_windows_reach_every_place_equally_often():
    cut = build("whole_window(resize=8)").cut
    boxes = [cut(draws, 24, 12, 4) for draws in np.random.default_rng(0).random((7 * 19 * 60, 22))]
    assert {box[2:] for box in boxes} == {(6, 6)}  # 4 of 8 are 6 of 12
    places, counts = np.unique([box[:2] for box in boxes], axis=0, return_counts=True)
    assert len(places) == 7 * 19 and places.min() == 0 and places.max(0).tolist() == [18, 6]
    assert counts.min() > 30 and counts.max() < 100
    with pytest.raises(UserError, match="resize=8 is less than the width of the images, 9 pixels"):
        cut(np.zeros(22), 24, 12, 9)


def test_what_is_cut_as_it_is_read_comes_first():
    x, key = image(), keys(1)[0]
    op = build("compose(whole_crop(), flip(p=1.0))")
    assert op.cut(np.full(22, 0.5), 10, 10, 4) and build("compose(flip(), crop())").cut is None
    np.testing.assert_array_equal(op.train(key, x), x[:, ::-1])
    np.testing.assert_array_equal(op.evaluate(x), x)
    assert build("compose(compose(whole_window(), flip()), crop())").cut is not None
    for text in ("compose(flip(), whole_crop())", "compose(whole_crop(), compose(whole_window(), flip()))"):
        with pytest.raises(UserError, match="either comes first in compose"):
            build(text)
    for text in ("whole_crop(min_area=0)", "whole_crop(max_aspect=0.5)", "whole_window(resize=0)"):
        with pytest.raises(UserError, match="must"):
            build(text)


def test_views_of_images_that_were_cut_for_each():
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 4, 4, 3), dtype=np.uint8)
    op, key, positions = build("compose(whole_crop(), flip())"), rng.stream(0, "test"), jnp.arange(5)
    cut = aug.views(op, key, images, positions)
    for i, of in enumerate(cut):
        np.testing.assert_array_equal(of, aug.views(op, key, images[:, i], positions)[i])


def test_resized_crop_of_whole_square_is_identity():
    x = image(8, 8)
    out = train("resized_crop(min_area=1.0, min_aspect=1.0, max_aspect=1.0)", 3, x)
    np.testing.assert_allclose(out, np.stack([x] * 3), atol=1e-6)


def test_cutout_centres_cover_the_image():
    holes = train("cutout(1)", 1500, image() + 1)[..., 0] == 0
    assert holes.sum((1, 2)).tolist() == [1] * 1500
    assert np.all(np.abs(holes.sum(0) - 1500 / 48) < 25)


# Colour


def adjusted(x, which, factor):
    """torchvision's brightness, contrast and saturation (0, 1, 2) in NumPy."""
    luma = (np.asarray(x) @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    return np.clip(factor * x + (1 - factor) * (0.0, luma.mean(), luma)[which], 0, 1)


def test_jitter_applies_the_four_in_the_order_asked():
    x, factors, turns = image(), np.array([1.3, 0.6, 1.5], np.float32), np.float32(0.08)
    jitter = jax.jit(operations._jitter)
    for order, place in [((0, 1, 2), 0), ((2, 0, 1), 1), ((1, 2, 0), 2), ((2, 1, 0), 3)]:
        expected = x
        for which in order[:place]:
            expected = adjusted(expected, which, factors[which])
        expected = image_ops.adjust_hue(expected, turns)
        for which in order[place:]:
            expected = adjusted(expected, which, factors[which])
        np.testing.assert_allclose(jitter(x, factors, jnp.array(order), turns, place), expected, atol=5e-6)
    neutral = jitter(x, np.ones(3, np.float32), jnp.arange(3), np.float32(0), 1)
    np.testing.assert_allclose(neutral, x, atol=1e-5)


def test_jitter_draws_as_stated():
    x = np.full((2, 2, 3), 0.5, np.float32)  # grey: only brightness shows
    factors = train("jitter(0.4, 0.0, 0.0, 0.0, p=0.75)", 2000, x)[:, 0, 0, 0] / 0.5
    changed = np.abs(factors - 1) > 1e-5
    assert abs(changed.mean() - 0.75) < 0.04
    assert 0.6 <= factors.min() < 0.62 and 1.38 < factors.max() <= 1.4 + 1e-6
    assert abs(factors[changed].mean() - 1) < 0.03


def test_grey_replaces_colour_at_the_rate():
    x = image()
    out = train("grey(p=0.2)", 1000, x)
    luma = np.repeat((x @ LUMA)[..., None], 3, axis=-1)
    greyed = np.array([np.allclose(o, luma, atol=1e-6) for o in out])
    kept = np.array([np.array_equal(o, x) for o in out])
    assert np.all(greyed ^ kept)
    assert abs(greyed.mean() - 0.2) < 0.05


def test_one_channel_has_no_saturation_hue_or_grey():
    x = image(channels=1)
    out = train("compose(grey(p=1.0), jitter(0.0, 0.0, 0.9, 0.5, p=1.0))", 2, x)
    np.testing.assert_allclose(out, [x] * 2, atol=1e-6)


def test_blur_happens_at_the_rate_and_refuses_a_kernel_wider_than_the_image():
    x = image()
    kept = [np.array_equal(o, x) for o in train("blur(1.0, 2.0, p=0.3, kernel=3)", 500, x)]
    assert abs(np.mean(kept) - 0.7) < 0.07
    with pytest.raises(UserError, match="at most 11"):
        build("blur(p=1.0, kernel=13)").train(keys(1)[0], x)


# Composition, recipes, batches


def test_normalise_is_in_training_and_evaluation():
    op = build("normalise((0.1, 0.2, 0.3), (0.5, 1.0, 2.0))")
    expected = (image() - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(op.train(keys(1)[0], image()), expected, atol=1e-6)
    np.testing.assert_allclose(op.evaluate(image()), expected, atol=1e-6)


def test_normalise_takes_grey_images_by_luma_and_colours_by_one_number():
    """A grey image is one whose three channels are equal: its luma is what it was, and so are the constants'."""
    grey = image(channels=1)
    found = build("normalise((0.1, 0.2, 0.3), (0.5, 1.0, 2.0))").evaluate(grey)
    np.testing.assert_allclose(found, (grey - np.dot(LUMA, [0.1, 0.2, 0.3])) / np.dot(LUMA, [0.5, 1.0, 2.0]), atol=1e-6)
    alike = build("normalise((0.4, 0.4, 0.4), (0.5, 0.5, 0.5))")
    np.testing.assert_allclose(alike.evaluate(grey), alike.evaluate(np.repeat(grey, 3, -1))[..., :1], atol=1e-6)
    one = build("normalise((0.4,), (0.5,))")
    np.testing.assert_array_equal(one.evaluate(image()), alike.evaluate(image()))
    for bad in ("normalise((), ())", "normalise((0.5, 0.5), (1.0, 1.0))", "normalise((0.5,), (1.0, 1.0, 1.0))"):
        with pytest.raises(UserError, match="one number each, or one per colour channel"):
            build(bad)


@pytest.mark.parametrize("name", sorted(augment.AUGMENTS))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_and_recipe_takes_grey_and_colour(name, channels):
    arguments = {
        "compose": "flip()",
        "normalise": "(0.4, 0.5, 0.6), (0.2, 0.2, 0.2)",
        "jitter": "0.4, 0.4, 0.4, 0.1",
        "blur": "kernel=3",
        "cutout": "2",
        "resize": "8",
    }
    op, x = build(f"{name}({arguments.get(name, '')})"), image(8, 8, channels)
    for out in (op.evaluate(x), op.train(keys(1)[0], x)):
        shape = (8, 8, 3) if name == "colour" else x.shape
        assert out.shape == shape and np.isfinite(out).all()


def test_what_is_normalised_can_be_resized():
    """Nothing is clipped but what `bicubic` carries beyond the pixels."""
    pixels = jnp.asarray(image(8, 8))
    first = build("compose(normalise((0.5,), (0.25,)), resize(16))").evaluate(pixels)
    last = build("compose(resize(16), normalise((0.5,), (0.25,)))").evaluate(pixels)
    np.testing.assert_allclose(first, last, rtol=1e-5, atol=1e-5)
    assert float(first.min()) < -1 and float(first.max()) > 1


def test_compose_runs_left_to_right_with_independent_keys():
    x = image()
    once = build("compose(cutout(1), normalise((0.5, 0.5, 0.5), (1.0, 1.0, 1.0)))")
    assert np.sum(np.all(np.asarray(once.train(keys(1)[0], x)) == -0.5, axis=-1)) == 1
    both = train("compose(flip(), flip())", 400, x)  # with one shared key they would always cancel
    assert abs(np.mean([np.array_equal(o, x) for o in both]) - 0.5) < 0.1
    np.testing.assert_array_equal(build("compose(crop(), flip(), none())").evaluate(x), x)


@pytest.mark.parametrize("name,channels", [("cifar", 3), ("simclr_cifar", 3), ("digits", 1), ("simclr_digits", 1)])
def test_recipes(name, channels):
    augment = build(f"{name}()")
    size = 32 if channels == 3 else 8
    ramp = np.linspace(10, 150, size).astype(np.uint8)  # brighter to the right, so that a mirror shows
    images = np.broadcast_to(ramp[None, None, :, None], (32, size, size, channels)).copy()
    batch = jax.jit(lambda key, x, positions: aug.augment_batch(augment, key, x, positions))
    key, positions = rng.stream(0, "augment", 3), np.arange(32)
    out = np.asarray(batch(key, images, positions))
    assert out.shape == images.shape and out.dtype == np.float32 and np.all(np.isfinite(out))

    # A draw belongs to the position: not to the row, nor to the rest of the batch.
    others = images.copy()
    others[16:] = 0
    shifted = batch(key, others, positions + 16)
    np.testing.assert_allclose(shifted[:16], out[16:], atol=1e-6)

    # Copies of one image come out different, and different again in the next step.
    assert len(np.unique(out.round(4), axis=0)) > 24
    following = np.asarray(batch(rng.stream(0, "augment", 4), images, positions))
    assert np.mean(np.abs(following - out).max((1, 2, 3)) > 1e-3) > 0.9

    slopes = np.median(out[:, :, 5 * size // 8, 0] - out[:, :, 2 * size // 8, 0], axis=1)
    assert np.all(slopes > 0) == (channels == 1)  # digits are never mirrored, photographs are

    mean, std = (recipes.CIFAR_MEAN, recipes.CIFAR_STD) if channels == 3 else (recipes.DIGITS_MEAN, recipes.DIGITS_STD)
    expected = (images / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(aug.evaluate_batch(augment, images), expected, atol=1e-5)


def test_views_are_independent():
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    key = rng.stream(0, "augment")
    three = jax.jit(lambda x: aug.views(build("crop(1)"), key, x, jnp.arange(64), count=3))(images)
    assert [v.shape for v in three] == [(64, 8, 8, 1)] * 3
    for i, j in ((0, 1), (0, 2), (1, 2)):  # two shifts agree once in nine
        assert np.mean(np.any(np.asarray(three[i] != three[j]), axis=(1, 2, 3))) > 0.7


def test_batches_are_scaled_from_uint8_only():
    images = np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1)
    none, key, positions = build("none()"), rng.stream(0, "augment"), jnp.arange(3)
    for out in (aug.augment_batch(none, key, images, positions), aug.evaluate_batch(none, images)):
        np.testing.assert_allclose(np.ravel(out), [0, 0.2, 1], atol=1e-6)
    for call in (lambda x: aug.augment_batch(none, key, x, positions), lambda x: aug.evaluate_batch(none, x)):
        for other in (images / np.float32(255), images.reshape(3, 1), images.reshape(3, 1).astype(np.float16)):
            with pytest.raises(TypeError, match="uint8"):
                call(other)


@pytest.mark.parametrize(
    "text,message",
    [
        ("crop(pad=-1)", "pad=-1"),
        ("flip(p=1.5)", "p must be in"),
        ("grey(p=-0.1)", "p must be in"),
        ("resized_crop(min_area=0.0)", "min_area"),
        ("resized_crop(min_area=0.5, max_area=0.4)", "max_area"),
        ("resized_crop(max_area=1.1)", "max_area"),
        ("resized_crop(min_aspect=2.0)", "min_aspect"),
        ("jitter(-0.1, 0.0, 0.0, 0.0)", "brightness"),
        ("jitter(0.1, 0.0, 0.0, 0.6)", "hue"),
        ("jitter(0.1, 0.0, 0.0, 0.1, p=2.0)", "p must be in"),
        ("blur(sigma_min=0.0)", "sigma_min"),
        ("blur(kernel=4)", "odd"),
        ("cutout(0)", "size=0"),
        ("normalise((0.5,), (0.0,))", "std above 0"),
        ("normalise((0.5, 0.5), (1.0,))", "one number each"),
        ("normalise((), ())", "one number each"),
        ('normalise(("a",), (1.0,))', "one number each"),
        ("noise(-0.1)", "sigma must be a finite number, at least 0"),
        ("dropout(1.5)", "p must be in"),
        ("compose()", "at least one"),
        ("compose(flip(p=3.0))", "p must be in"),
        ("compose(cifar(), jitter(0.1, 0.1, 0.1, 0.1))", "they come before noise.. and normalise"),
        ("compose(noise(0.3), jitter(0.1, 0.1, 0.1, 0.1))", "they come before noise"),
        ("compose(flip(), compose(cifar(), flip()), resize(64, bicubic))", "they come before noise.. and normalise"),
        (
            "compose(cifar(), compose(flip(), resized_crop(interpolation=bicubic)))",
            "they come before noise.. and normalise",
        ),
    ],
)
def test_bad_values_are_refused_in_one_line(text, message):
    with pytest.raises(UserError, match=message) as error:
        build(text)
    assert "\n" not in str(error.value)
