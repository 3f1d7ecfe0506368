"""The table at the end of a run, of one stage."""

from types import SimpleNamespace

from lt_noisy.runs.report import final_table
from lt_noisy.stages import STAGES


def shown(kind, **summary):
    """What is shown of a stage of this kind with this summary."""
    return final_table([SimpleNamespace(name=kind, kind=STAGES[kind])], {kind: {"wall_seconds": 1.0, **summary}})
