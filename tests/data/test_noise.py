"""Label noise: exact counts, conditional distributions, and independence of storage order."""

import numpy as np
import pytest

from lt_noisy.config import spec
from lt_noisy.data import noise
from lt_noisy.errors import UserError

KINDS = [
    "symmetric(0.4)",
    "symmetric(0.4, include_true=False)",
    "asymmetric(0.4, pairs=((0, 1), (2, 0)))",
    "imbalance(0.4)",
    "heteroskedastic(0.4, groups=((0, 2),))",
    "transition(((0.7, 0.2, 0.1), (0, 1, 0), (0.25, 0.25, 0.5)))",
]
COUNTS = (3000, 900, 300)


def bind(text):
    return spec.bind(text, noise.NOISES, "noise")


def data(counts=COUNTS, order_seed=3):
    labels = np.random.RandomState(1).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    ids = np.random.RandomState(order_seed).permutation(len(labels)).astype(np.int64)
    return labels[ids], ids


def corrupt(text, counts=COUNTS, seed=0):
    labels, ids = data(counts)
    return labels, bind(text).corrupt(labels, ids, len(counts), seed)


def full_matrix(text):
    """(1 - rate) I + rate Q by hand, for KINDS."""
    eye, n = np.eye(3), np.array(COUNTS, float)
    by_pairs = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]], float)
    by_counts = [[0 if i == j else n[j] / (n.sum() - n[i]) for j in range(3)] for i in range(3)]
    in_group = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], float)
    conditional = [np.full((3, 3), 1 / 3), (1 - eye) / 2, by_pairs, np.array(by_counts), in_group]
    if "transition" in text:
        return np.array([[0.7, 0.2, 0.1], [0, 1, 0], [0.25, 0.25, 0.5]])
    return 0.6 * eye + 0.4 * conditional[KINDS.index(text)]


@pytest.mark.parametrize("draw", ["exact", "independent"])
@pytest.mark.parametrize("text", KINDS)
def test_realised_transitions_follow_the_stated_matrix(text, draw):
    labels, observed = corrupt(text[:-1] + f", draw={draw})")
    expected = full_matrix(text)
    realised = noise.transition_matrix(labels, observed, 3)
    deviation = np.sqrt(expected * (1 - expected) / np.array(COUNTS)[:, None])
    assert (abs(realised - expected) <= 4.5 * deviation + 1e-12).all()
    assert (realised[expected == 0] == 0).all()


LONG_TAIL = np.repeat(np.arange(10), [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]).astype(np.int32)


def _published(name, labels, generator):
    """Labels as the published programs draw them, and the matrix of what that does to a label.

    Written from their texts: DivideMix `sym`, RoLT `sym` and `imb`, HAR `hetero`, TABASCO `unif` (dataloader_cifar.py,
    imbalance_cifar.py, heteroskedastic_cifar.py, data_utils.py).
    """
    eye, counts = np.eye(10), np.bincount(labels, minlength=10)
    if name in ("har", "tabasco"):  # each label by its row of a matrix
        matrix = 0.4 * np.full((10, 10), 0.1) + 0.6 * eye
        if name == "har":
            matrix = eye.copy()
            for group in ([1, 9], [3, 5]):
                matrix[np.ix_(group, group)] += 0.4 - 0.8 * np.eye(2)
        return np.array([generator.choice(10, p=matrix[y]) for y in labels]), matrix
    redraw = {
        "dividemix": np.full((10, 10), 0.1),
        "rolt sym": (1 - eye) / 9,
        "rolt imb": (1 - eye) * counts / ((1 - eye) * counts).sum(1, keepdims=True),
    }[name]
    observed = labels.copy()
    for i in generator.permutation(len(labels))[: int(0.4 * len(labels))]:
        observed[i] = generator.choice(10, p=redraw[labels[i]])
    return observed, 0.6 * eye + 0.4 * redraw


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dividemix", "symmetric(0.4)"),
        ("rolt sym", "symmetric(0.4, include_true=False)"),
        ("rolt imb", "imbalance(0.4)"),
        ("har", "heteroskedastic(draw=independent)"),
        ("tabasco", "symmetric(0.4, draw=independent)"),
    ],
)
def test_published_noise_on_a_long_tail(name, text):
    """Both realise one matrix, class by class, and as many wrong labels where the number is fixed."""
    theirs, matrix = _published(name, LONG_TAIL, np.random.RandomState(0))
    ours = bind(text).corrupt(LONG_TAIL, np.arange(len(LONG_TAIL)), 10, 0)
    expected = np.bincount(LONG_TAIL)[:, None] * matrix
    spread = np.sqrt(np.maximum(expected * (1 - matrix), 0))
    for observed in (theirs, ours):
        found = np.zeros((10, 10))
        np.add.at(found, (LONG_TAIL, observed), 1)
        assert (np.abs(found - expected) <= 4.5 * spread + 2).all()
        assert (found[matrix == 0] == 0).all()
        if name.startswith("rolt"):
            assert (observed != LONG_TAIL).sum() == int(0.4 * len(LONG_TAIL))


