"""Encoders of vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.models.resnet import ResNet
from lt_noisy.models.table import MODELS
from lt_noisy.precision import float_dtype

X = np.random.default_rng(0).normal(3, 2, (16, 5)).astype(np.float32)


def build(text, dtype=jnp.float32):
    return bind(text, MODELS, "model")(dtype, None)


def test_what_each_model_takes():
    takes = {name: build(f"{name}()").takes for name in MODELS}
    assert {name for name, what in takes.items() if what == "vectors"} == {"identity", "mlp"}
    assert {what for name, what in takes.items() if isinstance(build(f"{name}()"), ResNet)} == {"images"}


def test_identity_is_the_vectors_without_a_parameter():
    net = build("identity()", jnp.bfloat16)
    variables = net.init(jax.random.key(0), X, train=False)
    assert not jax.tree.leaves(variables)
    np.testing.assert_array_equal(net.apply(variables, X, train=True), X)


def test_mlp_is_its_formula(x64):
    """Linear, BatchNorm by the batch's or the running statistics, ReLU: twice."""
    net, x = build("mlp(hidden=7, layers=2)", float_dtype()), X.astype(np.float64)
    variables = net.init(jax.random.key(0), x, train=False)
    assert variables["params"]["dense1"]["kernel"].shape == (5, 7) and "bias" not in variables["params"]["dense2"]
    assert variables["params"]["norm1"].keys() == {"scale", "bias"}

    def formula(y, statistics):
        for i in (1, 2):
            y = y @ np.asarray(variables["params"][f"dense{i}"]["kernel"])
            mean, variance = statistics(i, y)
            y = np.maximum((y - mean) / np.sqrt(variance + 1e-5), 0)
        return y

    trained, changed = net.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(trained, formula(x, lambda i, y: (y.mean(0), y.var(0))), rtol=1e-9, atol=1e-9)
    variables = {**variables, **changed}

    def running(i, y):
        found = changed["batch_stats"][f"norm{i}"]
        return np.asarray(found["mean"]), np.asarray(found["var"])

    np.testing.assert_allclose(net.apply(variables, x, train=False), formula(x, running), rtol=1e-9, atol=1e-9)


def test_mlp_computes_in_bfloat16_and_answers_in_float32():
    half, full = build("mlp(hidden=7)", jnp.bfloat16), build("mlp(hidden=7)")
    variables = full.init(jax.random.key(0), X, train=False)
    (out, new), (exact, _) = (net.apply(variables, X, train=True, mutable=["batch_stats"]) for net in (half, full))
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, new, out))} == {jnp.dtype("float32")}
    assert 1e-4 < np.abs(out - exact).max() < 0.1


@pytest.mark.parametrize("text", ["mlp(hidden=0)", "mlp(layers=0)"])
def test_sizes_that_make_no_network(text):
    with pytest.raises(UserError, match="must be 1 or more"):
        build(text)
