"""Decisions on labels, and the corrected training set that they make."""

import csv
import subprocess

import numpy as np
import pytest
from helpers import photos
from helpers.commands import summary_of

from lt_noisy.data import manifest as manifests
from lt_noisy.data.manifest import Manifest
from lt_noisy.data.sources import SOURCES
from lt_noisy.errors import UserError
from lt_noisy.finished.apply import Decisions, _quoted, apply, corrected, read_decisions
from lt_noisy.finished.run import read_run
from lt_noisy.finished.suspects import judge, read_suspects

NAMES = ("a", "b", "=c")
RECIPE = {"num_classes": 3, "class_names": list(NAMES), "seed": 0, "nominal_rate": 0.0, "noise_before_longtail": False}


def manifest(clean, observed):
    ids = 10 * np.arange(len(clean), dtype=np.int64) + 5
    return Manifest(ids, np.array(clean, np.int32), np.array(observed, np.int32), dict(RECIPE))


def test_where_nobody_knows_the_truth_a_decision_is_the_truth():
    old = manifest([0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2])
    new = corrected(old, Decisions(frozenset({5}), {15: 2, 25: 0}, frozenset({35})), truth_known=False)
    assert new.ids.tolist() == [5, 15, 25, 45, 55]
    assert new.observed_labels.tolist() == new.clean_labels.tolist() == [0, 2, 0, 1, 2]
    assert new.recipe == {**RECIPE, "corrected": [15, 25], "corrections": 3}
    source = np.array([0, 1, 2, 0, 1, 2], np.int32)
    np.testing.assert_array_equal(manifests.verify(new, source, old.ids), [0, 1, 2, 4, 5])
    source[0] = 1  # what nobody corrected still has to fit
    with pytest.raises(UserError, match="1 of 5 clean labels are not the data set's, the first is id 5"):
        manifests.verify(new, source, old.ids)


def test_a_second_round_goes_on_from_the_first():
    old = manifest([0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2])
    first = corrected(old, Decisions(frozenset(), {15: 2}, frozenset()), truth_known=False)
    again = corrected(first, Decisions(frozenset({15}), {25: 1}, frozenset({35})), truth_known=False)
    assert again.observed_labels.tolist() == [0, 2, 1, 1, 2]
    assert (again.recipe["corrected"], again.recipe["corrections"]) == ([15, 25], 3)


def test_a_known_truth_stays():
    old = manifest([0, 1, 2, 0, 1, 2], [1, 1, 2, 2, 1, 2])
    new = corrected(old, Decisions(frozenset(), {5: 0}, frozenset({35})), truth_known=True)
    assert new.clean_labels.tolist() == [0, 1, 2, 1, 2] and new.observed_labels.tolist() == [0, 1, 2, 1, 2]
    assert "corrected" not in new.recipe


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        (Decisions(frozenset({7}), {}, frozenset()), "1 ids of the decisions are not in the training set, such as 7"),
        (Decisions(frozenset(), {}, frozenset({15, 45})), "the decisions leave no training image of b"),
    ],
)
def test_decisions_that_cannot_be(decisions, expected):
    with pytest.raises(UserError, match=expected):
        corrected(manifest([0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2]), decisions, truth_known=False)


def test_decisions_are_read_as_the_page_writes_them(tmp_path):
    path = tmp_path / "decisions.csv"
    path.write_text(
        '\ufeffid,file,label,decision,new_label\n-3,"x, y",a,keep,\n9223372036854775807,,b,relabel,\'=c\n7,,a,drop,\n',
        encoding="utf-8",
    )
    expected = Decisions(frozenset({-3}), {9223372036854775807: 2}, frozenset({7}))
    assert read_decisions(path, NAMES) == expected


def test_an_id_that_a_spreadsheet_rounded_is_found_by_its_file(tmp_path):
    path = tmp_path / "decisions.csv"
    path.write_text("id,file,decision,new_label\n6.01E+18,a.jpg,drop,\n100,'=b.jpg,keep,\n7,,keep,\n")
    found = read_decisions(path, NAMES, {7, 6010000000000000001, 101}, {"a.jpg": 6010000000000000001, "=b.jpg": 101})
    assert found == Decisions(frozenset({101, 7}), {}, frozenset({6010000000000000001}))


def test_a_truth_that_was_reached_is_still_one():
    """Two rounds on known noise: what is right counts as right, and no id as changed by hand."""
    old = manifest([0, 1, 2, 0, 1, 2], [1, 1, 2, 2, 1, 2])
    first = corrected(old, Decisions(frozenset(), {5: 0, 35: 0}, frozenset()), truth_known=True)
    assert first.recipe["truth_known"] and (first.clean_labels == first.observed_labels).all()
    second = corrected(first, Decisions(frozenset(), {15: 0}, frozenset()), truth_known=True)
    assert second.clean_labels.tolist() == old.clean_labels.tolist() and "corrected" not in second.recipe


