"""Long-tailed subsets: exact counts, the two draws, and independence of storage order."""

import hashlib

import numpy as np
import pytest

from lt_noisy.config import spec
from lt_noisy.data import longtail
from lt_noisy.errors import UserError


def data(per_class, order_seed=3):
    """Labels and ids of a set with `per_class` examples per class, stored in shuffled order."""
    labels = np.repeat(np.arange(len(per_class)), per_class).astype(np.int32)
    labels = np.random.RandomState(1).permutation(labels)  # by id
    ids = np.random.RandomState(order_seed).permutation(len(labels)).astype(np.int64)
    return labels[ids], ids


def select(text, labels, ids, num_classes, seed=0):
    return spec.bind(text, longtail.LONGTAILS, "longtail")(labels, ids, num_classes, seed)


@pytest.mark.parametrize(
    ("num_classes", "n_max", "ratio", "total"),
    [
        (10, 5000, 10, 20431),
        (10, 5000, 50, 13996),
        (10, 5000, 100, 12406),
        (100, 500, 10, 19573),
        (100, 500, 50, 12608),
        (100, 500, 100, 10847),
    ],
)
def test_exponential_totals_are_the_published_ones(num_classes, n_max, ratio, total):
    counts = longtail.exponential_counts(num_classes, n_max, ratio)
    assert counts.sum() == total
    assert counts[0] == n_max and counts[-1] == n_max // ratio


def test_exponential_counts_of_cifar10():
    expected = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert longtail.exponential_counts(10, 5000, 100.0).tolist() == expected


def test_whole_counts_are_not_rounded_down():
    for ratio in range(1, 200):
        for tail in (1, 3, 7):
            assert longtail.exponential_counts(7, ratio * tail, ratio)[-1] == tail
            assert longtail.step_counts(7, ratio * tail, ratio)[-1] == tail
    assert longtail.step_counts(2, 11, 1.1).tolist() == [11, 10]


def test_step_counts_give_an_odd_class_to_the_tail():
    assert longtail.step_counts(5, 100, 10.0).tolist() == [100, 100, 10, 10, 10]


def test_pareto_counts_by_hand():
    """alpha 1: q = 1 / u - 1 at u = 1/8, 3/8, 5/8, 7/8 is 7, 5/3, 3/5, 1/7; of 84 examples to 7: 84, 20, 7.2, 1.7."""
    assert longtail.pareto_counts(4, 84, 1.0, 1).tolist() == [84, 20, 7, 1]
    assert longtail.pareto_counts(4, 84, 1.0, 5).tolist() == [84, 20, 7, 5]


def test_pareto_at_the_size_of_imagenet_lt():
    counts = longtail.pareto_counts(1000, 1280, 6.0, 5)
    assert (counts[0], counts[-1], counts.sum()) == (1280, 5, 99952)
    assert (np.diff(counts) <= 0).all()
    u = (np.arange(1000) + 0.5) / 1000
    direct = 1280 * (u ** (-1 / 6) - 1) / (u[0] ** (-1 / 6) - 1)
    assert (abs(np.maximum(direct, 5) - counts - 0.5) <= 0.5 + 1e-6).all()


def test_pareto_overflows_at_no_alpha():
    assert longtail.pareto_counts(3, 90, 1e-6, 2).tolist() == [90, 2, 2]
    # Towards infinity the quantiles are those of the exponential distribution, -log u.
    expected = [90, 90 * np.log(2) / np.log(6), 90 * np.log(6 / 5) / np.log(6)]
    assert longtail.pareto_counts(3, 90, 1e12, 2).tolist() == np.floor(expected).tolist()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((3, 30, 4.0), [18, 9, 3]),  # 10, 5, 2 of 17: 17 11/17, 8 14/17, 3 9/17, that is 28 and two more
        ((3, 31, 4.0), [18, 9, 4]),  # the same profile: 18 4/17, 9 2/17, 3 11/17
        ((4, 10, 1.0), [3, 3, 2, 2]),  # 2.5 each: equal remainders in class order
        ((2, 7, 3.0), [5, 2]),  # 3, 1 of 4: 5 1/4, 1 3/4
        ((2, 7, 100.0), [7, 0]),  # floor(3 / 100)
    ],
)
def test_unlabelled_counts_by_hand(arguments, expected):
    counts = longtail.unlabelled_counts(*arguments)
    assert counts.dtype == np.int64 and counts.tolist() == expected