@pytest.mark.parametrize("text", KINDS)
def test_pure_seeded_and_independent_of_storage_order(text):
    by_id = []
    for order_seed in (3, 4):
        labels, ids = data(order_seed=order_seed)
        before = labels.copy()
        observed = bind(text).corrupt(labels, ids, 3, 5)
        assert observed.dtype == np.int32 and (labels == before).all()
        by_id.append(observed[np.argsort(ids)])
    assert (by_id[0] == by_id[1]).all()
    _, other = corrupt(text, seed=6)
    assert (other[np.argsort(data()[1])] != by_id[0]).any()


@pytest.mark.parametrize(("rate", "wrong"), [(0.4, 40), (0.29, 29), (0.57, 57), (0.999, 99), (1, 100), (0, 0)])
def test_exact_is_the_floor_of_rate_times_n(rate, wrong):
    labels, observed = corrupt(f"symmetric({rate}, include_true=False)", (50, 50))
    assert (labels != observed).sum() == wrong


def test_exact_and_independent_differ_in_the_spread_of_the_count():
    counts = [
        [(np.not_equal(*corrupt(f"symmetric(0.5, False, {draw})", (100, 100), seed))).sum() for seed in range(8)]
        for draw in ("exact", "independent")
    ]
    assert set(counts[0]) == {100} and len(set(counts[1])) > 1


def test_a_lower_rate_is_part_of_a_higher_one():
    labels, low = corrupt("symmetric(0.2, include_true=False)")
    _, high = corrupt("symmetric(0.5, include_true=False)")
    assert (high[labels != low] == low[labels != low]).all()


def test_include_true_is_the_difference_between_nominal_and_realised():
    labels, observed = corrupt("symmetric(0.8)", (1000,) * 10)
    assert abs((labels != observed).mean() - 0.72) < 0.01
    assert bind("symmetric(0.8)").nominal_rate == 0.8


def test_cifar10_map():
    labels, observed = corrupt("asymmetric(1.0, map=cifar10)", (4,) * 10)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    became = {names[a]: names[b] for a, b in zip(labels, observed, strict=True) if a != b}
    assert became == {
        "truck": "automobile",
        "bird": "airplane",
        "deer": "horse",
        "cat": "dog",
        "dog": "cat",
    }


def test_cifar100_map_cycles_inside_superclasses():
    labels, observed = corrupt("asymmetric(1.0, map=cifar100)", (1,) * 100)
    following = observed[np.argsort(labels)]
    assert sorted(following) == list(range(100))
    five_on = np.arange(100)
    for step in range(1, 6):
        five_on = following[five_on]
        assert (five_on == np.arange(100)).all() == (step == 5)
    assert following[[4, 30, 55, 72, 95]].tolist() == [
        30,
        55,
        72,
        95,
        4,
    ]  # beaver, dolphin, otter, seal, whale
    assert following[[8, 13, 48, 58, 90]].tolist() == [
        13,
        48,
        58,
        90,
        8,
    ]  # bicycle, bus, motorcycle, truck, train


