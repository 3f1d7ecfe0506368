"""The table of encoders."""

from lt_noisy.config.spec import table
from lt_noisy.models import efficientnet, resnet, vectors, vit

MODELS = table(
    {
        "resnet18": resnet.resnet18,
        "resnet34": resnet.resnet34,
        "resnet50": resnet.resnet50,
        "resnet101": resnet.resnet101,
        "resnet8": resnet.resnet8,
        "resnet20": resnet.resnet20,
        "resnet32": resnet.resnet32,
        "resnet44": resnet.resnet44,
        "resnet56": resnet.resnet56,
        "vit_s16": vit.vit_s16,
        "vit_b16": vit.vit_b16,
        "vit_l16": vit.vit_l16,
        "vit_s14": vit.vit_s14,
        "vit_b14": vit.vit_b14,
        "efficientnet_lite0": efficientnet.efficientnet_lite0,
        "identity": vectors.identity,
        "mlp": vectors.mlp,
    }
)
