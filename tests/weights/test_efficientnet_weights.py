"""An EfficientNet-Lite0 filled from files by either naming is the program that names its tensors so; and out again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import published_efficientnet as published
from helpers.step_cases import in_precision

from lt_noisy.errors import UserError
from lt_noisy.models.efficientnet import efficientnet_lite0
from lt_noisy.precision import float_dtype
from lt_noisy.training.state import flatten
from lt_noisy.weights.names import chosen, fill, tensors_of

# the stored program, whose padding, by which naming
PROGRAMS = [
    ("package", "tensorflow", "efficientnet_lite_pytorch"),
    ("tf_efficientnet_lite0", "tensorflow", "timm"),
    ("efficientnet_lite0", "timm", "timm"),
]


def network(program="tensorflow"):
    net = efficientnet_lite0(program)(float_dtype(), None)
    return net, jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))


@pytest.mark.parametrize(("name", "program", "naming"), PROGRAMS)
def test_features_are_the_programs(x64, name, program, naming):
    shapes, expected = published.load(name)
    net, template = network(program)
    variables = in_precision(fill(net, template, published.tensors(shapes)))
    features = jax.jit(lambda v, x: net.apply(v, x, train=False))(variables, published.images())
    np.testing.assert_allclose(features, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "program", "naming"), PROGRAMS)
def test_what_is_exported_has_the_programs_names_and_comes_back(name, program, naming):
    shapes, _ = published.load(name)
    encoders = {key: shape for key, shape in shapes.items() if not key.startswith(("_fc.", "classifier."))}
    assert len(encoders) == len(shapes) - 2
    given = published.tensors(shapes)
    net, template = network(program)
    arrays = fill(net, template, given)
    saved = tensors_of(chosen(net, naming), flatten(arrays))
    assert {key: tensor.shape for key, tensor in saved.items()} == encoders
    for key, tensor in saved.items():
        np.testing.assert_array_equal(tensor, given[key], err_msg=key)
    jax.tree.map(np.testing.assert_array_equal, fill(net, template, saved), arrays)


def test_a_network_of_other_blocks_is_refused():
    shapes, _ = published.load("package")
    net, template = network()
    given = published.tensors({**shapes, "_blocks.3._depthwise_conv.weight": (144, 1, 3, 3)})
    with pytest.raises(UserError, match=r"_blocks\.3\._depthwise_conv\.weight is 144x1x3x3"):
        fill(net, template, given)
    del given["_blocks.3._bn1.bias"]
    with pytest.raises(UserError, match=r"_blocks\.3\._bn1\.bias is missing"):
        fill(net, template, given)
