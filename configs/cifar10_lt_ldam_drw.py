"""LDAM with deferred re-weighting on CIFAR-10-LT at ratio 100 (Cao et al. 2019), and what it is compared with.

    python main.py --config=configs/cifar10_lt_ldam_drw.py            one GPU
    python main.py --config=configs/cifar10_lt_ldam_drw.py:small      a CPU, minutes
    python launch/sweep.py --config=configs/cifar10_lt_ldam_drw.py --root=runs/cifar10_lt    CE, LA and others, 3 seeds

ResNet-32, 200 epochs, SGD with weight decay on all parameters, lr 0.1 with 5 epochs of warm-up, x0.01 after epoch 160
and 180; class-balanced weights from epoch 160. Published top-1 accuracy in this setting: CE 70.4, LDAM-DRW
77.0. `classifier` stages on the finished network: `--config.stages="('train', 'balanced')"`.

Cost: about 1 PFLOP. Measured, 10 epochs in place of 200 on one CPU core, seed 0: README,
results/cifar10_lt_short.json. The full run not yet, for want of a GPU.
"""

from ml_collections import ConfigDict

from lt_noisy import config, recipes
from lt_noisy.sweeps import Cell, axis, product


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is 3 epochs of ResNet-20."""
    config.check_variant(variant)
    c = recipes.cifar10_lt()
    c.model = "resnet32(width=16)"
    c.precision = "float32"
    c.steps_per_call = 1
    c.stages = ("train",)
    c.train = config.section("supervised", **recipes.LDAM_DRW, **recipes.yang_xu())
    c.balanced = config.section("classifier", init="train", method="posthoc(tau=1.0)")
    return recipes.small(c, "train", lr=0.1) if variant == "small" else c


BASELINE = {"loss": "CE"}


def sweep(variant: str = "") -> list[Cell]:
    """Losses and re-balancing from scratch, three seeds."""
    plain = {"head": "linear()", "reweight": "none()"}
    losses = {
        "CE": {**plain, "loss": "cross_entropy()"},
        "LDAM-DRW": recipes.LDAM_DRW,
        "LA": {**plain, "loss": "logit_adjusted(tau=1.0)"},
        "CE-DRW": {**recipes.LDAM_DRW, "head": "linear()", "loss": "cross_entropy()"},
        "CE-DRS": {**plain, "loss": "cross_entropy()", "sampler": "deferred(class_balanced(), start=0.8)"},
        "focal": {**plain, "loss": "focal(gamma=1.0)"},
    }
    return product(recipes.loss_axis(losses, "train"), axis("seed", range(3)))
