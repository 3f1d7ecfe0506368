"""Whole training steps, encoder to optimiser, in float64 beside PyTorch: arrays of `tests/published/with_torch.py`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from helpers import published
from helpers.step_cases import Convolutional

from lt_noisy.augment.base import none
from lt_noisy.collectives import AXIS
from lt_noisy.config.spec import bind
from lt_noisy.data.batches import Resident
from lt_noisy.losses import cross_entropy
from lt_noisy.losses.table import LOSSES
from lt_noisy.method import Context
from lt_noisy.models.heads import HEADS
from lt_noisy.models.table import MODELS
from lt_noisy.objectives import OBJECTIVES
from lt_noisy.precision import float_dtype
from lt_noisy.rebalance.sampling import WEIGHTINGS
from lt_noisy.stages import self_supervised
from lt_noisy.stages.supervised import Classifier, make_step
from lt_noisy.training import parallel
from lt_noisy.training.optim import ASCENTS, OPTIMIZERS, descend
from lt_noisy.training.state import TrainState


def first_state(net, shape, tx, method, target=False):
    """The state before the first step, with the parameters of `published` and statistics at 0."""
    with jax.numpy_dtype_promotion("standard"):  # Flax initialises in float32 what then runs in float64
        variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), jnp.zeros((1, *shape)))
    named = published.weights({k: v.shape for k, v in flatten_dict(variables["params"], sep="/").items()})
    params = unflatten_dict(named, sep="/")
    stats = jax.tree.map(lambda leaf: np.zeros(leaf.shape), variables.get("batch_stats", {}))
    target = {"params": jax.tree.map(np.copy, params), "batch_stats": {}} if target else {}
    return TrainState(np.uint32(0), np.int32(0), params, stats, tx.init(params), target, method)


def take(step, state, data, batches):
    """(losses, states on the host) of these steps on one device."""
    mesh, losses, states = parallel.make("jit", 1), [], []
    call = mesh.compile_step(step)
    totals = mesh.replicate(parallel.zeros(step, state, data, batches[0]))
    state, data = mesh.replicate(state), mesh.replicate(data)
    for batch in batches:
        state, totals = call(state, totals, data, batch)
        losses.append(float(mesh.fetch(totals)["loss"][0]))
        states.append(mesh.fetch(state))
    return np.diff(losses, prepend=0), states


def summary(params):
    return published.summary(flatten_dict(params, sep="/"))


def sgd(text, lr):
    return bind(text, OPTIMIZERS, "optimizer")(optax.constant_schedule(lr))


def test_five_steps_of_ldam_drw(x64):
    """ResNet-8, the cosine head, LDAM, class weights in the weighted mean, SGD with decay of all parameters."""
    encoder = bind("resnet8(width=4)", MODELS, "model")(float_dtype(), AXIS)
    net = Classifier(encoder, bind("cosine(scale=30.0)", HEADS, "head")(10))
    loss, tx = bind("ldam()", LOSSES, "loss"), sgd("sgd(weight_decay=2e-4, decay=all)", 0.1)
    size = published.LDAM_BATCH
    context = Context(10, published.COUNTS.sum(), size, published.COUNTS, published.LDAM_STEPS)
    margins = 0.5 * published.COUNTS**-0.25 / (published.COUNTS**-0.25).max()
    np.testing.assert_allclose(loss.init(context)["margins"], margins, rtol=1e-6)  # in float32
    class_weights = bind("effective_number(beta=0.9999)", WEIGHTINGS, "reweight").weights(published.COUNTS)
    data = Resident(published.images(4, len(published.LDAM_LABELS), 8), published.LDAM_LABELS)
    rows = np.arange(len(published.LDAM_LABELS), dtype=np.int32).reshape(-1, size)
    batches = [{"rows": r, "weights": class_weights[published.LDAM_LABELS[r]]} for r in rows]

    losses, states = take(
        make_step(net, loss, tx, none(), "finetune"),
        first_state(net, (8, 8, 3), tx, {"margins": margins}),
        data,
        batches,
    )
    expected = published.load("ldam_drw")
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-11)
    for state, params in zip((states[0], states[-1]), expected["params"], strict=True):
        np.testing.assert_allclose(summary(state.params), params, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["sam", "adaptive", "rwsam"])
def test_four_steps_of_sam(x64, name):
    """Convolution and BatchNorm under SGD with momentum and decay; weights choose rwSAM's ascent alone."""
    net = Classifier(Convolutional(), bind("linear()", HEADS, "head")(4))
    ascent = bind(f"sam(rho=0.5, adaptive={name != 'sam'})", ASCENTS, "ascent")
    tx = sgd("sgd(weight_decay=5e-4, decay=all)", 0.1)
    images, labels = published.images(6, 32, 8) / 255, published.LDAM_LABELS[:32] % 4
    batches = [{"x": images[k : k + 8], "y": labels[k : k + 8], "weights": np.ones(8)} for k in range(0, 32, 8)]
    if name == "rwsam":
        for k, batch in enumerate(batches):
            batch["ascent_weights"] = np.exp(published.normal(7, 32))[8 * k : 8 * k + 8]

    def step(state, data, batch):
        def losses(params, batch_stats):
            variables = {"params": params, "batch_stats": batch_stats}
            logits, changed = net.apply(variables, batch["x"], train=True, mutable=["batch_stats"])
            return cross_entropy(logits, batch["y"]), (changed["batch_stats"], {}, {})

        return descend(state, tx, losses, batch["weights"], ascent, batch.get("ascent_weights"))

    losses, states = take(step, first_state(net, (8, 8, 3), tx, {}), {}, batches)
    expected = published.load("sam")
    np.testing.assert_allclose(losses, expected[f"{name}_losses"], rtol=1e-11)
    np.testing.assert_allclose(summary(states[-1].params), expected[f"{name}_params"], rtol=1e-10, atol=1e-11)


