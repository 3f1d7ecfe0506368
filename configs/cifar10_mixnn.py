"""MixNN (Lu & He 2024) on CIFAR-10 with symmetric noise: P4, and its ablation.

    python main.py --config=configs/cifar10_mixnn.py            one GPU
    python main.py --config=configs/cifar10_mixnn.py:small      a CPU, minutes
    python launch/sweep.py --config=configs/cifar10_mixnn.py --root=runs/mixnn           the ablation, 3 seeds
    python launch/sweep.py --config=configs/cifar10_mixnn.py:light --root=runs/mixnn_light   the same in 60 epochs

ResNet-34 that starts as PyTorch starts it, 300 epochs of batch 128, SGD lr 0.02 with cosine restarts every 10 epochs,
mixup from epoch 10, MixNN after epoch 60. At noise 0.8 the paper averages losses over 5 epochs
(`--config.train.history=5`). It runs in bfloat16, the authors' program in float32 (`--config.precision=float32`). The
paper's tables were not found: judge by the ablation. It has CE, mixup, SELC, corrected targets alone and neighbour
mixing, in the batch or the whole set.

Cost: the full run is about 150 PFLOP (XLA counts 2.0 GFLOP a forward pass), two fifths of it un-mixed and evaluation
passes.
Measured, small variant: docs/results.md, results/cifar10_mixnn_small.json. The full run not yet, for want of a GPU.
"""

from ml_collections import ConfigDict

from lt_noisy.config.resolve import check_variant, default, section
from lt_noisy.runs.sweeps.cells import Cell, axis, chain, product

RECIPE = {
    "head": "linear(init=torch)",
    "length": "epochs(300)",
    "batch_size": 128,
    "augment": "cifar()",
    "optimizer": "sgd(momentum=0.9, weight_decay=1e-3, decay=all)",
    "schedule": "cosine_restarts(lr=0.02, periods=30, final=0.05, by=epoch)",  # held over an epoch, as released
    "log_every": "percent(2)",
}


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `light` is a fifth of the epochs, `small` ResNet-8 on a twentieth of the images."""
    check_variant(variant, ("light", "small"))
    c = default()
    c.dataset = "tfds(cifar10)"
    c.noise = "symmetric(rate=0.4)"
    c.model = "resnet34(stem=cifar, init=torch)"
    c.precision = "bfloat16"
    c.stages = ("train",)
    c.train = section("mixnn", warmup=10, correct_from=60, correct_every=10, **RECIPE)
    c.plain = section("supervised", **RECIPE)
    if variant == "light":
        c.train.warmup, c.train.correct_from = 3, 12
        c.train.correct_every = 2
    if variant == "small":
        c.longtail = "balanced(exponential(ratio=1, n_max=250))"
        c.model = "resnet8(width=16)"
        c.precision = "float32"
        c.train.warmup, c.train.correct_from, c.train.correct_every = 3, 8, 2
    for stage in (c.train, c.plain):
        if variant:
            stage.length = "epochs(60)" if variant == "light" else "epochs(20)"
        if variant == "light":  # restarts every 2 epochs: of one held rate each there would be two
            stage.schedule = "cosine_restarts(lr=0.02, periods=30, final=0.05)"
        if variant == "small":
            stage.head = "linear()"  # as measured
            stage.schedule = "cosine(lr=0.05)"
            stage.eval_every = "percent(50)"
    return c


BASELINE = {"method": "CE"}


def sweep(variant: str = "") -> list[Cell]:
    """The ablation under symmetric noise 0.4, and the method at other rates; `small` has CE and MixNN, one seed."""
    plain = {"stages": ("plain",)}
    never = {"train.correct_from": 0}
    methods = {
        "CE": plain,
        "mixup": {**plain, "plain.mix": "mixup(alpha=1.0)"},
        "mixup, linear loss": {**never, "train.mixup": "linear"},
        "SELC": {**plain, "plain.loss": "selc(momentum=0.9, start=0.2)"},
        "corrected targets alone": {"train.neighbours": "none()"},
        "neighbours, targets as they are": {"train.momentum": 1.0},
        "MixNN": {},
        "MixNN, mixup phase CE": {"train.mixup": "ce"},
        "MixNN, k = 3": {"train.neighbours": "in_batch(k=3)"},
        "MixNN, neighbours in the whole set": {"train.neighbours": "in_set(k=2)"},
    }
    rates = axis("noise", {rate: {"noise": f"symmetric(rate={rate})"} for rate in (0.2, 0.4)})
    few = {name: methods[name] for name in ("CE", "MixNN")}
    ablation = product(rates[1:], axis("method", methods), axis("seed", range(3)))
    if variant == "small":
        return product(rates[1:], axis("method", few), axis("seed", (0,)))
    heavy = axis("noise", {0.8: {"noise": "symmetric(rate=0.8)", "train.history": 5}})
    return chain(ablation, product(chain(rates[:1], heavy), axis("method", few), axis("seed", range(3))))
