"""The same command after the data changed: what other data made is set aside, whatever moment it is killed at."""

import csv
import json
import os
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.commands import KILLER, run, summary_of
from PIL import Image

from lt_noisy.config.resolve import RESERVED
from lt_noisy.data import manifest as manifests
from lt_noisy.errors import UserError
from lt_noisy.hashing import json_sha256
from lt_noisy.runs import rounds
from lt_noisy.runs.jobs import Work
from lt_noisy.runs.workdir import claim, link

TEXTS = {
    "dataset": "folder(path='photos')",
    "longtail": "none()",
    "noise": "none()",
    "manifest": "none()",
    "validation": 0.0,
    "steps_per_call": 1,
}


def manifest(labels=(0, 1, 0), names=("a", "b")):
    recipe = {"num_classes": 2, "class_names": list(names), "seed": 0, "nominal_rate": 0.0}
    labels = np.array(labels, np.int32)
    return manifests.Manifest(np.arange(len(labels)), labels, labels, recipe)


def works(directory, labels="l", pool="p", loss="ce", steps=4):
    """pretrain -> finetune -> pool -> joint: the first reads no labels, the last two a pool."""
    found = {}

    def add(name, identity, measured, reads=()):
        inputs = {f"inputs.{read}": json_sha256(found[read].identity) for read in reads}
        own = {f"{name}.{key}": value for key, value in measured.items()}
        identity = {"seed": 0, f"{name}.kind": "k", **identity, **own, **inputs}
        found[name] = Work(SimpleNamespace(name=name), SimpleNamespace(directory=directory / name), identity, measured)

    add("pretrain", {"data.ids": "i"}, {"steps": 4})
    add("finetune", {"data.observed_labels": labels, "finetune.loss": loss}, {"steps": steps}, ["pretrain"])
    add("pool", {"data.ids": "i"}, {"pool_sha256": pool}, ["finetune"])
    add("joint", {"data.observed_labels": labels}, {"steps": 4}, ["pool"])
    return list(found.values())


def begin(directory, given=None, new=None, **texts):
    rounds.begin(given or works(directory), SimpleNamespace(texts=TEXTS | texts), new or manifest(), directory)


def finish(directory, given=None, new=None):
    """All that a run leaves: stages with something in them, and its manifest."""
    for work in given or works(directory):
        claim(work.job.directory, work.identity)
        (work.job.directory / "result").write_text(json.dumps(work.identity))
    manifests.save(new or manifest(), directory)


@pytest.fixture
def finished(tmp_path):
    begin(tmp_path)
    finish(tmp_path)
    return tmp_path


def files(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_without_a_change_nothing_moves(finished, capsys):
    before = files(finished)
    begin(finished)
    assert files(finished) == before and capsys.readouterr().out == ""


def test_a_corrected_label_leaves_what_reads_no_labels(finished, capsys):
    before = files(finished)
    begin(finished, works(finished, labels="corrected"), manifest((0, 1, 1)))
    said = capsys.readouterr().out
    assert "finetune: the data has changed (data.observed_labels); the earlier one is in" in said
    assert "joint: the data has changed (data.observed_labels, inputs.pool);" in said and said.count("\n") == 3
    after = files(finished)
    assert {name for name in after if not name.startswith("earlier/")} == {
        "data.json",
        "manifest.npz",  # manifest.json is gone: the run writes both anew
        "pretrain/identity.json",
        "pretrain/result",
    }
    kept = {name.removeprefix("earlier/1/"): content for name, content in after.items()}
    assert {name: kept[name] for name in before} == before  # nothing is lost


def test_another_pool_leaves_what_does_not_read_it(finished):
    begin(finished, works(finished, pool="bright"))
    assert {p.name for p in (finished / "earlier" / "1").iterdir()} == {
        "pool",
        "joint",
        "manifest.json",
        "manifest.npz",
    }
    assert (finished / "finetune").is_dir() and manifests.load(finished) is not None


def test_a_renamed_class_replaces_the_manifest(finished, capsys):
    begin(finished, new=manifest(names=("a", "c")))
    assert "the training set has changed; the earlier manifest is in" in capsys.readouterr().out
    assert not (finished / "manifest.json").exists()
    assert manifests.load(finished / "earlier" / "1").recipe["class_names"] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "texts", "says"),
    [
        ({"loss": "gce"}, {}, r"finetune holds another run of this stage \(finetune\.loss: ce -> gce; inputs"),
        (
            {"loss": "gce", "labels": "corrected"},
            {},
            r"data\.observed_labels: l -> corrected; finetune\.loss: ce -> gce",
        ),
        ({"labels": "x"}, {"validation": 0.1}, r"config\.validation: 0\.0 -> 0\.1; data\.observed_labels: l -> x"),
        ({"labels": "x"}, {"dataset": "digits()"}, r"config\.dataset: folder.* -> digits\(\); data\.obs"),
        ({"steps": 8}, {"steps_per_call": 8}, r"config\.steps_per_call: 1 -> 8; finetune\.steps: 4 -> 8"),
    ],
)
def test_a_difference_in_the_config_is_another_run(finished, change, texts, says):
    before = files(finished)
    with pytest.raises(UserError, match=says.replace("; inputs", "")):
        begin(finished, works(finished, **change), **texts)
    assert files(finished) == before


