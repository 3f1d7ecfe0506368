"""Every stage kind of self-supervised learning in one tiny run: 10 steps a training stage, saved every 4."""

from lt_noisy.config.resolve import default, section

PRETRAIN = {
    "length": "steps(10)",
    "batch_size": 32,
    "augment": "simclr_digits()",
    "schedule": "cosine(lr=0.05)",
    "log_every": "steps(2)",
    "save_every": "steps(4)",
    "eval_every": "percent(100)",
}


def get_config():
    """MoCo; BYOL; SimSiam with rwSAM by the density of BYOL's features; MoCo's clusters, experts, distilled; probes."""
    c = default()
    c.dataset = "digits(test_per_class=20)"
    c.longtail = "exponential(ratio=10)"
    c.model = "resnet8(width=4)"
    c.devices = 1
    c.stages = ("moco", "byol", "density", "rwsam", "cluster", "experts", "distil", "probe", "tuned")
    watched = {**PRETRAIN, "monitor": "knn(k=5)"}
    objective = "moco(queue=100, hidden=16, size=8)"
    c.moco = section("self_supervised", objective=objective, **watched)
    c.byol = section("self_supervised", objective="byol(hidden=16, size=8)", **watched)
    c.density = section("density", init="byol", estimator="gaussian(neighbour=5)")
    c.rwsam = section(
        "self_supervised",
        objective="simsiam(size=16, hidden=8)",
        ascent="sam(rho=0.1)",
        ascent_weights="density",
        **watched,
    )
    c.cluster = section("cluster", init="moco", partition="kmeans(k=2, restarts=1)")
    c.experts = section("experts", objective=objective, **{**PRETRAIN, "length": "epochs(1)"})
    c.distil = section("distil", base="moco", experts="experts", hidden=16, **watched)
    c.probe = section("probe", init="distil", knn="knn(k=5)", shots=(0, 2), repeats=2)
    c.probe.oracle = "liu(lr=1.0, epochs=2, batch_size=32)"
    c.tuned = section(
        "supervised",
        init="rwsam",
        data="digits(test_per_class=30)",
        encoder_rate=0.1,
        length="steps(4)",
        batch_size=32,
        augment="digits()",
    )
    return c
