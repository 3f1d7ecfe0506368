"""P1's semi-supervised branch on CIFAR-10: pseudo-labels for five times as many unlabelled images (Yang & Xu 2020).

    python main.py --config=configs/cifar10_lt_semi.py            one GPU
    python main.py --config=configs/cifar10_lt_semi.py:small      a CPU, minutes
    ... --config.labels.ratio=50.0                                the pool as long-tailed as the labelled set
    ... --config.labels.irrelevant=0.4 --config.labels.irrelevant_source='tfds(cifar100)'
    python launch/sweep.py --config=configs/cifar10_lt_semi.py --root=runs/semi    pools of several ratios, 3 seeds

A base classifier, hard pseudo-labels for the whole pool in one round, and training from scratch on both with one mean
cross-entropy. Their pool came from 80 Million Tiny Images, since withdrawn. Ours is drawn from the CIFAR-10 training
images that the long tail left out; with 5,000 images of the head class none of it would be left, so the labelled set
has n_max 750 (2,096 images at ratio 50). Figures are therefore not comparable with the paper's (error at ratio 50: CE
25.19, with the pool 16.79).

Cost: about 0.2 PFLOP for the base, 1 for the joint training.
Measured, small variant: docs/results.md, results/cifar10_lt_semi_small/. The full run not yet, for want of a GPU.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, default, section
from lt_noisy.runs.sweeps.cells import Cell, axis, product


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is a few epochs of ResNet-20."""
    check_variant(variant)
    c = default()
    c.dataset = "tfds(cifar10)"
    c.longtail = "exponential(ratio=50, n_max=750)"
    c.model = "resnet32(width=16)"
    c.stages = ("base", "labels", "joint")
    c.base = section("supervised", loss="cross_entropy()", **recipes.yang_xu())
    c.labels = section("pseudo_label", init="base", pool="left_out()", times=5.0, ratio=1.0)
    c.joint = section("supervised", pseudo="labels", loss="cross_entropy()", **recipes.yang_xu(batch_size=256))
    if variant == "small":
        recipes.small(c, "base", "joint", lr=0.1)
        c.base.length = "epochs(18)"
    return c


BASELINE = {"pool": "none"}


def sweep(variant: str = "") -> list[Cell]:
    """The base alone, and pools of rising imbalance and of fewer relevant images."""
    pools = {
        "none": {"stages": ("base",)},
        "ratio 1": {"labels.ratio": 1.0},
        "ratio 25": {"labels.ratio": 25.0},
        "ratio 50": {"labels.ratio": 50.0},
        "ratio 100": {"labels.ratio": 100.0},
        "ratio 1, 40 % irrelevant": {"labels.irrelevant": 0.4, "labels.irrelevant_source": "tfds(cifar100)"},
        "ratio 1, 80 % irrelevant": {"labels.irrelevant": 0.8, "labels.irrelevant_source": "tfds(cifar100)"},
    }
    return product(axis("pool", pools), axis("seed", range(3)))
