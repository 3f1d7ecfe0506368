"""MixNN (Lu & He 2024, P4) on Mini-WebVision: 50 classes, 65,944 images that Google found, 2,500 clean test images.

    python main.py --config=configs/webvision_mini_mixnn.py                GPUs
    python main.py --config=configs/webvision_mini_mixnn.py:small          a CPU, a minute, on any such layout
    python launch/sweep.py --config=configs/webvision_mini_mixnn.py --root=runs/webvision    CE, ELR, MixNN, LA+SL

`webvision/` has `info/`, `google/` and `val_images_256/`. `:small` takes any such folder, of as many classes as it has:

    python tests/helpers/layouts.py webvision webvision
    ... --config.dataset="webvision(path='webvision', classes=4, size=32, resize=36)"

The paper has no row on this set that we found: the settings are those of its CIFAR runs as far as they carry over, with
ResNet-50 and 100 epochs, and ours.

Cost: about 0.3 EFLOP (4.1 G multiply-adds a forward pass at 224 pixels; MixNN takes a second pass without gradient).
Measured: `small` alone, on invented pictures. The full run not yet, for want of GPUs and the data.
"""

from ml_collections import ConfigDict

from lt_noisy.augment.recipes import NORMALISE_IMAGENET
from lt_noisy.config.resolve import check_variant, default, section
from lt_noisy.runs.sweeps.cells import Cell, axis, product

RECIPE = {
    "length": "epochs(100)",
    "batch_size": 128,
    "augment": f"compose(whole_crop(), flip(), {NORMALISE_IMAGENET})",
    "optimizer": "sgd(momentum=0.9, weight_decay=5e-4, decay=all)",
    "schedule": "cosine(lr=0.1, warmup=0.02)",
    "log_every": "percent(2)",
}


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is ResNet-8 and five epochs."""
    check_variant(variant)
    c = default()
    c.dataset = "webvision(path='webvision', classes=50, size=224, resize=256)"
    c.model = "resnet50()"
    c.precision = "bfloat16"
    c.stages = ("train",)
    c.train = section("mixnn", warmup=10, correct_from=30, correct_every=5, **RECIPE)
    c.plain = section("supervised", **RECIPE)
    if variant == "small":
        c.dataset = "webvision(path='webvision', classes=50, size=32, resize=36)"
        c.model = "resnet8(width=16)"
        c.precision = "float32"
        c.train.warmup, c.train.correct_from, c.train.correct_every = 2, 3, 1
        for stage in (c.train, c.plain):
            stage.length, stage.batch_size = "epochs(5)", 4
    return c


BASELINE = {"method": "CE"}


def sweep(variant: str = "") -> list[Cell]:
    """Cross-entropy, ELR, logit adjustment in SuperLoss and MixNN."""
    plain = {"stages": ("plain",)}
    methods = {
        "CE": plain,
        "ELR": {**plain, "plain.loss": "elr(beta=0.7, lam=3.0)"},
        "LA+SL": {**plain, "plain.loss": "superloss(logit_adjusted(tau=1.0), lam=1.0)"},
        "MixNN": {},
    }
    return product(axis("method", methods), axis("seed", range(3)))
