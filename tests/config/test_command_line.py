"""Bad input in one line, every config, and a README that agrees with CI and with the records."""

import dataclasses
import re

import numpy as np
import pytest
from helpers.commands import CONFIG, NO_RECIPE, ROOT, SSL
from helpers.step_cases import Convolutional

import main
from lt_noisy.config import command_line
from lt_noisy.config.python_file import read_module
from lt_noisy.config.resolve import resolve
from lt_noisy.data.dataset import Dataset
from lt_noisy.data.images import Stored
from lt_noisy.data.pools import Own
from lt_noisy.data.sources.base import Source, Split
from lt_noisy.errors import UserError
from lt_noisy.runs.jobs import make_job
from lt_noisy.runs.sweeps.cells import arguments
from lt_noisy.training import parallel
from lt_noisy.training.interrupt import Interrupts
from lt_noisy.weights.pretrained import Pretrained


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no --config given"),
        (["--config=configs/absent.py"], "no file 'configs/absent.py'"),
        (["--config=configs/digits_lt_noise.py:tiny"], "unknown variant 'tiny'"),
        ([*CONFIG, "leftover"], "left-over argument 'leftover'"),
        ([*CONFIG, "--workdri=x"], "workdri"),
        ([*CONFIG, "--config.seed=one"], "error: --config.seed takes int, not 'one'\n"),
        ([*CONFIG, "--config.seed", "one"], "error: --config.seed takes int, not 'one'\n"),
        ([*CONFIG, "--config.finetune.freeze_encoder=maybe"], "freeze_encoder takes bool, not 'maybe'\n"),
        ([CONFIG[0], "--config.finetune=3"], "--config.finetune is a section: set its fields one by one (it has aug"),
        ([*CONFIG, "--config.dataset=folder(path=/photos)"], "config.dataset: 'folder(path=/photos)' is not a spec"),
        ([*CONFIG, "--config.finetune.length=40"], "config.finetune.length: '40' is a plain value, not a spec"),
        ([*CONFIG, "--config.seed=-1"], "config.seed is at least 0"),
        (["--config", "configs/absent.py"], "no file 'configs/absent.py'"),
        (["--config=README.md"], "'README.md' is not a Python file"),
        ([*CONFIG, "--config.seed=one", "--config.seed=1"], "error: --config.seed takes int, not 'one'\n"),
        ([*CONFIG, "--config.finetune.augment=normalise((0.5, 0.5), (1.0, 1.0))"], "must be one number each, or one"),
        ([*CONFIG, "--config.pretrain.augment=blur(kernel=23)"], "config.pretrain.augment: "),
        ([CONFIG[0], '--config.finetune={"kind": "supervised"}'], " is missing (a section must keep all its fields)"),
        (
            [*CONFIG, "--config.fintune.loss=mae()"],
            "config has no 'fintune', did you mean 'finetune'?",
        ),
        ([*CONFIG, "--config.finetune.los=mae()"], "config.finetune has no 'los', did you mean 'loss'?"),
        ([*CONFIG, "--config.finetune.loss.q=0.5"], "and has no fields"),
        ([*CONFIG, "--config.finetune.kind=supervized"], "did you mean 'supervised'"),
        ([*CONFIG, "--config.finetune.loss=superloss(logit_ajusted())"], "did you mean 'logit_adjusted'"),
        ([*SSL, "--config.moco.objective=moco(queue=10)"], "queue=10 is shorter than the 64 keys of one step"),
        ([*SSL, "--config.moco.ascent=sam(rho=-1.0)"], "rho is at least 0"),
        ([*SSL, "--config.rwsam.ascent=none()"], "config.rwsam.ascent_weights: weights choose"),
        ([*SSL, "--config.rwsam.ascent_weights=byol"], "'byol' is a self_supervised stage, not one of kind density"),
        ([*SSL, "--config.density.init=none()"], "config.density.init: 'none()' is not an earlier stage"),
        ([*SSL, "--config.density.alpha=-1.0"], "config.density: alpha must be a finite number, at least 0"),
        (
            [*SSL, "--config.moco.objective=rotation()"],
            "config.cluster.init: the projector of that stage has no hidden",
        ),
        (
            [*SSL, "--config.experts.train_on=al"],
            "config.experts.train_on is cluster or all, not 'al', did you mean 'all'?",
        ),
        ([*SSL, "--config.distil.base=none()", "--config.distil.experts=none()"], "so that nothing teaches"),
        ([*SSL, "--config.distil.base=byol"], "config.distil: base and experts differ in their objective"),
        ([*SSL, "--config.density.alpha=inf"], "config.density.alpha takes a finite number"),
        ([*SSL, "--config.density.estimator=gaussian(neighbour=5000)"], "config.density.estimator: wants 5001 images"),
        ([*SSL, "--config.cluster.partition=random(k=5000)"], "config.cluster.partition: 5000 clusters of 641 images"),
        ([*SSL, "--config.probe.shots=(0, 0)"], "config.probe.shots are different whole numbers"),
        ([*SSL, "--config.probe.data=ful()"], "config.probe.data: unknown name 'ful', did you mean 'full'?"),
        ([*SSL, "--config.tuned.encoder_rate=0.0"], "config.tuned.encoder_rate is above 0"),
        ([*CONFIG, "--config.finetune.loss=gce(q=2.0)"], "config.finetune.loss: gce"),
        ([*CONFIG, "--config.longtail=exponential(ratio=0.5)"], "ratio"),
        ([*CONFIG, "--config.noise=symmetric(rate=1.5)"], "rate"),
        ([*CONFIG, "--config.stages=('finetune',)"], "'pretrain' is not an earlier stage"),
        ([*CONFIG, "--config.stages=('pretrian',)"], "did you mean 'pretrain'"),
        ([*CONFIG, "--config.finetune.batch_size=5000"], "5000 is not between 1 and"),
        ([*CONFIG, "--config.pretrain.batch_size=1"], "config.pretrain.objective: it takes batches of at least 2"),
        ([*CONFIG, "--config.finetune.length=percent(50)"], "cannot be a percentage"),
        ([*CONFIG, "--config.steps_per_call=3"], "steps(20) is not a multiple of config.steps_per_call=3"),
        ([*CONFIG, "--config.devices=9"], "9 asked for"),
        ([*CONFIG, "--config.keep=weight"], "config.keep is last or weights or all, not 'weight', did you mean"),
        ([*CONFIG, "--config.parallel=pjit"], "did you mean 'jit'"),
        ([*CONFIG, "--profile=100"], "--profile=100: write FIRST:LAST or STAGE/FIRST:LAST"),
        ([*CONFIG, "--profile=15:21"], "--profile: pretrain has 20 steps, and 15:21 goes beyond them"),
        ([*CONFIG, "--config.trackers=tensorbord"], "did you mean 'tensorboard'"),
        ([*CONFIG, "--config.pretrain.keep_newest=0"], "config.pretrain.keep_newest is at least 1, not 0"),
        ([*CONFIG, "--config.dataset=folder(path='/nowhere')"], "/nowhere"),
        ([*CONFIG, "--config.dataset=npz(path='/nowhere.npz')"], "/nowhere.npz"),
        ([*CONFIG, *NO_RECIPE, "--config.manifest=file(path='/nowhere')"], "/nowhere"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line_before_work_starts(monkeypatch, capsys, tmp_path, arguments, says):
    """In this process, through `main.main`: what a user would see, without starting Python two dozen times."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    if arguments:
        arguments = [*arguments, f"--workdir={tmp_path / 'run'}"]
    assert main.main(["main.py", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert {file.name for file in (tmp_path / "run").rglob("*")} <= {".lock"}  # so the corrected run may have it


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def get_config(variant=''):\n    return {}['a\\'b']", "KeyError: a'b"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def get_config(variant=''):\n    pass", "get_config returns a ConfigDict, not NoneType"),
        ("", "AttributeError: module 'bad' has no attribute 'get_config'"),
        ("def get_config(", "SyntaxError: '(' was never closed (bad.py, line 1)"),
        ("def get_config(variant=''):\n    raise ValueError('a \\'b\\'')", "ValueError: a 'b'"),
    ],
)
def test_an_error_of_the_config_file_is_one_line_as_python_says_it(tmp_path, source, says):
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(UserError) as error:
        command_line.parse(["main.py", f"--config={tmp_path}/bad.py", "--config.seed=1"])
    assert str(error.value) == f"{tmp_path}/bad.py: {says}"


def test_overrides_come_in_any_order_and_the_last_config_counts():
    file = ROOT / "configs" / "digits_lt_noise.py"
    config, _, name, *_ = command_line.parse(["", "--config.seed=3", f"--config={file}", f"--config={file}:small"])
    assert config.seed == 3 and name == "digits_lt_noise-small" and config.pretrain.length == "epochs(2)"


def test_of_a_field_given_twice_the_last_counts_whatever_its_type():
    """A tuple too, of which ml_collections makes one of both; and one that a sweep's cell sets after the sweep."""
    twice = ["--config.stages=('pretrain',)", "--config.seed=1", "--config.stages", "('finetune',)", "--config.seed=2"]
    config = command_line.parse(["", *CONFIG, *twice])[0]
    assert (config.stages, config.seed) == (("finetune",), 2)
    mixed = ["-config.stages=('pretrain', 'finetune')", "--config.stages=('finetune', 'pretrain')"]
    assert command_line.parse(["", *CONFIG, *mixed])[0].stages == ("finetune", "pretrain")
    own = arguments({"stages": ("finetune",), "finetune.init": "none()"})
    assert command_line.parse(["", *CONFIG, *twice[:1], *own])[0].stages == ("finetune",)
    shots = ["--config.probe.shots=(0, 5)", "--config.probe.shots=(1,)"]
    assert command_line.parse(["", *SSL, *shots])[0].probe.shots == (1,)


def _config_files():
    return sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("path", _config_files(), ids=lambda path: path.stem)
def test_every_config_binds_and_its_small_variant_builds(path, tmp_path):
    """Every variant that the docstring shows resolves; the small one's steps trace on random images."""
    module = read_module(path)
    assert f"python main.py --config=configs/{path.name}" in module.__doc__
    shown = set(re.findall(rf"{path.name}:(\w+)", module.__doc__))
    for variant in ("", *shown):
        assert resolve(module.get_config(variant)).stages
    inits = [getattr(stage.section, "init", None) for stage in resolve(module.get_config("")).stages]
    if "small" not in shown and any(isinstance(init, Pretrained) for init in inits):
        return  # small as it is: an encoder that nobody trains, from a file that is not here
    assert "small" in shown or "digits" in path.stem

    small = module.get_config("small")
    assert resolve(small).stages
    resolved = resolve(small)
    # Compiled faster; models have tests of their own.
    least = dataclasses.replace(resolved.fields, model=lambda dtype, norm_axis: Convolutional(norm_axis, dtype))
    resolved = resolved._replace(fields=least)
    side, channels, classes = (12, 1, 10) if "digits" in resolved.texts["dataset"] else (32, 3, 100)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (300, side, side, channels), dtype=np.uint8)
    labels = (np.arange(3000) % classes).astype(np.int32)  # a training set of 300, and nine times as many left out
    names = tuple(map(str, range(classes)))
    split = Split(np.arange(3000), labels, lambda rows: images[rows % 300])
    source, own = Source(split, split, names), labels[:300]
    train_images = images
    if any(getattr(stage.section, "augment", None) and stage.section.augment.cut for stage in resolved.stages):
        train_images = Stored(split.images, np.arange(300), images.shape[1:], lambda rows, *_: 255 - images[rows])
    dataset = Dataset(train_images, own, own, split.ids[:300], images[:9], labels[:9], names, source)
    devices = parallel.make("jit", 1)
    stages = [
        stage._replace(section=dataclasses.replace(stage.section, pool=Own.LEFT_OUT))  # no other data set is at hand
        if stage.texts["kind"] == "pseudo_label"
        else stage
        for stage in resolved.stages
    ]
    resolved = resolved._replace(stages=tuple(stages))
    for stage in resolved.stages:
        job = make_job(resolved, stage, tmp_path, dataset, dataset, devices, Interrupts())
        assert ("steps" in stage.kind.check(job, stage.section)) == ("length" in stage.texts)
        if stage.texts["kind"] not in ("self_supervised", "supervised", "mixnn"):  # the others need finished stages
            continue
        job = job._replace(inputs={})  # no checkpoint to start from here
        ready = stage.kind.prepare(job, stage.section)
        if stage.section.augment.cut is not None:
            batch = ready.batches(ready.phases[-1].begin)
            cut = batch["images"] if batch["images"].ndim == 4 else batch["images"][:, 1]
            np.testing.assert_array_equal(cut, 255 - images[batch["rows"]])
            if stage.texts["kind"] == "mixnn":  # whose warm-up augments nothing
                first = ready.batches(0)
                np.testing.assert_array_equal(first["images"], images[first["rows"]])
        for phase in ready.phases:
            sums = parallel.zeros(phase.step, ready.state, ready.data, ready.batches(0))
            assert "loss" in sums
    if hasattr(module, "sweep"):
        for cell in (module.sweep("")[0], module.sweep("small")[-1]):  # the sweep itself binds them all
            c = module.get_config("")
            c.update_from_flattened_dict(dict(cell.overrides))
            assert resolve(c).stages
