"""How the weights of a network start, by name: what a spec's `init` says.

kaiming   convolutions and linear layers N(0, 2 / fan), the fan by network family; biases 0 (He et al. 2015).
lecun     linear layers truncated normal with variance 1 / fan_in; biases 0: Flax's default.
torch     PyTorch's default for both, `kaiming_uniform_(a=sqrt(5))`: weights and biases U(-b, b), b = 1 / sqrt(fan_in).
          Three times less variance than `lecun`, six times less than `kaiming` with fan_in.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

Init = Literal["kaiming", "torch"]
MLPInit = Literal["lecun", "kaiming", "torch"]
Fan = Literal["fan_in", "fan_out"]


def kernel_init(init: MLPInit, fan: Fan = "fan_in") -> Initializer:
    """Initialiser of a kernel, convolution [h, w, in, out] or linear layer [in, out]; `fan` is kaiming's alone."""
    if init == "torch":
        return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    if init == "kaiming":
        return nn.initializers.variance_scaling(2.0, fan, "normal")
    return nn.initializers.lecun_normal()


def bias_init(init: MLPInit, fan_in: int) -> Callable[..., jax.Array]:
    """Initialiser of the bias of a linear layer with `fan_in` inputs."""
    if init != "torch":
        return nn.initializers.zeros_init()
    bound = fan_in**-0.5

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = float) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform
