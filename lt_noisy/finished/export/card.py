"""The model card of an exported network: Markdown, with the fields that Hugging Face reads at its top.

Each sentence of it stands there because a file of the run says so.

References:
  Mitchell et al., "Model Cards for Model Reporting" (2019)
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lt_noisy.errors import printable
from lt_noisy.finished.export.facts import Facts
from lt_noisy.finished.export.snippets import snippet
from lt_noisy.runs.markdown import escaped, markdown
from lt_noisy.stages.rows import decimals, percent

UNKNOWN_LICENSE = "<fill in>"
FEW = 20  # training images below which a class is one of few (`evaluation.classification.class_groups`)
_GROUPS = {
    "many": "classes of more than 100 training images",
    "medium": "classes of 20 to 100",
    "few": "classes of fewer than 20",
    "head_third": "the largest third of the classes",
    "middle_third": "the middle third",
    "tail_third": "the smallest third",
}


def model_card(facts: Facts, file: str, license: str = "") -> str:
    """The card.

    Args:
      facts: of the network.
      file: name of the exported file, whose ending says how it is loaded.
      license: an identifier; empty: left to whoever publishes the model.
    """
    parts = [
        _front_matter(facts, file, license),
        f"# {escaped(Path(file).stem)}",
        _summary(facts),
        "## Intended use",
        _use(facts),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(facts)),
        "## How it is loaded",
        snippet(facts, file),
        "## Figures",
        _figures(facts),
        "## What it was trained on",
        _data(facts),
        "## How it was trained",
        _training(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def code(text: object) -> str:
    """Text as code within a line, whatever backticks it has."""
    plain = printable(text)
    fence = "`" * (max(map(len, re.findall("`+", plain)), default=0) + 1)
    space = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{space}{plain}{space}{fence}"


def _quoted(text: object) -> str:
    """A string of YAML, which every string of JSON is."""
    return json.dumps(printable(text), ensure_ascii=False)


def _front_matter(facts: Facts, file: str, license: str) -> str:
    library = {".safetensors": "pytorch", ".onnx": "onnx", ".stablehlo": "jax"}[Path(file).suffix]
    task = "image-classification" if facts.kind == "images" else "tabular-classification"
    lines = [
        f"license: {_quoted(license) if license else UNKNOWN_LICENSE}",
        f"library_name: {library}",
        f"pipeline_tag: {task}",
        *("tags:", f"- {task}", "- long-tailed", "- noisy-labels", "- lt_noisy"),
    ]
    if facts.test:
        lines += [
            *("metrics:", "- accuracy", "model-index:", f"- name: {_quoted(Path(file).stem)}", "  results:"),
            *("  - task:", f"      type: {task}"),
            *("    dataset:", f"      name: {_quoted(facts.run.config['dataset'])}"),
            f"      type: {_quoted(facts.run.config['dataset'].partition('(')[0])}",
            *("    metrics:", *_metric("accuracy", "accuracy", facts.test["accuracy"])),
            *_metric("balanced_accuracy", "balanced accuracy", facts.test["balanced_accuracy"]),
        ]
    return "\n".join(["---", *lines, "---"])


def _metric(kind: str, name: str, value: float) -> list[str]:
    return [f"    - type: {kind}", f"      name: {name}", f"      value: {value:.4f}"]


def _summary(facts: Facts) -> str:
    config, shape = facts.run.config, facts.run.image_shape
    size = f"{shape[1]} x {shape[0]} pixels, {shape[2]} channel{'s' * (shape[2] > 1)}" if len(shape) == 3 else ""
    takes = f"images of {size}" if size else f"vectors of {shape[0]} numbers"
    head = f" with the head {code(head)}" if (head := facts.stage.texts.get("head")) else ""
    return (
        f"{code(config['model'])}{head}, stage {code(facts.network)} of a run of lt_noisy, which trains classifiers "
        f"on long-tailed, wrongly labelled data. It takes {takes}, and knows {len(facts.run.class_names)} classes: "
        f"{_listed(facts.run.class_names)}."
    )


def _listed(names: Sequence[str], most: int = 30) -> str:
    more = f" and {len(names) - most} more, in the table below" if len(names) > most else ""
    return ", ".join(map(escaped, names[:most])) + more


def _use(facts: Facts) -> str:
    return (
        f"To tell these classes apart in {facts.kind} like those of {code(facts.run.config['dataset'])}, of which each "
        "shows one of them. Probabilities are the softmax of the logits. It was not examined for anything else, such "
        "as decisions about people."
    )


def _limits(facts: Facts) -> Iterator[str]:
    test, names, counts = facts.test, facts.run.class_names, facts.clean_counts
    recalls = test.get("per_class_accuracy") or [None] * len(names)
    rare = [label for label in np.argsort(counts, kind="stable").tolist() if counts[label] < FEW]
    if rare:
        listed = ", ".join(f"{escaped(names[c])} ({counts[c]} images, {_share(recalls[c])})" for c in rare[:30])
        more = f" and {len(rare) - 30} more" if len(rare) > 30 else ""
        yield f"{len(rare)} of {len(names)} classes have fewer than {FEW} training images: {listed}{more}."
    known = sorted((recall, label) for label, recall in enumerate(recalls) if recall is not None)
    if known:
        worst = ", ".join(f"{escaped(names[label])} ({_share(recall)})" for recall, label in known[:3])
        yield f"The least accurate classes: {worst}."
    yield from _label_limits(facts)
    if facts.threshold is not None:
        yield (
            f"An image that shows none of the classes gets one all the same. `lt-noisy predict` on the run marks what "
            f"is unlike the training images: 1 - cosine similarity of features to the nearest of them above "
            f"{facts.threshold:.4f}, which 1 % of the test images exceed. The exported file does not hold those "
            "features."
        )
    else:
        yield "Nothing measured how it takes to what is unlike its training data."
    if test:
        yield (
            f"Expected calibration error {test['ece']:.3f}: by so much confidence and accuracy differ in the mean, on "
            "images like the test images."
        )
        yield "The figures are of one training run: another seed gives others."
    if (precision := facts.run.config["precision"]) != "float32":
        yield f"It was trained in {escaped(precision)} and computes in float32 here."


def _label_limits(facts: Facts) -> Iterator[str]:
    if facts.noise_rate is not None:
        learnt = "and it learnt from them" if facts.reads_labels else "of which it has read none"
        yield f"{_share(facts.noise_rate)} of the training labels are known to be wrong, {learnt}."
    estimates = sorted(facts.estimates, key=lambda each: not each[2])  # those out of sample first
    for name, rate, unseen in estimates[:1]:
        how = "from networks that had not seen the label" if unseen else "from the network that learnt them"
        yield f"Stage {code(name)} estimates that {_share(rate)} of the training labels are wrong, {how}."
    if facts.noise_rate is None:
        yield (
            "Nobody knows which labels are right, test labels among them: where those are wrong, the accuracy is "
            "another than the one measured."
        )


def _figures(facts: Facts) -> str:
    test = facts.test
    if not test:
        return "This network was not tested as a classifier."
    number = sum(count for _, _, count in test["confusions"]) if "confusions" in test else 0
    lines = [
        ("figure", f"on {number:,} test {facts.kind}" if number else "on the test set"),
        ("accuracy", _share(test["accuracy"])),
        ("balanced accuracy (mean of the classes)", _share(test["balanced_accuracy"])),
        *(
            (f"{_GROUPS.get(name, name)} ({group['num_classes']})", _share(group["accuracy"]))
            for name, group in test["groups"].items()
            if group["num_classes"]
        ),
        ("negative log-likelihood", decimals(test["nll"])),
        ("expected calibration error", decimals(test["ece"])),
    ]
    quality: Any = facts.stage.summary.get("label_quality") or {}
    if quality.get("wrong_labels"):
        lines += [
            ("wrong training labels found at the estimated rate, recall", _share(quality.get("recall"))),
            ("the same, precision", _share(quality.get("precision"))),
        ]
    averaged = float(facts.stage.texts.get("ema", 0)) > 0
    which = "The average of the weights (`ema`) at the last step" if averaged else "The last step's network"
    chosen = f"{which}; the test set chose nothing."
    return f"{markdown(lines)}\n\n{chosen}"


def _data(facts: Facts) -> str:
    config = facts.run.config
    asked = {name: config[name] for name in ("longtail", "noise", "manifest") if config[name] != "none()"}
    lines = [
        f"- Data set: {code(config['dataset'])}",
        *(f"- {name}: {code(text)}" for name, text in asked.items()),
        f"- {int(facts.observed_counts.sum()):,} training {facts.kind}",
        *([f"- {facts.corrections:,} labels were corrected or left out by hand"] if facts.corrections else []),
        f"- SHA-256 of the training set's manifest: `{facts.manifest_sha256}`",
    ]
    if (own := facts.stage.texts.get("data", "manifest()")) != "manifest()":
        lines.append(f"- The stage chose of it, or beside it: {code(own)}")
    recalls = facts.test.get("per_class_accuracy") or [None] * len(facts.run.class_names)
    truth = facts.noise_rate is not None
    table = [["class", *(["clean labels"] if truth else []), "labels learnt from", "test accuracy"]]
    for label, name in enumerate(facts.run.class_names):
        clean = [str(facts.clean_counts[label])] if truth else []
        table.append([escaped(name), *clean, str(facts.observed_counts[label]), _share(recalls[label])])
    return "\n".join(lines) + "\n\n" + markdown(table)


def _training(facts: Facts) -> str:
    config, summary = facts.run.config, facts.stage.summary
    versions, made = summary.get("versions", {}), summary.get("code", {})
    fields = {name: text for name, text in config.items() if name not in config["stages"]}
    sections = {name: config[name] for name in config["stages"]}
    loss = [f"- Loss: {code(text)}"] if (text := facts.stage.texts.get("loss")) else []
    machine = summary.get("machine", {})
    commit = (
        f"`{made['commit']}`{', changed since' if made.get('changed') else ''}" if made.get("commit") else "unknown"
    )
    lines = [
        *loss,
        f"- Stages, in order: {', '.join(map(code, config['stages']))}; seed {config['seed']}",
        f"- Code: commit {commit}, SHA-256 of its sources `{made.get('sources_sha256', 'unknown')}`",
        f"- Versions: {', '.join(f'{name} {version}' for name, version in versions.items()) or 'unknown'}",
        f"- On {machine.get('devices', '?')} x {escaped(machine.get('device', 'unknown'))}",
    ]
    asked = json.dumps({**fields, **sections}, indent=1, ensure_ascii=False)
    return "\n".join(lines) + f"\n\nThe whole config:\n\n```json\n{asked}\n```"


def _share(value: float | None) -> str:
    return percent(value).strip()
