"""How images were prepared for a network when it was trained: as the file beside its weights says, or as asked for."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lt_noisy.errors import UserError

Interpolation = Literal["bilinear", "bicubic"]
_RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers, as Hugging Face writes them


class Preprocessing(NamedTuple):
    """How images are prepared for a network.

    Attributes:
      mean: of each channel, of pixels in [0, 1].
      std: likewise.
      size: of the square images, in pixels.
      interpolation: by which images of another size are brought to it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    interpolation: Interpolation

    def describe(self) -> str:
        """One line."""
        return f"{self.size} pixels, {self.interpolation}, mean={self.mean}, std={self.std}"


def said(path: Path) -> dict[str, Any]:
    """What the JSON file beside the weights says of `Preprocessing`'s fields; the empty dict where there is none.

    `<name of the weights>.json` and timm's `config.json` hold a `pretrained_cfg`, Hugging Face's
    `preprocessor_config.json` its own fields.

    Raises:
      UserError: a file that cannot be read, or a value that is no such thing.
    """
    for beside, read in (
        (path.with_suffix(".json"), _timm),
        (path.parent / "preprocessor_config.json", _huggingface),
        (path.parent / "config.json", _timm),
    ):
        if not beside.is_file():
            continue
        try:
            found = read(json.loads(beside.read_text()))
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            raise UserError(f"{beside}: it does not say what images are like as timm or Hugging Face do") from None
        if found:
            return found
    return {}


def chosen(path: Path, mean: tuple, std: tuple, size: int, interpolation: str) -> Preprocessing:
    """What is asked for, else what the file beside the weights says.

    Args:
      path: of the weights.
      mean: (), or one number or three.
      std: likewise.
      size: 0, or pixels.
      interpolation: the empty string, or a name.

    Raises:
      UserError: neither says it.
    """
    asked = {"mean": mean, "std": std, "size": size, "interpolation": interpolation}
    written = {name: value for name, value in asked.items() if value}
    values = written if len(written) == len(asked) else said(path) | written
    if missing := [name for name in asked if name not in values]:
        raise UserError(
            f"{path}: no file beside it says how images were prepared; write {', '.join(missing)} of its training into "
            f"pretrained(...), such as mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, "
            f"interpolation=bilinear where that is ImageNet's usual recipe"
        )
    try:
        mean, std = (tuple(map(float, values[name])) for name in ("mean", "std"))
    except (TypeError, ValueError):
        mean, std = values["mean"], values["std"]
        raise UserError(f"{path}: mean={mean} and std={std} must be numbers") from None
    numbers = all(math.isfinite(x) for x in (*mean, *std))
    if not numbers or len(mean) not in (1, 3) or len(mean) != len(std) or min(std) <= 0:
        raise UserError(f"{path}: mean={mean} and std={std} must be one number or three each, std above 0")
    if values["interpolation"] not in get_args(Interpolation):
        raise UserError(f"{path}: images are resized bilinear or bicubic, not {values['interpolation']}")
    if values["size"] < 1:
        raise UserError(f"{path}: size={values['size']} is a number of pixels")
    return Preprocessing(mean, std, values["size"], values["interpolation"])


def timm_config(prepared: Preprocessing, architecture: str) -> dict[str, Any]:
    """What `said` reads again, and timm too."""
    mean, std, size, interpolation = prepared
    shown = {"input_size": [len(mean), size, size], "mean": mean, "std": std, "interpolation": interpolation}
    return {"architecture": architecture, "pretrained_cfg": {**shown, "crop_pct": 1.0}}


def _timm(config: Mapping[str, Any]) -> dict[str, Any]:
    found = config.get("pretrained_cfg", {})
    if not found:
        return {}
    _, height, width = found["input_size"]
    if height != width:
        raise ValueError
    return {**{name: found[name] for name in ("mean", "std", "interpolation")}, "size": int(height)}


def _huggingface(config: Mapping[str, Any]) -> dict[str, Any]:
    if abs(config.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise ValueError
    normalised = config.get("do_normalize", True)
    size = config["crop_size"] if config.get("do_center_crop") else config["size"]
    if isinstance(size, Mapping):
        size = size.get("height") or size["shortest_edge"]
    return {
        "mean": config["image_mean"] if normalised else (0.0,),
        "std": config["image_std"] if normalised else (1.0,),
        "size": int(size),
        "interpolation": _RESAMPLE.get(config["resample"], "another way"),
    }
