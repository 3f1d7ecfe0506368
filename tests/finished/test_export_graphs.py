"""Networks of every family as ONNX and as StableHLO: what those compute is what the network does."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy.augment.base import compose, evaluate_batch, none
from lt_noisy.augment.operations import colour, normalise, resize
from lt_noisy.data.images import DTYPES, kind_of
from lt_noisy.errors import UserError
from lt_noisy.finished.export import graph, plain
from lt_noisy.finished.export.onnx_file import metadata, onnx_bytes, onnx_call, require_libraries
from lt_noisy.finished.export.stablehlo_file import PLATFORMS, require_library, stablehlo_bytes, stablehlo_call
from lt_noisy.finished.network import Fit, Network
from lt_noisy.models.convolution import as_elsewhere
from lt_noisy.models.efficientnet import EfficientNetLite, Group
from lt_noisy.models.heads import HEADS
from lt_noisy.models.resnet import ResNet, resnet8
from lt_noisy.models.vectors import identity, mlp
from lt_noisy.models.vit import ViT
from lt_noisy.stages.supervised import Classifier

COLOURS = normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PHOTO = compose(resize(16, "bicubic"), COLOURS)
LITE = (Group(1, 3, 1, 1, 8), Group(2, 5, 2, 3, 16))


def built(builder):
    return builder(jnp.float32, None)


# (encoder, head, augmentation, shape of an image); more blocks of a kind add nothing that is new.
FAMILIES = {
    "resnet8, grey": (built(resnet8(width=4)), "linear", normalise((0.25,), (0.5,)), (8, 8, 1)),
    "resnet18": (ResNet((1, 1), 32, "cifar", True, jnp.float32, None), "cosine", COLOURS, (8, 8, 3)),
    "resnet50": (
        ResNet((1, 1, 1), 4, "imagenet", True, jnp.float32, None, bottleneck=True),
        "linear",
        PHOTO,
        (24, 24, 3),
    ),
    "vit, registers": (ViT(8, 16, 2, 2, True, 3, "cls", jnp.float32), "cosine", PHOTO, (12, 12, 3)),
    "vit, mean": (ViT(4, 16, 1, 2, False, 0, "mean", jnp.float32), "linear", COLOURS, (8, 12, 3)),
    "efficientnet": (EfficientNetLite(LITE, "tensorflow", jnp.float32, None), "linear", PHOTO, (24, 24, 3)),
    "efficientnet, timm": (
        EfficientNetLite(LITE[1:], "timm", jnp.float32, None),
        "linear",
        compose(colour(), COLOURS),
        (9, 9, 1),
    ),
    "mlp": (built(mlp(hidden=8, layers=2)), "linear", normalise((0.5,), (0.25,)), (6,)),
    "identity": (built(identity()), "cosine", none(), (6,)),
}


def random(key, leaf):
    """Numbers for a parameter or statistic, positive ones for vectors, among them variances."""
    draws = np.random.default_rng(key).normal(size=leaf.shape)
    fan = max(int(np.prod(leaf.shape[:-1])), 1)
    return jnp.asarray(np.abs(draws) + 0.3 if len(leaf.shape) == 1 else draws / np.sqrt(fan), leaf.dtype)


@functools.cache
def graph_of(name):
    """The graph of a family's network with random weights; its own outputs are those of the CPU's convolutions."""
    encoder, head, augment, shape = FAMILIES[name]
    net = Classifier(encoder, HEADS[head]()(3), False, "running")
    image = jax.ShapeDtypeStruct((1, *shape), DTYPES[kind_of(shape)])
    template = jax.eval_shape(lambda x: net.init(jax.random.key(0), evaluate_batch(augment, x), train=False), image)
    leaves, tree = jax.tree.flatten(template)
    variables = jax.tree.unflatten(tree, [random(key, leaf) for key, leaf in enumerate(leaves)])

    def forward(images):
        x = evaluate_batch(augment, images)
        features, logits = net.apply(variables, x, train=False, method="features_and_logits")
        return logits, features

    def apply(images):
        with as_elsewhere():
            logits, features = forward(images)
        return {"logits": logits, "probabilities": jax.nn.softmax(logits, -1), "features": features}

    own = jax.jit(lambda images: jnp.concatenate(forward(images), -1))
    network = Network("finetune", ("a", "b", "c"), shape, Fit(), None, lambda images, progress: np.asarray(own(images)))
    return graph.Graph(network, False, apply)


@pytest.fixture(scope="module")
def onnx():
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    require_libraries()
    return pytest.importorskip("onnx")


@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_computes_what_the_network_does(onnx, name):
    given = graph_of(name)
    content = onnx_bytes(given, metadata(given, "in the graph: all"))
    assert graph.compared(given, onnx_call(content)) <= graph.TOLERANCE
    model = onnx.load_from_string(content)
    (entry,) = model.graph.input
    assert entry.name == given.takes and entry.type.tensor_type.shape.dim[0].dim_param
    assert [output.name for output in model.graph.output] == list(graph.OUTPUTS)
    kinds = [node.op_type for node in model.graph.node]
    # Plain convolutions, each once: neither Winograd's form nor shifted products.
    convolutions = {"resnet8, grey": 7, "resnet18": 6, "resnet50": 13, "efficientnet": 10}
    if name in convolutions:
        assert kinds.count("Conv") == convolutions[name]
        assert "BatchNormalization" not in kinds and kinds.count("Mul") < 4  # all of it is in the kernels
    assert {prop.key for prop in model.metadata_props} >= {"class_names", "image_shape", "resize", "preprocessing"}


@pytest.mark.parametrize("name", ["resnet8, grey", "resnet50", "vit, registers", "efficientnet", "mlp"])
def test_stablehlo_computes_what_the_network_does(name):
    content = stablehlo_bytes(graph_of(name))
    assert graph.compared(graph_of(name), stablehlo_call(content)) <= graph.TOLERANCE
    read = jax.export.deserialize(bytearray(content))
    assert read.platforms == PLATFORMS and set(read.out_tree.unflatten(read.out_avals)) == set(graph.OUTPUTS)


def test_another_result_is_refused_with_its_figure():
    given = graph_of("identity")
    call = stablehlo_call(stablehlo_bytes(given))
    for name, changed, figure in (
        ("logits", lambda x: x * 1.01, "1.0e-02"),
        ("features", lambda x: x[:, :-1], "inf"),
        ("probabilities", lambda x: x * np.nan, "inf"),
    ):
        with pytest.raises(UserError, match=f"its {name} differ from those of the run by {figure} of the largest"):
            graph.compared(given, lambda x, name=name, changed=changed: {**call(x), name: changed(call(x)[name])})


def test_rounded_features_may_be_a_step_of_float16_away():
    given = graph_of("identity")
    call = stablehlo_call(stablehlo_bytes(given))

    def rounded(x):
        found = call(x)
        ours = np.asarray(found["features"])
        return {**found, "features": ours + np.spacing(np.abs(ours).astype(np.float16)).astype(np.float32)}

    with pytest.raises(UserError, match="its features differ"):
        graph.compared(given, rounded)
    assert graph.compared(given._replace(rounded=True), rounded) <= graph.TOLERANCE


def test_plain_operations_give_the_same():
    """Of what the converter is not given as it is; constants are computed at once."""

    def function(x):
        pooled = jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (1, 1), (0, 1), (0, 0))
        )
        product = jnp.einsum("ih,bhwc->biwc", jnp.eye(3, 5) * 2, x)
        return pooled, product, jax.lax.reduce_precision(x, 5, 10), jnp.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)))

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 3)), jnp.float32)
    for ours, theirs in zip(plain.plain(function, x)(x), function(x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    kept = {equation.primitive.name for equation in jax.make_jaxpr(plain.plain(function, x))(x).eqns}
    assert not kept & {"pad", "reduce_window_max", "reduce_precision", "iota"}


def test_what_cannot_be_converted_is_one_line(onnx):
    given = graph_of("identity")
    sorting = given._replace(apply=lambda x: {name: jax.lax.linalg.svd(x)[1] for name in graph.OUTPUTS})
    with pytest.raises(UserError, match="export: jax2onnx cannot convert this network: "):
        onnx_bytes(sorting, {})


@pytest.mark.parametrize(
    ("library", "require", "extra"),
    [("jax2onnx", require_libraries, "onnx"), ("flatbuffers", require_library, "stablehlo")],
)
def test_a_missing_library_is_one_line(monkeypatch, library, require, extra):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"export: .* needs {library}; pip install 'lt_noisy\[{extra}\]'"):
        require()
