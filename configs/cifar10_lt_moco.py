"""MoCo v2 on CIFAR-10-LT at ratio 100, then a linear and a kNN probe.

    python main.py --config=configs/cifar10_lt_moco.py                one GPU, light recipe, 500 epochs
    python main.py --config=configs/cifar10_lt_moco.py:published      the authors' recipe for CIFAR-10, 200 epochs
    python main.py --config=configs/cifar10_lt_moco.py:small          a CPU, minutes

`published` is the CIFAR-10 demo of facebookresearch/moco (colab/moco_cifar10_demo.ipynb) on long-tailed data:
asymmetric, with a linear head, in float32. It differs by BatchNorm over the whole batch (theirs: 8 shuffled parts), a
queue that starts empty, and a stem that starts as the other convolutions (theirs as PyTorch starts it).

Cost: about 48 PFLOP (as SimCLR and a forward pass more a view, for the keys).
Measured: the small variant (docs/results.md, results/ssl_cifar10_small.json); the full run not yet, for want of a GPU.
"""

from ml_collections import ConfigDict

from lt_noisy.augment.recipes import NORMALISE_CIFAR
from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, section


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variants `published` and `small`."""
    check_variant(variant, ("published", "small"))
    c = recipes.cifar10_lt()
    c.stages = ("pretrain", "probe")
    c.pretrain = recipes.light("moco(temperature=0.1, queue=4096, momentum=0.99)")
    c.probe = section("probe")
    if variant == "published":
        c.precision = "float32"
        c.pretrain = recipes.light(
            "moco(temperature=0.1, queue=4096, momentum=0.99, symmetric=False, hidden=0, size=128, init=torch)",
            length="epochs(200)",
            augment="compose(resized_crop(min_area=0.08), flip(), jitter(0.4, 0.4, 0.4, 0.1, p=0.8), grey(), "
            f"{NORMALISE_CIFAR})",
            optimizer="sgd(momentum=0.9, weight_decay=5e-4, decay=all)",
            schedule="cosine(lr=0.06)",
        )
    return recipes.small(c, "pretrain") if variant == "small" else c