def test_unlabelled_counts_sum_to_the_total():
    for total in (10, 97, 62030, 3 * 10**9):
        for ratio in (1.0, 7.3, 100.0):
            counts = longtail.unlabelled_counts(10, total, ratio)
            assert counts.sum() == total and (counts >= 0).all() and (np.diff(counts) <= 0).all()
    with pytest.raises(UserError, match=r"ratio=0\.5 must be at least 1"):
        longtail.unlabelled_counts(10, 100, 0.5)
    with pytest.raises(UserError, match="pool of 9 images is too small for 10 classes"):
        longtail.unlabelled_counts(10, 9, 2.0)


@pytest.mark.parametrize("text", ["exponential(10)", "step(4, n_max=8)", "pareto(1)", "explicit((9, 5, 1))"])
def test_selected_counts_and_order(text):
    labels, ids = data([30, 20, 25])
    rows = select(text, labels, ids, 3)
    expected = {
        "exponential(10)": [30, 9, 3],
        "step(4, n_max=8)": [8, 2, 2],
        "pareto(1)": [30, 6, 5],  # q 5, 1, 1/5
        "explicit((9, 5, 1))": [9, 5, 1],
    }
    assert np.bincount(labels[rows], minlength=3).tolist() == expected[text]
    assert len(set(rows)) == len(rows) and rows.dtype == np.int64
    assert (np.diff(ids[rows]) > 0).all()


@pytest.mark.parametrize(
    "text",
    [
        "none()",
        "exponential(10)",
        "exponential(10, subset=conventional)",
        "step(4)",
        "pareto(2)",
        "balanced(exponential(10))",
    ],
)
def test_storage_order_does_not_matter(text):
    kept = []
    for order_seed in (3, 4):
        labels, ids = data([30, 20, 25], order_seed)
        rows = select(text, labels, ids, 3, seed=7)
        kept.append((ids[rows].tolist(), labels[rows].tolist()))
    assert kept[0] == kept[1]


def test_n_max_0_is_the_largest_head_every_class_can_supply():
    labels, ids = data([100, 12, 10])  # a ratio of 4 wants n, n/2, n/4: class 1 limits n to 25
    counts = np.bincount(labels[select("exponential(4)", labels, ids, 3)])
    assert counts.tolist() == [25, 12, 6]
    with pytest.raises(UserError, match="class 1 has 12 examples, the profile asks for 13"):
        select("exponential(4, n_max=26)", labels, ids, 3)


def test_n_max_0_of_pareto_leaves_no_class_short():
    labels, ids = data([100, 12, 10])  # alpha 1 wants n, n / 5, n / 25
    assert np.bincount(labels[select("pareto(1)", labels, ids, 3)]).tolist() == [64, 12, 5]
    assert np.bincount(labels[select("pareto(1, n_min=3)", labels, ids, 3)]).tolist() == [64, 12, 3]
    with pytest.raises(UserError, match="class 2 has 10 examples, the profile asks for 11"):
        select("pareto(1, n_min=11)", labels, ids, 3)
    with pytest.raises(UserError, match="class 1 has 12 examples, the profile asks for 13"):
        select("pareto(1, n_max=65)", labels, ids, 3)


def test_seeds_differ_and_a_smaller_class_is_part_of_a_larger_one():
    labels, ids = data([40, 40])
    rows = {seed: set(select("exponential(2)", labels, ids, 2, seed)) for seed in (0, 1)}
    assert rows[0] != rows[1]
    assert set(select("exponential(8)", labels, ids, 2, 0)) < rows[0]


