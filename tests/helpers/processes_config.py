"""Every kind of stage on vectors and the smallest networks, which compile fast; 6 steps a stage, of two up to 60.

Whose vectors is an override.
"""

from lt_noisy.config.resolve import default, section
from lt_noisy.stages import STAGES

TRAIN = {
    "length": "steps(6)",
    "batch_size": 8,
    "augment": "none()",
    "schedule": "cosine(lr=0.1)",
    "log_every": "steps(1)",
    "save_every": "steps(2)",
    "eval_every": "steps(3)",
}
VIEWS = {**TRAIN, "augment": "compose(noise(0.3), dropout(0.2))"}


def get_config():
    """Views, their density, clusters, experts, distilled and probed; losses, folds, a matrix, pseudo-labels, MixNN."""
    c = default()
    c.validation = 0.1
    c.model = "mlp(hidden=8)"
    c.heartbeat = 120.0
    objective = "moco(queue=16, hidden=8, size=4)"
    watched = {"monitor": "knn(k=3)", **VIEWS}
    c.pretrain = section("self_supervised", objective=objective, **watched)
    c.density = section("density", estimator="gaussian(neighbour=3)")
    c.rwsam = section(
        "self_supervised", objective="simsiam(size=8, hidden=4)", ascent="sam()", ascent_weights="density", **watched
    )
    c.cluster = section("cluster", partition="kmeans(k=2, restarts=1)")
    c.experts = section("experts", objective=objective, **VIEWS)
    # So long that it stops on the way for a signal that comes after its first steps.
    c.distil = section("distil", hidden=8, **{**watched, "length": "steps(60)", "eval_every": "steps(30)"})
    c.probe = section("probe", init="distil", knn="knn(k=3)", shots=(0, 2), repeats=1)
    c.features = section("features", init="distil")
    c.head = section("supervised", init="features", **TRAIN)
    c.base = section("supervised", init="rwsam", loss="elr()", **TRAIN)
    c.folds = section("cross_fit", folds=2, **TRAIN)
    c.matrix = section("transition", init="folds")
    c.labels = section("pseudo_label", times=0.0)
    # Stops early, by what all processes know; its weights are averaged.
    stops = {"early_stopping": "patience(evaluations=1)", "length": "steps(30)", "eval_every": "steps(2)", "ema": 0.5}
    c.joint = section("supervised", loss="logit_adjusted()", pseudo="labels", mix="mixup()", **{**TRAIN, **stops})
    c.mixnn = section(
        "mixnn",
        warmup=1,
        correct_from=2,
        correct_every=1,
        neighbours="in_set(k=3)",
        **{**TRAIN, "length": "epochs(4)"},
    )
    c.balanced = section("classifier", init="mixnn")
    c.stages = (
        *("pretrain", "density", "rwsam", "cluster", "experts", "distil", "probe", "features", "head"),
        *("base", "folds", "matrix", "labels", "joint", "mixnn", "balanced"),
    )
    missing = STAGES.keys() - {c[name].kind for name in c.stages}
    if missing:
        raise ValueError(f"no stage of kind {', '.join(missing)}")
    return c
