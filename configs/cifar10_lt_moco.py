"""MoCo v2 on CIFAR-10-LT at ratio 100, then a linear and a kNN probe.

    python main.py --config=configs/cifar10_lt_moco.py                one GPU, light recipe
    python main.py --config=configs/cifar10_lt_moco.py:published      solo-learn's CIFAR-10 recipe
    python main.py --config=configs/cifar10_lt_moco.py:small          a CPU, minutes
"""

from ml_collections import ConfigDict

from lt_noisy import config, recipes


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variants `published` and `small`."""
    config.check_variant(variant, recipes.VARIANTS)
    c = recipes.cifar10_lt()
    c.stages = ("pretrain", "probe")
    c.pretrain = recipes.light("moco()")
    c.probe = config.section("probe")
    return recipes.small(c, "pretrain") if variant == "small" else c