def test_a_workdir_that_does_not_say_what_was_asked_for_is_refused(finished):
    (finished / "data.json").unlink()  # as those of earlier versions
    with pytest.raises(UserError, match=r"holds another run of this stage \(data\.observed_labels: l -> x\)"):
        begin(finished, works(finished, labels="x"))


def test_another_config_of_what_a_stage_read_is_no_change_of_data(finished):
    """The earlier stage was removed to run with another loss: what was made of it is of another config."""
    shutil.rmtree(finished / "finetune")
    with pytest.raises(UserError, match=r"pool holds another run of this stage \(inputs\.finetune: "):
        begin(finished, works(finished, loss="gce"))


def test_a_stage_left_behind_by_a_shorter_run_is_traced_through_the_earlier_round(finished):
    changed = works(finished, labels="x")
    begin(finished, changed[:2], manifest((0, 1, 1)))
    finish(finished, changed[:2], manifest((0, 1, 1)))
    begin(finished, changed, manifest((0, 1, 1)))  # now with the pool and joint training, made of the first labels
    assert {p.name for p in (finished / "earlier" / "1").iterdir()} >= {"finetune"}
    assert {p.name for p in (finished / "earlier" / "2").iterdir()} >= {"pool", "joint"}


def test_rounds_are_numbered(finished):
    for number, labels in enumerate(("second", "third"), start=1):
        given = works(finished, labels=labels)
        begin(finished, given, manifest((0, 1, number % 2)))
        finish(finished, given, manifest((0, 1, number % 2)))
        identity = json.loads((finished / "earlier" / str(number) / "finetune" / "identity.json").read_text())
        assert identity["data.observed_labels"] == ("l", "second")[number - 1]


def test_a_kill_at_any_moment_is_gone_on_from(finished, tmp_path_factory, monkeypatch, capsys):
    """Killed at each change of the directory in turn: the next call ends where an undisturbed one does."""
    undisturbed = tmp_path_factory.mktemp("undisturbed") / "run"
    shutil.copytree(finished, undisturbed)
    given = dict(labels="x")
    begin(undisturbed, works(undisturbed, **given), manifest((0, 1, 1)))
    replace, unlink, mkdir = os.replace, type(finished).unlink, type(finished).mkdir

    class Killed(BaseException):
        pass

    moments, at = 0, None

    def counted(original):
        def call(*args, **kwargs):
            nonlocal moments
            moments += 1
            if moments == at:
                raise Killed
            return original(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "replace", counted(replace))
    monkeypatch.setattr(type(finished), "unlink", counted(unlink))
    monkeypatch.setattr(type(finished), "mkdir", counted(mkdir))
    for moment in range(1, 30):
        here = tmp_path_factory.mktemp("killed") / "run"
        shutil.copytree(finished, here)
        moments, at = 0, moment
        try:
            begin(here, works(here, **given), manifest((0, 1, 1)))
        except Killed:
            at = None
            begin(here, works(here, **given), manifest((0, 1, 1)))
        else:
            break
        assert files(here) == files(undisturbed), moment
    assert moment > 6  # three stages, two files of a manifest, and its removal


def test_a_link_into_a_store_is_set_aside_and_leads_there_still(tmp_path):
    store, workdir = tmp_path / "store", tmp_path / "run"
    workdir.mkdir()
    begin(workdir)
    for work in works(workdir):
        link(work.job.directory, store, work.identity, "sources")
    finish(workdir)
    target = (workdir / "pool").resolve()
    begin(workdir, works(workdir, pool="bright"))
    aside = workdir / "earlier" / "1" / "pool"
    assert aside.is_symlink() and not os.readlink(aside).startswith("/") and aside.resolve() == target
    assert not os.path.lexists(workdir / "pool") and (aside / "result").exists()


