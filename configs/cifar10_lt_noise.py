"""CIFAR-10-LT at ratio 100 with 40 % symmetric noise: SimCLR, then logit adjustment inside SuperLoss (P0).

    python main.py --config=configs/cifar10_lt_noise.py            one GPU
    python main.py --config=configs/cifar10_lt_noise.py:small      a CPU
    python launch/sweep.py --config=configs/cifar10_lt_noise.py --root=runs/p0            P0's grid
    python launch/sweep.py --config=configs/cifar10_lt_noise.py:twelve --root=runs/p0_12  12 of it, whose stages
        `--store=runs/p0/stages` shares with the grid

The set is the conventional subset (12,406 images). The paper's own pre-training, backbone and schedule are not
published; ResNet-18 and these settings are ours.

Cost: the full run is about 40 PFLOP (XLA counts 0.97 GFLOP a forward pass; three times that an image and view, 500
epochs of two views and 100 of one). It has not been run yet: no GPU was at hand.
The small variant does 1.14 times the work of CIFAR-100's, which takes 20
minutes on 2 CPU cores.
Measured: nothing yet.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, default, section
from lt_noisy.runs.sweeps.cells import Cell


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is ResNet-20 for minutes on a CPU, `twelve` only shortens the sweep."""
    check_variant(variant, ("small", "twelve"))
    c = default()
    c.dataset = "tfds(cifar10)"
    c.longtail = "exponential(ratio=100, subset=conventional)"
    c.noise = "symmetric(rate=0.4)"
    c.model = "resnet18(stem=cifar)"
    c.precision = "bfloat16"
    c.steps_per_call = 4
    c.stages = ("pretrain", "finetune")
    c.pretrain = section(
        "self_supervised",
        objective="simclr(temperature=0.5)",
        length="epochs(500)",
        batch_size=512,
        augment="simclr_cifar()",
        optimizer="sgd(momentum=0.9, weight_decay=5e-4)",
        schedule="cosine(lr=0.24, warmup=0.02)",
        log_every="percent(2)",
    )
    c.finetune = section(
        "supervised",
        init="pretrain",
        loss="superloss(logit_adjusted(tau=1.0), lam=1.0)",
        length="epochs(100)",
        batch_size=128,
        augment="cifar()",
        optimizer="sgd(momentum=0.9, weight_decay=5e-4)",
        schedule="cosine(lr=0.05, warmup=0.02)",
        log_every="percent(2)",
    )
    if variant == "small":
        c.model = "resnet20(width=16)"
        c.precision = "float32"
        c.steps_per_call = 1
        c.pretrain.length = "epochs(5)"
        c.pretrain.batch_size = 128
        c.pretrain.schedule = "cosine(lr=0.06, warmup=0.05)"
        c.finetune.length = "epochs(8)"
        c.pretrain.eval_every = c.finetune.eval_every = "percent(50)"
    return c


BASELINE = {"init": "scratch", "loss": "CE"}


def sweep(variant: str = "") -> list[Cell]:
    """P0's grid; `twelve` and `small` keep 12 settings of it, three seeds each."""
    sce = "symmetric_cross_entropy(alpha=0.1, beta=1.0)"  # as released
    cells = recipes.p0_grid(lam=1.0, sce=sce, elr="elr(beta=0.7, lam=3.0)")
    return recipes.twelve(cells) if variant else cells