def test_heteroskedastic_is_exact_among_the_examples_of_its_groups():
    """29 % of the 300 examples of classes 0, 2 and 3 are wrong, inside the group; those of 1 and 4 stay."""
    labels, observed = corrupt("heteroskedastic(0.29, ((3, 0, 2),))", (140, 500, 100, 60, 70))
    assert (labels != observed).sum() == 87
    matrix = noise.transition_matrix(labels, observed, 5)
    assert (matrix[[1, 4]] == np.eye(5)[[1, 4]]).all() and (matrix[:, [1, 4]] == np.eye(5)[:, [1, 4]]).all()
    labels, observed = corrupt("heteroskedastic(1.0, ((3, 0, 2),))", (3000, 1, 3000, 3000, 1))
    assert abs(noise.transition_matrix(labels, observed, 5)[3] - [0.5, 0, 0.5, 0, 0]).max() < 0.05


def test_heteroskedastic_defaults_swap_two_pairs_of_cifar10():
    labels, observed = corrupt("heteroskedastic()", (1000,) * 10)
    swapped = {(a, b) for a, b in zip(labels.tolist(), observed.tolist(), strict=True) if a != b}
    assert swapped == {(1, 9), (9, 1), (3, 5), (5, 3)}
    assert (labels != observed).sum() == 1600
    assert bind("heteroskedastic()").nominal_rate == 0.4


def test_heteroskedastic_without_an_example_of_its_groups_changes_nothing():
    labels, observed = corrupt("heteroskedastic(0.4, ((1, 2),))", (50, 0, 0))
    assert (labels == observed).all()


def test_exact_transition_rounds_by_largest_remainders():
    text = "transition(((0.5, 0.26, 0.24), (0, 0, 1), (0.4, 0.3, 0.3)))"
    labels, observed = corrupt(text, (10, 3, 5))
    counts = noise.transition_matrix(labels, observed, 3) * np.array([[10], [3], [5]])
    # 5, 2.6, 2.4 -> 5, 3, 2; 2, 1.5, 1.5 -> the earlier of two equal remainders
    assert np.rint(counts).astype(int).tolist() == [[5, 3, 2], [0, 0, 3], [2, 2, 1]]


def test_transition_from_a_file(tmp_path):
    path = str(tmp_path / "t.npy")
    np.save(path, full_matrix("transition"))
    _, observed = corrupt(f'transition(path="{path}")')
    assert (observed == corrupt(KINDS[-1])[1]).all()


def test_transition_matrix_of_an_empty_class_is_identity():
    found = noise.transition_matrix(np.array([0, 0, 0, 2]), np.array([0, 1, 1, 0]), 3)
    np.testing.assert_allclose(found, [[1 / 3, 2 / 3, 0], [0, 1, 0], [1, 0, 0]])
    assert found.dtype == np.float64


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_human_labels_are_by_id(tmp_path, kind):
    table = np.array([2, 0, 1, 1, 0], np.uint8)
    path = str(tmp_path / f"human.{kind}")
    if kind == "npz":
        np.savez(path, worse=table, other=table * 0)
    else:
        np.save(path, table)
    made = bind(f'human("{path}", worse)' if kind == "npz" else f'human("{path}")')
    assert made.nominal_rate is None
    observed = made.corrupt(np.zeros(3, np.int32), np.array([4, 0, 2]), 3, 0)
    assert observed.tolist() == [0, 2, 1] and observed.dtype == np.int32
    with pytest.raises(UserError, match=r"labels for ids 0\.\.4, the data has id 5"):
        made.corrupt(np.zeros(2, np.int32), np.array([0, 5]), 3, 0)
    with pytest.raises(UserError, match=r"ids 0\.\.4, the data has id -1"):
        made.corrupt(np.zeros(2, np.int32), np.array([0, -1]), 3, 0)
    with pytest.raises(UserError, match=r"gives id 0 label 2, the data has 0\.\.1"):
        made.corrupt(np.zeros(2, np.int32), np.array([1, 0]), 2, 0)


