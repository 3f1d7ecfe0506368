"""P1 on CIFAR-10-LT at ratio 100: rotation prediction on the same images, then cross-entropy from its encoder.

    python main.py --config=configs/cifar10_lt_rotation_ssp.py            one GPU: the recipe of Yang & Xu 2020
    python main.py --config=configs/cifar10_lt_rotation_ssp.py:light      pre-trained by the light recipe instead
    python main.py --config=configs/cifar10_lt_rotation_ssp.py:small      a CPU, minutes
    ... --config.stages="('finetune',)" --config.finetune.init='none()'   CE without SSP
    python launch/sweep.py --config=configs/cifar10_lt_rotation_ssp.py --root=runs/ssp    with and without, 3 seeds

Both stages: ResNet-32, 200 epochs of 97 steps, SGD with weight decay on all parameters, lr 0.02, 0.04, ... 0.1 in the
first 5 epochs, x0.01 after epoch 160 and, as in the paper's supervised recipe, 180. Published top-1 error: CE 29.64,
CE + SSP 26.50.

Cost: about 1 PFLOP a stage.
Measured: the small variant (docs/results.md, results/ssl_cifar10_small.json); the full run not yet, for want of a GPU.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, section
from lt_noisy.runs.sweeps.cells import Cell, axis, product


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variants `light` and `small`."""
    check_variant(variant, ("light", "small"))
    c = recipes.cifar10_lt()
    c.model = "resnet32(width=16)"
    c.precision = "float32"
    c.steps_per_call = 1  # for the short last batch of an epoch
    c.stages = ("pretrain", "probe", "finetune")
    c.pretrain = section("self_supervised", objective="rotation(init=kaiming)", **recipes.yang_xu())
    c.probe = section("probe")
    c.finetune = section("supervised", init="pretrain", loss="cross_entropy()", **recipes.yang_xu())
    if variant == "light":
        c.pretrain = recipes.light(
            "rotation(every=True)", batch_size=128, augment="cifar()", schedule="cosine(lr=0.06)"
        )
    if variant == "small":
        c.pretrain.objective = "rotation()"  # as measured
    return recipes.small(c, "pretrain", "finetune") if variant == "small" else c


BASELINE = {"init": "scratch", "loss": "CE"}


def sweep(variant: str = "") -> list[Cell]:
    """CE, class-balanced CE and LDAM-DRW, from scratch and after rotation prediction, three seeds."""
    losses = {
        "CE": {"loss": "cross_entropy()"},
        "CE balanced": {"loss": "cross_entropy()", "sampler": "effective_number(beta=0.9999)"},
        "LDAM-DRW": recipes.LDAM_DRW,
    }
    inits = {"scratch": recipes.SCRATCH, "SSP": {"stages": ("pretrain", "finetune")}}
    return product(axis("init", inits), recipes.loss_axis(losses), axis("seed", range(3)))
