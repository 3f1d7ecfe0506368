"""What brings images to the form that a pretrained encoder was made for: size and channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lt_noisy.augment import AUGMENTS
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError


def build(text):
    return bind(text, AUGMENTS, "augment")


@pytest.mark.parametrize(("method", "pillow"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)])
@pytest.mark.parametrize("size", [24, 5])
def test_resize_is_pillows(method, pillow, size):
    """On floats, of which Pillow rounds none; in training and evaluation alike."""
    x = np.random.RandomState(0).uniform(0.2, 0.8, (9, 9, 3)).astype(np.float32)
    channels = [np.asarray(Image.fromarray(x[..., c], "F").resize((size, size), pillow)) for c in range(3)]
    op = build(f"resize({size}, interpolation={method})")
    expected = np.clip(np.stack(channels, -1), 0, 1)
    np.testing.assert_allclose(op.evaluate(jnp.asarray(x)), expected, atol=2e-6)
    np.testing.assert_allclose(op.train(jax.random.key(0), jnp.asarray(x)), expected, atol=2e-6)
    same = build("resize(9)").evaluate(jnp.asarray(x))
    assert np.array_equal(same, x)


def test_colour_of_grey_is_three_times_the_same():
    x = jnp.asarray(np.random.RandomState(0).uniform(size=(4, 5, 1)).astype(np.float32))
    out = build("colour()").evaluate(x)
    assert out.shape == (4, 5, 3) and np.array_equal(out, np.repeat(x, 3, -1))
    assert np.array_equal(build("colour()").evaluate(out), out)


def test_resize_takes_square_images():
    with pytest.raises(UserError, match="it takes square images, not 4 x 5"):
        build("resize(8)").evaluate(jnp.zeros((4, 5, 3)))
    with pytest.raises(UserError, match="size=0 is a number of pixels"):
        build("resize(0)")
