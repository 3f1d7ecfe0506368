"""Every stage kind of learning from noisy labels in one tiny run: 12 steps a training stage, saved every 4."""

from lt_noisy.config.resolve import default, section

TRAIN = {
    "length": "steps(12)",
    "batch_size": 16,
    "augment": "digits()",
    "schedule": "cosine(lr=0.05)",
    "log_every": "steps(2)",
    "save_every": "steps(4)",
    "eval_every": "steps(4)",
}


def get_config():
    """ELR; out-of-sample judgements; a transition matrix from them, used; pseudo-labels, used; MixNN; a classifier."""
    c = default()
    c.dataset = "digits(test_per_class=20)"
    c.longtail = "explicit(counts=(20, 12, 10, 8, 8, 6, 6, 4, 4, 4))"
    c.noise = "symmetric(rate=0.4)"
    c.validation = 0.2
    c.model = "resnet8(width=4)"
    c.devices = 1
    c.stages = ("elr", "folds", "noise_model", "forward", "labels", "joint", "mixnn", "balanced")
    c.elr = section("supervised", loss="elr()", **TRAIN)
    c.folds = section("cross_fit", folds=2, **{**TRAIN, "length": "steps(4)"})
    c.noise_model = section("transition", init="folds")
    c.forward = section("supervised", loss="forward()", transition="noise_model", **{**TRAIN, "length": "steps(4)"})
    c.labels = section("pseudo_label", init="elr", times=2.0, targets="soft", threshold=0.15)
    c.joint = section(
        "supervised",
        pseudo="labels",
        loss="superloss(logit_adjusted(), threshold=global_mean)",
        mix="mixup()",
        sampler="deferred(class_balanced(), start=0.5)",
        reweight="deferred(effective_number(), start=0.5)",
        **{**TRAIN, "length": "steps(8)"},
    )
    # 4 steps an epoch: warm-up, mixup, transition and MixNN, one epoch each.
    c.mixnn = section(
        "mixnn",
        warmup=2,
        correct_from=3,
        correct_every=1,
        neighbours="in_set(k=3)",
        history=2,
        **{**TRAIN, "length": "epochs(5)"},
    )
    c.balanced = section("classifier", init="mixnn")
    return c
