"""Makes a messy folder of images whose true classes are known, and scores the list of suspects that a run makes of it.

    python benchmarks/messy_folder.py make photos --dataset='tfds(cifar10)' \\
        --longtail='exponential(ratio=10, n_max=300)' --noise='symmetric(rate=0.2)' [--seed=0] [--size=96]
    python main.py --config=configs/own_images.py:small --workdir=runs/photos
    python benchmarks/messy_folder.py score photos runs/photos/folds/suspects.csv [--json=results/own_images.json]
    python benchmarks/messy_folder.py decide photos runs/photos --first=100 --out=decisions.csv
    python benchmarks/messy_folder.py compare photos runs/photos runs/corrected [--json=results/own_images_review.json]

`make` writes PNG files into the folder of their (sometimes wrong) class (with `--size` JPEG files of that many pixels a
side), and what is true into `photos.manifest` beside it, where no run looks. `score` tells how many of the first 25,
50, 100, ... files of the list are in a wrong folder, and of how many of them the suggested class is the true one; the
share of wrong labels is what a list in any order would have. `auroc` is that of the wrong probability over all files
that the stage judged. `decide` answers for a person who knows the truth: the page of `lt-noisy review` without the
page. `compare` tells how many wrong labels runs were trained on, and what their classifiers are worth on test images
whose labels are right: make the folder with `--tests=100`.
"""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import arguments
import numpy as np
import records
from PIL import Image
from sklearn.metrics import roc_auc_score

from lt_noisy.config.spec import bind
from lt_noisy.data import manifest as manifests
from lt_noisy.data.longtail import LONGTAILS
from lt_noisy.data.noise import NOISES
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import Split
from lt_noisy.errors import UserError, say
from lt_noisy.files import load_arrays, path_argument, write_json, write_table
from lt_noisy.finished.network import default_stage, resolved_again
from lt_noisy.finished.run import read_run
from lt_noisy.finished.suspects import judge, read_suspects
from lt_noisy.revision import codes, distinct
from lt_noisy.runs.markdown import markdown, percent

LENGTHS = (25, 50, 100, 200, 400, 800, 1600, 3200)


def _truth(folder: pathlib.Path) -> pathlib.Path:
    return folder.with_name(f"{folder.name}.manifest")


def _class_folder(name: str) -> str:
    """What the folder of a class is called: not as a split is (CIFAR-100 has trains)."""
    return f"{name}_" if name == "train" else name


def make(
    folder: pathlib.Path, dataset: str, longtail: str, noise: str, seed: int, size: int = 0, tests: int = 0
) -> manifests.Manifest:
    """Writes the images of a training set as `folder/<observed class>/<id>.png`; refuses a folder that exists.

    With a `size` they are `.jpg` files of so many pixels a side. With `tests` they go below `folder/train`, and so many
    test images of each class, all in their own, below `folder/test`.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already")
    source = bind(dataset, SOURCES, "--dataset")()
    recipe = {"dataset": dataset, "longtail": longtail, "noise": noise}
    train = source.train
    manifest = manifests.build(
        train.labels,
        train.ids,
        source.num_classes,
        source.class_names,
        bind(longtail, LONGTAILS, "--longtail"),
        bind(noise, NOISES, "--noise"),
        seed,
        recipe,
    )
    rows, names = manifests.verify(manifest, train.labels, train.ids), [_class_folder(n) for n in source.class_names]
    _write(folder / "train" if tests else folder, names, train, rows, manifest.observed_labels, size)
    if tests:
        order = np.argsort(source.test.labels, kind="stable")
        _, first = np.unique(source.test.labels[order], return_index=True)
        rows = np.concatenate([order[begin : begin + tests] for begin in first])
        _write(folder / "test", names, source.test, rows, source.test.labels[rows], size)
    manifests.save(manifest, _truth(folder))
    return manifest


def _write(
    folder: pathlib.Path, names: Sequence[str], split: Split, rows: np.ndarray, labels: np.ndarray, size: int
) -> None:
    """Images of a split as files in the folders of these labels."""
    for name in names:
        (folder / name).mkdir(parents=True)
    for key, label, image in zip(split.ids[rows].tolist(), labels.tolist(), split.images(rows), strict=True):
        picture, file = Image.fromarray(image.squeeze()), folder / str(names[label]) / str(key)
        if size:
            picture.resize((size, size), Image.Resampling.BICUBIC).save(file.with_suffix(".jpg"), quality=90)
        else:
            picture.save(file.with_suffix(".png"))


def score(folder: pathlib.Path, suspects: pathlib.Path) -> dict[str, Any]:
    """How good the head of a `suspects.csv` is, and what its stage says of itself; counts of files, shares in 0..1."""
    manifest = manifests.load(_truth(folder))
    clean = dict(zip(manifest.ids.tolist(), manifest.clean_labels.tolist(), strict=True))
    names = {_class_folder(name): label for label, name in enumerate(manifest.recipe["class_names"])}
    try:
        with open(suspects, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            rows = [(int(pathlib.Path(r["file"]).stem), r["label"], r["suggested"]) for r in csv.DictReader(file)]
        wrong = np.array([clean[key] != names[label] for key, label, _ in rows], bool)
        right = np.array([clean[key] == names[suggested] for key, _, suggested in rows], bool)
    except (ValueError, KeyError, TypeError) as error:  # another file, or of another folder
        raise UserError(f"{suspects}: not a list of suspects in {folder} ({error!r})") from None
    return {
        "recipe": manifest.recipe,
        "files": len(manifest.ids),
        "wrong": float((manifest.clean_labels != manifest.observed_labels).mean()),
        "listed": len(rows),
        "head": [
            {"files": n, "wrong": int(wrong[:n].sum()), "suggested_is_true": int(right[:n].sum())}
            for n in (*(n for n in LENGTHS if n < len(rows)), len(rows))
        ],
        "auroc": _auroc(folder, suspects.with_name("label_quality.npz"), manifest),
        **_stage(suspects.with_name("summary.json")),
    }


def decide(folder: pathlib.Path, run: pathlib.Path, first: int, path: pathlib.Path) -> int:
    """Writes what somebody who knows the truth decides of the first suspects of a run; returns how many are wrong."""
    finished = read_run(run)
    manifest, suspects = manifests.load(_truth(folder)), read_suspects(judge(finished).directory)[:first]
    clean = dict(zip(manifest.ids.tolist(), manifest.clean_labels.tolist(), strict=True))
    rows = []
    for suspect in suspects:
        true = _class_folder(manifest.recipe["class_names"][clean[int(pathlib.Path(suspect.file).stem)]])
        right = true == suspect.label
        rows.append((suspect.id, suspect.file, suspect.label, "keep" if right else "relabel", "" if right else true))
    write_table(path, ("id", "file", "label", "decision", "new_label"), rows)
    return sum(row[3] == "relabel" for row in rows)


def compare(folder: pathlib.Path, runs: Sequence[pathlib.Path]) -> list[dict[str, Any]]:
    """How many wrong labels each run was trained on, and what its classifier is worth on the test images."""
    manifest = manifests.load(_truth(folder))
    clean = dict(zip(manifest.ids.tolist(), manifest.clean_labels.tolist(), strict=True))
    names = [_class_folder(name) for name in manifest.recipe["class_names"]]
    found = []
    for path in runs:
        run = read_run(path)
        train, given = resolved_again(run).fields.dataset().train, manifests.load(path)
        file = dict(zip(train.ids.tolist(), train.files, strict=True))
        pairs = zip(given.ids.tolist(), given.observed_labels.tolist(), strict=True)
        wrong = [
            clean[int(pathlib.Path(file[key]).stem)] != names.index(run.class_names[label]) for key, label in pairs
        ]
        stage = run.stage(default_stage(run))
        found.append(
            {
                "run": str(path),
                "images": len(wrong),
                "wrong_labels": sum(wrong),
                **{name: stage.summary["test"][name] for name in ("accuracy", "balanced_accuracy")},
                "code": codes([stage.summary]),
                **{key: stage.summary[key] for key in ("stage", "seed", "versions", "machine")},
            }
        )
    return found


def _auroc(folder: pathlib.Path, quality: pathlib.Path, manifest: manifests.Manifest) -> float | None:
    """Of the wrong probability of all judged files for those in a wrong folder; None without the stage's arrays."""
    if not quality.exists():
        return None
    ids, suspicion = load_arrays(quality, "ids", "wrong_probability")
    train = bind(f"folder(path={str(folder)!r}, size=8, test_percent=1)", SOURCES, "folder")().train
    file = dict(zip(train.ids.tolist(), train.files, strict=True))
    wrong = dict(zip(manifest.ids.tolist(), manifest.clean_labels != manifest.observed_labels, strict=True))
    known = [key in file for key in ids.tolist()]  # the others are test images with that few of them
    judged = [wrong[int(pathlib.Path(file[key]).stem)] for key in ids[known].tolist()]
    return float(roc_auc_score(judged, suspicion[known]))


def _stage(summary: pathlib.Path) -> dict[str, Any]:
    """Of the stage that wrote the list: how many labels it judged, and with how good networks; {} without a summary."""
    if not summary.exists():
        return {}
    figures = json.loads(summary.read_text())
    unseen = [network["held_out_accuracy_observed"] for network in figures.get("networks", [])]
    return {
        "judged": figures["label_quality"]["images"],
        "estimated_wrong": figures["label_quality"]["estimated_rate"],
        "agreement_with_unseen_labels": float(np.mean(unseen)) if unseen else None,
        "code": codes([figures]),
        **{key: figures[key] for key in ("stage", "seed", "wall_seconds", "versions", "machine")},
    }


def show(figures: dict[str, Any]) -> str:
    """A Markdown table of `score`."""
    lines = [[str(row[key]) for key in ("files", "wrong", "suggested_is_true")] for row in figures["head"]]
    return markdown([["first files of the list", "in a wrong folder", "the suggested class is the true one"], *lines])


def show_compared(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of `compare`, whose runs are before and after a review in turn: mean and deviation."""
    lines = [["", "wrong labels", "test accuracy, percent"]]
    for name, own in (("before", rows[::2]), ("after", rows[1::2])):
        wrong = sorted({row["wrong_labels"] for row in own})
        span = f"{wrong[0]}" if len(wrong) == 1 else f"{wrong[0]} to {wrong[-1]}"
        lines.append([name, f"{span} of {own[0]['images']:,}", percent([row["accuracy"] for row in own])])
    return markdown(lines)


def main(argv: list[str]) -> None:
    """`make`, `decide`, `compare` or `score`."""
    parser = arguments.Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making, scoring = commands.add_parser("make"), commands.add_parser("score")
    deciding, comparing = commands.add_parser("decide"), commands.add_parser("compare")
    making.add_argument("folder", type=path_argument)
    making.add_argument("--dataset", default="tfds(cifar10)")
    making.add_argument("--longtail", default="exponential(ratio=10, n_max=300)")
    making.add_argument("--noise", default="symmetric(rate=0.2)")
    making.add_argument("--seed", type=int, default=0)
    making.add_argument("--size", type=int, default=0)
    making.add_argument("--tests", type=int, default=0)
    deciding.add_argument("folder", type=path_argument)
    deciding.add_argument("run", type=path_argument)
    deciding.add_argument("--first", type=arguments.count, default=100)
    deciding.add_argument("--out", type=arguments.new_file, required=True)
    comparing.add_argument("folder", type=path_argument)
    comparing.add_argument("runs", type=path_argument, nargs="+")
    comparing.add_argument("--json", type=arguments.new_file)
    scoring.add_argument("folder", type=path_argument)
    scoring.add_argument("suspects", type=path_argument)
    scoring.add_argument("--json", type=arguments.new_file)
    given = parser.parse_args(argv[1:])
    if given.command == "make":
        made = make(given.folder, given.dataset, given.longtail, given.noise, given.seed, given.size, given.tests)
        say(f"{given.folder}: {len(made.ids)} images, {(made.clean_labels != made.observed_labels).sum()} wrong")
        return
    if given.command == "decide":
        wrong = decide(given.folder, given.run, given.first, given.out)
        say(f"{given.out}: {wrong} of the first {given.first} suspects are relabelled, the others stay")
        return
    command = records.command(argv)
    if given.command == "compare":
        rows = compare(given.folder, given.runs)
        for row in rows:
            accuracy = ", ".join(f"{name} {100 * row[name]:.1f} %" for name in ("accuracy", "balanced_accuracy"))
            say(f"{row['run']}: {row['wrong_labels']} of {row['images']} labels wrong, {accuracy}")
        if given.json is not None:
            recipe = manifests.load(_truth(given.folder)).recipe
            made_by = distinct(code for row in rows for code in row["code"])
            write_json(given.json, {"command": command, "recipe": recipe, "runs": rows, "code": made_by})
        return
    figures = {
        "command": command,
        **score(given.folder, given.suspects),
    }
    say(f"{figures['files']} files, {100 * figures['wrong']:.1f} % in a wrong folder, {figures['listed']} listed")
    say(*show(figures).splitlines())
    if given.json is not None:
        write_json(given.json, figures)


if __name__ == "__main__":
    arguments.run(main)
