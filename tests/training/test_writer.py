"""The metrics file after a kill, JSON by rename, and the refusal of what is not finite."""

import json

import numpy as np
import pytest

from lt_noisy.errors import UserError
from lt_noisy.files import write_json
from lt_noisy.training.writer import Writer, means, refuse_nonfinite


def test_each_step_is_kept_once(tmp_path):
    writer = Writer(tmp_path)
    writer.begin(0)
    for step in (5, 10, 15):
        writer.write(step, {"loss": step / 2})
    with open(writer.path, "a") as file:
        file.write('{"step": 20, "lo')  # killed in the middle of a line
    again = Writer(tmp_path)
    again.begin(10)
    again.write(15, {"loss": float("nan")})
    lines = [json.loads(line) for line in again.path.read_text().splitlines()]
    assert lines == [{"step": 5, "loss": 2.5}, {"step": 10, "loss": 5.0}, {"step": 15, "loss": None}]


def test_write_json_is_whole_or_absent(tmp_path):
    path = tmp_path / "summary.json"
    with pytest.raises(ValueError):
        write_json(path, {"x": float("nan")})
    assert not path.exists()
    write_json(path, {"x": 1.5})
    assert json.loads(path.read_text()) == {"x": 1.5}


def test_means_and_nonfinite():
    totals = {"loss": (np.float32(6), np.float32(4)), "nonfinite": (np.float32(0), np.float32(4))}
    assert means(totals)["loss"] == 1.5
    refuse_nonfinite(totals, 1, 4, "pretrain")
    with pytest.raises(UserError, match=r"pretrain: .* not finite in steps 1\.\.4"):
        refuse_nonfinite({**totals, "nonfinite": (np.float32(1), np.float32(4))}, 1, 4, "pretrain")
