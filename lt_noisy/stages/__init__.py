"""Stage kinds: what a run is made of. A kind has fields, says what it reads, and runs."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from lt_noisy.fields import Fields
from lt_noisy.stages import cluster, density, distil, experts, probe, self_supervised, supervised
from lt_noisy.stages.common import Job, Prepared


class Reads(NamedTuple):
    """What a field that names an earlier stage may name: stages of these kinds, or none at all where `optional`."""

    kinds: tuple[str, ...]
    optional: bool = False


class Kind(NamedTuple):
    """One kind of stage.

    Attributes:
      fields: of its config section.
      labels: those of the training set that are part of its identity, `observed` and `clean`.
      inputs: the fields that name the earlier stages it reads.
      check: `check(job, bound_section) -> steps it trains` raises `UserError` on what only the data can tell, before
        any stage runs.
      run: `run(job, bound_section) -> summary`.
      prepare: `prepare(job, bound_section) -> Prepared`, what `run` trains, where that is one network; benchmarks time
        it alone.
    """

    fields: Fields
    labels: tuple[str, ...]
    inputs: Mapping[str, Reads]
    check: Callable[[Job, SimpleNamespace], int]
    run: Callable[[Job, SimpleNamespace], dict[str, Any]]
    prepare: Callable[[Job, SimpleNamespace], Prepared] | None = None


ENCODERS = ("self_supervised", "supervised", "distil")  # kinds whose checkpoint holds an encoder

STAGES = {
    "self_supervised": Kind(
        self_supervised.FIELDS,
        (),
        {"ascent_weights": Reads(("density",), optional=True)},
        lambda job, section: self_supervised.check(job, section).total,
        self_supervised.run,
        self_supervised.prepare,
    ),
    "supervised": Kind(
        supervised.FIELDS,
        ("observed",),
        {"init": Reads(ENCODERS, optional=True)},
        lambda job, section: supervised.check(job, section).total,
        supervised.run,
        supervised.prepare,
    ),
    # An oracle among its estimators reads the clean labels.
    "density": Kind(density.FIELDS, ("clean",), {"init": Reads(ENCODERS)}, density.check, density.run),
    "cluster": Kind(cluster.FIELDS, (), {"init": Reads(("self_supervised",))}, cluster.check, cluster.run),
    "experts": Kind(experts.FIELDS, (), {"clusters": Reads(("cluster",))}, experts.check, experts.run),
    "distil": Kind(
        distil.FIELDS,
        (),
        {
            "base": Reads(("self_supervised",)),
            "clusters": Reads(("cluster",)),
            "experts": Reads(("experts",)),
        },
        lambda job, section: distil.check(job, section).total,
        distil.run,
        distil.prepare,
    ),
    "probe": Kind(probe.FIELDS, ("observed",), {"init": Reads(ENCODERS)}, probe.check, probe.run),
}
