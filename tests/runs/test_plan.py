"""A plan: what it says against what can be derived, for every kind of stage, and what it refuses."""

import json
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.commands import ROOT, started

import main
from lt_noisy.config.resolve import default, resolve, section
from lt_noisy.errors import UserError
from lt_noisy.models import convolution
from lt_noisy.runs.planning import estimate, programs, show, stand_ins
from lt_noisy.runs.planning.accelerators import ACCELERATORS
from lt_noisy.runs.planning.estimate import Machine, Use
from lt_noisy.runs.planning.plan import planned
from lt_noisy.runs.planning.request import request
from lt_noisy.stages import STAGES
from lt_noisy.training.cost import Collective, Cost

SIMCLR = ["--config=configs/cifar10_lt_simclr.py", "--config.stages=('pretrain',)", "--config.model=resnet8(width=4)"]
SIMCLR += ["--config.pretrain.objective=simclr(hidden=16, size=8)", "--config.precision=float32"]
MOCO = [
    "--config=configs/imagenet_lt_moco.py:small",
    "--config.stages=('pretrain',)",
    "--config.model=resnet8(width=4)",
]
MOCO += ["--examples=1000", "--classes=10", "--config.pretrain.objective=moco(queue=512, symmetric=False)"]


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    """Where the configs are, in a process whose devices are settled; temporary directories are in one of the test's."""
    assert len(jax.devices()) == 8
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def _plan(*arguments, devices=1, accelerator="h100"):
    return planned(request(["main.py", "--plan", f"--devices={devices}", f"--accelerator={accelerator}", *arguments]))


def _step(plan, stage=0):
    (step,) = plan["stages"][stage]["steps"]
    return step


def test_operations_of_a_linear_classifier():
    """Forward and the gradient of the kernel are a matrix product each; no gradient goes to the images."""
    size, classes, batch = 512, 100, 64
    given = ["--config=configs/digits_lt_noise.py", "--examples=2000", f"--classes={classes}", f"--shape={size}"]
    stage = ["--config.stages=('finetune',)", "--config.finetune.init=none()", "--config.finetune.augment=none()"]
    stage += [f"--config.finetune.batch_size={batch}", "--config.finetune.loss=cross_entropy()"]
    plan = _plan(*given, *stage, "--config.model=identity()", "--config.precision=float32")
    products = 2 * 2 * batch * size * classes
    assert products < _step(plan)["flops"] < 1.1 * products
    assert plan["stages"][0]["parameters"] == (size + 1) * classes
    assert plan["data"]["origin"] == "given" and plan["data"]["shape"] == [size]


def _network(plan_config):
    """Parameters, and channels of all BatchNorms and of those on shortcuts, of its encoder and projector."""
    stage = resolve(request(["main.py", "--plan", "--devices=1", "--accelerator=h100", *plan_config]).command.config)
    objective, encoder = stage.stages[0].section.objective, stage.fields.model(jnp.float32, None)
    key, image = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    features, variables = jax.eval_shape(lambda: encoder.init_with_output(key, image, train=False))
    projector = objective.projector(jnp.float32, None)
    head = jax.eval_shape(lambda: projector.init(key, jnp.zeros(features.shape), train=False))
    norms = {name: stats["mean"].size for name, stats in variables["batch_stats"].items()}
    shortcuts = sum(channels for name, channels in norms.items() if "shortcut" in name)
    sizes = [leaf.size for leaf in jax.tree.leaves([variables["params"], head["params"]])]
    return sum(sizes), sum(norms.values()), shortcuts


@pytest.mark.parametrize("devices", [2, 8])
def test_bytes_between_devices_of_simclr_are_those_on_paper(devices):
    """Gradients, loss and weights; statistics of BatchNorm forward, backward and as they are kept; projections.

    The two BatchNorms that end a block with a shortcut are added, so that the gradients of their offsets are one and
    the same, and sent once.
    """
    batch, size = 8 * devices, 8
    plan = _plan(*SIMCLR, f"--config.pretrain.batch_size={batch}", devices=devices)
    parameters, channels, shortcuts = _network(SIMCLR)
    step = _step(plan)
    reduced = 4 * (parameters - shortcuts) + 4 + 4 + 3 * 2 * 4 * channels
    gathered = 2 * 4 * batch * size
    assert step["collectives"] == {"all-reduce": reduced, "all-gather": gathered, "reduce-scatter": gathered}
    ring = (devices - 1) / devices
    assert step["wire"] == pytest.approx(ring * (2 * reduced + 2 * gathered), rel=1e-12)


