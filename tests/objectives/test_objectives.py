"""Each objective against a float64 reference written from its paper's formula."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lt_noisy.augment import AUGMENTS
from lt_noisy.collectives import AXIS, positions
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.method import Context
from lt_noisy.objectives import OBJECTIVES
from lt_noisy.objectives.base import Outputs, normalise
from lt_noisy.objectives.contrastive import info_nce, nt_xent
from lt_noisy.objectives.siamese import negative_cosine


def _on_devices(fn, count):
    """`fn` on arrays [B, ...] split over `count` devices of the axis: outputs [B]."""

    @jax.jit
    def call(*arrays):
        split = [x.reshape(count, -1, *x.shape[1:]) for x in arrays]
        return jax.vmap(fn, axis_name=AXIS)(*split).reshape(-1)

    return call


def _bound(text):
    return bind(text, OBJECTIVES, "objective")


def _context(batch_size):
    return Context(2, 40, batch_size, np.zeros(2, np.int64))


def _start(method, batch_size):
    return jax.tree.map(jnp.asarray, method.init(_context(batch_size)))


def _views(batch=6, size=5):
    generator = np.random.default_rng(0)
    return generator.normal(size=(2, batch, size))


def _differences(fn, x):
    """The gradient of `fn` at x by central differences, in float64."""
    steps = 1e-6 * np.eye(x.size).reshape(-1, *x.shape)
    return np.reshape([(fn(x + step) - fn(x - step)) / 2e-6 for step in steps], x.shape)


def _nt_xent_reference(first, second, temperature):
    """Equation 1 of Chen et al. 2020, anchor by anchor, in float64."""
    z = np.concatenate([first, second])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    batch, losses = len(first), []
    for i in range(2 * batch):
        others = [k for k in range(2 * batch) if k != i]
        similarity = {k: z[i] @ z[k] / temperature for k in others}
        positive = similarity[(i + batch) % (2 * batch)]
        losses.append(np.log(sum(np.exp(s) for s in similarity.values())) - positive)
    return (np.array(losses[:batch]) + np.array(losses[batch:])) / 2


@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_equation_1(devices, temperature):
    first, second = _views()
    loss = _on_devices(lambda a, b: nt_xent(a, b, temperature), devices)(jnp.asarray(first), jnp.asarray(second))
    np.testing.assert_allclose(loss, _nt_xent_reference(first, second, temperature), rtol=1e-5)


def test_nt_xent_gradient_by_finite_differences():
    first, second = _views(batch=3, size=2)

    def total(x):
        return _on_devices(lambda a, b: nt_xent(a, b, 0.5), 1)(x, jnp.asarray(second)).sum()

    gradient = jax.grad(total)(jnp.asarray(first))
    expected = _differences(lambda x: _nt_xent_reference(x, second, 0.5).sum(), first)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_nt_xent_without_similarity_is_log_of_candidates():
    """All projections equal: every candidate is as near as the positive, loss log(2B - 1)."""
    same = jnp.ones((4, 3))
    np.testing.assert_allclose(_on_devices(lambda a, b: nt_xent(a, b, 0.5), 1)(same, same), np.log(7), rtol=1e-6)


def test_nt_xent_never_forms_a_cube():
    """No intermediate of [2B, 2B, D] elements: the largest is a matrix of similarities."""
    x = jnp.zeros((32, 16))
    jaxpr = jax.make_jaxpr(_on_devices(lambda a, b: nt_xent(a, b, 0.5), 1).__wrapped__)(x, x)
    sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars]
    assert max(sizes) <= 64 * 64


def test_normalise_has_no_gradient_at_the_zero_vector():
    x = jnp.asarray([[0.0, 0.0], [1e-8, 0.0], [3.0, 4.0]])
    value, gradient = normalise(x), jax.grad(lambda x: normalise(x)[:, 1].sum())(x)
    np.testing.assert_allclose(value, [[0, 0], [0, 0], [0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0], [0, 0], [-0.096, 0.072]], rtol=1e-5)  # (I - u u^T) / 5


@pytest.mark.parametrize(("text", "least"), [("simsiam", 1), ("byol", 1), ("simclr", 2), ("rotation", 1)])
def test_batches_that_teach_nothing_are_refused(text, least):
    init = bind(text, OBJECTIVES, "objective").method.init
    assert init(SimpleNamespace(batch_size=least)) == {}
    if least > 1:
        with pytest.raises(UserError, match=f"batches of at least {least} images, not {least - 1}"):
            init(SimpleNamespace(batch_size=least - 1))


def test_negative_cosine_stops_the_target():
    p, z = _views()
    reference = -(p * z).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(z, axis=1)
    np.testing.assert_allclose(negative_cosine(jnp.asarray(p), jnp.asarray(z)), reference, rtol=1e-5)
    assert not np.any(jax.grad(lambda z: negative_cosine(jnp.asarray(p), z).sum())(jnp.asarray(z)))
    assert np.any(jax.grad(lambda p: negative_cosine(p, jnp.asarray(z)).sum())(jnp.asarray(p)))


def test_simsiam_is_algorithm_1():
    (z1, z2), (p1, p2) = z, p = _views(), _views()[::-1] + 0.1
    method = bind("simsiam(size=5, hidden=4)", OBJECTIVES, "o").method
    loss, _ = method.apply({}, Outputs(tuple(map(jnp.asarray, z)), tuple(map(jnp.asarray, p))), None, None, 0)
    expected = -((_unit(p1) * _unit(z2)).sum(1) + (_unit(p2) * _unit(z1)).sum(1)) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_byol_is_equation_2():
    """||p / ||p|| - z' / ||z'|| ||^2, each prediction against the target of the other view, summed."""
    predictions, targets = _views(), _views()[::-1] ** 2 + 0.1
    method = _bound("byol(hidden=4, size=5)").method

    def loss(p, z):
        return method.apply({}, Outputs(tuple(z), tuple(p), tuple(z)), None, None, 0)[0]

    reference = sum(((_unit(predictions[i]) - _unit(targets[1 - i])) ** 2).sum(1) for i in (0, 1))
    p, z = jnp.asarray(predictions), jnp.asarray(targets)
    np.testing.assert_allclose(loss(p, z), reference, rtol=1e-5)
    assert not np.any(jax.grad(lambda z: loss(p, z).sum())(z))
    assert np.all(np.any(jax.grad(lambda p: loss(p, z).sum())(p), axis=-1))


def test_decays_by_hand():
    """BYOL's rises from momentum to 1 by a half cosine, MoCo's stays."""
    rising = _bound("byol(momentum=0.96)").decay(8)
    np.testing.assert_allclose([rising(k) for k in (0, 4, 8)], [0.96, 0.98, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rising(2), 1 - 0.04 * (np.sqrt(0.5) + 1) / 2, rtol=1e-6)
    assert [_bound("moco(momentum=0.9)").decay(8)(k) for k in (0, 4, 8)] == [0.9] * 3


def _info_nce_reference(queries, keys, negatives, temperature):
    """Equation 1 of He et al. 2020, query by query, in float64."""
    queries, keys, negatives = _unit(queries), _unit(keys), _unit(np.reshape(negatives, (-1, queries.shape[1])))
    losses = []
    for q, k in zip(queries, keys, strict=True):
        scores = [np.exp(q @ k / temperature)] + [np.exp(q @ n / temperature) for n in negatives]
        losses.append(-np.log(scores[0] / sum(scores)))
    return np.array(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_info_nce_is_equation_1(temperature):
    queries, keys = _views()
    bank = _unit(np.random.default_rng(1).normal(size=(7, 5)))
    present = np.array([1, 0, 1, 1, 0, 1, 1], bool)
    ours = info_nce(*map(jnp.asarray, (queries, keys, bank, present)), temperature)
    np.testing.assert_allclose(ours, _info_nce_reference(queries, keys, bank[present], temperature), rtol=2e-5)


def test_info_nce_gradient_by_finite_differences_and_none_into_keys():
    queries, keys = _views(batch=3, size=2)
    bank = _unit(np.random.default_rng(1).normal(size=(4, 2)))
    absent_last = jnp.arange(4) < 3

    def total(q, k):
        return info_nce(q, k, jnp.asarray(bank), absent_last, 0.5).sum()

    gradient, into_keys = jax.grad(total, (0, 1))(jnp.asarray(queries), jnp.asarray(keys))
    assert not np.any(into_keys)
    expected = _differences(lambda x: _info_nce_reference(x, keys, bank[:3], 0.5).sum(), queries)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_moco_without_negatives_is_nothing():
    """The first step: no key is queued, so loss and gradient are 0, but for rounding."""
    method = _bound("moco(queue=16, size=5)").method
    state, keys = _start(method, 6), tuple(jnp.asarray(_views()[::-1]))

    def per_example(queries):
        return _on_devices(lambda q, r: method.apply(state, Outputs((q, r), (), keys), None, None, 0)[0], 1)(*queries)

    queries = jnp.asarray(_views())
    np.testing.assert_allclose(per_example(queries), np.zeros(6), atol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda q: per_example(q).sum())(queries), np.zeros((2, 6, 5)), atol=1e-5)


@functools.cache
def _moco_program(method):
    def apply(state, step, queries, keys):
        return method.apply(state, Outputs(tuple(queries), (), tuple(keys)), None, None, step)

    return jax.jit(jax.vmap(apply, in_axes=(None, None, 1, 1), axis_name=AXIS))


def _moco_step(method, state, queries, keys, step, devices):
    """(losses [B], next state) of one step with queries and keys [views, B, D] split over the devices."""
    split = [x.reshape(len(x), devices, -1, x.shape[-1]) for x in (queries, keys)]
    losses, states = _moco_program(method)(state, np.int32(step), *split)
    for leaf in jax.tree.leaves(states):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))  # the same on every device
    return losses.reshape(-1), jax.tree.map(lambda leaf: leaf[0], states)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(("symmetric", "queue"), [(True, 15), (False, 7), (True, 8)])
def test_moco_queue_and_pairing(symmetric, queue, devices):
    """Against the list of all keys ever made: key j lies in slot j mod queue, and its successors overwrite it.

    Each query meets the key of the *other* view and the queue as it was before the step.
    """
    batch, size, temperature = 4, 5, 0.2
    method = _bound(f"moco({temperature=}, {queue=}, {symmetric=}, {size=})").method
    state, generator = _start(method, batch), np.random.default_rng(0)
    made, stamps = [], []
    for step in range(5):
        views = generator.normal(size=(2, 2, batch, size))  # queries and keys, of both views
        queries, keys = views if symmetric else (views[0, :1], views[1, 1:])
        losses, state = _moco_step(method, state, queries, keys, step, devices)
        pairs = [(queries[0], keys[1]), (queries[1], keys[0])] if symmetric else [(queries[0], keys[0])]
        expected = [_info_nce_reference(q, k, made[-queue:], temperature) for q, k in pairs]
        np.testing.assert_allclose(losses, np.mean(expected, axis=0), rtol=2e-5, atol=1e-7)

        made += list(_unit(keys).reshape(-1, size))
        stamps += [step] * keys[..., 0].size
        assert int(state["filled"]) == min(len(made), queue) and int(state["next"]) == len(made) % queue
        bank, written = np.zeros((queue, size)), np.zeros(queue)
        for j, (key, stamp) in enumerate(zip(made, stamps, strict=True)):
            bank[j % queue], written[j % queue] = key, stamp
        np.testing.assert_allclose(state["keys"], bank, atol=1e-6)
        np.testing.assert_array_equal(state["written"], written)
    assert len(made) > queue  # it has wrapped


def test_moco_watch_by_hand():
    """Keys of steps 2, 5 and 3 seen at step 6 are 4, 1 and 3 steps old; an empty queue has age 0."""
    watch = _bound("moco(queue=4, size=5)").watch
    state = {"filled": np.int32(3), "written": np.array([2, 5, 3, 0], np.int32)}
    assert watch(state, 6) == {"queue_filled": 0.75, "queue_age": pytest.approx(8 / 3)}
    assert watch({**state, "filled": np.int32(0)}, 6) == {"queue_filled": 0.0, "queue_age": 0.0}


@pytest.mark.parametrize(("symmetric", "keys"), [(True, 12), (False, 6)])
def test_moco_queue_holds_at_least_one_step(symmetric, keys):
    _bound(f"moco(queue={keys}, {symmetric=})").method.init(_context(6))
    with pytest.raises(UserError, match=f"queue={keys - 1} .* {keys} keys") as error:
        _bound(f"moco(queue={keys - 1}, {symmetric=})").method.init(_context(6))
    assert "\n" not in str(error.value)


@functools.cache
def _turner(text, augment):
    make, augment = _bound(text).views, bind(augment, AUGMENTS, "augment")
    on_one = lambda key, images: make(augment, key, images, positions(len(images)))  # noqa: E731
    return jax.jit(jax.vmap(on_one, in_axes=(None, 0), axis_name=AXIS))


def _turned(text, images, devices=1, key=0, augment="compose(crop(pad=1), flip())"):
    """(views, labels or None) of a batch that lies on `devices` devices, on the host."""
    parts = _turner(text, augment)(jax.random.key(key), images.reshape(devices, -1, *images.shape[1:]))
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), parts)


def _images(batch=12):
    return np.random.default_rng(0).integers(0, 256, (batch, 6, 6, 3), dtype=np.uint8)


def test_rotation_labels_are_a_permutation_on_any_devices():
    (one,), labels = _turned("rotation()", _images())
    (four,), split = _turned("rotation()", _images(), devices=4)
    np.testing.assert_array_equal(np.bincount(labels), [3, 3, 3, 3])
    np.testing.assert_array_equal(split, labels)
    np.testing.assert_allclose(four, one, atol=1e-6)
    assert np.any(labels != np.arange(12) % 4)
    assert np.any(_turned("rotation()", _images(), key=1)[1] != labels)


def test_rotation_turns_the_augmented_image_by_its_label():
    (plain,), labels = _turned("rotation()", _images(), augment="none()")
    for view, image, label in zip(plain, _images(), labels, strict=True):
        np.testing.assert_allclose(view, np.rot90(image, label) / 255, rtol=1e-6)
    # `every` has the same draws of the augmentation: its first view is the image before it is turned.
    (view,), labels = _turned("rotation()", _images())
    every, none = _turned("rotation(every=True)", _images())
    assert none is None and np.any(np.abs(every[0] - _images() / 255) > 0.1)
    for k in range(4):
        np.testing.assert_allclose(every[k], np.rot90(every[0], k, axes=(1, 2)), atol=1e-6)
        np.testing.assert_allclose(view[labels == k], every[k][labels == k], atol=1e-6)


def test_rotation_loss():
    """log 4 where all angles are as likely; `every` is the mean over the four angles; float64 by hand."""
    one, every = (_bound(text).method for text in ("rotation()", "rotation(every=True)"))
    flat = one.apply({}, Outputs((jnp.full((4, 4), 7.0),)), jnp.arange(4), None, 0)[0]
    np.testing.assert_allclose(flat, np.log(4), rtol=1e-6)

    logits = np.random.default_rng(0).normal(size=(4, 6, 4)) * 3
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    by_angle = [one.apply({}, Outputs((jnp.asarray(logits[k]),)), jnp.full(6, k), None, 0)[0] for k in range(4)]
    np.testing.assert_allclose(by_angle, [-log_p[k, :, k] for k in range(4)], rtol=1e-5, atol=1e-6)
    mean = every.apply({}, Outputs(tuple(map(jnp.asarray, logits))), None, None, 0)[0]
    np.testing.assert_allclose(mean, np.mean(by_angle, axis=0), rtol=1e-5)


@pytest.mark.parametrize("text", ["rotation()", "rotation(every=True)"])
def test_rotation_needs_square_images(text):
    with pytest.raises(UserError, match="square images, not 4 x 6") as error:
        _turned(text, np.zeros((4, 4, 6, 3), np.uint8), augment="none()")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("simclr(temperature=0.0)", "temperature must be a finite number above 0, not 0.0"),
        ("simclr(size=0)", "size must be at least 1, not 0"),
        ("simsiam(hidden=0)", "hidden must be at least 1, not 0"),
        ("byol(momentum=-0.1)", r"momentum must be in \[0, 1\], not -0.1"),
        ("byol(hidden=0)", "hidden must be at least 1, not 0"),
        ("moco(temperature=-1.0)", "temperature must be a finite number above 0, not -1.0"),
        ("moco(momentum=1.5)", r"momentum must be in \[0, 1\], not 1.5"),
        ("moco(queue=0)", "queue must be at least 1, not 0"),
    ],
)
def test_bad_values_are_one_line(text, says):
    with pytest.raises(UserError, match=says) as error:
        bind(text, OBJECTIVES, "config.pretrain.objective")
    assert "\n" not in str(error.value)
