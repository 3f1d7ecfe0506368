"""`lt.fit`, `lt.load` and what a run can be asked."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from helpers import photos
from helpers.commands import ROOT
from helpers.photos_config import get_config
from PIL import Image

import lt_noisy as lt
from lt_noisy.data import manifest as manifests
from lt_noisy.errors import UserError


def test_the_package_is_light_until_it_is_used():
    """`import lt_noisy` loads no JAX; all names are there."""
    code = "import sys, lt_noisy as lt; assert 'jax' not in sys.modules; "
    code += "print([getattr(lt, name).__name__ for name in lt.__all__])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['FeatureClassifier', 'Run', 'fit', 'load', 'lt_noisy.losses', 'lt_noisy.objectives']\n"
    assert set(lt.__all__) <= set(dir(lt))
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        lt.fitt  # noqa: B018


@pytest.fixture(scope="module")
def run(messy):
    return lt.load(messy[1])


def test_fit_is_the_program(messy, tmp_path, capsys):
    """The same steps as the command line's: the same weights, and nothing said where nothing is to be."""
    folder, _ = messy
    config = get_config()
    config.stages = ("finetune",)
    overrides = {"finetune.init": "none()", "finetune.length": "steps(6)", "seed": 3}
    dataset = f"folder(path='{folder}', size=8)"
    made = lt.fit(dataset, tmp_path / "a", config=config, overrides=overrides, quiet=True)
    said = capsys.readouterr().out
    assert "6/6" not in said and "test accuracy" in said and made.stages[0].summary["steps"] == 6
    again = lt.fit(folder, tmp_path / "b", config=config, size=8, overrides=overrides, quiet=True)
    assert again.stages[0].summary["params_sha256"] == made.stages[0].summary["params_sha256"]
    assert config.finetune.length == "steps(48)"  # the caller's is left as it was


def test_files_and_arrays_are_the_same_to_it(messy, run):
    files = sorted((messy[0] / "test" / "class 1").glob("*.jpg"))
    found = run.predict(files, top=2)
    assert [one.file for one in found] == files and {len(one.classes) for one in found} == {2}
    probabilities = run.probabilities(files)
    np.testing.assert_allclose(probabilities.max(-1), [one.probabilities[0] for one in found], rtol=1e-6)
    images = np.stack([np.asarray(Image.open(file).convert("RGB").resize((8, 8))) for file in files])
    assert run.probabilities(images).shape == (4, 3) and run.features(images).shape == run.features(files).shape
    one, alone = run.predict(messy[0] / "test" / "class 1")[0], run.predict(files[0])[0]
    assert one.classes == alone.classes and one.probabilities == pytest.approx(alone.probabilities, rel=1e-6)
    assert run.class_names == ("class 0", "class 1", "class 2")
    assert repr(run) == f"<Run {messy[1]}: pretrain, finetune, folds>"


def test_suspects_reviewed_and_corrected(messy, run, own_run, tmp_path, monkeypatch):
    run = lt.load(own_run)
    suspects = run.suspects()
    assert {s.file: s.suggested for s in suspects} == photos.WRONG
    page = run.review(tmp_path / "review", limit=2, neighbours=0)
    assert page == tmp_path / "review" / "index.html" and page.exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    with open(tmp_path / "decisions.csv", "w", newline="") as file:
        rows = [("id", "decision", "new_label"), *((s.id, "relabel", s.suggested) for s in suspects)]
        csv.writer(file).writerows(rows)
    corrected = run.apply("~/decisions.csv")
    assert corrected.recipe["corrections"] == 3
    assert manifests.digest(manifests.load(own_run / "corrected")) == manifests.digest(corrected)


def test_suspects_as_a_frame(run):
    pandas = pytest.importorskip("pandas")
    frame = run.suspects(frame=True)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["id", "file", "label", "suggested", "wrong_probability"] and len(frame) == 3


def test_the_features_carry_a_classifier(messy, run):
    """A classifier on the run's features, as scikit-learn has it."""
    files = sorted((messy[0] / "test").rglob("*.jpg"))
    labels = [file.parent.name for file in files]
    features = run.features(files)
    assert lt.FeatureClassifier(random_state=0).fit(features, labels).score(features, labels) == 1


BAD = {
    "nothing": (lambda f, r: lt.fit(), "fit takes a folder of images, or a config"),
    "no folder": (lambda f, r: lt.fit("nowhere"), "nowhere is no folder, nor the spec of a data set"),
    "spec": (lambda f, r: lt.fit("folderr(path='x')"), "did you mean 'folder'"),
    "field": (lambda f, r: lt.fit(f, overrides={"finetun.loss": "x"}), "config has no 'finetun', did you mean"),
    "type": (lambda f, r: lt.fit(f, overrides={"seed": "1"}), "--config.seed takes int, not '1'"),
    "section": (lambda f, r: lt.fit(f, overrides={"finetune": "x"}), "is a section: set its fields one by one"),
    "both": (lambda f, r: lt.fit(f, weights="x", config=get_config()), "weights are for the config that is taken"),
    "seeds": (lambda f, r: lt.fit(f, overrides={"seeds": (0, 1)}), "fit trains one run: set seed"),
    "stage": (lambda f, r: lt.load(r.directory / "finetune"), "is a stage; load its run"),
    "shape": (lambda f, r: r.probabilities(np.zeros((1, 9, 9, 3), np.uint8)), "takes images [N, 8, 8, 3], not"),
    "file": (lambda f, r: r.features("setup.py"), "setup.py: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_error(name, messy, run, monkeypatch):
    monkeypatch.chdir(ROOT)
    call, expected = BAD[name]
    with pytest.raises(UserError) as error:
        call(messy[0], run)
    assert expected in str(error.value)
