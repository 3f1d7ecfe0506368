"""`lt-noisy export` of a finished run: its files, its card, the programs in the card."""

import contextlib
import io
import re
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.special import softmax

from lt_noisy.data import manifest as manifests
from lt_noisy.data.sources.decoding import decode, decode_stretched
from lt_noisy.files import load_arrays, write_arrays
from lt_noisy.finished.export import command, graph
from lt_noisy.finished.export.card import code, escaped, model_card
from lt_noisy.finished.export.command import export
from lt_noisy.finished.export.facts import gather, prepared
from lt_noisy.finished.network import load_network
from lt_noisy.finished.run import read_run
from lt_noisy.runs import cli


def said_by(program, directory, monkeypatch):
    """What a program prints that is run in a directory."""
    monkeypatch.chdir(directory)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, "card", "exec"), {})
    return out.getvalue()


def card_of(path):
    """The fields at the top of a card, and its text."""
    _, front, text = path.read_text().split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.mark.parametrize("ending", ["onnx", "stablehlo"])
def test_the_program_in_the_card_says_what_the_run_does(messy, tmp_path, monkeypatch, capsys, ending):
    if ending == "onnx":
        pytest.importorskip("jax2onnx")
        pytest.importorskip("onnxruntime")
    folder, workdir = messy
    picture = next((folder / "test").rglob("*.jpg"))
    with Image.open(picture) as image:
        image.save(tmp_path / "picture.png")
    assert cli.main(["lt-noisy", "export", str(workdir), str(tmp_path / f"net.{ending}"), "--license=mit"]) == 0
    lines = capsys.readouterr().out
    error = float(re.search(r"its outputs are those of the run to (\S+) of the largest", lines)[1])
    assert error <= graph.TOLERANCE and f"net.{ending}.md: the model card" in lines
    front, text = card_of(tmp_path / f"net.{ending}.md")
    assert front["license"] == "mit"
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    name, probability = said_by(program.replace("picture.jpg", "picture.png"), tmp_path, monkeypatch).rsplit(" ", 1)
    network = load_network(read_run(workdir))
    logits, _ = network(decode(tmp_path / "picture.png", 8, 3)[None])
    assert name == network.class_names[logits[0].argmax()]
    assert float(probability) == pytest.approx(softmax(logits[0]).max(), abs=1e-4)


def test_weights_have_a_card_too(messy, tmp_path, monkeypatch, capsys):
    _, workdir = messy
    assert export([str(workdir / "pretrain"), str(tmp_path / "net.safetensors")]) == 0
    front, text = card_of(tmp_path / "net.safetensors.md")
    assert front["license"] == "<fill in>" and "model-index" not in front
    assert "This network was not tested as a classifier." in text
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "'input_size': [3, 8, 8]" in said_by(program, tmp_path, monkeypatch)
    assert export([str(workdir / "folds" / "fold_0"), str(tmp_path / "fold.safetensors")]) == 0
    assert "stage `folds/fold_0` of a run" in (tmp_path / "fold.safetensors.md").read_text()


def test_the_card_says_what_the_run_measured(messy):
    _, workdir = messy
    run = read_run(workdir)
    summary, manifest = run.stage("finetune").summary, manifests.load(workdir)
    text = model_card(gather(run, "finetune"), "net.onnx")
    front = yaml.safe_load(text.split("---\n", 2)[1])
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(summary["test"]["accuracy"], abs=1e-4)
    assert result["dataset"] == {"name": run.config["dataset"], "type": "folder"}
    counts = np.bincount(manifest.observed_labels)
    for label, name in enumerate(run.class_names):
        recall = 100 * summary["test"]["per_class_accuracy"][label]
        assert f"| {name} | {counts[label]} | {recall:.2f} % |" in text
        assert f"{name} ({counts[label]} images, {recall:.2f} %)" in text  # fewer than 20 of each
    assert "3 of 3 classes have fewer than 20 training images" in text
    assert "| accuracy | " in text and "on 12 test images" in text
    estimate = 100 * run.stage("folds").summary["label_quality"]["estimated_rate"]
    assert f"Stage `folds` estimates that {estimate:.2f} % of the training labels are wrong" in text
    assert "from networks that had not seen the label" in text and "Nobody knows which labels are right" in text
    assert f"above {load_network(run).reference.threshold:.4f}" in text
    for fact in (
        manifests.digest(manifest),
        summary["code"]["sources_sha256"],
        f"jax {summary['versions']['jax']}",
        run.config["finetune"]["loss"],
        run.config["dataset"],
        "seed 0",
    ):
        assert fact in text


@pytest.mark.parametrize(
    ("dataset", "pixels"),
    [
        ("folder(path='x', size=8, resize=0)", lambda file: decode(file, 8, 3)),
        ("folder(path='x', size=8, resize=12)", lambda file: decode(file, 8, 3, 12)),
        ("tfds(name='x', size=8, resize=0)", lambda file: decode_stretched(file, 8, 3)),
    ],
)
def test_the_program_cuts_a_picture_as_training_does(messy, tmp_path, monkeypatch, dataset, pixels):
    run = read_run(messy[1])
    config = {**run.config, "dataset": dataset}
    text = model_card(gather(run._replace(config=config), "finetune"), "net.onnx")
    lines = [line for line in text.splitlines() if line.startswith(("picture = ", "images = "))]
    smooth = np.indices((40, 61)).sum(0)[..., None] * [2, 1, 0]
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "picture.jpg.png")
    program = ["import numpy as np", "from PIL import Image, ImageOps", *lines, "np.save('out.npy', images)"]
    said_by("\n".join(program).replace("picture.jpg", "picture.jpg.png"), tmp_path, monkeypatch)
    expected = pixels(tmp_path / "picture.jpg.png")
    assert np.abs(np.load(tmp_path / "out.npy")[0].astype(int) - expected).max() <= 2


