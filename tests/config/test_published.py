"""Configs that name a published program: its precision, how its network starts, the settings that a record ran with."""

import numpy as np
import pytest
from helpers.commands import ROOT

from lt_noisy.config.python_file import read_module
from lt_noisy.config.resolve import resolve
from lt_noisy.config.spec import bind
from lt_noisy.losses.table import LOSSES

PUBLISHED = [path.stem for path in sorted(ROOT.glob("configs/*.py")) if '"published"' in path.read_text()]


def config(name, variant=""):
    return read_module(ROOT / "configs" / f"{name}.py").get_config(variant)


def starts(text):
    """The `init` arguments in a spec."""
    return [part.partition("init=")[2].split(",")[0].rstrip(")") for part in text.split("(") if "init=" in part]


def test_there_are_published_variants():
    names = [name.removeprefix("cifar10_lt_") for name in PUBLISHED]
    assert names == ["byol", "moco", "rwsam", "simclr", "simsiam"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_variant_has_its_programs_precision_and_heads(name):
    c = config(name, "published")
    resolve(c)
    assert c.precision == "float32"
    trained = [c[stage] for stage in c.stages if c[stage].kind == "self_supervised"]
    assert trained and all(starts(section.objective) == ["torch"] for section in trained)
    # Torchvision's network starts as ours; Liu et al. wrote their own.
    own = name in ("cifar10_lt_rwsam", "cifar10_lt_simsiam")
    assert starts(c.model) == (["torch"] if own else [])
    assert ("clip=True" in trained[0].optimizer) == (name in ("cifar10_lt_byol", "cifar10_lt_simclr"))
    assert config(name).precision == "bfloat16" and not starts(config(name).model)


@pytest.mark.parametrize("name", ["cifar10_mixnn", "cifar10n"])
def test_networks_of_noise_programs_start_as_pytorch_starts_them(name):
    c = config(name)
    assert starts(c.model) == ["torch"]
    heads = [c[stage].head for stage in ("train", "plain", "folds") if stage in c]
    assert heads == ["linear(init=torch)"] * 2
    small = config(name, "small")  # as measured
    assert not starts(small.model) and small.train.head == "linear()"


@pytest.mark.parametrize("file", ["configs/digits_lt_noise.py", "benchmarks/digits_settings.py"])
def test_the_digits_grid_keeps_the_symmetric_cross_entropy_of_its_record(file):
    """A = -4, the default then: a class that is certainly wrong costs beta times 4."""
    cells = read_module(ROOT / file).sweep()
    texts = {str(cell.overrides.get("finetune.loss")) for cell in cells}
    texts = [text for text in texts if text.startswith("symmetric")]
    assert texts
    for text in texts:
        loss = bind(text, LOSSES, "loss")
        alpha = float(text.partition("alpha=")[2].partition(",")[0])
        label = np.array([1], np.int32)
        value, _ = loss.apply({}, np.array([[30.0, 0.0]], np.float32), label, label, 0)
        assert float(value[0]) == pytest.approx(alpha * 30 + 4, rel=1e-5)
