"""How deep layers lie, by their names: in every encoder of the table."""

import jax
import jax.numpy as jnp
import pytest

from lt_noisy.models.base import depths
from lt_noisy.models.table import MODELS

BLOCKS = {"resnet8": 3, "resnet18": 8, "resnet50": 16, "vit_s16": 12}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_one_deeper(name):
    net = MODELS[name]()(jnp.float32, None)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    found = depths(shapes["params"])
    blocks = {depth for layer, depth in found.items() if "block" in layer}
    assert blocks == set(range(1, BLOCKS[name] + 1))
    first = {layer for layer, depth in found.items() if depth == 0}
    assert first and all("block" not in layer for layer in first)
    last = {layer for layer, depth in found.items() if depth > BLOCKS[name]}
    assert last == ({"norm"} if name.startswith("vit") else set())


def test_names_decide():
    names = ["head_conv", "group2_block1_conv1", "group1_block2_norm1", "group1_block10_conv1", "stem_conv"]
    assert [depths(names)[name] for name in names] == [4, 3, 1, 2, 0]
