"""Distillation against its formula in float64, its gradients by hand, and the teachers in the step."""

import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lt_noisy.augment import AUGMENTS
from lt_noisy.collectives import AXIS
from lt_noisy.config.spec import bind
from lt_noisy.data.batches import Resident
from lt_noisy.errors import UserError
from lt_noisy.models.heads import MLP
from lt_noisy.stages import distil, self_supervised, training
from lt_noisy.stages.distil import Teachers, distillation
from lt_noisy.training import parallel

BATCH, SIZE = 6, 4
CLUSTERS = np.array([0, 1, 1, 0, 2, 1])
USES = {"both": (True, True), "base": (True, False), "experts": (False, True)}


def _outputs():
    """Of base and three experts: regressions and teachers [1 + 3, B, D], teachers of every length."""
    generator = np.random.default_rng(0)
    regressions, teachers = generator.normal(size=(2, 4, BATCH, SIZE))
    return regressions, teachers * generator.uniform(0.1, 10, (4, BATCH, 1))


def _loss(regressions, teachers, uses_base, uses_experts):
    """`distillation` of [1 + 3, B, D] arrays, with the rows of those that teach."""
    used = np.flatnonzero([uses_base] + [uses_experts] * 3)
    base = teachers[0] if uses_base else None
    experts = tuple(teachers[1:]) if uses_experts else ()
    return distillation(tuple(regressions[i] for i in used), base, experts, jnp.asarray(CLUSTERS))


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("uses", USES)
def test_distillation_is_the_formula(uses):
    """0.5 ||r_b - z_b||^2 + 0.5 ||r_k - z_k||^2 image by image; teachers normalised, the student not."""
    regressions, teachers = _outputs()
    base, experts = USES[uses]
    expected = np.zeros(BATCH)
    for i, k in enumerate(CLUSTERS):
        for taught, head in ((base, 0), (experts, 1 + k)):
            if taught:
                expected[i] += 0.5 * ((regressions[head, i] - _unit(teachers[head, i])) ** 2).sum()
    np.testing.assert_allclose(
        _loss(jnp.asarray(regressions), jnp.asarray(teachers), base, experts), expected, rtol=1e-5
    )


@pytest.mark.parametrize("uses", USES)
def test_gradient_is_the_error_of_the_own_head(uses):
    """r - z_hat for the base's head and the own cluster's, 0 for the other experts'; none into any teacher."""
    regressions, teachers = _outputs()
    base, experts = USES[uses]
    total = lambda r, z: _loss(r, z, base, experts).sum()  # noqa: E731
    gradient, into_teachers = jax.grad(total, (0, 1))(jnp.asarray(regressions), jnp.asarray(teachers))
    taught = np.stack([np.full(BATCH, base)] + [experts & (k == CLUSTERS) for k in range(3)])
    np.testing.assert_allclose(gradient, taught[..., None] * (regressions - _unit(teachers)), rtol=1e-5, atol=1e-6)
    assert not np.any(np.asarray(gradient)[~taught]) and not np.any(into_teachers)


def test_a_teacher_that_says_nothing_is_finite():
    zero = jnp.zeros((BATCH, SIZE))
    value, gradient = jax.value_and_grad(lambda r: distillation((r,), zero, (), jnp.asarray(CLUSTERS)).sum())(zero)
    assert value == 0 and not np.any(gradient)


class _Encoder(nn.Module):
    """The least that has a kernel and BatchNorm."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(6)(x.reshape(len(x), -1))
        return nn.relu(nn.BatchNorm(not train, momentum=0.9, axis_name=AXIS, use_fast_variance=False)(x))


PROJECTOR = MLP((8, SIZE), norm=False, dtype=np.float32, norm_axis=AXIS)
TEACHER = self_supervised.Network(_Encoder(), PROJECTOR, None)
SHAPE = (4, 4, 1)


def _teachers():
    """A base and two experts; their statistics are not those of any batch, and leave no unit dead."""
    trees = [training.initial_state(TEACHER, SHAPE, seed, "teacher", {}).variables for seed in (1, 2, 3)]
    for tree in trees:
        tree["batch_stats"] = jax.tree.map(lambda x: x - np.float32(0.5), tree["batch_stats"])
    return Teachers(trees[0], tuple(trees[1:]))


class _Run:
    """One compiled step of a student with a base and two experts, whose optimiser's state is the gradient."""

    def __init__(self):
        head = MLP((5, SIZE), norm=True, dtype=np.float32, norm_axis=AXIS)
        self.net = distil.Student(_Encoder(), PROJECTOR, tuple(head.clone() for _ in range(3)))
        record = optax.GradientTransformation(
            lambda params: jax.tree.map(np.zeros_like, params),
            lambda grads, state, params: (jax.tree.map(lambda g: -0.1 * g, grads), grads),
        )
        self.step = distil.make_step(self.net, TEACHER, record, bind("none()", AUGMENTS, "augment"), "distil")
        first = training.initial_state(self.net, SHAPE, 0, "distil", {})
        self.first = first.replace(opt_state=jax.tree.map(np.zeros_like, first.params))
        self.images = np.random.default_rng(0).integers(0, 256, (12, *SHAPE), dtype=np.uint8)
        self.devices = parallel.make("jit", 1)
        self.call = self.devices.compile_step(self.step)

    def __call__(self, rows, clusters, teachers):
        """(state, sums) after one step on `rows`, and the data after it, on the host."""
        resident = Resident(self.images, np.zeros(12, np.int32))
        data = self.devices.replicate(distil.Data(resident, np.asarray(clusters, np.int32), teachers))
        batch = {"rows": np.asarray(rows, np.int32), "weights": np.ones(len(rows), np.float32)}
        totals = parallel.zeros(self.step, self.first, data, batch)
        result = self.call(*self.devices.replicate((self.first, totals)), data, batch)
        return (*self.devices.fetch(result), self.devices.fetch(data))


