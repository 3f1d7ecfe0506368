"""P3 on CIFAR-10-LT at ratio 100: SimCLR, clusters, one expert per cluster, all distilled into one network, probes.

    python main.py --config=configs/cifar10_lt_experts.py            one GPU, 100 + 300 + 100 epochs
    python main.py --config=configs/cifar10_lt_experts.py:small      a CPU, minutes
    ... --config.cluster.partition='random(k=5)'        control: a random partition
    ... --config.experts.train_on='all'                 control: every expert on all images, the same steps
    ... --config.distil.base='none()'                   control: experts alone
    ... --config.distil.experts='none()' --config.stages="('pretrain', 'distil', 'probe')"      the base alone

The template is Divide and Contrast (Tian et al. 2021); of Chang & Chang 2022 only the abstract was available. The
baseline of the same length is cifar10_lt_simclr.py, 500 epochs.

Cost: about 7 PFLOP for the base, 22 for the experts and 11 for distillation (six teachers, one student).
Measured: the small variant (docs/results.md, results/ssl_cifar10_small.json); the full run not yet, for want of a GPU.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant, section


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small`."""
    check_variant(variant)
    c = recipes.cifar10_lt()
    c.stages = ("pretrain", "cluster", "experts", "distil", "probe_base", "probe")
    c.pretrain = recipes.light("simclr(temperature=0.5)", length="epochs(100)")
    shared = {name: c.pretrain[name] for name in ("batch_size", "augment", "optimizer", "schedule", "log_every")}
    c.cluster = section("cluster", init="pretrain", partition="kmeans(k=5)")
    c.experts = section("experts", objective=c.pretrain.objective, **{**shared, "length": "epochs(300)"})
    # Squared errors of unnormalised outputs: a tenth of the rate of a contrastive loss, or the student diverges.
    slower = {"length": "epochs(100)", "schedule": "cosine(lr=0.024, warmup=0.02)"}
    c.distil = section("distil", **{**shared, **slower})
    c.probe_base = section("probe", init="pretrain")
    c.probe = section("probe", init="distil")
    if variant == "small":
        recipes.small(c, "pretrain", "experts")
        recipes.small(c, "distil", lr=0.006)
        c.cluster.partition = "kmeans(k=2)"
        c.pretrain.length = c.distil.length = "epochs(1)"
    return c
