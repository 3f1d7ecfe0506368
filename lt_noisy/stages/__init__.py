"""Stage kinds: what a run is made of. A kind has fields, says what it reads, and runs."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from lt_noisy.fields import Fields
from lt_noisy.stages import self_supervised, supervised
from lt_noisy.stages.common import Job, Prepared, check
from lt_noisy.train import Plan


class Kind(NamedTuple):
    """One kind of stage.

    Attributes:
      fields: of its config section.
      reads_labels: whether the observed labels are part of its identity.
      inputs: names of the earlier stages that a bound section reads.
      check: `check(job, bound_section) -> Plan` raises `UserError` on what only the data can tell, before any
        stage runs.
      prepare: `prepare(job, bound_section) -> Prepared`, what `run` trains; benchmarks time it alone.
      run: `run(job, bound_section) -> summary`.
    """

    fields: Fields
    reads_labels: bool
    inputs: Callable[[SimpleNamespace], tuple[str, ...]]
    check: Callable[[Job, SimpleNamespace], Plan]
    prepare: Callable[[Job, SimpleNamespace], Prepared]
    run: Callable[[Job, SimpleNamespace], dict[str, Any]]


STAGES = {
    "self_supervised": Kind(
        self_supervised.FIELDS,
        False,
        lambda section: (),
        check,
        self_supervised.prepare,
        self_supervised.run,
    ),
    "supervised": Kind(
        supervised.FIELDS,
        True,
        lambda section: () if section.init == "none()" else (section.init,),
        check,
        supervised.prepare,
        supervised.run,
    ),
}
