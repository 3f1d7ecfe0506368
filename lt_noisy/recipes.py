"""What several configs of self-supervised learning on CIFAR-10-LT share, so that each file says what is its own."""

from ml_collections import ConfigDict

from lt_noisy import config


def cifar10_lt() -> ConfigDict:
    """CIFAR-10-LT, exponential, ratio 100, conventional subset (12,406 images), no noise; ResNet-18, bfloat16."""
    c = config.default()
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
    return config.section("self_supervised", **{**fields, **changed})


def small(c: ConfigDict, *stages: str, lr: float = 0.06) -> ConfigDict:
    """`c` for minutes on a CPU: ResNet-20, and in the named training stages 3 epochs of batch 128."""
    c.model = "resnet20(width=16)"
    c.precision = "float32"
    c.steps_per_call = 1
    for stage in stages:
        c[stage].length = "epochs(3)"
        c[stage].batch_size = 128
        c[stage].schedule = f"cosine(lr={lr}, warmup=0.05)"
        c[stage].log_every = "percent(10)"
        c[stage].eval_every = "percent(100)"
    return c
