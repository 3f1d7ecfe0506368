"""Stage kinds: what a run is made of. Each is the `KIND` of its file: fields, what it reads, and how it runs."""

from typing import Any

from lt_noisy.stages import (
    classifier,
    cluster,
    cross_fit,
    density,
    distil,
    experts,
    features,
    mixnn,
    probe,
    pseudo_label,
    self_supervised,
    supervised,
    transition,
)
from lt_noisy.stages.base import Kind

STAGES: dict[str, Kind[Any]] = {
    "self_supervised": self_supervised.KIND,
    "supervised": supervised.KIND,
    "mixnn": mixnn.KIND,
    "features": features.KIND,
    "pseudo_label": pseudo_label.KIND,
    "cross_fit": cross_fit.KIND,
    "transition": transition.KIND,
    "density": density.KIND,
    "cluster": cluster.KIND,
    "experts": experts.KIND,
    "distil": distil.KIND,
    "classifier": classifier.KIND,
    "probe": probe.KIND,
}
