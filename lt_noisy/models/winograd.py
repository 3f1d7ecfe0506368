"""3 x 3 convolutions at stride 1 in 16 multiplications for 36: Winograd's F(2 x 2, 3 x 3) (Lavin & Gray 2016).

A tile of 2 x 2 outputs reads 4 x 4 inputs d. With transforms along rows and columns that only add, and the kernel's,

    y = A^T [(G g G^T) * (B^T d B)] A,

where the product * is, over all tiles and channels, 16 matrix products [tiles, C] by [C, O]. The kernel's gradient
is the same identity turned round: dg = G^T [(B^T d B) * (A dy A^T)] G, summed over tiles. In float32 the error is about
that of the direct sum (`tests/models/test_winograd.py`); half precision is transformed and summed in float32.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lt_noisy.models.image_blocks import Padding, map_blocks, sum_blocks
from lt_noisy.precision import sum_dtype

_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_CACHE = 2 * 2**20  # bytes of transformed images at a time, and no fewer than twice those of the transformed kernel


def forward(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """The convolution.

    Args:
      x: [B, H, W, C].
      kernel: [3, 3, C, O].
      padding: two pairs (before, after), in pixels, such that the output has even sides.

    Returns:
      [B, H', W', O] in the type of x.
    """
    (top, bottom), (left, right) = padding
    height, width = x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2
    outputs = kernel.shape[-1]
    transformed = _transform_kernel(kernel.astype(sum_dtype(x)))

    def one(block: jax.Array) -> jax.Array:
        tiles = (len(block), height // 2, width // 2, outputs)
        products = [tile @ weights for tile, weights in zip(_inputs(block, padding), transformed, strict=True)]
        square = [[product.reshape(tiles) for product in products[4 * i : 4 * i + 4]] for i in range(4)]
        rows = [_gather([square[i][j] for i in range(4)]) for j in range(4)]
        pixels = [_gather([rows[j][i] for j in range(4)]) for i in range(2)]
        joined = jnp.stack([jnp.stack(pair, axis=3) for pair in pixels], axis=2)
        return joined.reshape(len(block), height, width, outputs).astype(x.dtype)

    return map_blocks(one, x, _images(x, height * width, outputs))


def kernel_gradient(x: jax.Array, dy: jax.Array, padding: Padding) -> jax.Array:
    """The gradient [3, 3, C, O] of the kernel, in float32 at least.

    Args:
      x: [B, H, W, C].
      dy: the gradient [B, H', W', O] of the output, whose sides are even.
      padding: as in `forward`.
    """

    def one(x: jax.Array, dy: jax.Array) -> jax.Array:
        rows = _spread([dy[:, i::2] for i in range(2)])
        spread = [tile for row in rows for tile in _spread([row[:, :, j::2] for j in range(2)])]
        pairs = zip(_inputs(x, padding), spread, strict=True)
        contract = (((0,), (0,)), ((), ()))
        return jnp.stack([lax.dot_general(tile, d.reshape(-1, d.shape[-1]), contract) for tile, d in pairs])

    wide = sum_dtype(x)
    most = _images(x, dy.shape[1] * dy.shape[2], dy.shape[-1])
    summed = sum_blocks(lambda x, dy: one(x.astype(wide), dy.astype(wide)), (x, dy), most)
    g = jnp.asarray(_G, summed.dtype)
    return jnp.einsum("ai,abco,bj->ijco", g, summed.reshape(4, 4, *summed.shape[1:]), g)


def _images(x: jax.Array, pixels: int, outputs: int) -> int:
    """How many images the cache holds transformed."""
    size, channels = sum_dtype(x).itemsize, x.shape[-1]
    return max(_CACHE, 2 * 16 * channels * outputs * size) // (4 * pixels * (channels + outputs) * size)


def _transform_kernel(kernel: jax.Array) -> list[jax.Array]:
    """G g G^T: 16 arrays [C, O]."""
    g = jnp.asarray(_G, kernel.dtype)
    return list(jnp.einsum("ai,ijco,bj->abco", g, kernel, g).reshape(16, *kernel.shape[2:]))


def _inputs(x: jax.Array, padding: Padding) -> list[jax.Array]:
    """B^T d B: 16 arrays [tiles, C], the tiles in the order of images, rows and columns."""
    padded = jnp.pad(x.astype(sum_dtype(x)), ((0, 0), *padding, (0, 0)))
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    rows = _difference([padded[:, i : i + height : 2] for i in range(4)])
    tiles = [tile for row in rows for tile in _difference([row[:, :, j : j + width : 2] for j in range(4)])]
    return [tile.reshape(-1, tile.shape[-1]) for tile in tiles]


def _difference(d: Sequence[jax.Array]) -> list[jax.Array]:
    """B^T d."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _gather(m: Sequence[jax.Array]) -> list[jax.Array]:
    """A^T m."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _spread(y: Sequence[jax.Array]) -> list[jax.Array]:
    """A y."""
    return [y[0], y[0] + y[1], y[0] - y[1], -y[1]]
