"""Vision Transformers: image batches [B, H, W, C] to features float32 [B, D]. No classifier (see `heads`).

The network of Dosovitskiy et al. (2021) as published weights have it, those of AugReg, DeiT, DINO, MAE and DINOv2 among
them: patches by one linear map, a class token, learned positions, blocks that normalise first, a last norm. DINOv2 has
LayerScale (Touvron et al. 2021) as well, and in some of its networks registers (Darcet et al. 2024).

Against the programs that published them:

* The class token has no position of its own: where a program adds two learned vectors, their sum is learned here.
* GELU is exact, as in timm and Hugging Face, which run all of these weights so. JAX's big_vision and vision_transformer
  take the tanh approximation, 5e-4 from it at most.
* There is no dropout and no stochastic depth.
* Everything starts as in timm: linear layers and positions normal with deviation 0.02, class token and registers with
  1e-6, biases 0, patches as a PyTorch convolution, LayerScale 1e-5.
* Weight decay by `kernels` (`training.optim`) takes in positions and registers, as DINOv2's does, timm's does not.

References:
  Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale" (2021)
  Touvron et al., "Going deeper with Image Transformers" (2021)
  Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (2024)
  Darcet et al., "Vision Transformers Need Registers" (2024)
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from lt_noisy.errors import UserError
from lt_noisy.models.base import Encoder, EncoderBuilder
from lt_noisy.models.convolution import convolution
from lt_noisy.models.initial import bias_init, kernel_init
from lt_noisy.models.norm import layer_norm
from lt_noisy.precision import float_dtype

Pool = Literal["cls", "mean"]


class ViT(Encoder):
    """A Vision Transformer. It fits images of the size that it was initialised with.

    Names of its layers tell their depth: `patch_embed`, `cls`, `positions` and `registers`, then `block1_...` to the
    last block, then `norm`.

    Attributes:
      patch: side of a patch in pixels, which must divide both sides of an image.
      width: features of a token.
      depth: blocks.
      heads: of each attention; they divide `width`.
      layer_scale: whether what a block adds is multiplied by a learned vector.
      registers: tokens after the class token, which nothing reads in the end.
      pool: the features are the class token after the last norm, or the mean of the patches' tokens.
      dtype: of the computation. Parameters, normalisation, softmax and features are float32.
      epsilon: of every norm.
    """

    patch: int
    width: int
    depth: int
    heads: int
    layer_scale: bool
    registers: int
    pool: Pool
    dtype: DTypeLike
    epsilon: float = 1e-6

    takes = "images"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [B, H, W, C] -> float32 [B, D]. `train` changes nothing. `UserError`: patches do not fill the image."""
        count, height, width, channels = x.shape
        if height % self.patch or width % self.patch:
            raise UserError(
                f"images of {height}x{width} pixels do not divide into patches of {self.patch}x{self.patch}"
            )

        def dense(x: jax.Array, size: int, name: str) -> jax.Array:
            return nn.Dense(size, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02), name=name)(x)

        def norm(x: jax.Array, name: str) -> jax.Array:
            return layer_norm(x, self.dtype, self.epsilon, name)

        def learned(name: str, start: jax.nn.initializers.Initializer, *shape: int) -> jax.Array:
            return self.param(name, start, shape, jnp.float32).astype(self.dtype)

        def scaled(x: jax.Array, name: str) -> jax.Array:
            return x * learned(name, nn.initializers.constant(1e-5), self.width)[None, None] if self.layer_scale else x

        def attention(x: jax.Array, name: str) -> jax.Array:
            q, k, v = jnp.split(dense(x, 3 * self.width, f"{name}_qkv").reshape(*x.shape[:2], 3 * self.heads, -1), 3, 2)
            products = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=float_dtype())
            weights = nn.softmax(products * q.shape[-1] ** -0.5).astype(self.dtype)
            y = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
            return dense(y.reshape(x.shape), self.width, f"{name}_proj")

        def mlp(x: jax.Array, name: str) -> jax.Array:
            y = nn.gelu(dense(x, 4 * self.width, f"{name}_mlp1"), approximate=False)
            return dense(y, self.width, f"{name}_mlp2")

        x = nn.Conv(
            self.width,
            (self.patch, self.patch),
            strides=self.patch,
            padding=0,
            kernel_init=kernel_init("torch"),
            bias_init=bias_init("torch", self.patch**2 * channels),
            dtype=self.dtype,
            conv_general_dilated=convolution,
            name="patch_embed",
        )(x.astype(self.dtype))
        x = x + learned("positions", nn.initializers.normal(0.02), *x.shape[1:])[None]
        first = [learned("cls", nn.initializers.normal(1e-6), self.width)[None]]
        if self.registers:
            first.append(learned("registers", nn.initializers.normal(1e-6), self.registers, self.width))
        tokens = [jnp.broadcast_to(token, (count, *token.shape)) for token in first]
        x = jnp.concatenate([*tokens, x.reshape(count, -1, self.width)], axis=1)
        for name in (f"block{i}" for i in range(1, self.depth + 1)):
            x = x + scaled(attention(norm(x, f"{name}_norm1"), name), f"{name}_scale1")
            x = x + scaled(mlp(norm(x, f"{name}_norm2"), name), f"{name}_scale2")
        x = layer_norm(x, float_dtype(), self.epsilon, "norm")
        if self.pool == "cls":  # as indices they would be gathers where the size of the batch is a symbol
            return lax.index_in_dim(x, 0, axis=1, keepdims=False)
        return lax.slice_in_dim(x, 1 + self.registers, None, axis=1).mean(axis=1)


