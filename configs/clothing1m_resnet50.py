"""Clothing1M (Xiao et al. 2015) from ImageNet's ResNet-50, as every published row has it: logit adjustment, SuperLoss.

    python main.py --config=configs/clothing1m_resnet50.py            GPUs
    python main.py --config=configs/clothing1m_resnet50.py:small      a CPU, a minute, on any such layout, from scratch

`resnet50.safetensors` is torchvision's or timm's, with timm's `config.json` beside it (docs/pretrained.md); the data
are those of `configs/clothing1m.py`. `--config.stages="('mixnn',)"` is MixNN (P4) from the same weights. Settings are
ours.

Cost: about 0.25 EFLOP (4.1 G multiply-adds a forward pass at 224 pixels, three times that an image, 10 epochs of one
million). Not run: no GPU was at hand.
Measured: nothing; `small` takes a minute of a CPU on invented pictures in the same layout.
"""

from ml_collections import ConfigDict

from lt_noisy.augment.recipes import NORMALISE_IMAGENET
from lt_noisy.config.resolve import check_variant, default, section

RECIPE = {
    "init": "pretrained(path='resnet50.safetensors')",
    "batch_size": 64,
    "augment": f"compose(whole_window(256), flip(), {NORMALISE_IMAGENET})",
    "optimizer": "sgd(momentum=0.9, weight_decay=1e-3)",
    "schedule": "cosine(lr=0.002)",
    "length": "epochs(10)",
}


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is ResNet-8 from scratch, an epoch."""
    check_variant(variant)
    c = default()
    c.dataset = "clothing1m(path='clothing1m', size=224, resize=256)"
    c.model = "resnet50()"
    c.precision = "bfloat16"
    c.stages = ("finetune",)
    c.finetune = section("supervised", loss="superloss(logit_adjusted(tau=1.0), lam=1.0)", **RECIPE)
    c.mixnn = section("mixnn", warmup=1, correct_from=3, correct_every=1, **RECIPE)
    if variant == "small":
        c.dataset = "clothing1m(path='clothing1m', size=32, resize=36)"
        c.model = "resnet8(width=16)"
        c.precision = "float32"
        c.finetune.init = c.mixnn.init = "none()"
        c.finetune.length, c.finetune.batch_size = "epochs(1)", 8
        c.mixnn.length, c.mixnn.batch_size = "epochs(6)", 8
    return c
