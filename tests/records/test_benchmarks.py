"""Benchmarks: throughput for a fraction of a second, the messy folder, tables of runs by hand, mistakes in one line."""

import functools
import importlib
import json
import sys
import textwrap

import arguments
import convolutions
import cpu_peer
import decode
import features_peer
import jax
import messy_folder
import numpy as np
import pytest
import sides
import ssl_cost
import ssl_table
import throughput
from helpers.commands import CONFIG, ROOT
from PIL import Image
from test_relative_gap import EVEN, TAIL, TEN, add_stage, balanced, make_run

from lt_noisy.errors import UserError
from lt_noisy.files import write_json
from lt_noisy.models.efficientnet import EfficientNetLite, Group
from lt_noisy.revision import code


def test_throughput_of_every_part(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(throughput, "ROUNDS", 1)
    own = ["--stage=finetune", "--seconds=0.1", f"--json={tmp_path / 'x.json'}"]
    throughput.main(["throughput.py", *CONFIG, "--config.devices=1", *own])
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["code"] == [code()]
    speeds = record["images_per_second"]
    assert list(speeds) == ["data", "augment", "step", "loop"] and min(speeds.values()) > 0
    assert len(record["loop_overhead_percent_rounds"]) == 1
    out = capsys.readouterr().out
    assert f"{speeds['loop']:,.0f} images/s" in out
    assert record["steps_per_round"] >= 2
    assert ("note: fewer than 20 steps a round" in out) == (record["steps_per_round"] < 20)


def test_the_cost_of_an_objective(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(ssl_cost, "STEPS", {name: ssl_cost.STEPS[name] for name in ("supervised", "rotation")})
    tiny = ["--model=resnet8(width=2)", "--batch=8", "--size=8", "--rounds=1", "--repeats=1"]
    ssl_cost.main(["ssl_cost.py", *tiny, f"--json={tmp_path / 'x.json'}"])
    record = json.loads((tmp_path / "x.json").read_text())
    assert [row["name"] for row in record["rows"]] == ["supervised", "rotation"]
    assert record["rows"][0]["relative_cost"] == 1 and record["rows"][1]["relative_cost"] > 0
    assert record["code"] == [code()] and ssl_cost.show(record) in capsys.readouterr().out


def test_the_table_of_convolutions(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(convolutions, "SHAPES", ((8, 2, 4, 3, 1), (8, 2, 4, 3, 2)))
    convolutions.main(["convolutions.py", "--batch=2", "--rounds=1", f"--json={tmp_path / 'x.json'}"])
    record = json.loads((tmp_path / "x.json").read_text())
    assert [row["shape"] for row in record["rows"]] == [f"8 x 8, 2 to 4, 3 x 3, stride {s}" for s in (1, 2)]
    for row in record["rows"]:
        names = [f"{name}{form}" for name in ("forward", "input", "kernel") for form in (", XLA", "")]
        assert list(row["milliseconds"]) == [*names, "ceiling"]
        assert min(row["milliseconds"].values()) > 0
    assert record["code"] == [code()] and "| 8 x 8, 2 to 4" in capsys.readouterr().out


def test_the_forms_of_a_convolution_are_of_one_value():
    for shape in ((8, 2, 4, 3, 1), (8, 2, 4, 3, 2), (8, 2, 4, 1, 2), (4, 64, 64, 3, 1)):
        found = {name: call() for name, call in convolutions.forms(*shape, batch=3, dtype="float32").items()}
        for name in ("forward", "input", "kernel"):
            np.testing.assert_allclose(found[name], found[f"{name}, XLA"], rtol=1e-4, atol=1e-4)


def test_sides_that_take_turns(tmp_path):
    script = tmp_path / "side.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(ROOT / "benchmarks")!r})
        from turns import serve, timed
        serve(timed(lambda: time.sleep(0.01), lambda out: out))
        """)
    )
    side = sides.Side([sys.executable, str(script)])
    assert side.seconds() >= 0.01 and side.seconds() >= 0.01
    side.close()
    assert side.process.poll() is not None
    script.write_text("raise SystemExit(7)")
    with pytest.raises(UserError, match=r"side.py ended with 7"):
        sides.Side([sys.executable, str(script)])


def test_our_side_of_a_comparison_is_a_training_step(monkeypatch):
    monkeypatch.setitem(cpu_peer.CASES, "resnet20", ("ResNet", "resnet8(width=4)", {}))
    once = cpu_peer.ours("resnet20", batch=4)
    first, second = (jax.device_get(once()) for _ in range(2))
    assert first.keys() == second.keys() and jax.tree.leaves(first) != jax.tree.leaves(second)


def test_a_comparison_without_torch_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"--python=.*: no such interpreter"):
        cpu_peer.main(["cpu_peer.py", f"--python={tmp_path / 'absent'}"])
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(UserError, match=r"it has no torch \(pip install torch\)"):
        cpu_peer.main(["cpu_peer.py", f"--python={python}"])


def test_ratios_are_theirs_to_ours(monkeypatch):
    """PyTorch 3 s, ours 2 s: ratio 1.5."""

    class Fixed:
        def __init__(self, command, environment):
            self.taken = 3.0 if "torch_step.py" in command[1] else 5.0 if "--devices=1" in command else 2.0

        def seconds(self):
            return self.taken

        def close(self):
            pass

    monkeypatch.setattr(sides, "Side", Fixed)
    row = cpu_peer.compare("resnet20", 12, 2, 3, "python")
    assert row["ratio"] == 1.5 and row["ratios"] == [1.5] * 3
    assert (row["torch_images_per_second"], row["ours_images_per_second"]) == (4, 6)
    assert "| ResNet-20, supervised | 4 | 6 | 1.50 (1.50 to 1.50) | 2.50 (2.50 to 2.50) |" in cpu_peer.show([row])
    row = cpu_peer.compare("resnet20", 12, 1, 3, "python")
    assert row["ratio"] == 0.6 and cpu_peer.show([row]).splitlines()[-1].endswith("| 0.60 (0.60 to 0.60) |")


def test_our_reader_of_photographs_and_its_ratios(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(decode, "FILES", 4)
    monkeypatch.setattr(decode, "BATCH", 2)
    (tmp_path / "photographs").mkdir()
    decode.write_photographs(tmp_path / "photographs", 60)
    once = decode.ours(tmp_path / "photographs")
    first, second = once(), once()
    assert first.shape == second.shape == (2, 224, 224, 3) and (first != second).any()

    class Fixed:
        def __init__(self, command, environment):
            self.taken = 3.0 if command[-2] == "tf" else 1.0 if command[-2] == "torch" else 2.0

        def seconds(self):
            return self.taken

        def close(self):
            pass

    monkeypatch.setattr(sides, "Side", Fixed)
    monkeypatch.setattr(decode, "version_of", lambda python, name: {"tensorflow": "2", "torch": "3"}[name])
    decode.main(["decode.py", "--pairs=2", "--torch=other/python", f"--json={tmp_path / 'record.json'}"])
    record = json.loads((tmp_path / "record.json").read_text())
    assert {row["side"]: row["ratios"] for row in record["rows"]} == {
        "ours": [1, 1],
        "tf_antialias": [1, 1],
        "tf": [1.5, 1.5],
        "torch": [0.5, 0.5],
    }
    assert record["versions"]["torch"] == "3" and "other" not in record["command"]
    assert "| DataLoader (torchvision) | 2 | 0.50 (0.50 to 0.50) |" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no such interpreter: .*absent"):
        monkeypatch.undo()
        decode.main(["decode.py", f"--torch={tmp_path / 'absent'}"])


def test_a_messy_folder_and_the_score_of_a_list(monkeypatch, capsys, tmp_path):
    """What `make` says is wrong is wrong: a list in that order is right from its first file to its last."""
    photos, recipe = tmp_path / "photos", ["--longtail=explicit(counts=(30, 20, 10, 5, 5, 5, 5, 5, 5, 5))"]
    messy_folder.main(["x", "make", str(photos), "--dataset=digits()", *recipe, "--noise=symmetric(rate=0.4)"])
    assert "photos: 95 images, " in capsys.readouterr().out
    from sklearn.datasets import load_digits

    digits = load_digits()
    files = sorted(photos.glob("*/*.png"), key=lambda file: digits.target[int(file.stem)] == int(file.parent.name))
    assert len(files) == 95
    for file in files[:3]:
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.rint(digits.images[int(file.stem)] * 255 / 16))
    wrong = sum(digits.target[int(file.stem)] != int(file.parent.name) for file in files)
    lines = [f"0,{file.relative_to(photos)},{file.parent.name},{digits.target[int(file.stem)]},1.0" for file in files]
    suspects = tmp_path / "suspects.csv"
    suspects.write_text("\n".join(["id,file,label,suggested,wrong_probability", *lines]) + "\n")
    messy_folder.main(["x", "score", str(photos), str(suspects), f"--json={tmp_path / 'score.json'}"])
    figures = json.loads((tmp_path / "score.json").read_text())
    assert 20 < wrong < 50 and figures["wrong"] == wrong / 95
    assert [row["files"] for row in figures["head"]] == [25, 50, 95]
    assert [row["wrong"] for row in figures["head"]] == [min(25, wrong), min(50, wrong), wrong]
    assert all(row["suggested_is_true"] == row["files"] for row in figures["head"])
    with pytest.raises(UserError, match="exists already"):
        messy_folder.make(photos, "digits()", "none()", "none()", 0)
    for text, says in (("id,file\n0,1.png\n", "KeyError('label')"), ("id,file\n0,photo.png\n", "'photo'")):
        suspects.write_text(text)
        with pytest.raises(UserError, match=r"suspects.csv: not a list of suspects in .*photos") as error:
            messy_folder.score(photos, suspects)
        assert says in str(error.value)


NOWHERE = "--json=/nowhere/x"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["throughput", "--seconds=abc"], "--seconds: 'abc' is not a number of seconds above 0"),
        (["throughput", "--seconds=0"], "'0' is not a number of seconds"),
        (["throughput", "--seconds=inf"], "'inf' is not a number of seconds"),
        (["throughput", *CONFIG, NOWHERE], "--json: '/nowhere/x' is no file in a directory that exists"),
        (["throughput", *CONFIG, "--stage=fintune"], "--stage=fintune: not one of pretrain, finetune"),
        (["throughput", *CONFIG, "--sconds=1"], "sconds"),
        (["throughput", "--start=yes"], "ignored explicit argument 'yes'"),
        (["ssl_cost", "--batch=abc"], "--batch: 'abc' is not a whole number of at least 1"),
        (["ssl_cost", "--rounds=0"], "--rounds: '0' is not a whole number"),
        (["ssl_cost", "--show=/nowhere/x"], "--show=/nowhere/x: No such file"),
        (["ssl_cost", "--show=results/digits_grid.json"], "not such a record (KeyError: 'rows')"),
        (["ssl_cost", "--show=results/ssl_digits.json"], "not such a record (KeyError: 'name')"),
        (["ssl_cost", "--show=README.md"], "not such a record (JSONDecodeError"),
        (["ssl_cost", "--show=results/ssl_cost_cpu.json", "--json=x"], "not allowed with argument --show"),
        (["ssl_cost", NOWHERE], "--json: '/nowhere/x' is no file"),
        (["ssl_table"], "the arguments are finished runs"),
        (["ssl_table", "--json"], "--json: expected one argument"),
        (["ssl_table", "run", NOWHERE], "--json: '/nowhere/x' is no file"),
        (["ssl_table", "run", "--cost=/nowhere/x"], "--cost=/nowhere/x: No such file"),
        (["ssl_table", "run", "--cost=results/ssl_digits.json"], "--cost=results/ssl_digits.json: not such a record"),
        (["ssl_table", "run", "--show=results/ssl_digits.json"], "or --show=FILE alone"),
        (["ssl_table", "--cost=x", "--show=results/ssl_digits.json"], "or --show=FILE alone"),
        (["ssl_table", "--show=/nowhere/x"], "--show=/nowhere/x: No such file"),
        (["ssl_table", "--show=results/ssl_cost_cpu.json"], "not such a record (KeyError: "),
        (["messy_folder"], "required: command"),
        (["messy_folder", "make", "x", "--seed=a"], "invalid int value: 'a'"),
        (["messy_folder", "score", "photos", "x.csv", NOWHERE], "--json: '/nowhere/x' is no file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_one_line_before_work(monkeypatch, capsys, given, says):
    name = given[0]
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError) as error:
        importlib.import_module(name).main(given)
    assert says in str(error.value) and len(str(error.value).splitlines()) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [UserError("it cannot be"), FileNotFoundError(2, "it cannot be", "x")])
def test_a_mistake_is_status_2(capsys, error):

    def main(argv):
        raise error

    with pytest.raises(SystemExit) as status:
        arguments.run(main)
    assert status.value.code == 2 and capsys.readouterr().err.rpartition(": ")[2] == "it cannot be\n"


@pytest.mark.parametrize("name", ["throughput", "ssl_cost", "ssl_table", "relative_gap", "messy_folder"])
def test_help_prints_the_docstring(capsys, name):
    script = importlib.import_module(name)
    with pytest.raises(SystemExit) as status:
        script.main([name, "--help"])
    assert status.value.code == 0 and script.__doc__.strip() in capsys.readouterr().out


def ssl_run(run, linear="logistic()", accuracy=0.5, temperature=0.5, longtail=TEN, counts=TAIL):
    """A finished run of `ssl`, what ssl_table reads of it, with a linear probe of it where `accuracy` is not None."""
    make_run(run, longtail, counts, {})
    own = {"objective": f"simclr(temperature={temperature})", "ascent": "none()"}
    summary = {"representation": {"channel_std": 0.1, "channel_std_ideal": 0.2, "collapsed": False}}
    summary["representation"] |= {"effective_rank": 9.0, "knn_balanced_bank": 0.4}
    summary |= {"train_seconds": 1, "images_per_second": 1, "params_sha256": "ab", "steps": 4, "batch_size": 8}
    identity = {f"ssl.{key}": text for key, text in own.items()}
    sha = add_stage(run, "ssl", "self_supervised", {}, identity, summary, 0)
    (run / "ssl" / "metrics.jsonl").write_text('{"loss": 2.0}\n{"loss": 1.0}\n')
    if accuracy is not None:
        fields = {"probe.init": "ssl", "probe.data": "full()", "probe.linear": linear}
        group = {"num_classes": 1, "accuracy": 0.25}
        report = {"all": {"linear": {"balanced_accuracy": accuracy, "groups": {"few": group}}}}
        add_stage(run, "probe", "probe", {"ssl": sha}, fields, {"probes": report}, 0)
    for path in run.glob("*/summary.json"):
        write_json(path, json.loads(path.read_text()) | {"machine": {}})
    return str(run)


def test_runs_of_one_row_and_runs_that_only_look_alike(capsys, tmp_path):
    """A probe of a shared stage may be in either run; long tails, settings, then kinds of probe that differ."""

    def rows(*runs):
        ssl_table.main(["", *runs, f"--json={tmp_path / 'x.json'}"])
        assert json.loads((tmp_path / "x.json").read_text())["code"] == [{"commit": "3bfb9e0"}]
        out = capsys.readouterr().out
        ssl_table.main(["", f"--show={tmp_path / 'x.json'}"])
        assert capsys.readouterr().out == out
        head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.strip().splitlines()]
        return [dict(zip(head, line, strict=True)) for line in body]

    one, bare = ssl_run(tmp_path / "one"), ssl_run(tmp_path / "bare", accuracy=None)
    for runs in ((one, bare), (bare, one)):
        (row,) = rows(*runs)
        assert (row["method"], row["linear"], row["linear, tail"]) == ("simclr", "50.0", "25.0")
        assert "longtail" not in row
    even = ssl_run(tmp_path / "even", longtail=balanced(TEN), counts=EVEN)
    assert [(row["method"], row["longtail"]) for row in rows(one, even)] == [("simclr", TEN), ("simclr", balanced(TEN))]
    hot = ssl_run(tmp_path / "hot", temperature=0.9)
    by_hand = [f"simclr, ssl.objective=simclr(temperature={t})" for t in (0.5, 0.9)]
    assert [row["method"] for row in rows(one, hot)] == by_hand
    sgd = ssl_run(tmp_path / "sgd", linear="sgd()", accuracy=0.1)
    with pytest.raises(UserError, match=r"different settings, logistic\(\) and sgd\(\): make a table of each"):
        ssl_table.main(["", one, sgd])


@pytest.mark.parametrize("name", ["ssl_digits", "ssl_cifar10_small"])
def test_committed_tables_have_no_columns_of_data(name):
    record = json.loads((ROOT / "results" / f"{name}.json").read_text())
    assert ssl_table.show(record).startswith("| method | model | steps x batch | kNN |")


def test_features_beside_pytorchs(monkeypatch):
    """Our two sides compute; the table has both, and no ratio of a training step."""
    net = functools.partial(EfficientNetLite, (Group(1, 3, 1, 1, 4),), "tensorflow")
    monkeypatch.setitem(features_peer.MODELS, "efficientnet_lite0", lambda: net)
    for what in ("features", "training"):
        out = features_peer.ours(what, batch=2, size=32)()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))

    class Fixed:
        def __init__(self, command, environment):
            self.theirs = "torch_features.py" in command[1]

        def seconds(self):
            return 0.5 if self.theirs else 0.25

        def close(self):
            pass

    monkeypatch.setattr(sides, "Side", Fixed)
    rows = features_peer.compare(128, 3, "python")
    table = features_peer.show(rows)
    assert "| features, 128 pixels, batch 32 | 64 | 128 | 2.00 (2.00 to 2.00) |" in table
    assert "| a training step, 128 pixels, batch 32 | - | 128 | - |" in table
    with pytest.raises(UserError, match="no such interpreter"):
        features_peer.main(["features_peer.py", "--python=no-such-python"])
