"""Own pictures in the fewest steps that learn them: pre-training, a classifier, and every label judged unseen."""

from lt_noisy.config.resolve import default, section

TRAIN = {
    "batch_size": 16,
    "augment": "normalise((0.5,), (0.25,))",
    "schedule": "cosine(lr=0.1)",
    "log_every": "steps(6)",
    "save_every": "steps(24)",
    "eval_every": "steps(12)",
}


def get_config():
    """The three stages of `configs/own_images.py`."""
    c = default()
    c.dataset = "folder(path='photos', size=8)"
    c.model = "resnet8(width=4)"
    c.devices = 1
    pretrain = {**TRAIN, "augment": "compose(flip(), normalise((0.5,), (0.25,)))"}
    c.pretrain = section("self_supervised", length="steps(6)", monitor="none()", **pretrain)
    c.finetune = section("supervised", length="steps(48)", init="pretrain", **TRAIN)
    c.folds = section("cross_fit", length="steps(48)", folds=2, init="pretrain", **TRAIN)
    c.stages = ("pretrain", "finetune", "folds")
    return c
