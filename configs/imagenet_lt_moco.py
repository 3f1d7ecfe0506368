"""P1 on ImageNet-LT and iNaturalist 2018 (Yang & Xu 2020): MoCo v2 on the long-tailed images, then CE or cRT.

    python main.py --config=configs/imagenet_lt_moco.py                  GPUs: ImageNet-LT, 1,000 classes
    python main.py --config=configs/imagenet_lt_moco.py:inaturalist18    iNaturalist 2018, 8,142 classes
    python main.py --config=configs/imagenet_lt_moco.py:small            a CPU, a minute, whatever is in `imagenet_lt/`
    python launch/sweep.py --config=configs/imagenet_lt_moco.py --root=runs/imagenet_lt    with and without, three ways

`imagenet_lt/` has `train.txt` and `test.txt`, the published lists of `path label` lines, and the images below it; as
TFDS prepares them: `--config.dataset="tfds(imagenet_lt, size=224, resize=256)"`. iNaturalist likewise in
`inaturalist18/`, or `--config.dataset="tfds(i_naturalist2018, size=224, resize=256, test=validation)"`. `:small` takes
any such folder: `python tests/helpers/layouts.py filelist imagenet_lt` invents one.

Pre-training is theirs: ResNet-50, 200 epochs of batch 128, lr 0.015 cosine, weight decay 1e-4, queue 65,536, momentum
0.999, temperature 0.2. So is cRT: encoder frozen, a new classifier, class-balanced sampling, lr 0.2 cosine, 10 epochs
(iNaturalist: 30). Of the plain fine-tuning the paper's settings were not found: 90 epochs of batch 256 are ours. Whole
pictures are cropped and test images resized to 256 as usual on ImageNet. Published top-1 error on ImageNet-LT: CE + SSP
54.4, cRT + SSP 48.7; on iNaturalist: 35.6, 31.9.

Cost: about 0.8 EFLOP of pre-training and 0.3 of fine-tuning on ImageNet-LT (4.1 G multiply-adds a forward pass at 224
pixels; a step takes three of them a view, and MoCo's keys a fourth); four times that on iNaturalist.
Measured: `small` alone, on invented pictures. The full run not yet, for want of GPUs and the data.
"""

from ml_collections import ConfigDict

from lt_noisy.augment.recipes import NORMALISE_IMAGENET
from lt_noisy.config.resolve import check_variant, default, section
from lt_noisy.runs.sweeps.cells import Cell, axis, product


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `inaturalist18` is the other data set, `small` ResNet-8 and an epoch of each stage."""
    check_variant(variant, ("inaturalist18", "small"))
    other = variant == "inaturalist18"
    root, size, resize = "inaturalist18" if other else "imagenet_lt", 224, 256
    if variant == "small":
        size, resize = 32, 36
    c = default()
    c.dataset = f"filelist('{root}/train.txt', '{root}/test.txt', '{root}', size={size}, resize={resize})"
    c.model = "resnet50()"
    c.precision = "bfloat16"
    c.stages = ("pretrain", "finetune", "crt")
    c.pretrain = section(
        "self_supervised",
        objective="moco(temperature=0.2, queue=65536, momentum=0.999, symmetric=False)",
        length="epochs(200)",
        batch_size=128,
        augment="compose(whole_crop(0.2), jitter(0.4, 0.4, 0.4, 0.1, p=0.8), grey(), blur(), flip(), "
        f"{NORMALISE_IMAGENET})",
        optimizer="sgd(momentum=0.9, weight_decay=1e-4, decay=all)",
        schedule="cosine(lr=0.015)",
        monitor="none()",
    )
    supervised = {
        "augment": f"compose(whole_crop(), flip(), {NORMALISE_IMAGENET})",
        "batch_size": 256,
        "loss": "cross_entropy()",
    }
    c.finetune = section(
        "supervised",
        init="pretrain",
        length="epochs(90)",
        optimizer="sgd(momentum=0.9, weight_decay=5e-4, decay=all)",
        schedule="cosine(lr=0.1)",
        **supervised,
    )
    c.crt = section(
        "supervised",
        init="finetune",
        freeze_encoder=True,
        sampler="class_balanced()",
        length="epochs(30)" if other else "epochs(10)",
        optimizer="sgd(momentum=0.9, weight_decay=5e-4, decay=all)",
        schedule="cosine(lr=0.2)",
        **supervised,
    )
    if variant == "small":
        c.model = "resnet8(width=16)"
        c.precision = "float32"
        c.pretrain.objective = "moco(temperature=0.2, queue=64, momentum=0.99, symmetric=False)"
        for stage in (c.pretrain, c.finetune, c.crt):
            stage.length, stage.batch_size = "epochs(1)", 8
    return c


BASELINE = {"init": "scratch", "method": "CE"}


def sweep(variant: str = "") -> list[Cell]:
    """CE, class-balanced CE and cRT, from scratch and after MoCo."""
    inits = {"scratch": {"finetune.init": "none()"}, "SSP": {}}
    methods = {
        "CE": {"stages": ("finetune",)},
        "CE balanced": {"stages": ("finetune",), "finetune.sampler": "effective_number(beta=0.9999)"},
        "cRT": {"stages": ("finetune", "crt")},
    }
    cells = product(axis("init", inits), axis("method", methods))
    return [_pretrained(cell) if cell.labels["init"] == "SSP" else cell for cell in cells]


def _pretrained(cell: Cell) -> Cell:
    return cell._replace(overrides={**cell.overrides, "stages": ("pretrain", *cell.overrides["stages"])})
