"""Clothing1M (Xiao et al. 2015): a million clothes in 14 classes with labels from the web, tested on 10,526 clean ones.

    python main.py --config=configs/clothing1m.py            GPUs
    python main.py --config=configs/clothing1m.py:small      a CPU, a minute, on any such layout

`clothing1m/` has `images/`, the key lists and the label lists; `python tests/helpers/layouts.py clothing1m clothing1m`
invents one. The images stay on the disk and are read step by step: windows of 224 pixels of the whole picture, whose
shorter side is 256, and their centre to test, as published programs for this set have it.

SimCLR looks at the images alone, then a ResNet-50 is trained with logit adjustment inside SuperLoss (P0);
`--config.stages="('mixnn',)"` is MixNN (P4) from scratch in their place.
The published rows start from ImageNet's weights (`configs/clothing1m_resnet50.py`); settings are ours.

Cost: about 1.2 EFLOP (4.1 G multiply-adds a forward pass at 224 pixels; three times that an image and view, 20 epochs
of two views and 10 of one). Not run: no GPU was at hand.
Measured: nothing on the set itself; `small` takes a minute of a CPU on one in the same layout with invented pictures.
"""

from ml_collections import ConfigDict

from lt_noisy.augment.recipes import NORMALISE_IMAGENET
from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, default, section

RECIPE = {
    "batch_size": 256,
    "augment": f"compose(whole_window(256), flip(), {NORMALISE_IMAGENET})",
    "optimizer": "sgd(momentum=0.9, weight_decay=1e-3)",
    "schedule": "cosine(lr=0.1, warmup=0.05)",
    "length": "epochs(10)",
}


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is ResNet-8 and an epoch of each stage."""
    check_variant(variant)
    c = default()
    c.dataset = "clothing1m(path='clothing1m', size=224, resize=256)"
    c.model = "resnet50()"
    c.precision = "bfloat16"
    c.stages = ("pretrain", "finetune")
    c.pretrain = recipes.light(
        "simclr(temperature=0.2)",
        augment=f"compose(whole_crop(0.2), flip(), jitter(0.4, 0.4, 0.4, 0.1, p=0.8), grey(), {NORMALISE_IMAGENET})",
        batch_size=256,
        length="epochs(20)",
        schedule="cosine(lr=0.12, warmup=0.05)",
        monitor="none()",
    )
    c.finetune = section("supervised", init="pretrain", loss="superloss(logit_adjusted(tau=1.0), lam=1.0)", **RECIPE)
    c.mixnn = section("mixnn", warmup=2, correct_from=5, correct_every=2, **RECIPE)
    if variant == "small":
        c.dataset = "clothing1m(path='clothing1m', size=32, resize=36)"
        c.model = "resnet8(width=16)"
        c.precision = "float32"
        for stage in (c.pretrain, c.finetune):
            stage.length, stage.batch_size = "epochs(1)", 8
        c.mixnn.length, c.mixnn.batch_size = "epochs(6)", 8
    return c