def test_known_noise_is_told_as_it_is(own_run):
    """A manifest whose truth is known has both counts, and its rate."""
    manifest = manifests.load(own_run)
    observed = manifest.observed_labels.copy()
    observed[:3] = (observed[:3] + 1) % 3
    changed = manifests.Manifest(manifest.ids, manifest.clean_labels, observed, {**manifest.recipe, "corrections": 7})
    manifests.save(changed, own_run)
    facts = gather(read_run(own_run), "finetune")
    text = model_card(facts, "net.onnx")
    rate = 100 * 3 / len(observed)
    assert f"{rate:.2f} % of the training labels are known to be wrong" in text and "Nobody knows" not in text
    clean, seen = (np.bincount(labels) for labels in (manifest.clean_labels, observed))
    assert f"| class 0 | {clean[0]} | {seen[0]} |" in text and "7 labels were corrected" in text


def test_names_mean_nothing_to_markdown(messy):
    _, workdir = messy
    run = read_run(workdir)
    names = ("a|b`*_[x](y)", "<script>&\n---", "#\\|$1$")
    text = model_card(gather(run._replace(class_names=names), "finetune"), "net.stablehlo")
    assert "<script>" not in text.split("```python")[0] and r"a\|b\`\*\_\[x\](y)" in text
    front = yaml.safe_load(text.split("---\n", 2)[1])
    assert front["library_name"] == "jax"
    rows = [line for line in text.splitlines() if line.startswith("| ") and "class" not in line]
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) in (3, 4) for row in rows)
    assert escaped("# a") == r"\# a" and code("a`b") == "``a`b``" and code("`") == "`` ` ``"


def test_what_the_graph_prepares_is_told_in_words(messy):
    run = read_run(messy[1])
    augment = run.config["finetune"]["augment"]
    assert prepared(run, "finetune") == f"in the graph: pixels / 255, then the deterministic part of {augment}"


BAD = {
    "no such run": (["nowhere", "{tmp}/x.onnx"], "there is no such directory of a run"),
    "no classifier": (["{run}/folds", "{tmp}/x.stablehlo"], "is a cross_fit stage, which holds no classifier"),
    "no such stage": (["{run}/finetun", "{tmp}/x.stablehlo"], "has no finished stage 'finetun', did you mean"),
    "another ending": (["{run}", "{tmp}/x.tflite"], "ends in none of .safetensors, .onnx, .stablehlo"),
    "names of a graph": (["{run}", "{tmp}/x.onnx", "--naming=timm"], "--naming is of the layers in .safetensors"),
    "a naming": (["{run}", "{tmp}/x.safetensors", "--naming=tim"], "naming 'tim' is not one of"),
    "no directory": (["{run}", "{tmp}/no/x.onnx"], "is no file in a directory that exists"),
    "a flag": (["{run}", "{tmp}/x.onnx", "--licence=mit"], "unrecognized arguments: --licence=mit"),
    "there already": (["{run}", "{tmp}/there.stablehlo"], "there.stablehlo.md exists already; give another name"),
}


def test_what_was_held_out_is_no_training_image(own_run):
    """The card counts what the stage learnt from, as its table does."""
    path = own_run / "finetune" / "label_quality.npz"
    with np.load(path) as arrays:
        learnt = {name: array[:30] for name, array in arrays.items()}
    write_arrays(path, **learnt)
    facts = gather(read_run(own_run), "finetune")
    assert facts.observed_counts.tolist() == np.bincount(learnt["observed"]).tolist()


def test_a_fold_learnt_from_the_others(messy):
    """The card of a network of `cross_fit` counts what that network saw."""
    run = read_run(messy[1])
    (fold,) = load_arrays(messy[1] / "folds" / "label_quality.npz", "fold")
    for k, network in enumerate(run.stage("folds").summary["networks"]):
        facts = gather(run, f"folds/fold_{k}")
        assert facts.observed_counts.sum() == network["images"] == (fold != k).sum()
    assert gather(run, "folds").observed_counts.sum() == len(fold)


@pytest.mark.parametrize("case", BAD)
def test_one_line_for_what_cannot_be_exported(messy, tmp_path, capsys, case):
    arguments, says = BAD[case]
    (tmp_path / "there.stablehlo.md").touch()
    assert export([argument.format(run=messy[1], tmp=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.stablehlo.md"]


def test_a_graph_that_computes_something_else_leaves_no_file(messy, tmp_path, monkeypatch, capsys):
    def wrong(content):
        network = load_network(read_run(messy[1]))

        def call(images):
            logits, features = network(images)
            return {"logits": logits + 1, "probabilities": softmax(logits, -1), "features": features}

        return call

    monkeypatch.setattr(command, "stablehlo_call", wrong)
    assert export([str(messy[1]), str(tmp_path / "net.stablehlo")]) == 2
    assert "its logits differ from those of the run by" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_network_of_half_precision_is_exported_in_float32(own_run, tmp_path):
    """Its own outputs in float32 are what it is compared with; the card says so."""
    text = (own_run / "run.json").read_text()
    (own_run / "run.json").write_text(text.replace('"precision": "float32"', '"precision": "bfloat16"'))
    assert export([str(own_run), str(tmp_path / "net.stablehlo")]) == 0
    assert "It was trained in bfloat16 and computes in float32 here." in (tmp_path / "net.stablehlo.md").read_text()
    # One name for each form, as the docs have it.
    assert export([str(own_run), str(tmp_path / "net.safetensors")]) == 0
    shutil.rmtree(own_run)
