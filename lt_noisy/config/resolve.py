"""The config of a run: its fields, their defaults, and the checks that happen before any data is read.

A config file's `get_config` starts from `default()`, gives every stage a `section(kind, ...)`, and derives
nothing. `resolve` binds every spec in the whole config against its table, so a misspelt choice is one line at
once, whichever stage it sits in.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from lt_noisy.collectives import AXIS
from lt_noisy.config.fields import NO_STAGE, bind_section, choice, fields_of, new_section, plain, spec
from lt_noisy.config.spec import parse
from lt_noisy.data.feed import FEEDS, Feed
from lt_noisy.data.given import MANIFESTS, Given
from lt_noisy.data.longtail import LONGTAILS, Select
from lt_noisy.data.noise import NOISES, Noise
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import Load
from lt_noisy.errors import UserError, did_you_mean
from lt_noisy.models.base import EncoderBuilder
from lt_noisy.models.table import MODELS
from lt_noisy.stages import STAGES
from lt_noisy.stages.base import Kind
from lt_noisy.training.parallel import MODES
from lt_noisy.training.prune import KEEPS
from lt_noisy.training.trackers import TRACKERS, Trackers

# What no stage can be called: the first parts of keys that an identity has beside those of its stage, and directories
# that stand where those of the stages do: of earlier rounds, of logs and traces.
RESERVED = ("data", "inputs", "earlier", "log", "profile", "report", "review", "corrected")
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
NORM_AXES = {"global": AXIS, "device": None}


@dataclasses.dataclass(frozen=True)
class RunFields:
    """The fields of a run beside its stages."""

    seed: int = plain(0)
    seeds: tuple[int, ...] = plain((), identity=False)  # one run of each, trained together; (): of `seed` alone
    dataset: Load = spec("digits()", SOURCES)
    longtail: Select = spec("none()", LONGTAILS)
    noise: Noise = spec("none()", NOISES)
    manifest: Given | None = spec("none()", MANIFESTS)
    validation: float = plain(0.0)  # share of the manifest held out, noisy as it is, to stop early or to tune by
    model: EncoderBuilder = spec("resnet18()", MODELS)
    # Of the computation; parameters, statistics and losses stay float32.
    precision: DTypeLike = choice("float32", PRECISIONS)
    batch_norm: str | None = choice("global", NORM_AXES)  # whose images share the statistics of a batch
    stages: tuple[str, ...] = plain(())  # names of sections, in the order in which they run
    parallel: str = choice("jit", tuple(MODES), identity=False)
    devices: int = plain(0, identity=False)  # 0 takes all there are; a CPU is one, or so many of its cores
    steps_per_call: int = plain(1, identity=False)  # steps of one dispatch
    feed: Feed = spec("auto()", FEEDS, identity=False)  # whether images stay in memory or are read step by step
    heartbeat: float = plain(30.0, identity=False)  # seconds after which one of several processes is held for lost
    trackers: Trackers = spec("none()", TRACKERS, identity=False)  # where metrics go beside `metrics.jsonl`
    # What finished stages keep: the last checkpoint and those of `keep_every`, the last one's weights without the
    # optimiser's state and nothing else, or all that were kept in training.
    keep: str = choice("last", KEEPS, identity=False)


class Stage(NamedTuple):
    """One stage of a resolved config: bound section, canonical texts, and {field: the stage that it names}."""

    name: str
    kind: Kind[Any]
    section: Any
    texts: dict[str, Any]
    inputs: dict[str, str]


class Resolved(NamedTuple):
    """A checked config: bound fields of the run, their canonical texts, and the stages in order."""

    fields: RunFields
    texts: dict[str, Any]
    stages: tuple[Stage, ...]


def default() -> ConfigDict:
    """The fields of a run at their defaults, with no stage yet."""
    return new_section(RunFields, {}, "config")


def section(kind: str, **values: Any) -> ConfigDict:
    """The section of a stage of this kind: every field at its default, then `values`.

    Raises:
      UserError: an unknown kind or field.
    """
    return ConfigDict({"kind": kind, **new_section(_kind(kind, "kind").section, values, kind)})


def _kind(name: Any, where: str) -> Kind[Any]:
    if name not in STAGES:
        raise UserError(
            f"{where}: unknown stage kind {name!r}{did_you_mean(str(name), STAGES)} (known: {', '.join(STAGES)})"
        )
    return STAGES[name]


def resolve(config: ConfigDict) -> Resolved:
    """Checks and binds the whole config; reads no data.

    Raises:
      UserError: the first thing that is wrong, in one line.
    """
    sections = {name: value for name, value in config.items() if isinstance(value, Mapping | ConfigDict)}
    for name in sections:
        if name in fields_of(RunFields):
            raise UserError(f"config.{name} is a field of the run, not a section: give the stage another name")
        if name in RESERVED:
            raise UserError(f"config.{name}: no stage can be called {' or '.join(RESERVED)}: give it another name")
    values = {name: value for name, value in config.items() if name not in sections}
    fields, texts = bind_section(values, RunFields, "config")
    _check_numbers(fields)
    _check_seeds(fields)
    _check_subset(texts)
    _check_names(fields.stages, sections)
    bound = {name: _bind_stage(name, section) for name, section in sections.items()}  # those that do not run, too
    stages = tuple(bound[name] for name in fields.stages)
    _check_inputs(stages)
    return Resolved(fields, texts, stages)


def _check_numbers(fields: RunFields) -> None:
    for name, least in (("seed", 0), ("devices", 0), ("steps_per_call", 1)):
        number = getattr(fields, name)
        if not least <= number < 2**32:
            raise UserError(f"config.{name} is at least {least} and below 2**32, not {number}")
    if fields.heartbeat <= 0:
        raise UserError(f"config.heartbeat is a number of seconds above 0, not {fields.heartbeat}")
    if not 0 <= fields.validation < 1:
        raise UserError(f"config.validation is a share of the training set in [0, 1), not {fields.validation}")


def _check_seeds(fields: RunFields) -> None:
    for seed in fields.seeds:
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise UserError(
                f"config.seeds: whole numbers of at least 0 and below 2**32, such as (0, 1, 2), not {seed!r}"
            )
    if len(set(fields.seeds)) < len(fields.seeds):
        raise UserError(f"config.seeds: {fields.seeds} names a seed twice")
    if fields.seeds and fields.seed:
        raise UserError(f"config.seed={fields.seed} and config.seeds={fields.seeds}: set one of them")


# Of the sets that have a conventional subset: its classes from head to tail.
_CONVENTIONAL = {"cifar": "by_label", "svhn": "zero_last"}


def _check_subset(texts: Mapping[str, Any]) -> None:
    """Refuses a conventional subset whose order of classes is not that of its set: other images than the published."""
    longtail = parse(texts["longtail"])
    if longtail.kwargs.get("subset") != "conventional":
        return
    for name, order in _CONVENTIONAL.items():
        own = longtail.kwargs.get("order", "by_label")  # an explicit profile has the one
        if f"tfds(name='{name}" in texts["dataset"] and own != order:
            raise UserError(
                f"config.longtail: the conventional subset of {name} has its classes {order}, not {own}; write "
                f"exponential(ratio=..., n_max=..., subset=conventional, order={order}), or subset=seeded"
            )


def _check_names(stages: tuple[str, ...], sections: Mapping[str, Any]) -> None:
    if not stages:
        raise UserError("config.stages is empty: name at least one stage, such as ('finetune',)")
    if not all(isinstance(name, str) for name in stages):
        raise UserError(f"config.stages holds names of stages, such as ('finetune',), not {stages}")
    if len(set(stages)) < len(stages):
        raise UserError(f"config.stages: {stages} names a stage twice")
    for name in stages:
        if name not in sections:
            raise UserError(
                f"config.stages: no section {name!r}{did_you_mean(str(name), sections)} "
                f"(sections: {', '.join(sections)})"
            )


def _check_inputs(stages: tuple[Stage, ...]) -> None:
    """Refuses a stage that names, as one that it reads, what is no earlier stage or not of a kind that it can read."""
    readers = _label_readers(stages)
    earlier: dict[str, str] = {}  # stage -> its kind
    for stage in stages:
        for field, name in stage.inputs.items():
            accepted, where = stage.kind.inputs[field], f"config.{stage.name}.{field}"
            if name not in earlier:
                without = " ('none()' does without)" if accepted.optional else ""
                order = tuple(s.name for s in stages)
                raise UserError(f"{where}: {name!r} is not an earlier stage of {order}{without}")
            if earlier[name] not in accepted.kinds:
                raise UserError(
                    f"{where}: {name!r} is a {earlier[name]} stage, not one of kind {' or '.join(accepted.kinds)}"
                )
            if accepted.label_free and name in readers:
                through = "" if readers[name] == name else f", through {readers[name]!r}"
                raise UserError(
                    f"{where}: {name!r} has seen the labels{through}; name a stage that has not, or 'none()'"
                )
        earlier[stage.name] = stage.texts["kind"]


def _label_readers(stages: tuple[Stage, ...]) -> dict[str, str]:
    """{stage that has seen labels: the stage, itself or one that it was made of, that read them}."""
    readers: dict[str, str] = {}
    for stage in stages:
        found = [stage.name] if stage.kind.labels(stage.section) else []
        found += [readers[name] for name in stage.inputs.values() if name in readers]
        if found:
            readers[stage.name] = found[0]
    return readers


def _bind_stage(name: str, values: Mapping[str, Any] | ConfigDict) -> Stage:
    where = f"config.{name}"
    if "kind" not in values:
        raise UserError(f"{where}.kind is missing (a section must keep all its fields)")
    kind = _kind(values["kind"], f"{where}.kind")
    fields = {name: value for name, value in values.items() if name != "kind"}
    section, texts = bind_section(fields, kind.section, where)
    inputs = {
        field: texts[field]
        for field, reference in kind.inputs.items()
        if isinstance(getattr(section, field), str) and not (reference.optional and texts[field] == NO_STAGE)
    }
    return Stage(name, kind, section, {"kind": values["kind"], **texts}, inputs)


def check_variant(variant: str, known: tuple[str, ...] = ("small",)) -> None:
    """Refuses a `--config=file.py:variant` that the config file does not have."""
    if variant and variant not in known:
        raise UserError(
            f"--config: unknown variant {variant!r}{did_you_mean(variant, list(known))} (known: {', '.join(known)})"
        )
