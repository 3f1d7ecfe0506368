"""LDAM with deferred re-weighting on CIFAR-10-LT at ratio 100 (Cao et al. 2019), and what it is compared with.

    python main.py --config=configs/cifar10_lt_ldam_drw.py            one GPU
    python main.py --config=configs/cifar10_lt_ldam_drw.py:small      a CPU, minutes
    python launch/sweep.py --config=configs/cifar10_lt_ldam_drw.py --root=runs/cifar10_lt              3 seeds
    python launch/sweep.py --config=configs/cifar10_lt_ldam_drw.py:short --root=runs/cifar10_lt_short  10 epochs

ResNet-32, 200 epochs of 97 steps, SGD with weight decay on all parameters, lr 0.02, 0.04, ... 0.1 in the first 5
epochs, x0.01 after epoch 160 and 180; class-balanced weights from epoch 160. Published top-1 accuracy in this setting:
CE 70.4, LDAM-DRW 77.0. They may be those of the best epoch on test, which the authors' programs keep; ours is the last
epoch's, and with `--config.train.eval_every='epochs(1)'` the summary has that best beside it (`selection`). The sweep
has CE, logit adjustment and others beside LDAM, and what re-balances a finished CE: cRT, tau-normalisation, NCM,
learnable weight scaling, post-hoc adjustment. cRT comes twice: its encoder as in evaluation, and by batch statistics
as in its program. The last batch of an epoch has 118 images, which one or two devices share and eight do not
(`keep_last=False`).

Cost: about 1 PFLOP a loss; `short` takes 35 minutes a loss on one CPU core.
Measured (docs/results.md), seed 0: LDAM-DRW and CE, results/cifar10_lt_full.json; `short`,
results/cifar10_lt_short.json.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, section
from lt_noisy.runs.sweeps import tables
from lt_noisy.runs.sweeps.cells import Cell, axis, product


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `short` is 10 epochs in place of 200, `small` 3 of ResNet-20."""
    check_variant(variant, ("short", "small"))
    c = recipes.cifar10_lt()
    c.model = "resnet32(width=16)"
    c.precision = "float32"
    c.steps_per_call = 1
    c.stages = ("train",)
    c.train = section("supervised", **recipes.LDAM_DRW, **recipes.yang_xu())
    # Not in `stages`: what the sweep does to a finished network.
    c.retrain = section(
        "supervised",
        init="train",
        freeze_encoder=True,
        sampler="class_balanced()",
        **recipes.yang_xu(length="epochs(30)", schedule="cosine(lr=0.2)"),
    )
    c.rebalance = section("classifier", init="train", method="posthoc(tau=1.0)")
    if variant == "short":
        c.train.length = "epochs(10)"
        c.train.eval_every = "percent(50)"
        # As measured; and a quarter of an epoch of warm-up rises by step or not at all.
        c.train.schedule = "piecewise(lr=0.1, boundaries=(0.8, 0.9), factor=0.01, warmup=0.025)"
        c.train.keep_last = False
    return recipes.small(c, "train", "retrain", lr=0.1) if variant == "small" else c


BASELINE = {"loss": "CE"}
FIGURES = {**tables.FIGURES, "selection.oracle_best_on_test.test_balanced_accuracy": "best epoch on test, an oracle"}


def sweep(variant: str = "") -> list[Cell]:
    """Losses and re-balancing from scratch, three seeds; `short` and `small` have CE, LDAM-DRW and LA with one."""
    plain = {"head": "linear()", "reweight": "none()"}
    ce = {**plain, "loss": "cross_entropy()"}
    losses = {"CE": ce, "LDAM-DRW": recipes.LDAM_DRW, "LA": {**plain, "loss": "logit_adjusted(tau=1.0)"}}
    if variant:
        return product(recipes.loss_axis(losses, "train"), axis("seed", (0,)))
    losses |= {
        "CE-DRW": {**recipes.LDAM_DRW, **ce, "reweight": recipes.LDAM_DRW["reweight"]},
        "CE-DRS": {**ce, "sampler": "deferred(class_balanced(), start=0.8)"},
        "CE, square-root sampling": {**ce, "sampler": "square_root()"},
        "focal": {**plain, "loss": "focal(gamma=1.0)"},
    }
    after = {
        "CE, cRT": {"stages": ("train", "retrain")},
        "CE, cRT, BatchNorm by batch": {"stages": ("train", "retrain"), "retrain.frozen_norm": "batch"},
        **{
            f"CE, {name}": {"stages": ("train", "rebalance"), "rebalance.method": method}
            for name, method in (
                ("tau-normalised", "tau_normalised(tau=1.0)"),
                ("NCM", "ncm()"),
                ("LWS", "lws()"),
                ("post-hoc LA", "posthoc(tau=1.0)"),
            )
        },
    }
    ce_fields = {f"train.{name}": value for name, value in ce.items()}
    cells = [
        *recipes.loss_axis(losses, "train"),
        *axis("loss", {name: {**ce_fields, **fields} for name, fields in after.items()}),
    ]
    return product(cells, axis("seed", range(3)))