def test_operations_of_a_device_are_the_same_on_more_devices():
    per_device = [
        _step(_plan(*MOCO, f"--config.pretrain.batch_size={8 * devices}", devices=devices)) for devices in (1, 8)
    ]
    alone, shared = per_device
    assert shared["flops"] == pytest.approx(alone["flops"], rel=1e-3) and shared["batch"] == alone["batch"] == 8
    assert alone["wire"] == 0 and alone["collectives"] == {}


def test_what_is_held_between_steps_are_the_arrays_of_the_state_the_data_and_the_batch():
    batch, examples = 32, 12_406
    plan = _plan(*SIMCLR, f"--config.pretrain.batch_size={batch}")
    assert plan["data"] == {
        "origin": "as published",
        "examples": examples,
        "test": 10_000,
        "classes": 10,
        "shape": [32, 32, 3],
        "streamed": False,
    }
    parameters, channels, _ = _network(SIMCLR)
    state = 4 * (2 * parameters + 2 * channels)  # momentum as large as the parameters
    data = examples * 32 * 32 * 3  # the labels, which nobody reads, are no argument
    rest = _step(plan)["held"] - state - data - batch * (4 + 4)
    assert 0 < rest < 2000  # seed, step, counts, what the step adds up, and where the results lie
    assert _step(plan)["memory"] > _step(plan)["held"] + 4 * batch * 2 * 32 * 32 * 3  # both views at least


