"""P2's semi-synthetic experiment: what labels leave unlearnt. Frequent classes show on the left, rare on the right.

    python main.py --config=configs/semi_synthetic.py            CIFAR-10, one GPU
    python main.py --config=configs/semi_synthetic.py:small      digits, a minute on a CPU

Images of five frequent classes (5000 each) keep their left half and get a random right half; those of five rare classes
(10 each) keep their right half and have a blank left one. Labels of the frequent classes never need the right half, so
a supervised network need not learn it; a self-supervised one has no reason to skip it. Linear probes on the full
balanced split; the rare classes are the group `few`. Flips are off. Published accuracy on the rare classes: supervised
44.3, SimCLR 70.1. How the authors cut the halves and drew the random ones is not published: see `halves`.

Cost: about 90 PFLOP; the small variant takes a minute.
Measured, small variant, seeds 0 to 2, linear probe in percent (results/semi_synthetic_small): rare classes
93.5 +- 1.2 after SimCLR, 91.5 +- 0.9 after supervised learning; frequent ones 91.9 +- 0.5 and 95.9 +- 0.6.
The full run not yet, for want of a GPU.
"""

from ml_collections import ConfigDict

from lt_noisy.augment.recipes import NORMALISE_CIFAR
from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, section


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is digits and ResNet-8."""
    check_variant(variant)
    c = recipes.cifar10_lt()
    c.dataset = "halves(tfds(cifar10), frequent=5)"
    c.longtail = "explicit(counts=(5000, 5000, 5000, 5000, 5000, 10, 10, 10, 10, 10))"
    c.stages = ("pretrain", "probe", "supervised", "probe_supervised")
    c.pretrain = recipes.light(
        "simclr(temperature=0.5)",
        augment=f"compose(resized_crop(), jitter(0.4, 0.4, 0.4, 0.1, p=0.8), grey(), {NORMALISE_CIFAR})",
    )
    c.supervised = section(
        "supervised",
        length="epochs(200)",
        augment=f"compose(crop(pad=4), {NORMALISE_CIFAR})",
        schedule="cosine(lr=0.1, warmup=0.02)",
        log_every="percent(2)",
    )
    c.probe = section("probe", init="pretrain")
    c.probe_supervised = section("probe", init="supervised")
    if variant == "small":
        c.dataset = "halves(digits(test_per_class=50), frequent=5)"
        c.longtail = "explicit(counts=(120, 120, 120, 120, 120, 5, 5, 5, 5, 5))"
        c.model = "resnet8(width=16)"
        c.precision = "float32"
        c.steps_per_call = 1
        c.pretrain.length, c.supervised.length = "epochs(100)", "epochs(60)"
        c.pretrain.batch_size = c.supervised.batch_size = 64
        c.pretrain.schedule = "cosine(lr=0.06, warmup=0.05)"
        c.pretrain.augment = "simclr_digits()"
        c.supervised.augment = "digits()"
        c.pretrain.monitor = c.probe.knn = c.probe_supervised.knn = "knn(k=20)"
    return c
