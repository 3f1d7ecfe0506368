"""Weights of Vision Transformers: features are those of the program that wrote a file; every naming goes round."""

import functools
import pathlib
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load, save

from lt_noisy.errors import UserError
from lt_noisy.models.vit import ViT
from lt_noisy.training.state import flatten
from lt_noisy.weights.names import chosen, fill, known, tensors_of

ARRAYS = pathlib.Path(__file__).parent.parent / "published" / "vits.npz"
CASES = {  # (LayerScale, registers) of each
    "timm": (False, 0),
    "timm_registers": (True, 4),
    "timm_resized": (True, 0),
    "huggingface": (False, 0),
    "huggingface_pooler": (False, 0),
    "huggingface_dinov2": (True, 0),
    "huggingface_registers": (True, 3),
    "dinov2": (True, 3),
    "vision_transformer": (False, 0),
    "big_vision": (False, 0),
}
PLAIN = {"huggingface", "vision_transformer", "big_vision"}  # programs with neither LayerScale nor registers
NAMES = [naming.name for naming in known(ViT(4, 12, 4, 3, True, 2, "cls", jnp.float32))]


@functools.cache
def read(case):
    """input, features and weights of a case, or the arrays of `grids`, as the script left them."""
    with np.load(ARRAYS) as arrays:
        found = {name.removeprefix(f"{case}/"): arrays[name] for name in arrays if name.startswith(f"{case}/")}
    found["weights"] = {name.removeprefix("weights/"): found[name] for name in found if name.startswith("weights/")}
    return found


def tiny(layer_scale=False, registers=0, epsilon=1e-6, depth=2):
    return ViT(4, 12, depth, 3, layer_scale, registers, "cls", jnp.float32, epsilon)


def template(net, *shape):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros(shape), train=False))


def filled(net, case, **changed):
    """The network's parameters out of a case's weights, some of them `changed`: None takes one away."""
    weights = {**read(case)["weights"], **changed}
    weights = {name: value for name, value in weights.items() if value is not None}
    return fill(net, template(net, *read(case)["input"].shape), weights)


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_the_program(case):
    plain = case in ("huggingface", "huggingface_pooler")
    net = tiny(*CASES[case], epsilon=1e-12 if plain else 1e-6)
    variables = filled(net, case)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    features = jax.jit(lambda v, x: net.apply(v, x, train=False))(variables, read(case)["input"])
    np.testing.assert_allclose(features, read(case)["features"], atol=1e-5)


def test_every_parameter_of_a_file_is_felt():
    """So that the test above sees each of them: without LayerScale, registers or a bias features are others."""
    case = "dinov2"
    net, x = tiny(*CASES[case]), read(case)["input"]
    variables = filled(net, case)
    features = jax.jit(lambda v: net.apply(v, x, train=False))
    for name, leaf in flatten(variables).items():
        others = jax.tree.map(lambda each, leaf=leaf: np.roll(each, 1, -1) if each is leaf else each, variables)
        assert np.abs(features(others) - read(case)["features"]).max() > 1e-3, name


def saved(net, variables, naming):
    """The tensors of a file by name."""
    return tensors_of(chosen(net, naming), flatten(variables))


def random_variables(net, size=12):
    random = np.random.default_rng(0)
    shapes = template(net, 1, size, size, 3)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_read_again(name):
    net = tiny(*((False, 0) if name in PLAIN else (True, 2)), depth=4)
    variables = random_variables(net)
    tensors = load(save(saved(net, variables, name)))
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("float32")}
    for prefix in ("", "module.backbone."):
        again = fill(net, template(net, 1, 12, 12, 3), {prefix + name: tensor for name, tensor in tensors.items()})
        jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize("case", [case for case in CASES if case != "timm_resized"])
def test_a_file_is_written_as_it_was(case):
    """Its names, its shapes and its numbers, but that the class token's position has gone into the class token."""
    net, given = tiny(*CASES[case]), read(case)["weights"]
    prefix = {"huggingface": "vit.", "big_vision": "params/"}.get(case, "")
    name = {
        "timm_registers": "timm",
        "huggingface_pooler": "huggingface",
        "huggingface_registers": "huggingface_dinov2",
    }
    written = {prefix + n: t for n, t in saved(net, filled(net, case), name.get(case, case)).items()}
    beside = set(given) - set(written)
    assert all(any(word in n for word in ("head", "classifier", "pooler", "mask_token")) for n in beside)
    for n in sorted(set(written)):
        folded = n.endswith(("cls", "cls_token", "pos_embed", "pos_embedding", "position_embeddings"))
        assert written[n].shape == given[n].shape, n
        if not folded:
            np.testing.assert_array_equal(written[n], given[n], n)


@pytest.mark.parametrize("name", sorted(PLAIN))
@pytest.mark.parametrize("made", [(True, 0), (False, 1)])
def test_a_naming_without_layer_scale_or_registers_saves_none(name, made):
    net = tiny(*made)
    with pytest.raises(UserError, match="neither LayerScale nor registers"):
        saved(net, random_variables(net), name)


def test_positions_are_resized_as_by_timm():
    net = ViT(4, 4, 0, 1, False, 0, "cls", jnp.float32)
    weights = saved(net, random_variables(net, 20), "timm")
    grids = read("grids")
    for rows, columns in ((2, 2), (3, 7), (8, 8), (5, 5)):
        variables = fill(net, template(net, 1, 4 * rows, 4 * columns, 3), {**weights, "pos_embed": grids["5x5"]})
        expected = grids[f"{rows}x{columns}"][0]
        found = variables["params"]["positions"].reshape(-1, 4)
        np.testing.assert_allclose(found, expected[1:], rtol=1e-6, atol=2e-6)
        np.testing.assert_array_equal(variables["params"]["cls"], weights["cls_token"][0, 0] + expected[0])


