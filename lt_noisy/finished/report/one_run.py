"""The part of a report that is of one run: what was asked for, its training set, and what each stage gave."""

from typing import Any

import numpy as np

from lt_noisy.data.by_class import pair_counts
from lt_noisy.data.manifest import digest
from lt_noisy.finished.report import drawn, figures
from lt_noisy.finished.report.contents import Figure, Section, Table
from lt_noisy.finished.report.reported import Reported
from lt_noisy.finished.report.stage_figures import Items, blocks, share, stage_items

_STAGE_FIELDS = ("init", "objective", "loss", "head", "length", "batch_size", "augment", "optimizer", "schedule")
_TIMES = (
    ("wall_seconds", ",.1f"),
    ("train_seconds", ",.1f"),
    ("steps", ",d"),
    ("images_per_second", ",.0f"),
    ("parameters", ",d"),
)
_MOST_FOLDED = 60  # rows above which a table is shown when asked


def run_sections(run: Reported, level: int, name: str, embedding: str) -> list[Section]:
    """The sections of a run, one for each of its stages after the first two.

    Args:
      level: of their headings.
      name: what the names of their pictures begin with; the empty string for nothing.
      embedding: see `stage_items`.
    """
    stages = [
        Section(level, f"Stage {stage.name}", stage_items(run, stage, f"{name}{stage.name}", embedding))
        for stage in run.run.stages
    ]
    return [
        Section(level, "What ran", _overview(run)),
        Section(level, "Training set", _training_set(run, name)),
        *stages,
    ]


def _overview(run: Reported) -> Items:
    config, finished = run.run.config, run.run.stages
    stages = " → ".join(config["stages"])
    if len(finished) < len(config["stages"]):
        stages += f" (finished: {', '.join(stage.name for stage in finished) or 'none yet'})"
    manifest, shape = run.manifest, " x ".join(map(str, run.run.image_shape))
    rows = [
        ["directory", str(run.run.directory)],
        ["data set", config["dataset"]],
        ["classes, shape of an example", f"{len(run.names)}, {shape}"],
        ["long tail", config["longtail"]],
        ["noise", config["noise"]],
        *([["manifest", config["manifest"]]] if config["manifest"] != "none()" else []),
        *([["wrong labels", wrong_share(run)]] if manifest is not None else []),
        ["model", f"{config['model']}, {config['precision']}"],
        ["seed", str(run.seed)],
        ["stages", stages],
        *_made_by(run),
    ]
    own = [field for field in config if field not in config["stages"]]
    fields = [[field, as_text(config[field])] for field in own]
    fields += [[f"{name}.{field}", as_text(text)] for name in config["stages"] for field, text in config[name].items()]
    whole = Table("The whole config", ("field", "value"), fields, folded=True)
    items: Items = [Table("The run", ("property", "value"), rows)]
    return [*items, _times(run), _methods(run), whole] if finished else [*items, whole]


def wrong_share(run: Reported) -> str:
    """How many observed labels of the training set are wrong, and of how many."""
    if run.manifest is None:
        return ""
    if not run.truth_known:
        return "not known"
    wrong = run.manifest.clean_labels != run.manifest.observed_labels
    return f"{share(float(wrong.mean()))} ({wrong.sum():,} of {len(wrong):,})"


def as_text(value: Any) -> str:
    """A value of a config or a recipe; a list without its brackets."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _made_by(run: Reported) -> list[list[str]]:
    """Code, versions and machine, of all stages together: a run may have gone on elsewhere."""
    found: dict[str, dict[str, None]] = {"code": {}, "versions": {}, "machine": {}}
    for stage in run.run.stages:
        code = stage.summary.get("code") or {}
        if code.get("commit"):
            found["code"][f"{code['commit'][:12]}{', changed' if code.get('changed') else ''}"] = None
        elif code.get("sources_sha256"):
            found["code"][f"sources {code['sources_sha256'][:12]}"] = None
        for entry in ("versions", "machine"):
            if its := stage.summary.get(entry):
                found[entry][", ".join(f"{name} {value}" for name, value in its.items())] = None
    return [[entry, "; ".join(texts)] for entry, texts in found.items() if texts]


def _times(run: Reported) -> Table:
    head = ("stage", "kind", "seconds", "in training", "steps", "images/s", "parameters")
    rows = []
    for stage in run.run.stages:
        summary = stage.summary
        numbers = [summary.get(key) for key, _ in _TIMES]
        forms = [form for _, form in _TIMES]
        cells = ["" if value is None else format(value, form) for value, form in zip(numbers, forms, strict=True)]
        rows.append([stage.name, stage.kind, *cells])
    return Table("Time of each stage", head, rows)


def _methods(run: Reported) -> Table:
    """The fields that say most of a stage, as columns of stages."""
    fields = [field for field in _STAGE_FIELDS if any(field in stage.texts for stage in run.run.stages)]
    rows = [[field, *(as_text(stage.texts.get(field, "")) for stage in run.run.stages)] for field in fields]
    return Table("How each stage learns", ("field", *(stage.name for stage in run.run.stages)), rows)


def _training_set(run: Reported, name: str) -> Items:
    manifest, clean, observed = run.manifest, run.clean_counts, run.observed_counts
    if manifest is None or clean is None or observed is None:
        return ["The run's directory has no manifest."]
    wrong = np.bincount(manifest.clean_labels[manifest.clean_labels != manifest.observed_labels], minlength=len(clean))
    head, rows = ["class", "clean labels", "observed labels"], []
    for c in run.order:
        rows.append([run.names[c], f"{clean[c]:,}", f"{observed[c]:,}"])
        if run.truth_known:
            rows[-1] += [f"{wrong[c]:,}", share(float(wrong[c] / clean[c])) if clean[c] else ""]
    head += ["wrong labels", "of its clean ones"] if run.truth_known else []
    counts = Table("Training examples of each class", head, rows, folded=len(rows) > _MOST_FOLDED)
    recipe = {key: value for key, value in manifest.recipe.items() if key not in ("class_names", "corrected")}
    facts = [
        ["examples", f"{len(manifest.ids):,}"],
        ["SHA-256 of its arrays", digest(manifest)],
        *([key.replace("_", " "), as_text(value)] for key, value in recipe.items()),
    ]
    items: Items = [Table("Its recipe", ("property", "value"), facts), counts]
    if not run.truth_known:
        return items
    pairs = pair_counts(manifest.clean_labels, manifest.observed_labels, len(clean))
    matrix = drawn.shares(pairs, run.order)
    right = share(float((manifest.clean_labels == manifest.observed_labels).mean()))
    picture = figures.matrix(matrix, [run.names[c] for c in run.order], "clean label", "observed label")
    alt = f"Realised noise transition matrix; {right} of all labels are right."
    title = f"Noise transition matrix, as it came about{blocks(run)}"
    return [*items, Figure(f"{name}noise", picture, title, alt)]
