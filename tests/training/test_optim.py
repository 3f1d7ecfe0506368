"""Schedules by hand, optimisers against their definitions, rates by part, averages."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import published

from lt_noisy.config import recipes
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.training.optim import ASCENTS, OPTIMIZERS, by_part, ema
from lt_noisy.training.schedules import SCHEDULES


def _schedule(text, total, epoch=10):
    schedule = bind(text, SCHEDULES, "schedule")(total, epoch)
    return np.array(jax.jit(jax.vmap(schedule))(jnp.arange(total)), np.float64)


def test_cosine_with_warmup():
    lr = _schedule("cosine(lr=0.4, warmup=0.1, final=0.25)", 100)
    np.testing.assert_allclose(lr[:10], 0.4 * np.arange(1, 11) / 10, rtol=1e-6)
    expected = 0.1 + 0.3 * 0.5 * (1 + np.cos(np.pi * np.arange(90) / 90))
    np.testing.assert_allclose(lr[10:], expected, rtol=1e-5)


def test_piecewise_is_the_cifar_lt_recipe():
    """0.1 e / 5 in epochs 1-5, 0.1 to 160, 1e-3 to 180, 1e-5 after; 10 steps an epoch, ramped by step."""
    lr = _schedule("piecewise(lr=0.1, warmup=0.025)", 2000)
    np.testing.assert_allclose(lr[[0, 24, 49]], [0.1 / 50, 0.05, 0.1], rtol=1e-6)
    np.testing.assert_allclose(lr[[50, 1599, 1601, 1799, 1801, 1999]], [0.1, 0.1, 1e-3, 1e-3, 1e-5, 1e-5], rtol=1e-5)


def _program(epoch):
    """The rate of a 0-based epoch as the programs of Cao et al. and Yang & Xu set it (the latter since b91ad29)."""
    epoch += 1
    if epoch <= 5:
        return 0.1 * epoch / 5
    return 0.1 * (1e-4 if epoch > 180 else 1e-2 if epoch > 160 else 1)


def test_the_cifar_lt_recipe_is_the_programs():
    """200 epochs of 97 steps, every one."""
    rates = _schedule(recipes.yang_xu()["schedule"], 200 * 97, 97)
    np.testing.assert_allclose(rates, np.repeat([_program(epoch) for epoch in range(200)], 97), rtol=1e-5)


@pytest.mark.parametrize(("by", "total"), [("step", 24.05), ("epoch", 28.80)])
def test_what_a_warm_up_adds_up_to(by, total):
    rates = _schedule(f"piecewise(lr=0.1, warmup=0.025, warmup_by={by})", 200 * 96, 96)
    np.testing.assert_allclose(rates[: 5 * 96].sum(), total, rtol=1e-5)


def test_cosine_with_warmup_by_epoch():
    """10 epochs of 10 steps: lr / 2 in the first, lr in the second, then down from it; by the nearest whole epoch."""
    rates = _schedule("cosine(lr=0.4, warmup=0.17, warmup_by=epoch)", 100)
    expected = [0.2] * 10 + [0.4] * 10 + list(0.2 * (1 + np.cos(np.pi * np.arange(80) / 80)))
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-8)
    without = _schedule("cosine(lr=0.4)", 100)
    np.testing.assert_array_equal(_schedule("cosine(lr=0.4, warmup=0.04, warmup_by=epoch)", 100), without)


def test_restarts_held_over_an_epoch_are_the_programs():
    """PyTorch's CosineAnnealingWarmRestarts (T_0 10, eta_min 1e-3) stepped by the epoch, as ELR and MixNN do."""
    held = [1e-3 + (0.02 - 1e-3) * (1 + np.cos(np.pi * (epoch % 10) / 10)) / 2 for epoch in range(300)]
    text = "cosine_restarts(lr=0.02, periods=30, final=0.05, by={})"
    rates = _schedule(text.format("epoch"), 300 * 39, 39)
    np.testing.assert_allclose(rates, np.repeat(held, 39), rtol=1e-4)
    np.testing.assert_allclose(rates.mean(), 0.01145, rtol=1e-5)
    np.testing.assert_allclose(_schedule(text.format("step"), 300 * 39, 39).mean(), 0.01050, rtol=3e-3)


def test_the_last_step_of_an_epoch_is_still_in_it():
    """Where float32 cannot tell (k epoch - 1) / epoch from k."""
    epoch = 20_011
    schedule = bind("piecewise(lr=1.0, boundaries=(), warmup=0.9, warmup_by=epoch)", SCHEDULES, "s")(800 * epoch, epoch)
    for k in (1, 600, 719):
        np.testing.assert_allclose([schedule(k * epoch - 1), schedule(k * epoch)], [k / 720, (k + 1) / 720], rtol=1e-6)


