"""Every stage kind of learning from noisy labels in one tiny run: 12 steps a training stage, saved every 4.

A kind that no tiny run names, as one that is new, comes last, with what it has to read from the stages before.
"""

import pathlib

from lt_noisy.config.fields import fields_of
from lt_noisy.config.python_file import read_module
from lt_noisy.config.resolve import default, section
from lt_noisy.stages import STAGES

SSL = read_module(pathlib.Path(__file__).with_name("ssl_config.py"))

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
    named = {*kinds(c).values(), *kinds(SSL.get_config()).values()}
    for kind in (kind for kind in STAGES if kind not in named):
        c[kind] = unnamed(kind, kinds(c))
        c.stages += (kind,)
    return c


def kinds(c):
    """{stage: its kind}, in the order of the run."""
    return {name: c[name].kind for name in c.stages}


def unnamed(kind, earlier):
    """The section of a kind: its defaults, as short as the others, on the first stages that it can read."""
    inputs = {
        field: next(name for name, found in earlier.items() if found in reference.kinds)
        for field, reference in STAGES[kind].inputs.items()
        if not reference.optional
    }
    short = {name: value for name, value in TRAIN.items() if name in fields_of(STAGES[kind].section)}
    return section(kind, **inputs, **short)