class Flat(nn.Module):
    """The encoder of MoCo there: one dense layer on the pixels."""

    @nn.compact
    def __call__(self, x, train):
        return nn.relu(nn.Dense(6, name="dense")(x.reshape(len(x), -1)))


def test_seven_steps_of_moco(x64):
    """Queries of the network, keys of its average, a queue that wraps after three steps."""
    text = f"moco(temperature=0.2, queue={published.MOCO_QUEUE}, momentum=0.8, symmetric=False, hidden=8, size=5)"
    objective, size = bind(text, OBJECTIVES, "objective"), published.MOCO_BATCH
    net, tx = self_supervised.build(Flat(), objective, float_dtype(), AXIS), sgd("sgd(weight_decay=0.0)", 0.5)
    total = published.MOCO_STEPS * size
    method = objective.method.init(Context(2, total, size, np.zeros(2, np.int64)))
    method = jax.tree.map(lambda x: x.astype(float_dtype()) if x.dtype.kind == "f" else x, method)
    data = Resident(published.images(8, total, 2), np.zeros(total, np.int32))
    rows = np.arange(total, dtype=np.int32).reshape(-1, size)
    step = self_supervised.make_step(net, objective, tx, none(), "pretrain", objective.decay(published.MOCO_STEPS))
    start = first_state(net, (2, 2, 3), tx, method, target=True)
    losses, states = take(step, start, data, [{"rows": r, "weights": np.ones(size)} for r in rows])

    expected = published.load("moco")
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(summary(states[-1].params), expected["params"], rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(summary(states[-1].target["params"]), expected["target"], rtol=1e-10, atol=1e-11)
    newest_last = np.roll(states[-1].method["keys"], -int(states[-1].method["next"]), axis=0)
    np.testing.assert_allclose(newest_last, expected["queue"], rtol=1e-10, atol=1e-12)
