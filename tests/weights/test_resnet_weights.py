"""ResNets with weights from files: the features that torchvision and transformers compute with them."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.weights import by_rule, images

from lt_noisy.models.resnet import ResNet, resnet18
from lt_noisy.weights import names
from lt_noisy.weights.resnet import namings

PUBLISHED = np.load(pathlib.Path(__file__).parent.parent / "published" / "resnets.npz")


@functools.cache
def net_of(kind):
    """The network of one block a group, and the shapes of its arrays."""
    net = ResNet((1, 1, 1, 1), 64, "imagenet", True, jnp.float32, None, bottleneck=kind == "bottleneck")
    return net, jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))


@functools.cache
def forward(kind):
    net, _ = net_of(kind)
    return jax.jit(lambda variables, x: net.apply(variables, x, train=False))


def tensors_by_rule(net, template, naming, prefix=""):
    """The tensors of a file with this naming, filled by rule."""
    zeros = {name: np.zeros(leaf.shape) for name, leaf in names.flatten(template).items()}
    shaped = names.tensors_of(names.chosen(net, naming), zeros)
    return {prefix + name: by_rule(name, tensor.shape) for name, tensor in shaped.items()}


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("naming", ["torchvision", "huggingface"])
def test_features_are_those_of_the_published_programs(kind, naming):
    net, template = net_of(kind)
    variables = names.fill(net, template, tensors_by_rule(net, template, naming))
    expected = PUBLISHED[f"{naming}/{kind}"]
    found = forward(kind)(variables, images(64))
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("naming", ["torchvision", "sequential", "huggingface"])
def test_out_and_in_again(naming):
    net, template = net_of("bottleneck")
    variables = names.fill(net, template, tensors_by_rule(net, template, naming))
    tensors = names.tensors_of(names.chosen(net, naming), names.flatten(variables))
    again = names.flatten(names.fill(net, template, tensors))
    assert all(np.array_equal(array, again[name]) for name, array in names.flatten(variables).items())


def test_the_names_are_torchvisions():
    net = resnet18(stem="imagenet")(jnp.float32, None)
    (torchvision, *_) = namings(net)
    found = {name for pair in torchvision.pairs for name in pair.theirs}
    assert {"conv1.weight", "bn1.running_var", "layer2.0.downsample.0.weight", "layer4.1.bn2.bias"} <= found
    assert "layer1.0.downsample.0.weight" not in found and len(found) == 100  # 122 without fc and its counters
