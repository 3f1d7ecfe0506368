"""What a supervised stage trains on, in which order and with which weights; what it refuses."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers import small_job
from helpers.step_cases import Dense

from lt_noisy.config.fields import bind_section, new_section
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.losses.table import LOSSES
from lt_noisy.method import Context
from lt_noisy.models.heads import HEADS
from lt_noisy.rebalance.sampling import SAMPLERS, WEIGHTINGS
from lt_noisy.stages import supervised, unlabelled
from lt_noisy.training.state import flatten

JOB = SimpleNamespace(name="joint", seed=0, dataset=SimpleNamespace(observed=np.zeros(60, np.int32)))
LABELS = np.repeat([0, 1, 2], [40, 15, 5]).astype(np.int32)


def examples(targets=LABELS, dropped=()):
    kept = np.ones(len(targets), bool)
    kept[list(dropped)] = False
    return unlabelled.Examples(np.zeros((len(targets), 2, 2, 1), np.uint8), targets, kept)


def order(train, sampler="uniform()", reweight="none()", batch=10):
    section = SimpleNamespace(
        sampler=bind(sampler, SAMPLERS, "sampler"),
        reweight=bind(reweight, WEIGHTINGS, "reweight"),
        batch_size=batch,
        keep_last=False,
    )
    context = Context(3, len(train.targets), batch, train.counts(3), steps=100)
    return supervised.balanced_order(JOB, section, train, context)


def test_deferred_sampling_and_weighting_begin_at_their_steps():
    """DRS and DRW: a permutation with weights of 1 up to the start, balanced draws and class weights from it on."""
    weights = bind("effective_number(beta=0.9)", WEIGHTINGS, "reweight").weights(np.array([40, 15, 5]))
    at = order(examples(), reweight="deferred(effective_number(beta=0.9), start=0.8)")
    np.testing.assert_array_equal(at(79)["weights"], np.ones(10))
    np.testing.assert_allclose(at(80)["weights"], weights[LABELS[at(80)["rows"]]], rtol=1e-6)
    np.testing.assert_array_equal(order(examples())(79)["rows"], at(79)["rows"])

    at = order(examples(), sampler="deferred(class_balanced(), start=0.5)")
    first = np.concatenate([at(step)["rows"] for step in range(44, 50)])
    # Steps 48 and 49 are of an epoch that is cut short; each whole epoch before the start has every row once.
    whole = np.concatenate([at(step)["rows"] for step in range(42, 48)])
    assert len(np.unique(whole)) == 60 and len(first) == 60
    drawn = np.concatenate([at(step)["rows"] for step in range(50, 250)])
    np.testing.assert_allclose(np.bincount(LABELS[drawn]) / len(drawn), 1 / 3, atol=0.05)


@pytest.mark.parametrize("sampler", ["uniform()", "class_balanced()"])
def test_what_is_not_kept_is_never_in_a_batch_nor_counted(sampler):
    train = examples(dropped=range(0, 60, 2))
    assert train.counts(3).tolist() == [20, 7, 3]
    at = order(train, sampler)
    rows = np.concatenate([at(step)["rows"] for step in range(30)])
    assert rows.dtype == np.int32 and (rows % 2 == 1).all()
    assert all((at(step)["weights"] == 1).all() for step in range(3))
    with pytest.raises(UserError, match="10 is more than the 9 images that were kept"):
        supervised.kept_epoch(JOB, SimpleNamespace(batch_size=10), examples(dropped=range(51)))


def test_soft_targets_count_and_weigh_by_their_shares():
    targets = np.tile(np.float32([0.5, 0.3, 0.2]), (10, 1))
    train = examples(targets)
    assert train.counts(3).tolist() == [5, 3, 2] and train.labels.tolist() == [0] * 10
    weights = bind("inverse_frequency()", WEIGHTINGS, "reweight").weights(np.array([5, 3, 2]))
    at = order(train, reweight="inverse_frequency()", batch=5)
    np.testing.assert_allclose(at(0)["weights"], targets[0] @ weights, rtol=1e-6)


def test_a_loss_says_what_it_reads_through_its_wrappers(tmp_path):
    """Memory, an estimated matrix and a file's content are what the stage refuses and identifies by."""

    def loss(text):
        return bind(text, LOSSES, "loss")

    assert loss("superloss(elr())").memory and loss("label_smoothing(selc())").memory and not loss("gce()").memory
    assert loss("superloss(forward())").transition and loss("logit_adjusted(prior=corrected)").transition
    assert not loss("forward(matrix=((0.9, 0.1), (0.1, 0.9)))").transition and not loss("logit_adjusted()").transition
    path = tmp_path / "T.npy"
    np.save(path, np.eye(3))
    before = loss(f"superloss(forward(path='{path}'))").content
    np.save(path, np.full((3, 3), 1 / 3))
    assert len(before) == 64 and loss(f"superloss(forward(path='{path}'))").content not in (before, "")
    assert loss("cross_entropy()").content == ""


