"""CIFAR-10N: labels that people gave (Wei et al. 2022), alone and long-tailed.

    python main.py --config=configs/cifar10n.py            one GPU: all 50,000 images, ELR
    python main.py --config=configs/cifar10n.py:longtail   ratio 100 with human labels, LA inside SuperLoss
    python main.py --config=configs/cifar10n.py:small      the long-tailed one on a CPU, minutes

The network is ELR's, ResNet-34 that starts as PyTorch starts it; the schedule is ours.

Get the labels from the authors (CC BY-NC 4.0) and save them as cifar_n_labels.npz here, entry i the label of the
training image with original index i, one array a kind: cifar10_worse_label, cifar10_aggre_label,
cifar10_random_label1. Another place or kind: `--config.noise="human(path='x.npz', key=cifar10_aggre_label)"`. `folds`
judges every label by a network that has not seen it; its label_quality.npz is the list of labels to look at.

Cost: about 180 PFLOP with the folds (XLA counts 2.0 GFLOP a forward pass); `--config.stages="('train',)"` a fifth.
Measured, small variant: docs/results.md, results/cifar10n_small/. The full run not yet, for want of a GPU.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, default, section

RECIPE = {
    "head": "linear(init=torch)",
    "length": "epochs(120)",
    "batch_size": 128,
    "augment": "cifar()",
    "optimizer": "sgd(momentum=0.9, weight_decay=1e-3)",
    "schedule": "piecewise(lr=0.02, boundaries=(0.67,), factor=0.01)",
    "log_every": "percent(2)",
}


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variants `longtail` and `small`."""
    check_variant(variant, ("longtail", "small"))
    c = default()
    c.dataset = "tfds(cifar10)"
    c.noise = "human(path='cifar_n_labels.npz', key=cifar10_worse_label)"
    c.model = "resnet34(stem=cifar, init=torch)"
    c.precision = "bfloat16"
    c.steps_per_call = 1
    c.stages = ("train", "folds")
    c.train = section("supervised", loss="elr(beta=0.7, lam=3.0)", **RECIPE)
    c.folds = section("cross_fit", folds=5, loss="cross_entropy()", **RECIPE)
    if variant:
        c.longtail = "exponential(ratio=100, subset=conventional)"
        c.train.loss = "superloss(logit_adjusted(tau=1.0), lam=1.0)"
    if variant == "small":
        recipes.small(c, "train", "folds", lr=0.1)
        c.model = "resnet8(width=16)"
        c.train.head = c.folds.head = "linear()"  # as measured
        c.folds.folds = 2
    return c