def test_positions_with_and_without_one_for_the_class_token_are_told_apart():
    net, given = tiny(), read("timm")["weights"]
    positions = given["pos_embed"].astype(np.float32)
    assert positions.shape == (1, 10, 12)
    without = filled(net, "timm", pos_embed=positions[:, 1:], cls_token=given["cls_token"] + positions[:, :1])
    jax.tree.map(np.testing.assert_array_equal, without, filled(net, "timm"))


def test_a_grid_that_is_not_square_is_refused_both_ways():
    with pytest.raises(UserError, match=r"^pos_embed: its 12 positions are no square grid"):
        filled(tiny(), "timm", pos_embed=np.zeros((1, 12, 12), np.float32), cls_token=np.zeros((1, 1, 12), np.float32))
    net = tiny()
    with pytest.raises(UserError, match="square grid, and these are 2x3"):
        saved(net, jax.tree.map(lambda leaf: np.zeros(leaf.shape), template(net, 1, 8, 12, 3)), "timm")


@pytest.mark.parametrize(
    "case,layer_scale,registers,message",
    [
        ("dinov2", True, 0, r"register_tokens is of no use to it.*: it is another network, see registers"),
        ("dinov2", True, 4, r"register_tokens is 1x3x12, and \[4, 12\] is asked for"),
        ("timm_registers", True, 0, r"reg_token is of no use .* timm.*, see registers of the model$"),
        ("timm", False, 2, "reg_token is missing, by the naming of timm: it is another network, see registers of"),
        ("timm", True, 0, "gamma.* and 1 more are missing, .*see layer_scale of the model$"),
        ("huggingface_dinov2", False, 0, "lambda1.*are of no use .* huggingface_dinov2: .*see layer_scale of"),
        ("huggingface", True, 0, "are missing, by the naming of huggingface: .*see layer_scale of"),
        ("huggingface", True, 1, "are missing, by the naming of huggingface: .*see layer_scale and registers of"),
        ("big_vision", False, 1, "^params/registers is missing, by the naming of big_vision: .*see registers of"),
    ],
)
def test_another_network_is_refused_by_the_argument_that_makes_it(case, layer_scale, registers, message):
    with pytest.raises(UserError, match=message):
        filled(tiny(layer_scale, registers), case)


def test_another_depth_width_or_patch_is_refused():
    with pytest.raises(UserError, match=r"blocks.1.* of no use to it, .*: it is another network$"):
        filled(tiny(depth=1), "timm")
    with pytest.raises(UserError, match=r"blocks.2.* missing, .*: it is another network$"):
        filled(tiny(depth=3), "timm")
    with pytest.raises(UserError, match=r"patch_embed.proj.weight is 12x3x4x4, and \[6, 6, 3, 12\] is asked for"):
        filled(ViT(6, 12, 2, 3, False, 0, "cls", jnp.float32), "timm")
    with pytest.raises(UserError, match=r"is 12x3x4x4, and \[4, 4, 3, 24\] is asked for"):
        filled(ViT(4, 24, 2, 3, False, 0, "cls", jnp.float32), "timm")
    with pytest.raises(UserError, match="distilled"):
        filled(tiny(), "timm", distilled_token=np.zeros((1, 1, 12), np.float32))


@pytest.mark.parametrize(
    "case,names",
    [
        ("timm", ["mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.weight"]),  # MAE's
        ("huggingface", ["decoder.0.weight", "vit.pooler.dense.weight", "vit.embeddings.mask_token"]),
        ("vision_transformer", ["pre_logits/kernel", "pre_logits/bias"]),
        ("big_vision", ["params/MAPHead_0/probe", "params/head/bias"]),
    ],
)
def test_what_stands_beside_an_encoder_is_left_there(case, names):
    changed = filled(tiny(), case, **{name: np.zeros((1, 2), np.float32) for name in names})
    jax.tree.map(np.testing.assert_array_equal, changed, filled(tiny(), case))


def test_a_norm_after_the_pooling_is_not_the_last_norm():
    """Of timm's networks with `global_pool="avg"`: their features are others."""
    weights = read("timm")["weights"]
    moved = {f"fc_norm.{kind}": weights[f"norm.{kind}"] for kind in ("weight", "bias")}
    with pytest.raises(UserError, match=r"norm.weight, norm.bias are missing"):
        filled(tiny(), "timm", **moved, **{"norm.weight": None, "norm.bias": None})


def test_chunked_blocks_keep_their_number():
    net = tiny(True, depth=4)
    names = {naming.name: {name for pair in naming.pairs for name in pair.theirs} for naming in known(net)}
    assert {"blocks.0.0.norm1.weight", "blocks.0.3.norm1.weight"} < names["dinov2_chunks1"]
    assert {"blocks.0.0.norm1.weight", "blocks.3.3.norm1.weight"} < names["dinov2_chunks4"]


def test_no_two_arrays_have_one_name():
    for naming in known(tiny(True, 2, depth=4)):
        places = defaultdict(list)
        for pair in naming.pairs:
            for name in pair.theirs:
                places[name].append(pair.ours)
        assert all(len(ours) == 1 for ours in places.values()), naming.name