@pytest.mark.parametrize("frozen_norm", ["running", "batch"])
def test_a_frozen_encoder_normalises_by_what_its_section_says(frozen_norm):
    """Against NumPy: logits of a training step, and the running statistics after it; no gradient either way."""
    net = supervised.Classifier(Dense(norm_axis=None), bind("linear()", HEADS, "head")(3), True, frozen_norm)
    x = np.random.default_rng(0).normal(size=(8, 2, 2, 1)).astype(np.float32)
    variables = net.init(jax.random.key(0), x, train=False)
    stats = {"norm": {"mean": np.full(6, 0.5, np.float32), "var": np.full(6, 4.0, np.float32)}}
    variables = {**variables, "batch_stats": {"encoder": stats}}
    logits, changed = net.apply(variables, x, train=True, mutable=["batch_stats"])

    hidden = x.reshape(8, -1).astype(np.float64) @ np.asarray(variables["params"]["encoder"]["Dense_0"]["kernel"])
    mean, var = (hidden.mean(0), hidden.var(0)) if frozen_norm == "batch" else (0.5, 4.0)
    head = flatten(variables["params"]["head"])
    kernel, bias = (np.asarray(next(v for k, v in head.items() if k.endswith(name))) for name in ("kernel", "bias"))
    np.testing.assert_allclose(logits, (hidden - mean) / np.sqrt(var + 1e-5) @ kernel + bias, rtol=1e-4, atol=1e-5)
    after = changed["batch_stats"]["encoder"]["norm"]
    np.testing.assert_allclose(after["mean"], 0.9 * 0.5 + 0.1 * mean * np.ones(6), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after["var"], 0.9 * 4.0 + 0.1 * var * np.ones(6), rtol=1e-5)
    evaluated = net.apply(variables, x, train=False)
    np.testing.assert_allclose(evaluated, (hidden - 0.5) / np.sqrt(4 + 1e-5) @ kernel + bias, rtol=1e-4, atol=1e-5)

    def loss(params):
        return net.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])[0].sum()

    gradient = jax.grad(loss)(variables["params"])
    assert not np.any(gradient["encoder"]["Dense_0"]["kernel"]) and np.any(jax.tree.leaves(gradient["head"])[0])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"loss": "ldam()"}, r"train\.head: this loss takes cosines times 30; set 'cosine\(scale=30\)'"),
        (
            {"loss": "label_smoothing(ldam(scale=5.0), 0.1)", "head": "cosine(4.0)"},
            r"train\.head: .*set 'cosine\(scale=5\)'",
        ),
        (
            {"loss": "focal(beta=0.9)", "reweight": "deferred(inverse_frequency())"},
            r"train\.reweight: this loss weighs the classes itself; set 'none\(\)'",
        ),
    ],
)
def test_what_does_not_go_with_a_loss_is_refused(tmp_path, values, says):
    values = {"augment": "none()", "batch_size": 8, **values}
    bound = bind_section(new_section(supervised.Section, values, "x"), supervised.Section, "config.train")[0]
    with pytest.raises(UserError, match=says):
        supervised.check(small_job.job(tmp_path), bound)


def test_only_a_frozen_encoder_has_a_way_to_normalise():
    values = {"frozen_norm": "batch"}
    bound = bind_section(new_section(supervised.Section, values, "x"), supervised.Section, "config.joint")[0]
    with pytest.raises(UserError, match=r"joint\.frozen_norm: it is of a frozen encoder; set freeze_encoder=True"):
        supervised.check(JOB, bound)