def test_no_stage_can_be_called_as_the_directory_of_rounds():
    assert rounds.EARLIER in RESERVED


# Whole runs

TRAIN = ("length=steps(3)", "batch_size=4", "log_every=steps(3)", "eval_every=steps(3)", "save_every=steps(3)")


def command(root):
    own = [f"--config.{stage}.{field}" for stage in ("pretrain", "finetune", "joint") for field in TRAIN]
    return [
        "--config=configs/own_images.py:small",
        "--config.devices=1",
        "--config.model=resnet8(width=4)",
        "--config.stages=('pretrain', 'finetune', 'labels', 'joint')",
        f"--config.dataset=folder(path='{root}/photos', size=8)",
        f"--config.labels.pool=images(path='{root}/unsorted', size=8)",
        *own,
    ]


def paint(path, tone, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).normal(tone, 10, (8, 8, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def test_rounds_of_one_command(env, tmp_path):
    """A pool is exchanged, then a label corrected, with a kill in the middle of the move; the pre-training stays."""
    for at in range(12):
        paint(tmp_path / "photos" / "dark" / f"{at}.png", 50, at)
        paint(tmp_path / "photos" / "bright" / f"{at}.png", 200, 100 + at)
        paint(tmp_path / "unsorted" / f"{at}.png", 50, 200 + at)
    workdir = tmp_path / "run"
    first = run(env, workdir, config=command(tmp_path))
    assert first.returncode == 0, first.stderr

    for at in range(12):
        paint(tmp_path / "unsorted" / f"{at}.png", 200, 300 + at)
    second = run(env, workdir, config=command(tmp_path))
    assert second.returncode == 0, second.stderr
    for stage, skipped in (("pretrain", 1), ("finetune", 1), ("labels", 0), ("joint", 0)):
        assert second.stdout.count(f"{stage}: finished already, skipped") == skipped
        assert second.stdout.count(f"{stage}: the data has changed") == 1 - skipped
    with open(workdir / "labels" / "pseudo_labels.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {path.name for path in (tmp_path / "unsorted").iterdir()}
    assert {row["class"] for row in rows} <= {"dark", "bright"} and {row["kept"] for row in rows} <= {"0", "1"}
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    old, new = (np.load(p / "labels" / "pseudo_labels.npz")["ids"] for p in (workdir / "earlier" / "1", workdir))
    assert not set(old) & set(new)

    train = np.load(workdir / "manifest.npz")["ids"]
    suspects = (workdir / "finetune" / "suspects.csv").read_text(encoding="utf-8-sig")
    assert suspects.startswith("id,file,label,suggested")
    from lt_noisy.data.sources import SOURCES

    source = SOURCES["folder"](str(tmp_path / "photos"), size=8)()
    moved = next(file for file in source.train.files if file.startswith("dark/"))
    shutil.move(tmp_path / "photos" / moved, tmp_path / "photos" / "bright" / "corrected.png")
    pretrained = (workdir / "pretrain" / "summary.json").read_bytes()
    killed = run(env, workdir, program=(KILLER, "between moves to an earlier round"), config=command(tmp_path))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (workdir / "earlier" / "2" / "joint").is_dir() and (workdir / "finetune").is_dir()
    third = run(env, workdir, config=command(tmp_path))
    assert third.returncode == 0, third.stderr
    assert "pretrain: finished already, skipped" in third.stdout and third.stdout.count("skipped") == 1
    assert (workdir / "pretrain" / "summary.json").read_bytes() == pretrained
    assert {p.name for p in (workdir / "earlier" / "2").iterdir() if p.is_dir()} == {"finetune", "labels", "joint"}
    assert sorted(p.name for p in (workdir / "earlier").iterdir()) == ["1", "2"]
    earlier, now = (np.load(p / "manifest.npz") for p in (workdir / "earlier" / "2", workdir))
    np.testing.assert_array_equal(earlier["ids"], train)
    np.testing.assert_array_equal(now["ids"], train)
    assert (earlier["observed_labels"] != now["observed_labels"]).sum() == 1
    assert summary_of(workdir, "finetune")["manifest_sha256"] == manifests.digest(manifests.load(workdir))
    again = run(env, workdir, config=command(tmp_path))
    assert again.returncode == 0 and again.stdout.count("skipped") == 4
