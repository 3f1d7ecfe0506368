"""Stage kinds: what a run is made of. A kind has fields, says what it reads, and runs."""

from types import SimpleNamespace

from lt_noisy.stages import (
    classifier,
    cluster,
    cross_fit,
    density,
    distil,
    experts,
    mixnn,
    probe,
    pseudo_label,
    self_supervised,
    supervised,
    transition,
)
from lt_noisy.stages.base import Kind, Reads

ENCODERS = ("self_supervised", "supervised", "mixnn", "distil")  # kinds whose checkpoint holds an encoder
WITH_HEAD = ("supervised", "mixnn")  # kinds whose checkpoint holds a classifier on it too


def _no_labels(section: SimpleNamespace) -> tuple[str, ...]:
    return ()


def _observed(section: SimpleNamespace) -> tuple[str, ...]:
    return ("observed",)


STAGES = {
    "self_supervised": Kind(
        self_supervised.FIELDS,
        _no_labels,
        {"ascent_weights": Reads(("density",), optional=True)},
        self_supervised.check,
        self_supervised.run,
        self_supervised.prepare,
    ),
    "supervised": Kind(
        supervised.FIELDS,
        _observed,
        {
            "init": Reads(ENCODERS, optional=True),
            "pseudo": Reads(("pseudo_label",), optional=True),
            "transition": Reads(("transition",), optional=True),
        },
        supervised.check,
        supervised.run,
        supervised.prepare,
    ),
    "mixnn": Kind(
        mixnn.FIELDS,
        _observed,
        {"init": Reads(ENCODERS, optional=True)},
        mixnn.check,
        mixnn.run,
        mixnn.prepare,
        revision=2,
    ),
    "pseudo_label": Kind(
        pseudo_label.FIELDS, _no_labels, {"init": Reads(WITH_HEAD)}, pseudo_label.check, pseudo_label.run
    ),
    "cross_fit": Kind(
        cross_fit.FIELDS,
        _observed,
        {"init": Reads(ENCODERS, optional=True, label_free=True)},
        cross_fit.check,
        cross_fit.run,
    ),
    "transition": Kind(
        transition.FIELDS,
        transition.labels,
        {"init": Reads((*WITH_HEAD, "cross_fit"))},
        transition.check,
        transition.run,
    ),
    "density": Kind(density.FIELDS, density.labels, {"init": Reads(ENCODERS)}, density.check, density.run),
    "cluster": Kind(cluster.FIELDS, _no_labels, {"init": Reads(("self_supervised",))}, cluster.check, cluster.run),
    "experts": Kind(experts.FIELDS, _no_labels, {"clusters": Reads(("cluster",))}, experts.check, experts.run),
    "distil": Kind(
        distil.FIELDS,
        _no_labels,
        {"base": Reads(("self_supervised",), optional=True), "experts": Reads(("experts",), optional=True)},
        distil.check,
        distil.run,
        distil.prepare,
    ),
    "classifier": Kind(
        classifier.FIELDS,
        _observed,
        {"init": Reads(WITH_HEAD), "transition": Reads(("transition",), optional=True)},
        classifier.check,
        classifier.run,
    ),
    "probe": Kind(probe.FIELDS, _observed, {"init": Reads(ENCODERS)}, probe.check, probe.run),
}
