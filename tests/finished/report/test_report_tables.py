"""The tables of a report against numbers made by hand, their forms, and which runs belong together."""

import json
import re
import shutil
import statistics

import numpy as np
import pytest
from helpers.commands import ROOT, summary_of
from helpers.finished_runs import write_run

from lt_noisy.config.python_file import read_module
from lt_noisy.config.resolve import resolve
from lt_noisy.data import manifest as manifests
from lt_noisy.errors import UserError
from lt_noisy.files import write_json
from lt_noisy.finished.report import published_rows
from lt_noisy.finished.report.compare import differences, mean_by_frequency
from lt_noisy.finished.report.contents import Table, numeric
from lt_noisy.finished.report.forms import in_latex, latex_tables, markdown_tables
from lt_noisy.finished.report.main_figures import by_seed, main_tables
from lt_noisy.finished.report.reported import grouped, named_runs
from lt_noisy.finished.run import FinishedRun, FinishedStage
from lt_noisy.runs.card import config_texts
from lt_noisy.runs.markdown import escaped

TABLE = Table("A & B", ("class", "accuracy"), [["a|b_c", "50.0 ± 1.2"], ["[x] 5% <i>", "7.0"]])


def changed(directory, change, stage="train"):
    """Changes the summary of a stage."""
    summary = summary_of(directory, stage)
    change(summary)
    write_json(directory / stage / "summary.json", summary)


def as_dicts(table):
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def test_markdown_shows_names_as_they_are():
    assert markdown_tables("t", [TABLE]) == (
        "# t\n\n## A &amp; B\n\n| class | accuracy |\n|---|---|\n| a\\|b_c | 50.0 ± 1.2 |\n"
        "| \\[x\\] 5% &lt;i&gt; | 7.0 |\n"
    )
    assert escaped("__a__") == r"\_\_a\_\_" and escaped("a_b") == "a_b"
    assert escaped("_a_ `b`\nc") == "\\_a\\_ \\`b\\`\\nc".replace("\\nc", "\\\\nc")


def test_latex_shows_names_as_they_are():
    text = latex_tables("t", [TABLE])
    assert "\\caption{A \\& B}\n\\begin{tabular}{lr}\n\\toprule\nclass & accuracy \\\\\n\\midrule\n" in text
    assert "a\\textbar{}b\\_c & 50.0 $\\pm$ 1.2 \\\\\n" in text
    assert "{[}x] 5\\% \\textless{}i\\textgreater{} & 7.0 \\\\\n\\bottomrule" in text
    assert in_latex("\\~^{}#$") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}\{\}\#\$"
    assert in_latex("bad\udcff") == r"bad\textbackslash{}udcff"


def test_columns_of_numbers():
    assert numeric(TABLE) == [False, True]
    assert numeric(Table("", ("a", "b", "c"), [["1", "2", "x"], ["2", "", "1"]])) == [False, True, False]
    assert numeric(Table("", ("a", "b"), [])) == [False, True]


def _wrong_of_the_first(k, run):
    """Of what `suspects.csv` would list: by probability, ties by loss; as many as are estimated; labelled otherwise."""
    with np.load(run / "train" / "label_quality.npz") as quality:
        columns = [quality[name].tolist() for name in ("wrong_probability", "loss", "ids")]
        rows = sorted(zip(*columns, strict=True), reverse=True)
        flagged = [key for _, _, key in rows[: round(quality["wrong_probability"].sum())]]
        other = dict(zip(quality["ids"].tolist(), quality["suggested"] != quality["observed"], strict=True))
    manifest = manifests.load(run)
    wrong = dict(zip(manifest.ids.tolist(), manifest.clean_labels != manifest.observed_labels, strict=True))
    listed = [wrong[key] for key in flagged if other[key]]
    assert k <= len(listed) < len(flagged)
    return sum(listed[:k]) / k


def test_the_main_figures_of_a_run(run):
    tables = {table.title: as_dicts(table) for table in main_tables(grouped(named_runs([str(run)])))}
    summary = summary_of(run, "train")
    (row,) = tables["Classification, test set, percent"]
    assert row["stage"] == "train" and row["balanced accuracy"] == f"{100 * summary['test']['balanced_accuracy']:.1f}"
    assert row["few"] == f"{100 * summary['test']['groups']['few']['accuracy']:.1f}"
    assert (row["NLL"], row["ECE"]) == (f"{summary['test']['nll']:.3f}", f"{summary['test']['ece']:.3f}")
    assert "head third" not in row and "seeds" not in row and "run" not in row and "published accuracy" not in row
    (row,) = tables["Wrong labels found, percent"]
    assert row["true rate"] == f"{100 * summary['label_quality']['true_rate']:.1f}"
    assert row["wrong of the first 25 suspects"] == f"{100 * _wrong_of_the_first(25, run):.1f}"
    assert tables["Representation, kNN accuracy in percent"] == [
        {"stage": "pretrain", "balanced bank": "50.0", "long-tailed bank": "40.0", "effective rank": "12.500"}
    ]
    (row,) = tables["Noise transition, percent"]
    assert row["mean absolute error of an entry"] == "1.0"


