"""Files of weights: read as named arrays, or refused in one line."""

import builtins
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from lt_noisy.errors import UserError
from lt_noisy.models.resnet import ResNet
from lt_noisy.weights.files import read
from lt_noisy.weights.pretrained import PRETRAINED

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3)}


def test_safetensors_and_npz(tmp_path):
    save_file({**ARRAYS, "half": np.ones(2, np.float16)}, tmp_path / "x.safetensors")
    found = read(tmp_path / "x.safetensors")
    assert np.array_equal(found["a.weight"], ARRAYS["a.weight"]) and found["half"].dtype == np.float32
    np.savez(tmp_path / "x.npz", **ARRAYS)
    assert set(read(tmp_path / "x.npz")) == set(ARRAYS)


def damaged(path):
    save_file(ARRAYS, path)
    path.write_bytes(path.read_bytes()[:-4])


def pickled(path):
    np.savez(path, a=np.array([{}], dtype=object))


def one_array(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def not_finite(path):
    save_file({"a.weight": np.array([1, np.nan], np.float32)}, path)


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("no.safetensors", lambda path: None, "does not exist: name a file of weights"),
        ("dir.safetensors", lambda path: path.mkdir(), "is a directory: name a file"),
        ("x.h5", lambda path: path.write_bytes(b""), r"read from \.safetensors, \.npz, \.pth"),
        ("x.safetensors", damaged, "x.safetensors: .*"),
        ("x.npz", pickled, "x.npz: Object arrays"),
        ("x.npz", lambda path: path.write_bytes(b"no"), "x.npz: "),
        ("x.npz", lambda path: path.write_bytes(b"PK\x03\x04 cut off"), "x.npz: File is not a zip file"),
        ("x.npz", one_array, "x.npz: it holds one array without a name"),
        ("x.safetensors", not_finite, r"a\.weight has numbers that are not finite"),
    ],
)
def test_what_is_refused(tmp_path, name, make, says):
    make(tmp_path / name)
    with pytest.raises(UserError, match=says):
        read(tmp_path / name)


def test_pytorchs_own_without_pytorch(tmp_path, monkeypatch):
    path, real = tmp_path / "x.pth", builtins.__import__

    def without(name, *rest, **options):
        if name == "torch":
            raise ImportError
        return real(name, *rest, **options)

    path.write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        UserError, match=r"which is not here: pip install 'lt_noisy\[torch\]', or save it as safetensors"
    ):
        read(path)


def test_pytorchs_own(tmp_path):
    torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")
    weight = torch.arange(6.0).reshape(2, 3)
    for state in ({"a.weight": weight}, {"state_dict": {"a.weight": weight}, "optimizer": {"b": weight}, "epoch": 3}):
        torch.save(state, tmp_path / "x.pth")
        found = read(tmp_path / "x.pth")
        assert set(found) == {"a.weight"} and np.array_equal(found["a.weight"], ARRAYS["a.weight"])
    torch.save({"teacher": {"backbone.a": weight}, "student": {"backbone.a": weight}}, tmp_path / "x.pth")
    assert set(read(tmp_path / "x.pth")) == {"teacher.backbone.a", "student.backbone.a"}
    torch.save({"a": object}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds more than tensors, or is damaged"):
        read(tmp_path / "x.pth")


TIMM = {"pretrained_cfg": {"input_size": [3, 8, 8], "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bicubic"}}
HF = {
    "image_mean": [0.1] * 3,
    "image_std": [0.3] * 3,
    "resample": 2,
    "size": {"height": 9, "width": 9},
    "do_resize": True,
}


@pytest.mark.parametrize(
    ("beside", "config", "expected"),
    [
        ("net.json", TIMM, ((0.5,) * 3, (0.2,) * 3, 8, "bicubic")),
        ("config.json", TIMM, ((0.5,) * 3, (0.2,) * 3, 8, "bicubic")),
        ("preprocessor_config.json", HF, ((0.1,) * 3, (0.3,) * 3, 9, "bilinear")),
        (
            "preprocessor_config.json",
            {**HF, "do_center_crop": True, "crop_size": {"height": 7, "width": 7}, "size": {"shortest_edge": 8}},
            ((0.1,) * 3, (0.3,) * 3, 7, "bilinear"),
        ),
        ("preprocessor_config.json", {**HF, "do_normalize": False}, ((0.0,), (1.0,), 9, "bilinear")),
    ],
)
def test_the_file_beside_the_weights(tmp_path, beside, config, expected):
    (tmp_path / beside).write_text(json.dumps(config))
    assert PRETRAINED["pretrained"](str(tmp_path / "net.safetensors")).preprocessing == expected


def test_what_is_asked_for_wins(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    path = str(tmp_path / "net.safetensors")
    assert PRETRAINED["pretrained"](path, size=16, mean=(0.25,), std=(0.5,)).preprocessing == (
        (0.25,),
        (0.5,),
        16,
        "bicubic",
    )


@pytest.mark.parametrize(
    ("config", "arguments", "says"),
    [
        (None, {}, "no file beside it says how images were prepared; write mean, std, size, interpolation"),
        (None, {"mean": (0.5,), "std": (0.5,)}, "write size, interpolation of its training"),
        ({"model_type": "vit"}, {}, "write mean, std, size"),
        ({"pretrained_cfg": {"mean": [0.5]}}, {}, r"config\.json: it does not say what images are like"),
        ([1], {}, r"config\.json: it does not say"),
        (TIMM, {"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "one number or three each"),
        (TIMM, {"std": (0.5, 0.0, 0.5)}, "std above 0"),
        (TIMM, {"mean": ("a", "b", "c")}, "must be numbers"),
        ({"pretrained_cfg": {**TIMM["pretrained_cfg"], "std": 0.5}}, {}, "std=0.5 must be numbers"),
        ({"pretrained_cfg": {**TIMM["pretrained_cfg"], "interpolation": "lanczos"}}, {}, "not lanczos"),
        (TIMM, {"size": -1}, "size=-1 is a number of pixels"),
    ],
)
def test_preparation_that_nobody_knows(tmp_path, config, arguments, says):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=says):
        _ = PRETRAINED["pretrained"](str(tmp_path / "net.safetensors"), **arguments).preprocessing


def test_errors_name_the_file(tmp_path):
    save_file({"other.weight": np.ones(2, np.float32)}, tmp_path / "net.safetensors")
    weights = PRETRAINED["pretrained"](str(tmp_path / "net.safetensors"))
    with pytest.raises(UserError, match=r"net\.safetensors: its names, such as other\.weight, are not those of"):
        weights.fill(ResNet((1,), 4, "cifar", True, jnp.float32, None), {})
    assert len(weights.sha256) == 64
