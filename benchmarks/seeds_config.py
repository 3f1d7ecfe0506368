"""What benchmarks/seeds.py runs: a small classifier, `resnet` on digits as images or `mlp` on them as vectors."""

from ml_collections import ConfigDict

from lt_noisy.config.resolve import check_variant, default, section
from lt_noisy.runs.sweeps.cells import Cell, axis

SEEDS = (0, 1, 2, 3, 4)


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; the vectors are a file that the benchmark makes."""
    check_variant(variant, ("resnet", "mlp"))
    c = default()
    c.dataset = "digits(test_per_class=50)"
    c.longtail = "exponential(ratio=10)"
    c.noise = "symmetric(rate=0.4)"
    c.model = "mlp(hidden=128)" if variant == "mlp" else "resnet8(width=16)"
    c.devices = 1
    c.stages = ("train",)
    c.train = section(
        "supervised",
        length="epochs(60)" if variant == "mlp" else "epochs(15)",
        batch_size=64,
        augment="none()" if variant == "mlp" else "digits()",
        schedule="cosine(lr=0.05, warmup=0.05)",
        log_every="percent(10)",
        eval_every="percent(100)",
        save_every="percent(100)",
    )
    return c


def sweep(variant: str = "") -> list[Cell]:
    """The seeds, a process for each."""
    return axis("seed", SEEDS)
