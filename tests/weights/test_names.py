"""Which naming and which copy of an encoder a checkpoint has, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy.errors import UserError
from lt_noisy.models.resnet import ResNet
from lt_noisy.models.vectors import identity
from lt_noisy.weights import names

NET = ResNet((1, 1), 4, "imagenet", True, jnp.float32, None)
TEMPLATE = jax.eval_shape(lambda: NET.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
FLAT = names.flatten(TEMPLATE)


def tensors(value, prefix="", naming="torchvision"):
    """A file whose numbers are all `value`."""
    arrays = {name: np.full(leaf.shape, value) for name, leaf in FLAT.items()}
    return {prefix + name: tensor for name, tensor in names.tensors_of(names.chosen(NET, naming), arrays).items()}


def value_of(found):
    (value,) = {float(x) for leaf in jax.tree.leaves(found) for x in np.unique(leaf)}
    return value


# What each program leaves beside the encoder that is wanted, which has the value 1.
CHECKPOINTS = {
    "torchvision": {**tensors(1), "fc.weight": np.zeros((5, 8)), "fc.bias": np.zeros(5)},
    "counters": {**tensors(1), "bn1.num_batches_tracked": np.zeros((), np.int64)},
    "moco": {
        **tensors(1, "module.encoder_q."),
        "module.encoder_q.fc.0.weight": np.zeros((8, 8)),
        **tensors(2, "module.encoder_k."),
        "module.encoder_k.fc.0.weight": np.zeros((8, 8)),
        "module.queue": np.zeros((8, 4)),
        "module.queue_ptr": np.zeros(1, np.int64),
    },
    "simsiam": {
        **tensors(1, "module.encoder."),
        "module.encoder.fc.0.weight": np.zeros((8, 8)),
        "module.predictor.0.weight": np.zeros((8, 8)),
    },
    "solo-learn": {
        **tensors(1, "backbone."),
        **tensors(2, "momentum_backbone."),
        "projector.0.weight": np.zeros((8, 8)),
        "momentum_projector.0.weight": np.zeros((8, 8)),
        "predictor.0.weight": np.zeros((8, 8)),
        "classifier.weight": np.zeros((5, 8)),
    },
    "lightly": {
        **tensors(1, "backbone.", "sequential"),
        **tensors(2, "backbone_momentum.", "sequential"),
        "projection_head.layers.0.weight": np.zeros((8, 8)),
        "prediction_head.layers.0.weight": np.zeros((8, 8)),
    },
    "dino": {
        **tensors(2, "student.backbone."),
        **tensors(1, "teacher.backbone."),
        "teacher.head.mlp.0.weight": np.ones(3),
        "dino_loss.center": np.ones(3),
    },
    "huggingface": {**tensors(1, "resnet.", "huggingface"), "classifier.1.weight": np.zeros((5, 8))},
}


@pytest.mark.parametrize("program", CHECKPOINTS)
def test_the_encoder_of_a_checkpoint(program):
    assert value_of(names.fill(NET, TEMPLATE, CHECKPOINTS[program])) == 1


def test_another_copy_by_its_prefix():
    assert value_of(names.fill(NET, TEMPLATE, CHECKPOINTS["moco"], "module.encoder_k.")) == 2


def without(name):
    return {key: tensor for key, tensor in tensors(1).items() if key != name}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (without("layer2.0.bn1.bias"), r"layer2\.0\.bn1\.bias is missing, by the naming of torchvision"),
        ({**tensors(1), "layer2.1.conv1.weight": np.zeros((8, 8, 3, 3))}, r"layer2\.1\.conv1\.weight is of no use"),
        ({**tensors(1, "backbone."), "backbone.layer5.weight": np.ones(1)}, r"backbone\.layer5\.weight is of no use"),
        ({**tensors(1), "conv1.weight": np.zeros((4, 1, 7, 7))}, r"conv1\.weight is 4x1x7x7, and \[7, 7, 3, 4\] is"),
        ({**tensors(1), "conv1.weight": np.zeros((4, 3))}, r"conv1\.weight is 4x3, and \[7, 7, 3, 4\] is asked for"),
        ({"blocks.0.attn.qkv.weight": np.ones(1)}, r"blocks\.0\.attn\.qkv\.weight, are not those of torchvision"),
        ({}, "such as none, are not those of"),
    ],
)
def test_what_is_refused(given, says):
    with pytest.raises(UserError, match=says):
        names.fill(NET, TEMPLATE, given)


def test_an_encoder_that_no_weights_fit():
    with pytest.raises(UserError, match=r"no published weights fit Identity, only .*ResNet"):
        names.known(identity()(jnp.float32, None))
    with pytest.raises(UserError, match=r"naming 'torchvison' is not one of .* did you mean 'torchvision'"):
        names.chosen(NET, "torchvison")
