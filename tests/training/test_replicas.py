"""The step of several seeds against that of one, in float64; what they share on the devices; their checkpoints."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from helpers import loss_cases, objective_cases, step_cases
from helpers.step_cases import PARTS, distance, in_precision

from lt_noisy.data.batches import Resident
from lt_noisy.training import parallel
from lt_noisy.training.checkpoint import Checkpoints
from lt_noisy.training.loop import Phase, Plan, Prepared
from lt_noisy.training.replicas import InTurn, Saved, States, divided, in_step, joined, signature, vectorises

METHODS = ("simclr", "moco", "byol", "rotation")
CASES = {
    "losses": functools.partial(step_cases.side_by_side, loss_cases.everything()),
    **{text: functools.partial(step_cases.objective, text) for text in map(objective_cases.small, METHODS)},
    "mixup": functools.partial(step_cases.loss, "cross_entropy()", "mixup(alpha=1.0)", "batch"),
    "mixnn": functools.partial(step_cases.mixnn_phase, 3, "in_set(k=3)"),
    "distil": step_cases.distillation,
}
OTHER_IMAGES = ("mixup", "mixnn", "distil")  # one of each way to gather
SEEDS = 2
STEPS = 2


def of_seed(case, seed, other_images=False):
    """A case as the stage of one seed: its own draws, labels and batches, and images where it has `other_images`."""
    generator = np.random.default_rng(seed)
    first = dataclasses.replace(case.first, seed=np.uint32(seed))

    def own(node):
        if not isinstance(node, Resident):
            return node
        order = generator.permutation(len(node.labels))
        return node._replace(labels=node.labels[order], images=node.images[order] if other_images else node.images)

    data = jax.tree.map(own, case.data, is_leaf=lambda node: isinstance(node, Resident))
    each = step_cases.batches(True, case.ascent_weights)
    each = in_precision(each[seed % len(each) :] + each[: seed % len(each)])
    return Prepared(None, in_precision(first), (Phase(0, case.step),), each.__getitem__, None, in_precision(data))


def after(ready, devices, call):
    """State and sums on the host, after the steps."""
    totals = parallel.zeros(ready.phases[0].step, ready.state, ready.data, ready.batches(0))
    state, totals, data = (devices.replicate(tree) for tree in (ready.state, totals, ready.data))
    for step in range(STEPS):
        state, totals = call(state, totals, data, ready.batches(step))
    return devices.fetch(state), devices.fetch(totals)


@pytest.mark.parametrize(
    ("name", "other_images"), [*((name, False) for name in CASES), *((name, True) for name in OTHER_IMAGES)]
)
def test_a_vectorised_step_is_that_of_each_seed(x64, name, other_images):
    case, devices = CASES[name](), parallel.make("jit", 1)
    readies = [of_seed(case, seed, other_images) for seed in range(SEEDS)]
    together, call = joined(readies, vectorised=True), devices.compile_step(case.step)
    states, sums = after(together, devices, devices.compile_step(together.phases[0].step))
    for seed, ready in enumerate(readies):
        state, own = after(ready, devices, call)
        for part in PARTS:
            assert distance(getattr(states.each[seed], part), getattr(state, part)) < 1e-9, (seed, part)
        assert distance(sums[seed], own) < 1e-9


@pytest.mark.parametrize(("mode", "count"), [("jit", 1), ("jit", 2), ("pmap", 4)])
def test_in_turn_every_seed_has_its_own_bits(mode, count):
    case = CASES["mixup"]()
    readies = [of_seed(case, seed, other_images=True) for seed in range(SEEDS)]
    each = divided(parallel.make(mode, count), SEEDS)
    together, devices = joined(readies, vectorised=False), InTurn(each)
    found = after(together, devices, devices.compile_step(together.phases[0].step))
    for seed, ready in enumerate(readies):
        ours = found[0].each[seed], found[1][seed]
        theirs = after(ready, each[seed], each[seed].compile_step(case.step))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_array_equal(a, b)


def test_images_that_all_seeds_see_are_once_on_a_device():
    readies = [of_seed(CASES["mixup"](), seed) for seed in range(3)]
    data = joined(readies, vectorised=False).data
    assert len(data.images) == 1
    placed = InTurn(divided(parallel.make("jit", 2), 3)).replicate(data)
    assert placed.images[0] is placed.images[2] and placed.images[0] is not placed.images[1]


@pytest.mark.parametrize(
    ("devices", "seeds", "sizes"), [(8, 5, [1] * 5), (8, 3, [2] * 3), (2, 5, [1] * 5), (1, 4, [1] * 4), (8, 2, [4, 4])]
)
def test_devices_are_shared_out(devices, seeds, sizes):
    own = divided(parallel.make("jit", devices), seeds)
    assert [part.num_devices for part in own] == sizes
    assert len({id(part) for part in own}) == min(devices, seeds)
    used = [device for part in {id(part): part for part in own}.values() for device in part.mesh.devices.flat]
    assert len(set(used)) == len(used)


def test_on_a_cpu_vectors_are_vectorised_and_images_are_not():
    one, several = divided(parallel.make("jit", 1), 2), divided(parallel.make("jit", 2), 2)
    assert vectorises(one, "vectors") and not vectorises(one, "images") and not vectorises(several, "vectors")


def test_the_signature_tells_sizes_apart_and_not_values():
    plan = Plan(4, 2, 2, 2, 1, step_cases.BATCH, None)
    one, other = (of_seed(CASES["mixup"](), seed)._replace(plan=plan) for seed in (0, 1))
    assert signature(one) == signature(other)
    short = other._replace(data=Resident(other.data.images[:-1], other.data.labels[:-1]))
    assert signature(one) != signature(short)
    assert signature(one) != signature(other._replace(plan=plan._replace(total=8)))


def tree(step, seed):
    return {"state": {"x": np.full(3, step + 10 * seed)}, "totals": {"n": np.float32(step)}}


def both(step):
    trees = [tree(step, seed) for seed in (0, 1)]
    return {"state": States(tuple(t["state"] for t in trees)), "totals": tuple(t["totals"] for t in trees)}


def test_seeds_go_on_from_the_newest_checkpoint_that_all_have(tmp_path):
    each = [Checkpoints(tmp_path / str(seed), {"identity": "one"}) for seed in (0, 1)]
    saved = Saved(each)
    assert in_step([tmp_path / "0", tmp_path / "1"]) and saved.latest(both(0)) is None
    saved.save(2, both(2), 1.0)
    saved.save(4, both(4), 2.0)
    each[0].save(6, tree(6, 0), 3.0)  # killed before that of the other seed
    saved.wait()
    found, card = saved.latest(both(0))
    assert card["step"] == 4
    for seed in (0, 1):
        np.testing.assert_array_equal(found["state"].each[seed]["x"], tree(4, seed)["state"]["x"])
    saved.save(6, both(6), 3.0)
    saved.wait()
    assert saved.latest(both(0))[1]["step"] == 6
    saved.close()


def test_seeds_without_a_common_step_go_on_alone_but_for_a_first_save(tmp_path):
    def made(name, *steps):
        for step in steps:
            (tmp_path / name / f"{step:08d}").mkdir(parents=True)
        return tmp_path / name

    assert in_step([made("a", 2), made("b")]) and in_step([made("c", 2, 4), made("d", 4, 6)])
    assert not in_step([made("e", 2, 4), made("f", 6, 8)]) and not in_step([made("g"), made("h", 2, 4)])
    assert not in_step([made("i", 2), made("j", 4)])  # each began alone
