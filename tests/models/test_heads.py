"""Classifiers and the MLP against float64 NumPy, and which layers have what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.models.heads import HEADS, MLP


def make(text, num_classes=5):
    return bind(text, HEADS, "head")(num_classes)


def features(batch=8, size=6):
    return np.random.default_rng(0).normal(size=(batch, size)).astype(np.float32)


def test_linear_is_an_affine_map_in_float32():
    x = features()
    variables = make("linear()").init(jax.random.key(0), x)
    dense = variables["params"]["dense"]
    assert not np.any(dense["bias"])
    dense["bias"] = jnp.arange(5.0)
    logits = make("linear()").apply(variables, x.astype(jnp.bfloat16))
    assert logits.dtype == jnp.float32
    rounded = np.asarray(x.astype(jnp.bfloat16), np.float64)
    np.testing.assert_allclose(logits, rounded @ np.float64(dense["kernel"]) + np.arange(5), atol=1e-5)


def test_linear_starts_kaiming_normal():
    kernel = make("linear()", 400).init(jax.random.key(0), features(size=100))["params"]["dense"]["kernel"]
    assert abs(np.std(kernel) / np.sqrt(2 / 100) - 1) < 0.02
    assert np.abs(kernel).max() > 2.5 * np.sqrt(2 / 100)  # a truncated normal ends at 2.3


def is_uniform(array, bound):
    return 0.97 * bound < np.abs(array).max() <= bound and abs(np.std(array) * np.sqrt(3) / bound - 1) < 0.06


def test_linear_as_torch_starts_it():
    """Weights and biases U(-b, b), b = 1 / sqrt(D)."""
    dense = make("linear(init=torch)", 400).init(jax.random.key(0), features(size=100))["params"]["dense"]
    assert is_uniform(dense["kernel"], 0.1) and is_uniform(dense["bias"], 0.1)


def test_mlp_starts_as_its_argument_says():
    x = features(size=100)

    def layers(init):
        net = MLP((400, 300), norm=False, dtype=jnp.float32, norm_axis=None, start=init)
        params = net.init(jax.random.key(0), x, train=False)["params"]
        return params["dense1"], params["dense2"]

    for layer, fan_in in zip(layers("torch"), (100, 400), strict=True):
        assert is_uniform(layer["kernel"], fan_in**-0.5) and is_uniform(layer["bias"], fan_in**-0.5)
    for init, variance in (("kaiming", 2.0), ("lecun", 1.0)):
        for layer, fan_in in zip(layers(init), (100, 400), strict=True):
            assert abs(np.std(layer["kernel"]) / np.sqrt(variance / fan_in) - 1) < 0.02
            assert not np.any(layer["bias"])


def test_cosine_is_the_scaled_cosine_whatever_the_norms():
    x, head = features(), make("cosine(scale=7.0)")
    variables = head.init(jax.random.key(0), x)
    kernel = np.float64(variables["params"]["kernel"])
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, atol=1e-6)
    assert jax.tree.structure(variables) == jax.tree.structure({"params": {"kernel": 0}})  # no bias
    logits = head.apply(variables, x)
    unit = np.float64(x) / np.linalg.norm(np.float64(x), axis=1, keepdims=True)
    np.testing.assert_allclose(logits, 7 * unit @ kernel, atol=1e-5)
    longer = head.apply({"params": {"kernel": 3 * variables["params"]["kernel"]}}, 100 * x)
    np.testing.assert_allclose(longer, logits, atol=1e-5)
    assert head.apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.float32


def test_cosine_is_finite_at_zero_features():
    head = make("cosine()")
    variables = head.init(jax.random.key(0), features())
    value, gradient = jax.value_and_grad(lambda x: (head.apply(variables, x) ** 2).sum())(jnp.zeros((2, 6)))
    assert value == 0 and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("scale", ["0.0", "-1.0", "1e999"])
def test_cosine_refuses_a_scale(scale):
    with pytest.raises(UserError, match="scale"):
        make(f"cosine(scale={scale})")


def reference_mlp(params, x, norm, norm_last):
    x, count = np.float64(x), sum(name.startswith("dense") for name in params)
    for i in range(1, count + 1):
        x = x @ np.float64(params[f"dense{i}"]["kernel"]) + np.float64(params[f"dense{i}"].get("bias", 0))
        last = i == count
        if norm_last if last else norm:
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
            affine = params.get(f"norm{i}", {})
            x = x * np.float64(affine.get("scale", 1)) + np.float64(affine.get("bias", 0))
        x = x if last else np.maximum(x, 0)
    return x


@pytest.mark.parametrize("norm,norm_last", [(False, False), (True, False), (True, True)])
def test_mlp_is_its_formula(norm, norm_last):
    net = MLP((7, 5, 4), norm=norm, norm_last=norm_last, dtype=jnp.float32, norm_axis=None)
    x = features()
    variables = net.init(jax.random.key(0), x, train=True)
    params = jax.tree.map(lambda p: p + 0.1, variables["params"])  # no bias or scale at its neutral start
    assert {n: set(p) for n, p in params.items() if n.startswith("dense")} == {
        "dense1": {"kernel"} if norm else {"kernel", "bias"},
        "dense2": {"kernel"} if norm else {"kernel", "bias"},
        "dense3": {"kernel"} if norm_last else {"kernel", "bias"},
    }
    norms = {n: set(p) for n, p in params.items() if n.startswith("norm")}
    assert norms == ({"norm1": {"scale", "bias"}, "norm2": {"scale", "bias"}} if norm else {})
    assert ("norm3" in variables.get("batch_stats", {})) == norm_last  # no affine, but statistics
    out, _ = net.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(out, reference_mlp(params, x, norm, norm_last), atol=2e-5)


def test_mlp_sizes_of_simsiam_and_simclr():
    def count(net, size):
        variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=True), jnp.zeros((2, size)))
        return sum(p.size for p in jax.tree.leaves(variables["params"]))

    options = {"dtype": jnp.float32, "norm_axis": None}
    projector = MLP((2048, 2048), norm=True, norm_last=True, **options)
    assert count(projector, 512) == 512 * 2048 + 2 * 2048 + 2048 * 2048
    predictor = MLP((512, 2048), norm=True, **options)
    assert count(predictor, 2048) == 2048 * 512 + 2 * 512 + 512 * 2048 + 2048
    assert count(MLP((512, 128), norm=False, **options), 512) == 512 * 512 + 512 + 512 * 128 + 128


def test_mlp_stopped_after_its_first_layer_gives_the_hidden_one():
    x = features()
    net = MLP((16, 4), norm=False, dtype=jnp.float32, norm_axis=None)
    variables = net.init(jax.random.key(0), x, train=False)
    hidden = net.apply(variables, x, train=False, layers=1)
    dense = variables["params"]["dense1"]
    np.testing.assert_allclose(hidden, np.maximum(x @ dense["kernel"] + dense["bias"][None], 0), atol=1e-5)


def test_mlp_in_bfloat16_keeps_float32_parameters_statistics_and_result():
    x = features()
    half = MLP((16, 4), norm=True, norm_last=True, dtype=jnp.bfloat16, norm_axis=None)
    full = MLP((16, 4), norm=True, norm_last=True, dtype=jnp.float32, norm_axis=None)
    variables = half.init(jax.random.key(0), x, train=True)
    out, new = half.apply(variables, x, train=True, mutable=["batch_stats"])
    exact, _ = full.apply(variables, x, train=True, mutable=["batch_stats"])
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, new, out))} == {jnp.dtype("float32")}
    difference = np.abs(out - exact).max()
    assert 1e-4 < difference < 0.1  # it did compute in bfloat16