def test_classes_are_drawn_independently():
    labels, ids = data([40, 40])
    other = ids.copy()
    other[labels == 0] += 1000  # other images of class 0 leave the draw of class 1 alone
    rows, moved = (select("exponential(4)", labels, i, 2) for i in (ids, other))
    assert sorted(rows[labels[rows] == 1]) == sorted(moved[labels[moved] == 1])


def test_conventional_is_the_published_procedure_and_ignores_the_seed():
    labels, ids = data([50, 50, 50])
    by_id = np.empty(150, int)
    by_id[ids] = labels
    np.random.seed(0)  # as written in the authors' code: global legacy stream, original order
    expected = []
    for c, n in enumerate(longtail.exponential_counts(3, 50, 10.0)):
        index = np.where(by_id == c)[0]
        np.random.shuffle(index)
        expected += index[:n].tolist()
    for seed in (0, 5):
        rows = select("exponential(10, subset=conventional)", labels, ids, 3, seed)
        assert ids[rows].tolist() == expected


# SHA-256 of the ids, int64 in order, of the published procedure on 50,000 labels i % C. Made once by NumPy 1.24 with
# the authors' own arithmetic, int(n_max * (1 / ratio) ** (j / (C - 1))) and int(n_max * (1 / ratio)), nothing of here.
CONVENTIONAL = {
    (10, "exponential"): {1: "f96331a4df2d6185", 10: "b119a84a3556a73b", 20: "ccbffe8979c001d3", 50: "980b1ecb2f4bcfc0"}
    | {100: "563055e23a86ca16", 200: "329787ed8d5a0ab4"},
    (10, "step"): {1: "f96331a4df2d6185", 10: "595a2c16212515cf", 20: "70018634e6972440", 50: "39f5fe80014f2be3"}
    | {100: "856a0024e29ab4c3", 200: "7037f82d017ae4d7"},
    (100, "exponential"): {1: "3e2b2c1ba637a8fb", 10: "ba33221ce300fee4", 20: "2fd99e4d33580c03"}
    | {50: "eef4ef95f7d1acbc", 100: "7ebcb6242d814b39", 200: "8b8b7fc379387fcb"},
    (100, "step"): {1: "3e2b2c1ba637a8fb", 10: "3a94d69f902697cb", 20: "3f1b06ab342e2f65"}
    | {50: "572ac246f3aca327", 100: "cf2996749845818a", 200: "947c7adb8f3d59a2"},
}


@pytest.mark.parametrize(("num_classes", "profile"), CONVENTIONAL)
def test_the_24_conventional_sets_are_the_published_ones_id_by_id(num_classes, profile):
    """Stored shuffled, as TFDS does."""
    ids = np.random.RandomState(3).permutation(50_000).astype(np.int64)
    labels = (ids % num_classes).astype(np.int32)
    for ratio, digest in CONVENTIONAL[num_classes, profile].items():
        rows = select(f"{profile}({ratio}, subset=conventional)", labels, ids, num_classes)
        assert hashlib.sha256(ids[rows].astype("<i8").tobytes()).hexdigest()[:16] == digest, ratio


@pytest.mark.parametrize(("ratio", "total"), [(10, 4084), (50, 2795), (100, 2478)])
def test_the_subset_of_svhn_is_the_published_procedure(ratio, total):
    """Classes 1, ..., 9, 0 in one legacy stream, class by class; the published sizes at 1,000 images of the head."""
    labels, ids = data([1100 + 30 * c for c in range(10)])
    by_id = np.empty(len(ids), int)
    by_id[ids] = labels
    np.random.seed(0)
    expected, classes = [], np.unique(by_id)
    for c, j in zip(np.concatenate([classes[1:], classes[:1]]), range(10), strict=True):
        index = np.where(by_id == c)[0]
        np.random.shuffle(index)
        expected += index[: int(1000 * (1 / ratio) ** (j / 9) + 1e-9)].tolist()
    rows = select(f"exponential({ratio}, n_max=1000, subset=conventional, order=zero_last)", labels, ids, 10, seed=3)
    assert ids[rows].tolist() == expected and len(rows) == total
    other = select(f"exponential({ratio}, n_max=1000, subset=conventional)", labels, ids, 10)
    assert np.bincount(labels[other])[0] == 1000 and np.bincount(labels[rows])[1] == 1000


