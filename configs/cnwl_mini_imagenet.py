"""Real wrong labels at known rates: CNWL's red noise on Mini-ImageNet (Jiang et al. 2020), 100 classes.

    python main.py --config=configs/cnwl_mini_imagenet.py                 one GPU
    python main.py --config=configs/cnwl_mini_imagenet.py:small           a CPU, a minute, on any such layout
    python launch/sweep.py --config=configs/cnwl_mini_imagenet.py --root=runs/cnwl    four rates, five methods, 3 seeds

`mini-imagenet/` has `split/`, `class_name.txt` and the images in `all_images/` or `noisy_images/`; `:small` takes any
such folder: `python tests/helpers/layouts.py cnwl mini-imagenet` invents one. Which images came from the web in the
place of right ones the file names tell: the suspect list is judged by that (`flags` in a summary), training never sees
it. A long tail on top: `--config.longtail="exponential(ratio=10)"`.

SimCLR on the images alone, then a classifier (P0) in 32 pixels, as work on CNWL compares; settings are ours.

Cost: about 200 PFLOP, most of it pre-training (1.1 GFLOP a forward pass of ResNet-18 at 32 pixels).
Measured: `small` alone, on invented pictures. The full run not yet, for want of a GPU and the data.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, default, section
from lt_noisy.runs.sweeps.cells import Cell, axis, product

RECIPE = {
    "length": "epochs(200)",
    "batch_size": 128,
    "augment": "cifar()",
    "optimizer": "sgd(momentum=0.9, weight_decay=5e-4, decay=all)",
    "schedule": "cosine(lr=0.02, warmup=0.02)",
    "log_every": "percent(2)",
}


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is ResNet-8 and two epochs of each stage."""
    check_variant(variant)
    c = default()
    c.dataset = "cnwl(path='mini-imagenet', colour=red, rate=0.4, size=32)"
    c.model = "resnet18(stem=cifar)"
    c.precision = "bfloat16"
    c.stages = ("pretrain", "finetune")
    c.pretrain = recipes.light("simclr(temperature=0.2)", monitor="none()")
    c.finetune = section("supervised", init="pretrain", loss="superloss(logit_adjusted(tau=1.0), lam=0.25)", **RECIPE)
    c.mixnn = section("mixnn", warmup=10, correct_from=60, correct_every=10, **RECIPE)
    if variant == "small":
        c.model = "resnet8(width=16)"
        c.precision = "float32"
        for stage in (c.pretrain, c.finetune):
            stage.length, stage.batch_size = "epochs(2)", 8
        c.mixnn.length, c.mixnn.batch_size = "epochs(4)", 8
        c.mixnn.warmup, c.mixnn.correct_from, c.mixnn.correct_every = 2, 3, 1
    return c


BASELINE = {"method": "CE"}


def sweep(variant: str = "") -> list[Cell]:
    """CE, ELR, LA+SL with and without pre-training, and MixNN at four rates of red noise."""
    rates = {
        rate: {"dataset": f"cnwl(path='mini-imagenet', colour=red, rate={rate}, size=32)"}
        for rate in (0.2, 0.4, 0.6, 0.8)
    }
    methods = {
        "CE": {**recipes.SCRATCH, "finetune.loss": "cross_entropy()"},
        "ELR": {**recipes.SCRATCH, "finetune.loss": "elr(beta=0.9, lam=7.0)"},
        "LA+SL": recipes.SCRATCH,
        "SimCLR, LA+SL": {},
        "MixNN": {"stages": ("mixnn",)},
    }
    return product(axis("rate", rates), axis("method", methods), axis("seed", range(3)))
