"""Every stage that can start from weights, or work on features in place of images: digits, a few steps each.

Variant `features`: a `features` stage and all that stands on it; `weights`: stages that train the encoder on. `weights`
is where the file is: the environment variable WEIGHTS.
"""

import os

from lt_noisy.config.resolve import default, section

TRAIN = {
    "length": "steps(6)",
    "batch_size": 16,
    "schedule": "cosine(lr=0.1)",
    "log_every": "steps(3)",
    "save_every": "steps(6)",
    "eval_every": "steps(6)",
}
MIXNN = {**TRAIN, "length": "epochs(4)", "save_every": "epochs(2)", "log_every": "epochs(1)", "eval_every": "epochs(4)"}


def get_config(variant="features"):
    """The stages of a variant."""
    c = default()
    c.dataset = "digits(test_per_class=5)"
    c.longtail = "exponential(ratio=4, n_max=16)"
    c.noise = "symmetric(rate=0.3)"
    c.validation = 0.1
    c.model = "resnet8(width=4)"
    c.devices = 1
    weights = f"pretrained(path='{os.environ['WEIGHTS']}')"
    c.features = section("features", init=weights)
    start = "features" if variant == "features" else weights
    augment = "none()" if variant == "features" else "compose(resize(12), normalise((0.25,), (0.5,)))"
    train = {**TRAIN, "init": start, "augment": augment}
    c.again = section("features", init="finetune")
    c.finetune = section("supervised", head="cosine(scale=25)", loss="logit_adjusted()", **train)
    c.folds = section("cross_fit", folds=2, **train)
    c.mixnn = section(
        "mixnn",
        warmup=1,
        correct_from=2,
        correct_every=1,
        neighbours="in_set(k=3)",
        **{**MIXNN, "init": start, "augment": augment},
    )
    c.probe = section("probe", init=start, knn="knn(k=3)")
    c.density = section("density", init=start)
    c.cluster = section("cluster", init="features", partition="kmeans(k=3)")
    c.views = section("self_supervised", objective="moco(queue=32)", monitor="knn(k=3)", **{**train, "init": weights})
    c.labels = section("pseudo_label", init="finetune", times=1.0)
    c.joint = section("supervised", pseudo="labels", **train)
    c.balanced = section("classifier", init="finetune")
    c.transition = section("transition", init="folds")
    shared = ("finetune", "folds", "mixnn", "probe", "density")
    if variant == "features":
        c.stages = ("features", *shared, "cluster", "labels", "joint", "balanced", "transition")
    else:
        c.stages = (*shared, "views")
    return c