def test_all_stage_kinds_are_planned_without_what_earlier_stages_would_have_left(tmp_path):
    given = ["--config=tests/helpers/processes_config.py", "--examples=120", "--classes=3", "--shape=6"]
    plan = _plan(*given, "--config.labels.times=2.0", "--config.labels.targets=soft", devices=2)
    stages = {stage["stage"]: stage for stage in plan["stages"]}
    kinds = {stage["kind"]: stage for stage in stages.values()}
    assert set(kinds) == set(STAGES)
    trained = {stage["stage"] for stage in stages.values() if "steps" in stage}
    assert trained == {"pretrain", "rwsam", "experts", "distil", "head", "base", "folds", "joint", "mixnn"}
    assert all(stages[name]["train_seconds"] > 0 for name in trained)
    # The ascent is a second pass; a student sends the images through its three teachers, too.
    assert stages["rwsam"]["steps"][0]["flops"] > stages["pretrain"]["steps"][0]["flops"]
    assert len(stages["mixnn"]["steps"]) == 3 and stages["folds"]["networks"] == 2
    assert stages["labels"]["forward_images"] == 240 and stages["matrix"]["seconds"] == 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_device_does_not_hold_is_refused_with_the_batch_that_it_would(monkeypatch, capsys):
    small = ACCELERATORS["v5e"]._replace(name="small one", memory=1e6)
    monkeypatch.setitem(ACCELERATORS, "v5e", small)
    stage = ["--config=tests/helpers/processes_config.py", "--config.stages=('pretrain',)"]
    stage += ["--config.pretrain.objective=simclr(hidden=8, size=4)", "--config.precision=bfloat16"]
    stage += ["--examples=1000", "--classes=3", "--shape=512"]
    arguments = ["--plan", "--devices=2", "--accelerator=v5e", *stage, "--config.pretrain.batch_size=512"]
    assert main.main(["main.py", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "config.pretrain.batch_size: 512 is 256 a device" in said.err and "of a small one JAX has 1 MB" in said.err
    fits = int(said.err.split("batch_size=")[1].split(",")[0])
    assert fits in (32, 64, 128, 256)
    plan = _plan(*stage, f"--config.pretrain.batch_size={fits}", devices=2, accelerator="v5e")
    assert _step(plan)["memory"] <= small.room < 2.5 * _step(plan)["memory"]
    monkeypatch.setitem(ACCELERATORS, "v5e", small._replace(memory=1e3))
    with pytest.raises(UserError, match="nor does it hold one example"):
        _plan(*stage, devices=2, accelerator="v5e")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--accelerator=h100"], "--plan takes --devices=N"),
        (["--devices=0", "--accelerator=h100"], "devices"),
        (["--devices=eight", "--accelerator=h100"], "eight"),
        (["--devices=8"], "--plan takes --accelerator, one of a100, h100, h200, v5e, v5p, v6e\n"),
        (["--devices=8", "--accelerator=h10"], "not 'h10', did you mean 'h100'?"),
        (["--devices=8", "--accelerator=h100", "--compiler=tpu"], "--compiler=tpu is for TPUs"),
        (["--devices=8", "--accelerator=h100", "--compiler=gpu"], "--compiler is one of cpu, tpu, not 'gpu'"),
        (["--devices=8", "--accelerator=h100", "--examples=100"], "--examples=N and --classes=C go together"),
        (["--devices=8", "--accelerator=h100", "--shape=8"], "--examples=N and --classes=C go together"),
        (["--devices=8", "--accelerator=h100", "--efficiency=40"], "--efficiency is a share of the peak in (0, 1]"),
        (["--devices=8", "--accelerator=h100", "--network=0"], "--network is above 0"),
        (["--devices=8", "--accelerator=h100", "--decode_rate=-1"], "--decode_rate is above 0"),
        (["--devices=8", "--accelerator=h100", "--json=absent/plan.json"], "is no file in a directory that exists"),
        (["--devices=8", "--accelerator=h100", "--workdir=x"], "--plan trains nothing"),
        (["--devices=8", "--accelerator=h100", "--profile=1:5"], "--plan trains nothing"),
        (["--devices=8", "--accelerator=h100", "--device=8"], "device"),
        (["--devices=9", "--accelerator=h100"], "JAX is in use already, with 8 devices"),
        (["--devices=7", "--accelerator=h100"], "does not divide among 7 devices"),
        (
            [
                *("--devices=1", "--accelerator=h100", "--config.stages=('finetune',)"),
                *("--config.finetune.init=none()", "--config.finetune.last_blocks=99"),
            ],
            "config.finetune.last_blocks is 0 to ",
        ),
        (["--devices=8", "--accelerator=h100", "--examples=9", "--classes=3", "--shape=8x8"], "--shape is that of"),
        (
            ["--devices=1", "--accelerator=h100", "--config.dataset=npz(path='absent.npz')"],
            "(--plan does without the data by --examples=N --classes=C)",
        ),
        (
            ["--devices=1", "--accelerator=h100", "--config.dataset=npz(path='a.npz')", "--examples=9", "--classes=3"],
            "is not known; add --shape=224x224x3",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, says, capsys):
    assert main.main(["main.py", "--config=configs/digits_lt_noise.py:small", "--plan", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert says in said.err


def test_the_command_on_devices_that_are_not_there(env, tmp_path):
    path = tmp_path / "plan.json"
    arguments = ["--plan", "--devices=4", "--accelerator=v5e", "--decode_rate=1000", f"--json={path}", *MOCO]
    done = started("main.py", arguments, env)
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(path.read_text())
    assert done.stdout.splitlines() == show.lines(plan)
    (stage,) = plan["stages"]
    (step,) = stage["steps"]
    assert (step["batch"], step["pictures"], step["bound"]) == (2, 2 * 2, "decoding")
    assert step["step_seconds"] == 2 * 2 * 4 / 1000 == step["seconds"]["decoding"]
    assert plan["seconds"] == pytest.approx(stage["train_seconds"] + stage["forward_seconds"])
    assert plan["device_hours"] == pytest.approx(4 * plan["seconds"] / 3600)
    assert stage["train_seconds"] == pytest.approx(125 * step["step_seconds"])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("spec", "train", "test", "classes", "shape"),
    [
        ("tfds(name='imagenet_lt', size=224, train='train', test='validation')", 115_846, 20_000, 1000, (224, 224, 3)),
        ("tfds(name='cifar100', size=0, train='train', test='test')", 50_000, 10_000, 100, (32, 32, 3)),
        ("webvision(path='w', classes=50, parts='google', size=64)", 65_944, 2_500, 50, (64, 64, 3)),
    ],
)
def test_published_sets_need_not_be_there(spec, train, test, classes, shape):
    source = stand_ins.known_source(spec)
    assert source is not None and source.num_classes == classes
    assert (len(source.train.ids), len(source.test.ids)) == (train, test)
    images = source.train.images(np.arange(1000))
    assert images.shape == (1000, *shape) and images.dtype == np.uint8 and not any(images.strides)
    assert (source.train.read_cut is not None) == ("size=0" not in spec)


def test_a_manifest_is_of_labels_that_only_the_data_has():
    c = default()
    c.dataset, c.manifest, c.stages, c.train = "tfds(cifar10)", "file(path='runs/a')", ("train",), section("supervised")
    resolved = resolve(c)
    assert stand_ins.with_data(resolved, None) == (resolved, "read")


def test_what_is_not_published_has_no_stand_in():
    assert stand_ins.known_source("tfds(name='mnist', train='train', test='test')") is None
    assert stand_ins.known_source("digits(test_per_class=50, canvas=0)") is None


def _machine(**changed):
    return Machine(ACCELERATORS["a100"], 4, False, 1.0, 300e9, None)._replace(**changed)


def test_seconds_of_every_need():
    used = Use(flops=312e12, memory=1.0, held=1.0, traffic=2 * 2039e9, wire=3 * 300e9, pictures=50)
    assert estimate.seconds(used, _machine()) == {"compute": 1.0, "memory": 2.0, "network": 3.0}
    times = estimate.seconds(used, _machine(float32=True, efficiency=0.5, decode_rate=100.0))
    assert times == {"compute": 4.0, "memory": 2.0, "network": 3.0, "decoding": 2.0}


def _linear(batch):
    return Cost(1.0, 100.0 + 10 * batch, 7, 40 + 4 * batch, (Collective("all-reduce", 80, 2),))


def test_in_bfloat16_half_counts_of_what_grows_with_the_batch():
    assert estimate.use(_linear, 8, 3, halved=False) == Use(1.0, 7 + 72, 7, 180.0, 80.0, 3)
    assert estimate.use(_linear, 8, 3, halved=True) == Use(1.0, 7 + 56, 7, 140.0, 80.0, 3)
    assert estimate.use(_linear, 1, 3, halved=True) == Use(1.0, 7 + 42, 7, 105.0, 80.0, 3)


@pytest.mark.parametrize(("room", "fits"), [(1000, 96), (500, 48), (63, 6), (17, 1), (5, 0)])
def test_the_largest_half_that_fits(room, fits):
    assert estimate.fitting(lambda batch: 10.0 * batch, 96, room) == fits


def test_meshes_of_a_tpu():
    assert [programs.grid(count, 2) for count in (1, 4, 8, 16, 48, 512)] == [
        [2, 2],
        [2, 2],
        [2, 4],
        [4, 4],
        [8, 8],
        [16, 32],
    ]
    assert [programs.grid(count, 3) for count in (4, 8, 16, 64)] == [[2, 2, 1], [2, 2, 2], [2, 2, 4], [4, 4, 4]]


def test_an_accelerator_says_where_its_figures_stand():
    for accelerator in ACCELERATORS.values():
        figures = accelerator[1:6]
        assert all(figure > 1e9 for figure in figures) and "https://" in accelerator.source
        assert accelerator.bfloat16 >= accelerator.float32 and accelerator.room <= accelerator.memory


def test_what_a_core_decodes_is_what_was_measured():
    rows = json.loads((ROOT / "results" / "decode.json").read_text())["rows"]
    assert next(round(row["images_per_second"]) for row in rows if row["side"] == "ours") == show.DECODED


def test_a_plan_has_the_convolutions_of_an_accelerator():
    def gradient(x, kernel):
        options = {"strides": (1, 1), "padding": ((1, 1), (1, 1)), "dimension_numbers": convolution.LAYOUT}
        return jax.grad(lambda k: convolution.convolution(x, k, **options).sum())(kernel)

    arrays = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))
    with convolution.as_elsewhere():
        elsewhere = str(jax.make_jaxpr(lambda *a: gradient(*a))(*arrays))
    here = str(jax.make_jaxpr(lambda *a: gradient(*a))(*arrays))
    assert "kernel_gradient" in here and "kernel_gradient" not in elsewhere


def test_a_plan_by_the_compiler_of_tpus():
    pytest.importorskip("libtpu", reason="the compiler of TPUs is not installed: pip install '.[tpu]'")
    arguments = ["--config.stages=('finetune',)", "--config.finetune.init=none()", "--config.model=resnet8(width=4)"]
    plan = _plan(
        "--config=configs/digits_lt_noise.py:small", *arguments, "--compiler=tpu", devices=4, accelerator="v5e"
    )
    assert _step(plan)["memory"] > _step(plan)["held"] > 0 and _step(plan)["wire"] > 0
