"""The tables of runs at their full length, from hand-made runs; bad input in one line."""

import json

import full_rows
import pytest
from test_relative_gap import add_stage, make_run

from lt_noisy.errors import UserError
from lt_noisy.files import write_json

COUNTS = [10, 3, 1]


def finished(run, accuracies, length="epochs(n=20.0)", last=0.5, counts=COUNTS):
    """A run of 100 steps, logged every ten, that was tested after these epochs: {epoch: accuracy}."""
    make_run(run, "none()", counts, {})
    best = {"step": 50, "test_accuracy": 0.75}
    test = {"accuracy": last, "per_class_accuracy": [0.9, 0.5, 0.1], "class_names": ["0", "1", "2"]}
    summary = {"seed": 0, "steps": 100, "parameters": 7, "params_sha256": "ab", "machine": {"cores": 1}}
    summary |= {"test": test, "selection": {"oracle_best_on_test": best}}
    add_stage(run, "train", "supervised", {}, {"train.length": length, "train.loss": "gce()"}, summary, 0)
    lines = [{"step": step, "loss": 1.0, "seconds": 72.0 * step} for step in range(10, 101, 10)]
    for line in lines:
        if (epoch := line["step"] / 5) in accuracies:
            line["test_accuracy"] = accuracies[epoch]
    (run / "train" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    write_json(run / "run.json", {"config": {"stages": ["base", "train"]}})
    return f"{run.name}={run}"


def test_curves_classes_and_hours(tmp_path, capsys):
    runs = [
        finished(tmp_path / "CE", {2: 0.1, 4: 0.2, 20: 0.5}),
        finished(tmp_path / "a=b", {4: 0.3, 10: 0.4, 20: 0.6}),
    ]
    path = tmp_path / "x.json"
    full_rows.main(["full_rows.py", runs[0], f"LDAM={tmp_path / 'a=b'}", f"--json={path}"])
    # Both were tested after epoch 4; 7,200 seconds; the classes' order is that of the images.
    tables = """\
| epoch | 4 | 20, the last | best | hours |
|---|---|---|---|---|
| CE | 20.0 | 50.0 | 75.0 | 2.0 |
| LDAM | 30.0 | 50.0 | 75.0 | 2.0 |

| class (training images) | 0 (10) | 1 (3) | 2 (1) |
|---|---|---|---|
| CE | 90.0 | 50.0 | 10.0 |
| LDAM | 90.0 | 50.0 | 10.0 |
"""
    assert capsys.readouterr().out == tables
    record = json.loads(path.read_text())
    assert record["code"] == [{"commit": "3bfb9e0"}] and record["rows"][0]["curve"] == [[2, 0.1], [4, 0.2], [20, 0.5]]
    assert record["rows"][1]["settings"]["train.loss"] == "gce()"
    full_rows.main(["full_rows.py", f"--show={path}"])
    assert capsys.readouterr().out == tables


def test_bad_input_is_one_line(tmp_path):
    fine = finished(tmp_path / "fine", {20: 0.5})
    cases = [
        ([], "the arguments are NAME=RUN"),
        ([fine, "--show=x"], "the arguments are NAME=RUN"),
        (["fine"], "'fine' is not NAME=RUN"),
        (["=fine"], "'=fine' is not NAME=RUN"),
        ([f"x={tmp_path}"], "run.json: No such file"),
        ([finished(tmp_path / "steps", {20: 0.5}, length="steps(n=100)")], "train was not tested at any epoch"),
        ([finished(tmp_path / "untested", {})], "train was not tested at any epoch"),
        (
            [fine, finished(tmp_path / "short", {2: 0.5}, length="epochs(n=2.0)")],
            "short: its epochs are not those of fine",
        ),
        ([fine, finished(tmp_path / "other", {20: 0.5}, counts=[10, 3, 2])], "other: its images are not those of fine"),
        (["--show=README.md"], "not such a record"),
    ]
    for given, says in cases:
        with pytest.raises(UserError) as error:
            full_rows.main(["full_rows.py", *given])
        assert says in str(error.value) and "\n" not in str(error.value)
