"""P1's semi-supervised branch on SVHN at ratio 50, with its `extra` split as the unlabelled pool (Yang & Xu 2020).

    python main.py --config=configs/svhn_lt_semi.py            one GPU
    python main.py --config=configs/svhn_lt_semi.py:small      a CPU, minutes
    ... --config.labels.ratio=50.0                             the pool as long-tailed as the labelled set

The head class is the digit 1, with 1,000 images, the rarest 0, with 20: the paper's subset, its 2,795 images by their
place in SVHN's own file, which TFDS's `id` holds. Which images of `extra` are drawn is ours. The paper's figures may
be those of the best epoch on test, which its program keeps; ours are the last epoch's. Published top-1 error with a
pool of ratio 1, 25, 50, 100: 13.07, 13.36, 13.16, 14.54.

Cost: about 1.5 PFLOP.
Measured: nothing yet; neither the data nor a GPU was at hand.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, default, section


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is a few epochs of ResNet-20."""
    check_variant(variant)
    c = default()
    c.dataset = "tfds(svhn_cropped)"
    c.longtail = "exponential(ratio=50, n_max=1000, subset=conventional, order=zero_last)"
    c.model = "resnet32(width=16)"
    c.stages = ("base", "labels", "joint")
    augment = "compose(crop(pad=4), flip(), normalise(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))"  # as released
    c.base = section("supervised", loss="cross_entropy()", **recipes.yang_xu(augment=augment))
    c.labels = section("pseudo_label", init="base", pool="tfds(svhn_cropped, train=extra)", times=5.0, ratio=1.0)
    c.joint = section(
        "supervised",
        pseudo="labels",
        loss="cross_entropy()",
        **recipes.yang_xu(augment=augment, batch_size=256),
    )
    if variant == "small":
        recipes.small(c, "base", "joint", lr=0.1)
        c.base.length = "epochs(18)"
    return c