def _builder(
    patch: int, width: int, depth: int, heads: int, layer_scale: bool, registers: int, pool: Pool, epsilon: float
) -> EncoderBuilder:
    if registers < 0:
        raise UserError(f"registers={registers} must be 0 or more tokens")
    if not 0 < epsilon < 1:
        raise UserError(f"epsilon={epsilon} must be above 0 and below 1")
    return lambda dtype, norm_axis: ViT(patch, width, depth, heads, layer_scale, registers, pool, dtype, epsilon)


def vit_s16(layer_scale: bool = False, registers: int = 0, pool: Pool = "cls", epsilon: float = 1e-6) -> EncoderBuilder:
    """ViT-S/16: 12 blocks, 384 features of patches of 16 pixels.

    Args:
      layer_scale: what a block adds is multiplied by a learned vector, as in DINOv2.
      registers: tokens beside the class token, 4 in DINOv2's networks with registers.
      pool: the class token, or the mean of the patches' tokens.
      epsilon: of every norm; Hugging Face runs its plain ViT with 1e-12, all else has 1e-6.
    """
    return _builder(16, 384, 12, 6, layer_scale, registers, pool, epsilon)


def vit_b16(layer_scale: bool = False, registers: int = 0, pool: Pool = "cls", epsilon: float = 1e-6) -> EncoderBuilder:
    """ViT-B/16: 12 blocks, 768 features of patches of 16 pixels; arguments as in `vit_s16`."""
    return _builder(16, 768, 12, 12, layer_scale, registers, pool, epsilon)


def vit_l16(layer_scale: bool = False, registers: int = 0, pool: Pool = "cls", epsilon: float = 1e-6) -> EncoderBuilder:
    """ViT-L/16: 24 blocks, 1,024 features of patches of 16 pixels; arguments as in `vit_s16`."""
    return _builder(16, 1024, 24, 16, layer_scale, registers, pool, epsilon)


def vit_s14(layer_scale: bool = True, registers: int = 0, pool: Pool = "cls", epsilon: float = 1e-6) -> EncoderBuilder:
    """ViT-S/14, DINOv2's: 12 blocks, 384 features of patches of 14 pixels; arguments as in `vit_s16`."""
    return _builder(14, 384, 12, 6, layer_scale, registers, pool, epsilon)


def vit_b14(layer_scale: bool = True, registers: int = 0, pool: Pool = "cls", epsilon: float = 1e-6) -> EncoderBuilder:
    """ViT-B/14, DINOv2's: 12 blocks, 768 features of patches of 14 pixels; arguments as in `vit_s16`."""
    return _builder(14, 768, 12, 12, layer_scale, registers, pool, epsilon)
