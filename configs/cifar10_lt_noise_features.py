"""CIFAR-10-LT on the features of a pretrained encoder.

    python main.py --config=configs/cifar10_lt_noise_features.py
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant


def get_config(variant: str = "") -> ConfigDict:
    """The experiment."""
    check_variant(variant, ())
    c = recipes.on_features("tfds(cifar10)", "efficientnet_lite0.safetensors", 128)
    c.longtail = "exponential(ratio=100, subset=conventional)"
    c.noise = "symmetric(rate=0.4)"
    return c