def test_seeds_are_one_row_with_mean_and_sample_deviation(runs):
    groups = grouped(named_runs([str(runs / "several"), str(runs / "other")]))
    assert [(group.label, [run.seed for run in group.runs]) for group in groups] == [
        ("several", [0, 1, 2]),
        ("other", [0]),
    ]
    table = main_tables(groups)[0]
    of_seeds, alone = as_dicts(table)
    values = [summary_of(runs / "several" / f"seed_{seed}", "train")["test"]["accuracy"] for seed in (0, 1, 2)]
    mean, std = 100 * statistics.mean(values), 100 * statistics.stdev(values)
    assert of_seeds["accuracy"] == f"{mean:.1f} ± {std:.1f}" and std > 0
    assert (of_seeds["run"], of_seeds["seeds"], alone["run"], alone["seeds"]) == ("several", "3", "other", "1")
    assert "±" in of_seeds["NLL"] and "±" not in alone["accuracy"]
    each = as_dicts(by_seed(groups)[0])
    assert [row["run"] for row in each] == [f"several, seed {seed}" for seed in (0, 1, 2)]
    assert [row["accuracy"] for row in each] == [f"{100 * value:.1f}" for value in values]


def test_what_differs_between_groups(runs):
    table = differences(grouped(named_runs([str(runs / "several"), str(runs / "other")])))
    assert table.head == ("field", "several", "other")
    assert table.rows == [["train.loss", "cross_entropy()", "gce(q=0.7, truncate=0.0, start=0.0)"]]


def test_a_stage_that_one_run_lacks_is_named_once(run, tmp_path):
    alone = write_run(tmp_path / "alone", pretrained=False, features=False)
    rows = {row[0]: row[1:] for row in differences(grouped(named_runs([str(run), str(alone)]))).rows}
    assert rows == {
        "stages": ["pretrain, train, noise_model", "train, noise_model"],
        "train.init": ["pretrain", "none()"],
    }


def test_frequencies_and_accuracies_are_means_over_seeds(runs):
    (group,) = grouped(named_runs([str(runs / "several")]))
    found = mean_by_frequency(group)
    each = [summary_of(runs / "several" / f"seed_{seed}", "train")["test"]["per_class_accuracy"] for seed in range(3)]
    assert found is not None and found.counts.tolist() == [130, 60, 40, 25, 15, 12, 8, 6]
    assert found.accuracy == pytest.approx([statistics.mean(values) for values in zip(*each, strict=True)])


def test_a_seed_that_comes_again_begins_another_group(runs, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(runs / "several" / "seed_1", again)
    groups = grouped(named_runs([str(runs / "several"), str(again)]))
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1, 2], [1]]


def test_where_logs_go_makes_no_other_group(runs, tmp_path):
    """Nor does on how many devices it ran; another batch size does."""
    for name, field, value in (("a", "devices", 8), ("b", "heartbeat", 5.0), ("c", "model", "resnet18()")):
        shutil.copytree(runs / "several" / "seed_1", tmp_path / name)
        description = json.loads((tmp_path / name / "run.json").read_text())
        description["config"] |= {field: value, "seed": {"a": 3, "b": 4, "c": 5}[name]}
        write_json(tmp_path / name / "run.json", description)
    groups = grouped(named_runs([str(runs / "several"), *(str(tmp_path / name) for name in "abc")]))
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1, 2, 3, 4], [5]]


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    shutil.copytree(runs / "other", tmp_path / "x" / "other")
    groups = grouped(named_runs([str(runs / "other"), str(tmp_path / "x" / "other")]))
    assert [group.label for group in groups] == [f"{runs.name}/other", "x/other"]


def test_without_the_truth_no_figure_pretends_to_know_it(tmp_path):
    """A set of one's own: its clean labels are its observed ones."""
    directory = write_run(tmp_path / "own", wrong=0, features=False)
    (table,) = [t for t in main_tables(grouped(named_runs([str(directory)]))) if t.title.startswith("Wrong labels")]
    assert table.head == ["stage", "estimated rate"]


