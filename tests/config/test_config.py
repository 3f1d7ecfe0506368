"""Sections and their fields, durations, and stage identities: what changes one and what must not."""

import pytest

from lt_noisy.config.durations import DURATIONS, Clock
from lt_noisy.config.identity import of_data, section_identity, stage_identity
from lt_noisy.config.resolve import RESERVED, check_variant, default, resolve, section
from lt_noisy.config.spec import bind
from lt_noisy.errors import UserError
from lt_noisy.hashing import json_sha256


def bind_duration(text):
    return bind(text, DURATIONS, "config.x")


def _config(**overrides):
    c = default()
    c.stages = ("pretrain", "finetune")
    c.pretrain = section("self_supervised", augment="simclr_digits()")
    c.finetune = section("supervised", init="pretrain", augment="digits()")
    c.lock()
    for name, value in overrides.items():
        c.update_from_flattened_dict({name.replace("__", "."): value})
    return c


def _identity(name="finetune", data=None, inputs=None, steps=100, num_devices=1, **overrides):
    resolved = resolve(_config(**overrides))
    stage = next(s for s in resolved.stages if s.name == name)
    data = data or {"ids": "a", "observed_labels": "b"}
    return json_sha256(
        stage_identity(resolved, stage, {"steps": steps}, num_devices, data, inputs or {"pretrain": "c"})
    )


def test_defaults_resolve():
    resolved = resolve(_config())
    assert [stage.name for stage in resolved.stages] == ["pretrain", "finetune"]
    assert resolved.stages[1].inputs == {"init": "pretrain"}
    assert resolved.texts["dataset"] == "digits(test_per_class=50, canvas=0)"


@pytest.mark.parametrize(
    "override",
    [
        {"seed": 1},
        {"model": "resnet34()"},
        {"precision": "bfloat16"},
        {"batch_norm": "device"},
        {"finetune__loss": "gce(q=0.5)"},
        {"finetune__batch_size": 64},
        {"finetune__length": "epochs(3)"},
        {"finetune__freeze_encoder": True},
        {"finetune__frozen_norm": "batch"},
        {"finetune__keep_last": True},
        {"steps": 101},  # as another steps_per_call makes of the same epochs
    ],
)
def test_what_changes_the_result_changes_the_identity(override):
    assert _identity(**override) != _identity()


@pytest.mark.parametrize(
    "override",
    [
        {"finetune__log_every": "steps(3)"},
        {"finetune__eval_every": "steps(3)"},
        {"finetune__save_every": "steps(3)"},
        {"trackers": "several()"},
        {"finetune__keep_newest": 3},
        {"finetune__keep_every": "steps(3)"},
        {"keep": "all"},
        {"parallel": "pmap"},
        {"devices": 1},
        {"finetune__loss": "cross_entropy"},  # the default, written otherwise
        {"num_devices": 8},
        {"noise": "symmetric(rate=0.2)"},  # enters through the hash of the observed labels
    ],
)
def test_what_does_not_leaves_it(override):
    assert _identity(**override) == _identity()


def test_a_revised_kind_is_another_stage():
    """MixNN's step was corrected: what an earlier revision finished is not taken for it; others stay."""
    c = default()
    c.mixnn, c.plain = section("mixnn"), section("supervised")
    c.stages = ("mixnn", "plain")
    mixnn, plain = resolve(c).stages
    now = section_identity(mixnn)
    assert now["revision"] == 2 and "revision" not in section_identity(plain)
    assert section_identity(mixnn._replace(kind=mixnn.kind._replace(revision=1))) == {
        field: text for field, text in now.items() if field != "revision"
    }


def test_an_identity_refuses_two_sources_of_one_key():
    """A measured hash under the name of a field would be that field's text, and a change of the data unseen."""
    resolved = resolve(_config())
    stage = resolved.stages[1]
    for measured in ({"loss": "a"}, {"kind": "a"}):
        with pytest.raises(ValueError, match=rf"finetune has two sources of finetune\.{next(iter(measured))}"):
            stage_identity(resolved, stage, measured, 1, {}, {})
    identity = stage_identity(resolved, stage, {"steps": 3}, 1, {"ids": "a"}, {"pretrain": "b"})
    assert of_data("finetune", {"steps": 3}, identity) == {"finetune.steps", "data.ids", "inputs.pretrain"}


@pytest.mark.parametrize("name", RESERVED)
def test_names_that_no_stage_can_have(name):
    c = _config().copy_and_resolve_references().unlock()
    c[name] = section("supervised")
    with pytest.raises(UserError, match=rf"config\.{name}: no stage can be called data or inputs or earlier"):
        resolve(c)


def test_the_device_count_matters_where_batchnorm_is_per_device():
    assert _identity(batch_norm="device", num_devices=8) != _identity(batch_norm="device")