@pytest.fixture(scope="module")
def run():
    return _Run()


def _equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_step_is_the_loss_of_the_batch(run):
    """Teachers see the batch in evaluation mode, the student in training mode; each image has its row's cluster."""
    rows, clusters, teachers = np.array([7, 2, 9, 4]), np.arange(12) % 2, _teachers()
    _, sums, _ = run(rows, clusters, teachers)
    x = run.images[rows].astype(np.float32) / 255
    variables = run.first.variables
    student = lambda x: run.net.apply(variables, x, train=True, mutable=["batch_stats"])[0]  # noqa: E731
    heads = jax.vmap(student, axis_name=AXIS)(x[None])
    told = [np.asarray(TEACHER.apply(t, x, False, method="project"), np.float64) for t in teachers[1]]
    base = np.asarray(TEACHER.apply(teachers.base, x, False, method="project"), np.float64)
    regressions = [np.asarray(head[0], np.float64) for head in heads]
    expected = [
        0.5 * ((regressions[0][i] - _unit(base[i])) ** 2).sum()
        + 0.5 * ((regressions[1 + clusters[row]][i] - _unit(told[clusters[row]][i])) ** 2).sum()
        for i, row in enumerate(rows)
    ]
    np.testing.assert_allclose(sums["loss"], (np.mean(expected), 1), rtol=1e-5)


def test_step_leaves_its_teachers_alone(run):
    teachers = _teachers()
    state, _, data = run(np.arange(8), np.arange(12) % 2, teachers)
    assert _equal(data.teachers, teachers)
    assert not _equal(state.params["encoder"], run.first.params["encoder"])
    assert not _equal(state.batch_stats, run.first.batch_stats)


def test_only_the_own_expert_teaches(run):
    """A batch from cluster 0: expert 1 may be anything, and its head gets no gradient; expert 0 and the base matter."""
    teachers, rows, clusters = _teachers(), np.arange(8), np.zeros(12)
    changed = jax.tree.map(lambda x: x + np.float32(1), teachers)
    own, other = teachers.experts
    gradient = run(rows, clusters, teachers)[0].opt_state
    assert set(gradient) == {"encoder", "projector", "heads_0", "heads_1", "heads_2"}
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["heads_2"]))
    assert all(np.any(gradient[part]["dense2"]["kernel"]) for part in ("projector", "heads_0", "heads_1"))

    other_changed = run(rows, clusters, Teachers(teachers.base, (own, changed.experts[1])))[0].opt_state
    assert _equal(other_changed, gradient)
    own_changed = run(rows, clusters, Teachers(teachers.base, (changed.experts[0], other)))[0].opt_state
    assert not _equal(own_changed["heads_1"], gradient["heads_1"])
    assert _equal(own_changed["heads_0"]["dense2"], gradient["heads_0"]["dense2"])
    base_changed = run(rows, clusters, Teachers(changed.base, teachers.experts))[0].opt_state
    assert not _equal(base_changed["heads_0"], gradient["heads_0"])
    assert _equal(base_changed["heads_1"]["dense2"], gradient["heads_1"]["dense2"])


@pytest.mark.parametrize(
    ("base", "experts", "hidden", "message"),
    [
        ("", "", 8, "config.distil: base and experts are both 'none"),
        ("moco()", "simclr()", 8, r"differ in their objective: moco\(\) and simclr\(\)"),
        ("moco()", "", 0, "config.distil.hidden is at least 1"),
    ],
)
def test_bad_values_are_one_line(base, experts, hidden, message):
    said = {"base": base, "experts": experts}
    inputs = {name: SimpleNamespace(texts={"objective": text}) for name, text in said.items() if text}
    with pytest.raises(UserError, match=message) as error:
        distil.check(SimpleNamespace(name="distil", inputs=inputs), SimpleNamespace(hidden=hidden))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("teacher", "student", "refused"),
    [
        ("simclr_digits()", "simclr_digits()", False),
        ("compose(flip(), normalise((0.3,), (0.4,)))", "normalise((0.3,), (0.4,))", False),  # random parts are its own
        ("simclr_digits()", "simclr_cifar()", True),
        ("resize(16)", "none()", True),
    ],
)
def test_teachers_see_images_as_they_learnt_them(teacher, student, refused):
    taught = SimpleNamespace(
        directory=SimpleNamespace(name="base"), section=SimpleNamespace(augment=bind(teacher, AUGMENTS, "augment"))
    )
    dataset = SimpleNamespace(train_images=np.zeros((2, 8, 8, 1), np.uint8))
    job = SimpleNamespace(name="distil", inputs={"base": taught}, dataset=dataset)
    check = functools.partial(distil._check_prepared, job, bind(student, AUGMENTS, "augment"))
    if not refused:
        return check()
    with pytest.raises(UserError, match=r"^config.distil.augment: .* is not that of base, which teaches it as base$"):
        check()
