"""What makes two stages, and two runs, the same."""

from collections.abc import Iterable, Mapping
from typing import Any

from lt_noisy.config.fields import fields_of
from lt_noisy.config.resolve import Resolved, RunFields, Stage
from lt_noisy.hashing import json_sha256


def stage_identity(
    resolved: Resolved,
    stage: Stage,
    measured: Mapping[str, Any],
    num_devices: int,
    data: Mapping[str, str],
    inputs: Mapping[str, str],
) -> dict[str, Any]:
    """What makes two stages the same: flat {key: value}; `hashing.json_sha256` gives its hash.

    Args:
      measured: what `Kind.check` found on the data, such as the stage's length in steps.
      num_devices: part of the identity only where BatchNorm is per device.
      data: hashes of what the stage reads of the data.
      inputs: identity hashes of the stages it reads, by name.

    Raises:
      ValueError: two sources of one key, such as a field of the section and something measured of the same name.
    """
    shared = {name: resolved.texts[name] for name in ("seed", "model", "precision", "batch_norm")}
    if shared["batch_norm"] == "device":
        shared["devices"] = num_devices
    own = {f"{stage.name}.{field}": text for field, text in section_identity(stage).items()}
    return _disjoint(
        f"the identity of {stage.name}",
        shared,
        own,
        {f"{stage.name}.{k}": v for k, v in measured.items()},
        {f"data.{k}": v for k, v in data.items()},
        {f"inputs.{k}": v for k, v in inputs.items()},
    )


def of_data(name: str, measured: Iterable[str], keys: Iterable[str]) -> set[str]:
    """Of the keys of an identity of stage `name` those that the data has a part in; the others are the config's own."""
    own = {f"{name}.{key}" for key in measured}
    return {key for key in keys if key in own or key.startswith(("data.", "inputs."))}


def section_identity(stage: Stage) -> dict[str, Any]:
    """What of a stage's section belongs to its identity, and the revision of its kind once it has one.

    How often it is evaluated belongs to it where that decides when it ends.
    """
    revision = {"revision": stage.kind.revision} if stage.kind.revision > 1 else {}
    stops = stage.texts.get("early_stopping", "none()") != "none()"
    cadence = {"eval_every": stage.texts["eval_every"]} if stops else {}
    return _disjoint(f"the section of {stage.name}", identity_texts(stage.texts, stage.kind.section), cadence, revision)


def _disjoint(what: str, *parts: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping of all parts; a key of two of them would be the value of one, and a change of the other unseen."""
    union: dict[str, Any] = {}
    for part in parts:
        if both := union.keys() & part.keys():
            raise ValueError(f"{what} has two sources of {', '.join(sorted(both))}")
        union |= part
    return union


def identity_texts(texts: Mapping[str, Any], section: type) -> dict[str, Any]:
    """The canonical texts that belong to an identity (a section's `kind` among them)."""
    fields = fields_of(section)
    return {name: text for name, text in texts.items() if name not in fields or fields[name].identity}


def run_sha256(resolved: Resolved) -> str:
    """The hash of everything in a config that changes what its stages compute (logging and cadence do not).

    Which seeds `config.seeds` names is left out, as is what a part of them has done: more of them go to the same place.
    """
    content = identity_texts(resolved.texts, RunFields) | ({"seeds": "each"} if resolved.fields.seeds else {})
    content |= {s.name: section_identity(s) for s in resolved.stages}
    return json_sha256(content)