def test_a_loss_does_not_repeat_the_pretraining_but_data_and_inputs_do():
    assert _identity("pretrain", finetune__loss="gce(q=0.5)") == _identity("pretrain")
    assert _identity(data={"ids": "x", "observed_labels": "b"}) != _identity()
    assert _identity(inputs={"pretrain": "x"}) != _identity()


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: section("supervized"), "did you mean 'supervised'"),
        (
            lambda: section("supervised", los="x"),
            "supervised has no field 'los', did you mean 'loss'?",
        ),
        (lambda: check_variant("smal"), "did you mean 'small'"),
        (lambda: resolve(_config(stages=())), "config.stages is empty"),
        (lambda: resolve(_config(stages=(["pretrain"],))), "config.stages holds names of stages"),
        (lambda: resolve(_config(stages=("finetune", "pretrain"))), "'pretrain' is not an earlier stage"),
        (lambda: resolve(_config(stages=("pretrain", "pretrain"))), "names a stage twice"),
        (lambda: resolve(_config(precision="float16")), "config.precision is float32 or bfloat16, not 'float16'"),
        (lambda: resolve(_config(steps_per_call=0)), "config.steps_per_call is at least 1"),
        (lambda: resolve(_config(seed=2**32)), "below 2**32"),
        (lambda: resolve(_config(heartbeat=0.0)), "config.heartbeat is a number of seconds above 0, not 0.0"),
        (
            lambda: resolve(_config(dataset="tfds(svhn_cropped)", longtail="step(10, subset=conventional)")),
            "config.longtail: the conventional subset of svhn has its classes zero_last, not by_label; write",
        ),
        (
            lambda: resolve(
                _config(dataset="development(tfds(svhn_cropped))", longtail=f"explicit({(5,) * 10}, conventional)")
            ),
            "order=zero_last",
        ),
        (
            lambda: resolve(
                _config(dataset="tfds(cifar10)", longtail="exponential(9, subset=conventional, order=zero_last)")
            ),
            "the conventional subset of cifar has its classes by_label, not zero_last",
        ),
        (lambda: resolve(_config(pretrain__objective="simclr(temprature=1)")), "did you mean 'temperature'"),
    ],
)
def test_one_line_errors(build, says):
    with pytest.raises(UserError) as error:
        build()
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "longtail",
    [
        "exponential(50, n_max=1000, subset=conventional, order=zero_last)",
        "exponential(50)",
        "balanced(exponential(50, n_max=1000, subset=conventional))",  # of which only the total is taken
    ],
)
def test_long_tails_that_svhn_takes(longtail):
    resolve(_config(dataset="tfds(svhn_cropped)", longtail=longtail))


def test_a_network_that_judges_labels_has_not_seen_them():
    """Neither itself nor through the density weights that chose where its pre-training went."""
    c = default()
    c.base = section("supervised")
    c.plain = section("self_supervised")
    c.density = section("density", init="plain", estimator="gaussian()")
    c.weighted = section("self_supervised", ascent="sam(rho=0.1)", ascent_weights="density")
    c.folds = section("cross_fit", init="weighted")
    c.stages = ("base", "plain", "density", "weighted", "folds")
    resolve(c)
    c.folds.init = "base"
    with pytest.raises(UserError, match=r"config\.folds\.init: 'base' has seen the labels; name a stage that has not"):
        resolve(c)
    c.folds.init = "weighted"
    c.density.estimator = "class_oracle()"
    with pytest.raises(UserError, match="'weighted' has seen the labels, through 'density';"):
        resolve(c)
    c.density.estimator, c.density.init = "gaussian()", "base"
    with pytest.raises(UserError, match="'weighted' has seen the labels, through 'base';"):
        resolve(c)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("epochs(3)", 30),
        ("epochs(0.5)", 5),
        ("steps(7)", 7),
        ("examples(640)", 10),
        ("percent(10)", 20),
        ("epochs(0.001)", 1),
    ],
)
def test_durations_become_steps(text, steps):
    assert bind_duration(text)(Clock(10, 64, 200, 1), "config.x") == steps


def test_durations_respect_steps_per_call():
    clock = Clock(steps_per_epoch=10, examples_per_step=64, total=200, multiple=8)
    assert bind_duration("epochs(3)")(clock, "x") == 32  # 30, to the nearest multiple
    assert bind_duration("percent(1)")(clock, "x") == 8
    assert bind_duration("steps(16)")(clock, "x") == 16
    with pytest.raises(UserError, match=r"steps\(15\) is not a multiple of config.steps_per_call=8; steps\(16\) is"):
        bind_duration("steps(15)")(clock, "config.pretrain.log_every")
    with pytest.raises(UserError, match="cannot be a percentage"):
        bind_duration("percent(10)")(clock._replace(total=0), "config.pretrain.length")


def test_durations_of_epochs_that_end_with_a_short_batch():
    """97 steps of 12,406 images: an epoch is as many examples."""
    clock = Clock(steps_per_epoch=97, examples_per_step=12_406 / 97, total=0, multiple=1)
    assert bind_duration("epochs(2)")(clock, "x") == bind_duration("examples(24812)")(clock, "x") == 194


@pytest.mark.parametrize("name", DURATIONS)
def test_durations_are_positive_and_finite(name):
    for value in ("0", "1e999" if name in ("epochs", "percent") else "-1"):
        with pytest.raises(UserError, match="positive"):
            bind_duration(f"{name}({value})")