def test_flags_of_the_publisher_stand_in_for_the_truth(tmp_path):
    directory = write_run(tmp_path / "own", wrong=0, features=False)
    flags = {"precision_at": {"25": 0.72}, "auroc": 0.9, "average_precision": 0.8, "images": 30, "wrong_labels": 9}
    changed(directory, lambda summary: summary["label_quality"].update(flags=flags))
    (table,) = [t for t in main_tables(grouped(named_runs([str(directory)]))) if t.title.startswith("Wrong labels")]
    (row,) = as_dicts(table)
    assert (row["AUROC"], row["flagged of the 25 most suspicious"]) == ("90.0", "72.0") and "precision" not in row


# --- published figures ----------------------------------------------------------------------------


def asked(config, stage):
    """What `published` says of a run with this config."""
    texts = json.loads(json.dumps(config))
    finished = FinishedStage(stage, ROOT, texts[stage], {})
    found = FinishedRun(ROOT, texts, (), (), (finished,))
    return published_rows.published(published_rows.Reported(found, None, ()), finished)


def of_file(name, variant="", **fields):
    config = read_module(ROOT / "configs" / f"{name}.py").get_config(*([variant] if variant else []))
    with config.unlocked():
        for path, value in fields.items():
            section, _, field = path.rpartition("__")
            (config[section] if section else config)[field] = value
    return config_texts(resolve(config))


def test_a_config_of_the_publication_has_its_figure_whatever_the_seed():
    assert asked(of_file("cifar10_lt_rotation_ssp", seed=2), "finetune") == "73.50 (Yang & Xu 2020)"
    scratch = of_file("cifar10_lt_rotation_ssp", stages=("finetune",), finetune__init="none()")
    assert asked(scratch, "finetune") == "70.36 (Yang & Xu 2020, from a secondary source)"
    assert asked(of_file("cifar10_lt_ldam_drw"), "train") == "77.03 (Yang & Xu 2020, from a secondary source)"


def test_a_stage_may_be_called_as_its_kind():
    config = of_file("cifar10_lt_ldam_drw")
    config = {**config, "stages": ["supervised"], "supervised": config["train"]}
    assert asked(config, "supervised") == "77.03 (Yang & Xu 2020, from a secondary source)"


@pytest.mark.parametrize(
    ("name", "variant", "stage", "fields"),
    [
        ("cifar10_lt_rotation_ssp", "small", "finetune", {}),
        ("cifar10_lt_rotation_ssp", "light", "finetune", {}),  # pre-trained in another way
        ("cifar10_lt_rotation_ssp", "", "pretrain", {}),
        ("cifar10_lt_rotation_ssp", "", "finetune", {"noise": "symmetric(rate=0.2)"}),
        ("cifar10_lt_rotation_ssp", "", "finetune", {"finetune__batch_size": 64}),
        ("cifar10_lt_ldam_drw", "short", "train", {}),
        ("cifar10_lt_ldam_drw", "", "train", {"longtail": "exponential(ratio=20, subset=conventional)"}),
        ("cifar10_lt_ldam_drw", "", "train", {"longtail": "exponential(ratio=100)"}),
        ("digits_lt_noise", "", "finetune", {}),
    ],
)
def test_one_field_that_differs_and_there_is_none(name, variant, stage, fields):
    assert asked(of_file(name, variant, **fields), stage) == ""


def test_published_errors_are_those_of_the_page_of_the_method():
    page = (ROOT / "docs" / "methods" / "value_of_labels.md").read_text().partition("## Published figures")[2]
    for name, _, _, errors, own in published_rows.ROWS:
        row = re.search(rf"^\| {re.escape(name)} \| (.*) \|$", page, re.MULTILINE)
        assert row and tuple(map(float, row[1].split(" | "))) == errors
        assert own == (name in ("CE + SSP", "CE (balanced) + SSP"))


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d: (d / "train" / "label_quality.npz").write_bytes(b"PK"), "label_quality.npz cannot be read"),
        (lambda d: (d / "manifest.npz").write_bytes(b"PK"), "a file is damaged"),
        (lambda d: (d / "manifest.npz").unlink(), "manifest.npz is missing"),
    ],
)
def test_a_damaged_file_is_named(run, tmp_path, damage, says):
    shutil.copytree(run, tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(UserError, match=says):
        main_tables(grouped(named_runs([str(tmp_path / "run")])))


def test_another_number_of_classes_in_the_manifest(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    description = json.loads((tmp_path / "run" / "run.json").read_text())
    write_json(tmp_path / "run" / "run.json", {**description, "class_names": ["a", "b"]})
    with pytest.raises(UserError, match="its manifest has 8 classes, its description 2"):
        named_runs([str(tmp_path / "run")])