def test_the_printed_command_is_one_for_a_shell():
    text = """file(path='a "b" $c `d`')"""
    done = subprocess.run(["bash", "-c", f"printf %s {_quoted(text)}"], capture_output=True, text=True, check=True)
    assert done.stdout == text


BAD = {
    "id": ("x,keep,", "line 2: 'x' is no id"),
    "twice": ("1,keep,\n1,drop,", "line 3: id 1 has a decision already"),
    "decision": ("1,delete,", "line 2: a decision is keep, relabel, drop, not 'delete'"),
    "class": ("1,relabel,abb", "line 2: 'abb' is no class, did you mean 'ab'?"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_line_is_named(name, tmp_path):
    path = tmp_path / "decisions.csv"
    path.write_text(f"id,decision,new_label\n{BAD[name][0]}\n")
    with pytest.raises(UserError) as error:
        read_decisions(path, ("ab", "b"))
    assert str(error.value).startswith(f"{path}, line ") and BAD[name][1] in str(error.value)


def test_other_files_are_refused(own_run, tmp_path, capsys):
    (tmp_path / "x.csv").write_text("id,file\n")
    for path, expected in (("nowhere.csv", "No such file"), (tmp_path / "x.csv", "has no column decision, new_label")):
        assert apply([str(own_run), str(path)]) == 2
        assert expected in capsys.readouterr().err
    assert not (own_run / "corrected").exists()
    assert apply([f"{own_run}/fold", str(tmp_path / "none.csv")]) == 2
    assert "has no finished stage 'fold', did you mean 'folds'" in capsys.readouterr().err
    (tmp_path / "corrected.csv").write_text("id,decision,new_label\n")
    assert apply([str(own_run), str(tmp_path / "corrected.csv"), f"--out={tmp_path}"]) == 2
    assert "holds a corrected.csv already" in capsys.readouterr().err
    assert (tmp_path / "corrected.csv").read_text() == "id,decision,new_label\n"
    (tmp_path / "large.csv").write_text("id,decision,new_label\n1,keep," + "x" * 200_000)
    assert apply([str(own_run), str(tmp_path / "large.csv")]) == 2
    assert "large.csv, line 2, cannot be read as a table: field larger" in capsys.readouterr().err


def decide(run, path, decisions):
    """The first suspects with these decisions."""
    suspects = read_suspects(judge(run).directory)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "decision", "new_label"))
        for suspect, (decision, name) in zip(suspects, decisions, strict=False):
            writer.writerow((suspect.id, decision, name or ""))
    return suspects


def test_the_same_config_trains_on_the_corrected_set(env, messy, own_run, tmp_path, capsys):
    """From the suspects to a run on corrected labels; and the listing is that data set too."""
    folder, _ = messy
    run = read_run(own_run)
    assert judge(run).name == "folds"  # out of sample goes first
    suspects = read_suspects(run.stage("folds").directory)
    assert {s.file: s.suggested for s in suspects} == photos.WRONG
    decide(run, tmp_path / "d.csv", [("relabel", suspects[0].suggested), ("drop", None), ("keep", None)])
    assert apply([str(own_run), str(tmp_path / "d.csv")]) == 0
    said = capsys.readouterr().out
    assert f"{own_run}/corrected: 38 images, 1 relabelled, 1 dropped" in said
    assert f"""--config.manifest="file(path='{own_run}/corrected')\"""" in said
    assert apply([str(own_run), str(tmp_path / "d.csv")]) == 2  # nothing is overwritten
    assert "holds a manifest.json already" in capsys.readouterr().err

    new = manifests.load(own_run / "corrected")
    labels = dict(zip(new.ids.tolist(), new.observed_labels.tolist(), strict=True))
    assert labels[suspects[0].id] == run.class_names.index(suspects[0].suggested) and suspects[1].id not in labels
    listing = own_run / "corrected" / "corrected.csv"
    listed = SOURCES["table"](path=str(listing), images=str(folder), size=8)()
    np.testing.assert_array_equal(listed.train.ids, np.sort(new.ids))
    assert dict(zip(listed.train.ids.tolist(), listed.train.labels.tolist(), strict=True)) == labels
    assert len(listed.test.labels) == 12

    given = f"--config.manifest=file(path='{own_run}/corrected')"
    photos.train(
        env, folder, tmp_path / "again", given, "--config.stages=('finetune',)", "--config.finetune.init=none()"
    )
    assert manifests.digest(manifests.load(tmp_path / "again")) == manifests.digest(new)
    quality = summary_of(tmp_path / "again", "finetune")["label_quality"]
    assert (quality["images"], quality["wrong_labels"]) == (38, 0)  # a corrected label counts as right
