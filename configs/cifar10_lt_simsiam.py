"""SimSiam on CIFAR-10-LT at ratio 100, then a linear and a kNN probe: the base method of P2.

    python main.py --config=configs/cifar10_lt_simsiam.py                one GPU, light recipe, 500 epochs
    python main.py --config=configs/cifar10_lt_simsiam.py:published      Liu et al. 2022, 1600 epochs
    python main.py --config=configs/cifar10_lt_simsiam.py:small          a CPU, minutes

`published` is their network, start of its weights (PyTorch's), float32 and optimiser, and their probe, an oracle,
beside ours (cifar10_lt_rwsam.py says how they differ). SimSiam looks good only after 400 to 800 epochs. The balanced
control of the same size, for the relative gap (benchmarks/relative_gap.py):
--config.longtail='balanced(exponential(ratio=100, subset=conventional))'.

Cost: about 36 PFLOP at 500 epochs.
Measured: the small variant (docs/results.md, results/ssl_cifar10_small.json); the full run not yet, for want of a GPU.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, section


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variants `published` and `small`."""
    check_variant(variant, ("published", "small"))
    c = recipes.cifar10_lt()
    c.stages = ("pretrain", "probe")
    c.pretrain = recipes.light("simsiam(size=2048, hidden=512)", schedule="cosine(lr=0.06)")
    c.probe = section("probe")
    if variant == "published":
        c.model = "resnet18(stem=cifar, init=torch)"
        c.precision = "float32"
        c.pretrain.objective = "simsiam(size=2048, hidden=512, init=torch)"
        c.pretrain.length = "epochs(1600)"
        c.pretrain.optimizer = "sgd(momentum=0.9, weight_decay=5e-4, decay=all)"
        c.probe.linear = "sgd(lr=30.0, epochs=100, batch_size=256)"
        c.probe.oracle = "liu(lr=30.0, epochs=100, batch_size=256)"
    return recipes.small(c, "pretrain", lr=0.03) if variant == "small" else c
