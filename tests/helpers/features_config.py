"""Vectors in place of images through stages of every sort: 12 steps a training stage.

Whose vectors, and whose pool, is an override.
"""

from lt_noisy.config.resolve import default, section

TRAIN = {
    "length": "steps(12)",
    "batch_size": 8,
    "augment": "none()",
    "schedule": "cosine(lr=0.1)",
    "log_every": "steps(4)",
    "save_every": "steps(12)",
    "eval_every": "steps(12)",
}
VIEWS = {**TRAIN, "augment": "compose(noise(0.3), dropout(0.2))"}


def get_config():
    """A robust loss, out-of-sample judgements, a probe; views by noise; MixNN, from what they taught; pseudo-labels."""
    c = default()
    c.validation = 0.1
    c.model = "identity()"
    c.devices = 1
    c.stages = ("base", "folds", "probe", "pretrain", "mixnn", "labels", "joint", "balanced")
    c.base = section("supervised", loss="elr()", **TRAIN)
    c.folds = section("cross_fit", folds=2, **{**TRAIN, "length": "steps(6)", "save_every": "steps(6)"})
    c.probe = section("probe", init="base", knn="knn(k=3)")
    c.pretrain = section("self_supervised", objective="moco(queue=16)", monitor="knn(k=3)", **VIEWS)
    c.mixnn = section(
        "mixnn",
        init="pretrain",
        warmup=1,
        correct_from=2,
        correct_every=1,
        neighbours="in_set(k=3)",
        **{**TRAIN, "length": "epochs(4)"},
    )
    c.labels = section("pseudo_label", init="base", times=0.0)
    c.joint = section("supervised", init="pretrain", pseudo="labels", mix="mixup()", freeze_encoder=True, **TRAIN)
    c.balanced = section("classifier", init="joint")
    return c
