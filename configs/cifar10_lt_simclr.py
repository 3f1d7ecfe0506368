"""SimCLR on CIFAR-10-LT at ratio 100, then a linear and a kNN probe.

    python main.py --config=configs/cifar10_lt_simclr.py                one GPU, light recipe, 500 epochs
    python main.py --config=configs/cifar10_lt_simclr.py:published      solo-learn's recipe for CIFAR-10, 1000 epochs
    python main.py --config=configs/cifar10_lt_simclr.py:small          a CPU, minutes

The balanced control of the same size: --config.longtail='balanced(exponential(ratio=100, subset=conventional))'.

`published` is simclr.yaml of vturrisi/solo-learn (scripts/pretrain/cifar) on long-tailed data, its clipped LARS and
bicubic crops included. It differs by both views in one pass (theirs one a view, each with BatchNorm statistics of its
own), a ResNet stem with padding 1 that starts as the other convolutions (theirs 2, and as PyTorch starts it), and
precision: float32, theirs float16 with loss scaling, from which bfloat16 would be farther. Its blur is a kernel of 13
taps, three of the largest sigma to each side.

Cost: about 36 PFLOP (0.97 GFLOP a forward pass by XLA's count, three times that an image and view).
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
    c.pretrain = recipes.light("simclr(temperature=0.5)")
    c.probe = section("probe")
    if variant == "published":
        c.precision = "float32"
        c.pretrain = recipes.light(
            "simclr(temperature=0.2, hidden=2048, size=256, init=torch)",
            length="epochs(1000)",
            batch_size=256,
            augment="compose(resized_crop(min_area=0.08, interpolation=bicubic), flip(), "
            f"jitter(0.8, 0.8, 0.8, 0.2, p=0.8), grey(), blur(kernel=13), {NORMALISE_SOLO_LEARN})",
            optimizer="lars(momentum=0.9, weight_decay=1e-4, trust=0.02, clip=True)",
            schedule="cosine(lr=0.4, warmup=0.01)",
        )
    return recipes.small(c, "pretrain") if variant == "small" else c