def test_by_size_gives_the_head_to_the_largest_class():
    labels, ids = data([10, 48, 100])  # a ratio of 4 wants n, n/2, n/4
    assert np.bincount(labels[select("exponential(4)", labels, ids, 3)]).tolist() == [10, 5, 2]
    assert np.bincount(labels[select("exponential(4, order=by_size)", labels, ids, 3)]).tolist() == [10, 21, 43]
    assert np.bincount(labels[select("step(4, order=by_size)", labels, ids, 3)]).tolist() == [10, 10, 43]
    assert np.bincount(labels[select("pareto(1, order=by_size)", labels, ids, 3)]).tolist() == [5, 20, 100]
    even, ids = data([20, 20, 20])
    for text in ("exponential(4{})", "step(4, subset=conventional{})"):
        rows = [select(text.format(more), even, ids, 3) for more in ("", ", order=by_label", ", order=by_size")]
        assert rows[0].tolist() == rows[1].tolist() == rows[2].tolist()


def test_balanced_control_has_the_same_total():
    labels, ids = data([30, 20, 25])
    total = len(select("exponential(10)", labels, ids, 3))
    rows = select("balanced(exponential(10))", labels, ids, 3)
    assert len(rows) == total == 42
    rows = select("balanced(explicit((30, 5, 5)))", labels, ids, 3)
    assert np.bincount(labels[rows]).tolist() == [14, 13, 13]
    with pytest.raises(UserError, match="class 1 has 20 examples"):
        select("balanced(none())", labels, ids, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exponential(2, order=size)", r"exponential\(order=...\) is by_label or zero_last or by_size, not size"),
        ("exponential(0.5)", "ratio=0.5 must be at least 1"),
        ("step(0)", "ratio=0.0 must be at least 1"),
        ("exponential(1e999)", "ratio=inf"),
        ("exponential(2, n_max=-1)", "n_max=-1"),
        ("exponential(2, subset=convention)", r"exponential\(subset=...\) is seeded or conventional, not convention"),
        ("pareto(0)", "alpha must be a finite number above 0, not 0.0"),
        ("pareto(1e999)", "alpha must be a finite number above 0, not inf"),
        ("pareto(n_min=0)", "n_min=0 must be at least 1"),
        ("pareto(n_max=4)", "n_min=5 must be at least 1, and at most n_max"),
        ("pareto(n_max=-1)", "n_max=-1"),
        ("pareto(subset=cifar)", r"pareto\(subset=...\) is seeded or conventional, not cifar"),
        ("explicit(())", "counts"),
        ("explicit((3, 0))", "counts"),
        ("explicit((3, 1.5))", "counts"),
        ("explicit((3, (many, 2)))", "takes literals, not the name many; text is quoted"),
    ],
)
def test_bad_arguments_are_refused_at_once(text, message):
    with pytest.raises(UserError, match=message):
        spec.bind(text, longtail.LONGTAILS, "longtail")


def test_bad_data_is_refused():
    labels, ids = data([10, 10])
    with pytest.raises(UserError, match=r"leaves class 1 without any; lower the ratio or raise n_max$"):
        select("exponential(11)", labels, ids, 2)
    with pytest.raises(UserError, match="or set order=by_size: that class is not the largest"):
        select("exponential(11)", *data([10, 100]), 2)
    with pytest.raises(UserError, match="class 2 has no examples"):
        select("exponential(2)", labels, ids, 3)
    with pytest.raises(UserError, match="counts has 3 numbers, the data 2 classes"):
        select("explicit((1, 1, 1))", labels, ids, 2)
