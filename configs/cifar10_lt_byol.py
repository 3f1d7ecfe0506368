"""BYOL on CIFAR-10-LT at ratio 100, then a linear and a kNN probe.

    python main.py --config=configs/cifar10_lt_byol.py                one GPU, light recipe, 500 epochs
    python main.py --config=configs/cifar10_lt_byol.py:published      solo-learn's recipe for CIFAR-10, 1000 epochs
    python main.py --config=configs/cifar10_lt_byol.py:small          a CPU, minutes

`published` is byol.yaml of vturrisi/solo-learn (scripts/pretrain/cifar) on long-tailed data, its clipped LARS and
bicubic crops included. It differs by the same views on both sides (theirs solarises one in five of the second), a
ResNet stem with padding 1 that starts as the other convolutions (theirs 2, and as PyTorch starts it), and precision:
float32, theirs float16 with loss scaling, from which bfloat16 would be farther.

Cost: about 48 PFLOP (as SimCLR and a forward pass more a view, for the target network).
Measured: the small variant (docs/results.md, results/ssl_cifar10_small.json); the full run not yet, for want of a GPU.
"""

from ml_collections import ConfigDict

from lt_noisy.augment.recipes import NORMALISE_SOLO_LEARN
from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, section


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variants `published` and `small`."""
    check_variant(variant, ("published", "small"))
    c = recipes.cifar10_lt()
    c.stages = ("pretrain", "probe")
    c.pretrain = recipes.light("byol(momentum=0.99, hidden=1024, size=256)")
    c.probe = section("probe")
    if variant == "published":
        c.precision = "float32"
        c.pretrain = recipes.light(
            "byol(momentum=0.99, hidden=4096, size=256, init=torch)",
            length="epochs(1000)",
            batch_size=256,
            augment="compose(resized_crop(min_area=0.08, interpolation=bicubic), flip(), "
            f"jitter(0.4, 0.4, 0.2, 0.1, p=0.8), grey(), {NORMALISE_SOLO_LEARN})",
            optimizer="lars(momentum=0.9, weight_decay=1e-5, trust=0.02, clip=True)",
            schedule="cosine(lr=1.0, warmup=0.01)",
        )
    return recipes.small(c, "pretrain") if variant == "small" else c