@pytest.mark.parametrize(
    ("boundaries", "total", "expected"),
    [
        ((0.8, 0.9), 4, [1, 1, 1, 0.01]),  # steps 3 and 4: the second falls on the end, which no step reaches
        ((0.7, 0.8), 4, [1, 1, 1, 0.01**2]),  # both step 3
        ((0.5, 0.5, 0.75), 4, [1, 1, 0.01**2, 0.01**3]),
        ((0.1, 0.6), 4, [0.01, 0.01, 0.01**2, 0.01**2]),  # step 0: from the start on
        ((), 2, [1, 1]),
    ],
)
def test_piecewise_loses_no_drop_where_boundaries_round_to_one_step(boundaries, total, expected):
    rates = _schedule(f"piecewise(lr=1.0, boundaries={boundaries})", total)
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_constant():
    assert set(_schedule("constant(lr=0.5)", 5)) == {0.5}


def _steps(text, params, grads, lr=0.1):
    tx = bind(text, OPTIMIZERS, "optimizer")(optax.constant_schedule(lr))
    state = tx.init(params)
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("decay", ["kernels", "all"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs(decay, nesterov):
    """v <- m v + (g + wd p); p <- p - lr v, or p - lr (g + wd p + m v) with Nesterov."""
    params = {"kernel": np.full((2, 2), 3.0), "bias": np.full(2, 2.0)}
    grads = [{"kernel": np.full((2, 2), g), "bias": np.full(2, -g)} for g in (1.0, 0.5, -2.0)]
    ours = _steps(f"sgd(momentum=0.9, weight_decay=0.1, nesterov={nesterov}, decay={decay})", params, grads)
    for name in params:
        p, v = params[name].copy(), 0.0
        for g in grads:
            d = g[name] + (0.1 * p if name == "kernel" or decay == "all" else 0.0)
            v = 0.9 * v + d
            p = p - 0.1 * (d + 0.9 * v if nesterov else v)
        np.testing.assert_allclose(ours[name], p, rtol=1e-5)


def _path(text, start, grads, schedule):
    """The parameters after each step, a vector."""
    tx, path = bind(text, OPTIMIZERS, "optimizer")(schedule), []

    @jax.jit
    def step(params, state, grad):
        updates, state = tx.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    params, state = jnp.asarray(start), tx.init(jnp.asarray(start))
    for grad in grads:
        params, state = step(params, state, jnp.asarray(grad))
        path.append(params)
    return np.array(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sgd", "sgd(momentum=0.9, weight_decay=5e-3, decay=all)"),
        ("nesterov", "sgd(momentum=0.9, weight_decay=5e-3, nesterov=True, decay=all)"),
        ("adamw", "adamw(weight_decay=0.1, b1=0.9, b2=0.99, decay=all)"),
    ],
)
def test_sixty_steps_are_pytorchs(x64, name, text):
    """With a rate that moves; steps 1, 10 and 60 of `tests/published/with_torch.py`."""
    rates = jnp.array([published.rate(step) for step in range(published.SGD_STEPS)])
    grads = published.normal(0, published.SGD_STEPS, 8)
    path = _path(text, published.normal(1, 8), grads, lambda step: rates[step])
    np.testing.assert_allclose(path[[0, 9, 59]], published.load("optimisers")[name], rtol=1e-12)


def test_lars_is_simclrs(x64):
    """`LARSOptimizer` of google-research/simclr as it trains: momentum of whole updates; vectors are plain."""
    start = {"kernel": published.normal(1, 3, 2), "bias": published.normal(2, 2)}
    grads = [{"kernel": published.normal(3 + k, 3, 2), "bias": published.normal(99 + k, 2)} for k in range(20)]
    rates = jnp.array([0.5 + 0.1 * k for k in range(20)])
    tx = bind("lars(momentum=0.9, weight_decay=1e-2, trust=0.001)", OPTIMIZERS, "o")(lambda step: rates[step])
    params, state = start, tx.init(start)
    expected, velocity = dict(start), {"kernel": 0.0, "bias": 0.0}
    for k, grad in enumerate(grads):
        updates, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        for name, p in expected.items():
            g, trust = grad[name], 1.0
            if name == "kernel":
                g = g + 1e-2 * p
                trust = 0.001 * np.linalg.norm(p) / np.linalg.norm(g)
            velocity[name] = 0.9 * velocity[name] + float(rates[k]) * trust * g
            expected[name] = p - velocity[name]
    for name, p in expected.items():
        np.testing.assert_allclose(params[name], p, rtol=1e-12)


def test_adamw_and_lars_leave_vectors_undecayed():
    params = {"kernel": np.full((2, 2), 3.0, np.float32), "bias": np.full(2, 2.0, np.float32)}
    zero = [jax.tree.map(np.zeros_like, params)]
    for text in ("adamw(weight_decay=0.1)", "lars(weight_decay=0.1, trust=1.0)"):
        with jax.numpy_dtype_promotion("standard"):  # Optax's own Adam raises a float to an integer
            after = _steps(text, params, zero)
        np.testing.assert_array_equal(after["bias"], params["bias"])
        assert np.all(after["kernel"] < params["kernel"])


def _solo_learn_lars(params, grads, rates, momentum, weight_decay, eta):
    """Their loop with `clip_lars_lr` and `exclude_bias_n_norm_lars`, in float64."""
    params = {name: np.float64(p) for name, p in params.items()}
    buffers = {}
    for g, lr in zip(grads, rates, strict=True):
        for name, p in params.items():
            d = np.float64(g[name])
            p_norm, g_norm = np.linalg.norm(p), np.linalg.norm(d)
            if p.ndim != 1 and p_norm != 0 and g_norm != 0:
                lars_lr = eta * p_norm / (g_norm + p_norm * weight_decay + 1e-8)
                d = (d + weight_decay * p) * min(lars_lr / lr, 1)
            buffers[name] = momentum * buffers[name] + d if name in buffers else d
            params[name] = p - lr * buffers[name]
    return params


def test_clipped_lars_is_solo_learns(x64):
    """Local rates below lr, above lr and above 1; a kernel of zeros, a gradient of zeros, a vector; lr falls."""
    generator = np.random.default_rng(0)
    scales = {"small": (1.0, 1.0), "large": (30.0, 1.0), "huge": (9.0, 1e-3), "zero": (0.0, 1.0), "still": (1.0, 0.0)}
    params = {name: size * generator.normal(size=(3, 4)) for name, (size, _) in scales.items()}
    params["bias"] = generator.normal(size=4)
    grads = [
        {name: scales.get(name, (1, 1))[1] * generator.normal(size=p.shape) for name, p in params.items()}
        for _ in range(6)
    ]
    rates = 0.4 * (1 - np.arange(6) / 6)
    text = "lars(momentum=0.9, weight_decay=0.05, trust=0.02, clip=True)"
    tx = bind(text, OPTIMIZERS, "optimizer")(lambda step: jnp.asarray(rates)[step])
    ours, state = params, tx.init(params)
    for g in grads:
        updates, state = tx.update(g, state, ours)
        ours = optax.apply_updates(ours, updates)
    expected = _solo_learn_lars(params, grads, rates, 0.9, 0.05, 0.02)
    for name, p in expected.items():
        np.testing.assert_allclose(ours[name], p, rtol=1e-12, atol=1e-12)
    local = [0.02 * np.linalg.norm(params[n]) / np.linalg.norm(grads[0][n]) for n in ("small", "large", "huge")]
    assert local[0] < 0.4 < local[1] < 1 < local[2]
    light = text.replace("0.05", "1e-4")  # decay does not count in the ratio
    clipped, plain = (_steps(t, params, grads[:1], 0.4) for t in (light, light.replace("True", "False")))
    for name, sign in (("small", 1), ("huge", -1)):  # larger below |p| / |g| = 50, smaller above
        moved = [np.linalg.norm(after[name] - params[name]) for after in (clipped, plain)]
        assert (moved[0] - moved[1]) * sign > 0


def _by_part(rates, steps=3):
    """Three parts before and after `steps` steps of SGD with momentum and decay."""
    params = {part: {"kernel": np.full((2, 2), 3.0, np.float32)} for part in ("encoder", "projector", "head")}
    tx = by_part(bind("sgd(weight_decay=0.1)", OPTIMIZERS, "o")(optax.constant_schedule(0.1)), rates)
    before, state = params, tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    return before, params


def test_a_part_at_rate_0_stays_bit_for_bit():
    before, after = _by_part({"encoder": 0.0, "projector": 0.0})
    for part in ("encoder", "projector"):
        np.testing.assert_array_equal(after[part]["kernel"], before[part]["kernel"])
    assert np.all(after["head"]["kernel"] < 3.0)


def test_rates_by_part_are_learning_rates():
    """v <- 0.9 v + (1 + 0.1 p); p <- p - 0.1 rate v: the decay is scaled with the rest."""
    _, after = _by_part({"encoder": 0.5, "projector": 2.0})
    for part, rate in (("encoder", 0.5), ("projector", 2.0), ("head", 1.0)):
        p, v = 3.0, 0.0
        for _ in range(3):
            v = 0.9 * v + 1 + 0.1 * p
            p -= 0.1 * rate * v
        np.testing.assert_allclose(after[part]["kernel"], p, rtol=1e-5)


def test_no_rates_is_the_optimiser_itself():
    tx = optax.sgd(0.1)
    assert by_part(tx, {}) is tx


def test_restarts_by_hand():
    """Three periods of a stage that they do not divide: never a restart at the end."""
    schedule = bind("cosine_restarts(lr=0.2, periods=3, final=0.1)", SCHEDULES, "schedule")(100, 10)
    rates = np.array([schedule(step) for step in range(100)])
    phase = (np.arange(100) * 3 % 100) / 100
    np.testing.assert_allclose(rates, 0.2 * (0.1 + 0.9 * (1 + np.cos(np.pi * phase)) / 2), rtol=1e-5)
    assert (np.diff(rates) > 0).sum() == 2 and rates[0] == pytest.approx(0.2) and rates[-1] < 0.021
    plain = bind("cosine(lr=0.2)", SCHEDULES, "schedule")(100, 10)
    once = bind("cosine_restarts(lr=0.2, periods=1)", SCHEDULES, "schedule")(100, 10)
    assert [float(once(step)) for step in range(100)] == pytest.approx([float(plain(step)) for step in range(100)])


def test_restarts_that_int32_cannot_count_are_refused():
    build = bind("cosine_restarts(lr=0.2, periods=10_000)", SCHEDULES, "schedule")
    last = math.pi * (1 - 10_000 / 214_748)  # the step before the end is 10,000 of 214,748 parts before it
    np.testing.assert_allclose(build(214_748, 10)(214_747), 0.1 * (1 + math.cos(last)), rtol=1e-3)
    with pytest.raises(UserError, match="10000 periods of a stage of 214749 steps are too many"):
        build(214_749, 10)


def test_ema_by_hand():
    average = ema({"a": jnp.asarray([4.0, 0.0])}, {"a": jnp.asarray([0.0, 2.0])}, 0.75)
    np.testing.assert_allclose(average["a"], [3.0, 0.5])


@pytest.mark.parametrize(
    ("table", "text", "says"),
    [
        (SCHEDULES, "cosine(lr=0.0)", "lr must be a finite number above 0, not 0.0"),
        (SCHEDULES, "cosine(lr=0.1, warmup=1.0)", r"warmup is a fraction of the stage in \[0, 1\), not 1.0"),
        (SCHEDULES, "cosine(lr=0.1, final=2.0)", r"final is a fraction of lr in \[0, 1\], not 2.0"),
        (SCHEDULES, "piecewise(lr=0.1, boundaries=(0.9, 0.8))", r"rising fractions in \(0, 1\), not \(0.9, 0.8\)"),
        (SCHEDULES, "piecewise(lr=0.1, boundaries=(160, 180))", r"rising fractions in \(0, 1\), not \(160, 180\)"),
        (SCHEDULES, "constant(lr=-1.0)", "lr must be a finite number above 0, not -1.0"),
        (SCHEDULES, "cosine_restarts(lr=0.1, periods=0)", "periods is from 1 to 10000, not 0"),
        (OPTIMIZERS, "sgd(momentum=1.0)", r"momentum must be in \[0, 1\), not 1.0"),
        (OPTIMIZERS, "sgd(decay=some)", r"sgd\(decay=...\) is kernels or all, not some"),
        (OPTIMIZERS, "adamw(weight_decay=-1.0)", "weight_decay is at least 0, not -1.0"),
        (OPTIMIZERS, "lars(trust=0.0)", "trust is above 0, not 0.0"),
        (OPTIMIZERS, "lars(momentum=2.0)", r"momentum must be in \[0, 1\), not 2.0"),
        (ASCENTS, "sam(rho=-0.1)", "rho is at least 0, not -0.1"),
    ],
)
def test_bad_values_are_one_line(table, text, says):
    with pytest.raises(UserError, match=says) as error:
        bind(text, table, "config.finetune.x")
    assert "\n" not in str(error.value)


def test_rates_by_layer():
    """A layer's own rate, then its part's, then 1."""
    layer = {"kernel": np.full((2, 2), 3.0, np.float32)}
    params = {"encoder": {"stem_conv": layer, "block1_conv": layer, "norm": layer}, "head": {"dense": layer}}
    rates = {"encoder": 0.5, "encoder/stem_conv": 0.0, "encoder/block1_conv": 0.25}
    tx = by_part(optax.sgd(1.0), rates)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    found = {
        f"{part}/{name}": -float(leaf["kernel"][0, 0]) for part, tree in updates.items() for name, leaf in tree.items()
    }
    assert found == {"encoder/stem_conv": 0, "encoder/block1_conv": 0.25, "encoder/norm": 0.5, "head/dense": 1}
