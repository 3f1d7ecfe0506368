"""Weak scaling: what plans counted is what paper says, and the script that holds them beside each other."""

import json
import subprocess

import pytest
import weak_scaling
from helpers.commands import ROOT

from lt_noisy.errors import UserError

RECORD = json.loads((ROOT / "results" / "plan.json").read_text())
SYSTEMS = {system.name: system for system in weak_scaling.SYSTEMS}


def _rows(name):
    return {row["devices"]: row for row in RECORD["rows"] if row["system"] == name}


@pytest.mark.parametrize("name", SYSTEMS)
def test_bytes_between_devices_are_those_on_paper(name):
    rows = _rows(name)
    assert list(rows) == [1, 8, 64, 512]
    for devices, row in rows.items():
        assert row["paper"] == SYSTEMS[name].on_paper(devices)
        assert row["counted"]["collectives"] == row["paper"]["collectives"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_operations_of_a_device_grow_by_the_gathered_negatives_alone(name):
    rows = _rows(name)
    for row in rows.values():
        assert 1 < row["counted"]["flops"] / row["paper"]["flops"] < 1.05  # all but the layers
        counted, paper = (row[side]["flops"] - rows[1][side]["flops"] for side in ("counted", "paper"))
        assert counted == pytest.approx(paper, abs=2e-4 * rows[1]["paper"]["flops"])
        assert row["counted"]["batch"] == SYSTEMS[name].batch


def test_the_layers_are_those_of_the_papers():
    """He et al. (2016): 3.8e9 multiply-adds with the stride in a block's first convolution, 4.1e9 in its second."""
    resnet50, resnet18 = (SYSTEMS[name].layers for name in ("MoCo v2, ResNet-50", "SimCLR, ResNet-18"))
    assert sum(layer.parameters for layer in resnet50) + 2048 * 1000 + 1000 == 25_557_032  # torchvision's
    assert sum(layer.multiply_adds for layer in resnet50) == pytest.approx(4.0e9, rel=0.03)  # padding left out
    assert [layer.side for layer in resnet50][-4:] == [7, 7, 7, 7] and len(resnet18) == 20


def test_the_script_asks_for_plans_and_stops_where_one_fails(monkeypatch, capsys, tmp_path):
    asked, genuine = [], subprocess.run

    def run(command, **options):
        if command[0] == "git":  # of the revision that the record names
            return genuine(command, **options)
        asked.append(command)
        step = {**RECORD["rows"][0]["counted"], "bound": "memory"}
        (path,) = (word.removeprefix("--json=") for word in command if word.startswith("--json="))
        plan = {"accelerator": "one", "compiler": "cpu", "stages": [{"steps": [step]}]}
        with open(path, "w") as file:
            json.dump(plan, file)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(weak_scaling.subprocess, "run", run)
    path = tmp_path / "plan.json"
    weak_scaling.main(["weak_scaling.py", "--devices=1,2", "--tpu=python-with-libtpu", f"--json={path}"])
    record = json.loads(path.read_text())
    assert [row["devices"] for row in record["rows"]] == [1, 2, 1, 2] and len(record["tpu"]) == 2
    assert "--tpu" not in record["command"]
    assert [command[0] == "python-with-libtpu" for command in asked] == [False] * 6 + [True] * 2
    assert all({"--plan", "--devices=2"} <= set(command) for command in (asked[1], asked[3]))
    out = capsys.readouterr().out
    for table in (weak_scaling.show(record["rows"]), weak_scaling.show_tpu(record["tpu"])):
        assert table in out
    monkeypatch.setattr(weak_scaling.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 2))
    with pytest.raises(UserError, match="exit status 2"):
        weak_scaling.main(["weak_scaling.py", "--devices=1"])
