"""Self-supervised objectives on long-tailed handwritten digits, each with probes: the place to try one out.

python main.py --config=configs/digits_ssl.py
... --config.pretrain.objective='byol(momentum=0.97, hidden=128, size=64)'
... --config.stages="('pretrain', 'density', 'rwsam', 'probe_rwsam')"
... --config.stages="('pretrain', 'probe', 'supervised', 'probe_supervised')"      for the relative gap
"""

from ml_collections import ConfigDict

from lt_noisy.augment.recipes import NORMALISE_DIGITS
from lt_noisy.config.resolve import check_variant, default, section

# On a canvas of 12 pixels the 8x8 digits lie at places of their own, as things do in photographs. Centred, their pixels
# are a representation that is hard to beat.


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` only shows that it runs (seconds)."""
    check_variant(variant)
    c = default()
    c.dataset = "digits(test_per_class=50, canvas=12)"
    c.longtail = "exponential(ratio=10)"
    c.model = "resnet8(width=16)"
    c.stages = ("pretrain", "probe")
    views = {
        "length": "epochs(150)",
        "batch_size": 64,
        "augment": f"compose(resized_crop(min_area=0.7), crop(pad=3), jitter(0.2, 0.2, 0.0, 0.0), {NORMALISE_DIGITS})",
        "optimizer": "sgd(momentum=0.9, weight_decay=5e-4)",
        "schedule": "cosine(lr=0.06, warmup=0.05)",
        "monitor": "knn(k=20, temperature=0.1)",
        "log_every": "percent(10)",
        "eval_every": "percent(50)",
    }
    c.pretrain = section("self_supervised", objective="simclr(temperature=0.1, hidden=128, size=64)", **views)
    c.density = section("density", estimator="gaussian(neighbour=10)")
    c.rwsam = section(
        "self_supervised",
        objective=c.pretrain.objective,
        ascent="sam(rho=0.05)",
        ascent_weights="density",
        **views,
    )
    c.supervised = section(
        "supervised",
        length="epochs(60)",
        batch_size=64,
        augment=f"compose(crop(pad=3), jitter(0.2, 0.2, 0.0, 0.0), {NORMALISE_DIGITS})",
        schedule="cosine(lr=0.05, warmup=0.05)",
        log_every="percent(10)",
    )
    for name, stage in (("probe", "pretrain"), ("probe_rwsam", "rwsam"), ("probe_supervised", "supervised")):
        c[name] = section("probe", init=stage, knn="knn(k=20, temperature=0.1)")
    if variant == "small":
        c.pretrain.length = "epochs(2)"
    return c
