"""Which cells wait for which, where a cell that waits would hold a slot of a cluster."""

from collections.abc import Mapping

from lt_noisy.config.identity import identity_texts, section_identity
from lt_noisy.config.resolve import Resolved, RunFields
from lt_noisy.hashing import json_sha256
from lt_noisy.runs.sweeps.processes import Planned


def stage_keys(resolved: Resolved, sources: Mapping[str, str]) -> frozenset[str]:
    """A hash of each stage: those of two cells are equal where the cells share the stage through a store.

    What makes a stage the same (`workdir.link`), as far as it is known before any data is read: two recipes of one
    training set count as two. A stage that reads no labels is the same under any noise, unless that decides which
    images there are: one before the long tail, or one by whose labels some are held out.

    Args:
      sources: of its stages, `workdir.planned_sources`.
    """
    run = identity_texts(resolved.texts, RunFields)
    decides = resolved.fields.noise.before_longtail or resolved.fields.validation > 0
    keys: dict[str, str] = {}
    for stage in resolved.stages:
        unread = {"stages"} if decides or stage.kind.labels(stage.section) else {"stages", "noise"}
        keys[stage.name] = json_sha256(
            {
                "name": stage.name,
                "run": {name: text for name, text in run.items() if name not in unread},
                "section": section_identity(stage),
                "sources": sources[stage.name],
                "inputs": {name: keys[name] for name in stage.inputs.values()},
            }
        )
    return frozenset(keys.values())


def groups(cells: list[Planned]) -> list[tuple[list[Planned], list[Planned]]]:
    """The cells as (leaders, those that share a stage with these leaders and no other), in an order to start them in.

    The first cell with a stage leads those that share it: once the leader has ended, they find it finished. Who leads
    cells of a group is itself in a group before.
    """
    first: dict[str, Planned] = {}
    grouped: dict[tuple[str, ...], tuple[list[Planned], list[Planned]]] = {}
    for cell in cells:
        leaders = {first[key].sha256: first[key] for key in sorted(cell.stages) if key in first}
        first = {**dict.fromkeys(cell.stages, cell), **first}
        grouped.setdefault(tuple(sorted(leaders)), (list(leaders.values()), []))[1].append(cell)
    return list(grouped.values())