def test_unusable_files_are_one_line(tmp_path):
    one = (np.zeros(1, np.int32), np.zeros(1, np.int64), 2, 0)
    np.savez(tmp_path / "a.npz", worse=np.full(3, 0.5), table=np.zeros((3, 3), int))
    np.save(tmp_path / "a.npy", np.zeros(3, int))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut")
    cases = {
        f'human("{tmp_path}/none.npz", worse)': "does not exist",
        f'human("{tmp_path}/a.npz", wors)': r"no array 'wors' \(it has worse, table\)",
        f'human("{tmp_path}/a.npz", worse)': "entry 0 is 0.5, no whole number",
        f'human("{tmp_path}/a.npz", table)': "must be integer",
        f'human("{tmp_path}/a.npy", worse)': r"no array 'worse' \(it has one array without a name\)",
        f'human("{tmp_path}/broken.npz", worse)': "not a readable array file",
        f'transition(path="{tmp_path}/a.npy")': "must be square",
    }
    for text, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            bind(text).corrupt(*one)
        assert "\n" not in str(caught.value)


def test_none_and_before_longtail():
    labels, observed = corrupt("none()")
    assert (labels == observed).all() and bind("none()").nominal_rate == 0
    inner, outer = bind("symmetric(0.4)"), bind("before_longtail(symmetric(0.4))")
    assert (inner.before_longtail, outer.before_longtail, outer.nominal_rate) == (False, True, 0.4)
    args = (*data(), 3, 0)
    assert (inner.corrupt(*args) == outer.corrupt(*args)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symmetric(1.2)", r"rate must be in \[0, 1\], not 1.2"),
        ("imbalance(-0.1)", r"rate must be in \[0, 1\], not -0.1"),
        ("symmetric(0.1, draw=exactly)", r"symmetric\(draw=...\) is exact or independent, not exactly"),
        ("asymmetric(0.1)", "give one of map"),
        ("asymmetric(0.1, map=cifar10, pairs=((0, 1),))", "give one of map"),
        ("asymmetric(0.1, map=cifar20)", r"asymmetric\(map=...\) is cifar10 or cifar100, not cifar20"),
        ("asymmetric(0.1, pairs=(0, 1))", "must be"),
        ("asymmetric(0.1, pairs=((0, 1), (0, 2)))", "one other class"),
        ("asymmetric(0.1, pairs=((1, 1),))", "one other class"),
        ("heteroskedastic(1.2)", r"rate must be in \[0, 1\], not 1.2"),
        ("heteroskedastic(groups=())", "at least one group"),
        ("heteroskedastic(groups=((1,),))", r"groups: \(1,\) must be .* two class numbers or more"),
        ("heteroskedastic(groups=(1, 2))", "groups: 1 must be"),
        ("heteroskedastic(groups=((1, -2),))", "two class numbers"),
        ("heteroskedastic(groups=((1, 1.5),))", "two class numbers"),
        ("heteroskedastic(groups=((0, 1), (1, 2)))", "each class in one group"),
        ("heteroskedastic(groups=((1, 1),))", "each class in one group, once"),
        ("transition()", "give one of matrix"),
        ("transition(((0.5, 0.4), (0, 1)))", "row 0 must be probabilities"),
        ("transition(((1, 0), (-1, 2)))", "row 1 must be probabilities"),
        ("transition(((1, 0, 0), (0, 1, 0)))", "must be square"),
        ("transition(((1, 0), (0,)))", "rows of equal length"),
    ],
)
def test_bad_arguments_are_refused_at_once(text, message):
    with pytest.raises(UserError, match=message):
        bind(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("asymmetric(0.1, map=cifar10)", "for 10 classes, the data has 3"),
        ("asymmetric(0.1, pairs=((0, 3),))", r"class 3, the data has 0\.\.2"),
        ("heteroskedastic(0.4)", r"heteroskedastic: groups name class 9, the data has 0\.\.2"),
        ("transition(((1, 0), (0, 1)))", "for 2 classes, the data has 3"),
    ],
)
def test_noise_for_other_classes_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        corrupt(text)


def test_too_few_classes_are_refused():
    one = (np.zeros(4, np.int32), np.arange(4))
    with pytest.raises(UserError, match="at least 2 classes"):
        bind("symmetric(0.5)").corrupt(*one, 1, 0)
    with pytest.raises(UserError, match="all examples are of one class"):
        bind("imbalance(0.5)").corrupt(*one, 2, 0)
