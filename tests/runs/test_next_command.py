"""Errors that say the command which comes next, ready for a shell."""

import pathlib
import shlex

import pytest

from lt_noisy.config.python_file import read_module
from lt_noisy.data.sources.folder import folder
from lt_noisy.errors import UserError, removal
from lt_noisy.runs.workdir import finished, read_json
from lt_noisy.training.checkpoint import final


def test_a_path_is_quoted_for_a_shell():
    assert shlex.split(removal("my runs/it's")) == ["rm", "-r", "my runs/it's"]


def test_a_stage_of_another_run_says_how_to_remove_it(tmp_path):
    stage = tmp_path / "my run" / "base"
    stage.mkdir(parents=True)
    (stage / "identity.json").write_text('{"seed": 1}')
    with pytest.raises(UserError) as error:
        finished(stage, {"seed": 2})
    assert str(error.value).endswith(f"to run the stage again: rm -r '{stage}'")
    (stage / "summary.json").write_text("{")
    with pytest.raises(UserError, match="is damaged; remove") as error:
        read_json(stage / "summary.json")
    assert str(error.value).endswith(f"to run the stage again: rm -r '{stage}'")


def test_a_damaged_file_of_a_run_costs_no_stage(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=f"remove it, and the run's command goes on: rm -r {tmp_path}/run.json$"):
        read_json(tmp_path / "run.json")


def test_a_network_that_is_not_there_names_those_that_are(tmp_path):
    for name in ("pretrain", "finetune"):
        (tmp_path / "run" / name / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        final(tmp_path / "run")
    assert str(error.value).endswith(f"(there are: {tmp_path}/run/finetune, {tmp_path}/run/pretrain)")
    with pytest.raises(UserError, match="no checkpoint to start from, did you mean 'finetune'"):
        final(tmp_path / "run" / "finetun")


def test_a_misspelt_folder_or_config_has_its_neighbour_named(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        folder(path="photo", size=8)()
    assert str(error.value) == f"photo is not a folder in {tmp_path}, did you mean 'photos'?"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.py").touch()
    for given in ("configs/digit.py", "digits.py"):
        with pytest.raises(UserError, match=r"did you mean 'configs/digits\.py'"):
            read_module(pathlib.Path(given))
