"""What several configs share, so that each file says what is its own."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from lt_noisy.config.resolve import default, section
from lt_noisy.runs.sweeps.cells import Cell, axis, chain, product


def cifar10_lt() -> ConfigDict:
    """CIFAR-10-LT, exponential, ratio 100, conventional subset (12,406 images), no noise; ResNet-18, bfloat16."""
    c = default()
    c.dataset = "tfds(cifar10)"
    c.longtail = "exponential(ratio=100, subset=conventional)"
    c.model = "resnet18(stem=cifar)"
    c.precision = "bfloat16"
    c.steps_per_call = 4
    return c


def light(objective: str, **changed: object) -> ConfigDict:
    """Pre-training by the light recipe that suits every objective: SGD, lr 0.06 per 128 images, cosine, 500 epochs.

    SimSiam keeps 0.06 at batch 512 (`changed`).
    """
    fields = {
        "objective": objective,
        "length": "epochs(500)",
        "batch_size": 512,
        "augment": "simclr_cifar()",
        "optimizer": "sgd(momentum=0.9, weight_decay=5e-4)",
        "schedule": "cosine(lr=0.24, warmup=0.02)",
        "log_every": "percent(2)",
    }
    return section("self_supervised", **{**fields, **changed})


def small(c: ConfigDict, *stages: str, lr: float = 0.06) -> ConfigDict:
    """`c` for minutes on a CPU: ResNet-20, and in the named training stages 3 epochs of whole batches of 128."""
    c.model = "resnet20(width=16)"
    c.precision = "float32"
    c.steps_per_call = 1
    fields = {
        "length": "epochs(3)",
        "batch_size": 128,
        "keep_last": False,
        "schedule": f"cosine(lr={lr}, warmup=0.05)",
        "log_every": "percent(10)",
        "eval_every": "percent(100)",
    }
    c.update({stage: fields for stage in stages})
    return c


def yang_xu(**changed: object) -> dict[str, object]:
    """The supervised CIFAR-LT recipe of Yang & Xu 2020 (and Cao et al. 2019 before them) as fields of a section.

    200 epochs of batch 128, the last one of an epoch as short as it is; pad-4 crop and flip, SGD 0.9 with weight decay
    2e-4 on all parameters, lr 0.02, 0.04, ... 0.1 over 5 epochs of warm-up, x0.01 after epoch 160 and 180. (The
    first upload of Yang & Xu's program has batch 256, until 28e6258 in October 2020, and never reaches the second drop,
    as it asks for epoch > 160 before epoch > 180, until b91ad29 in April 2021.)
    """
    return {
        "length": "epochs(200)",
        "batch_size": 128,
        "keep_last": True,
        "augment": "cifar()",
        "optimizer": "sgd(momentum=0.9, weight_decay=2e-4, decay=all)",
        "schedule": "piecewise(lr=0.1, boundaries=(0.8, 0.9), factor=0.01, warmup=0.025, warmup_by=epoch)",
        "log_every": "percent(2)",
        **changed,
    }


# Cao et al. 2019: LDAM on a cosine classifier, class-balanced weights for the last fifth.
LDAM_DRW = {
    "head": "cosine(scale=30.0)",
    "loss": "ldam(max_margin=0.5, scale=30.0)",
    "reweight": "deferred(effective_number(beta=0.9999), start=0.8)",
}

SCRATCH = {"stages": ("finetune",), "finetune.init": "none()"}


def loss_axis(losses: Mapping[str, Mapping[str, object]], stage: str = "finetune") -> list[Cell]:
    """An axis `loss` from {label: fields of the stage}."""
    named = {name: {f"{stage}.{field}": value for field, value in fields.items()} for name, fields in losses.items()}
    return axis("loss", named)


def p0_grid(lam: float, sce: str, elr: str) -> list[Cell]:
    """P0's grid: {scratch, SSL} x losses x {full, frozen} x noise x ratio x seeds; frozen only after pre-training.

    Args:
      lam: SuperLoss's, which the paper sets by data set.
      sce: the symmetric cross-entropy of the data set.
      elr: its ELR.
    """
    adjusted = "logit_adjusted(tau=1.0)"
    losses = {
        "CE": {"loss": "cross_entropy()"},
        "CE+SL": {"loss": f"superloss(cross_entropy(), lam={lam})"},
        "LA": {"loss": adjusted},
        "LA+SL": {"loss": f"superloss({adjusted}, lam={lam})"},
        "LA+SL, t mean": {"loss": f"superloss({adjusted}, lam={lam}, threshold=running_mean)"},
        "LDAM-DRW": LDAM_DRW,
        "GCE": {"loss": "gce(q=0.7)"},
        "SCE": {"loss": sce},
        "ELR": {"loss": elr},
    }
    inits = chain(
        axis("init", {"scratch": SCRATCH}),
        product(axis("init", {"SSL": {}}), axis("encoder", {"full": {}, "frozen": {"finetune.freeze_encoder": True}})),
    )
    longtails = {r: {"longtail": f"exponential(ratio={r}, subset=conventional)"} for r in (1, 10, 50, 100)}
    noises = {rate: {"noise": f"symmetric(rate={rate})"} for rate in (0.0, 0.2, 0.4, 0.6)}
    return product(axis("ratio", longtails), axis("noise", noises), inits, loss_axis(losses), axis("seed", range(3)))


def twelve(cells: list[Cell], ratio: int = 100, noise: float = 0.4) -> list[Cell]:
    """Twelve settings of `p0_grid`: four losses by three ways to start, at one ratio and noise rate."""
    wanted = {"ratio": ratio, "noise": noise}
    return [
        cell
        for cell in cells
        if wanted.items() <= cell.labels.items() and cell.labels["loss"] in ("CE", "LA", "LA+SL", "LDAM-DRW")
    ]


def own(dataset: str, size: int, small: bool) -> ConfigDict:
    """Pre-training, a classifier and the suspect list of one's own images (`configs/own_images.py`, `own_table.py`).

    Not among its stages: `labels` and `joint`, for unsorted images of `size` pixels.

    Args:
      small: for a CPU: ResNet-8, fewer epochs, four folds.
    """
    recipe = {
        "init": "pretrain",
        "batch_size": 64,
        "augment": "cifar()",
        "optimizer": "sgd(momentum=0.9, weight_decay=5e-4)",
        "schedule": "cosine(lr=0.05, warmup=0.02)",
        "length": "epochs(30)" if small else "epochs(100)",
        "log_every": "percent(5)",
        "eval_every": "percent(20)",
    }
    c = default()
    c.dataset = dataset
    c.model = "resnet8(width=16)" if small else "resnet18(stem=cifar)"
    c.precision = "float32" if small else "bfloat16"
    c.stages = ("pretrain", "finetune", "folds")
    c.pretrain = light(
        "simclr(temperature=0.2)",
        length="epochs(50)" if small else "epochs(500)",
        batch_size=128,
        schedule="cosine(lr=0.06, warmup=0.02)",
    )
    c.finetune = section("supervised", loss="superloss(logit_adjusted(tau=1.0), lam=1.0)", **recipe)
    c.folds = section("cross_fit", folds=4 if small else 5, loss="cross_entropy()", **recipe)
    c.labels = section("pseudo_label", init="finetune", pool=f"images(path='unsorted', size={size})", times=0.0)
    c.joint = section("supervised", pseudo="labels", loss=c.finetune.loss, **recipe)
    return c


# How the images of EfficientNet-Lite0's published weights were prepared: its program subtracts 127 and divides by 128.
LITE0 = "mean=(0.498, 0.498, 0.498), std=(0.502, 0.502, 0.502), interpolation=bicubic"


def on_features(dataset: str, weights: str, size: int) -> ConfigDict:
    """A pretrained encoder once over all images; on its features a classifier, the suspect list, and neighbours.

    Args:
      weights: the path of those of EfficientNet-Lite0.
      size: pixels that images are brought to.
    """
    recipe = {
        "init": "features",
        "batch_size": 128,
        "augment": "none()",
        "optimizer": "sgd(momentum=0.9, weight_decay=0.0)",
        "schedule": "cosine(lr=0.01)",
        "length": "epochs(20)",
        "head": "cosine(scale=25)",
        "log_every": "percent(10)",
        "eval_every": "percent(20)",
    }
    c = default()
    c.dataset = dataset
    c.model = "efficientnet_lite0()"
    c.stages = ("features", "finetune", "folds", "neighbours", "prototypes")
    c.features = section("features", init=f"pretrained(path={weights!r}, {LITE0}, size={size})")
    c.finetune = section("supervised", loss="superloss(logit_adjusted(tau=1.0), lam=1.0)", **recipe)
    c.folds = section("cross_fit", folds=5, loss="cross_entropy()", **recipe)
    c.neighbours = section("classifier", init="finetune", method="wann()")
    c.prototypes = section("classifier", init="finetune", method="prototypes()")
    return c
