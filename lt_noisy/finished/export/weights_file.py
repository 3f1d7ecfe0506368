"""A finished stage's encoder, and a linear classifier on it, under the names that PyTorch programs give the layers.

So they load there. How images were prepared stands beside them as timm writes it, which `pretrained(...)` reads again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from lt_noisy.augment import AUGMENTS
from lt_noisy.config.spec import Call, parse, read
from lt_noisy.errors import UserError
from lt_noisy.models.table import MODELS
from lt_noisy.training.checkpoint import final
from lt_noisy.weights import names
from lt_noisy.weights.preprocessing import Interpolation, Preprocessing, timm_config


def exported(stage: Path, naming: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any], bool]:
    """The tensors of a finished stage's network by the names of a PyTorch program, and timm's config of them.

    The last says whether it has a head that has no form among them, such as a cosine one.

    Args:
      stage: its directory, or that of one of its networks, such as `folds/fold_0`.
      naming: such as "timm"; empty: the first that is known of the encoder.

    Raises:
      UserError: it has no encoder, or no naming of it is known, or nothing says how its images were prepared.
    """
    arrays, card = final(stage)
    config = card["config"]
    section = config[card["stage"]]
    of_encoder = {
        f"{group}.{name.removeprefix(prefix)}": array
        for group in ("params", "batch_stats")
        for name, array in arrays.items()
        if name.startswith(prefix := f"state.{group}.encoder.")
    }
    if not of_encoder or "augment" not in section:
        raise UserError(f"{stage} has no encoder of its own; .onnx and .stablehlo take the one before it in")
    encoder = read(config["model"], MODELS, "config.model").value(jnp.float32, None)
    chosen = names.chosen(encoder, naming)
    tensors = names.tensors_of(chosen, of_encoder)
    kernel, bias = (arrays.get(f"state.params.head.dense.{name}") for name in ("kernel", "bias"))
    if kernel is not None and bias is not None and chosen.head:
        tensors |= {
            f"{chosen.head}.weight": np.ascontiguousarray(kernel.T, np.float32),
            f"{chosen.head}.bias": np.asarray(bias, np.float32),
        }
    left_out = f"{chosen.head}.weight" not in tensors and any(n.startswith("state.params.head.") for n in arrays)
    return tensors, timm_config(_prepared(card, section), parse(config["model"]).name), left_out


def _prepared(card: Mapping[str, Any], section: Mapping[str, Any]) -> Preprocessing:
    """How the stage's augmentation prepares images: what it makes of a black and of a white one."""
    shape = card["image_shape"]
    evaluate = read(section["augment"], AUGMENTS, "augment").value.evaluate
    black, white = (np.asarray(evaluate(jnp.full(shape, value, jnp.float32)), np.float64) for value in (0.0, 1.0))
    if black.shape[0] != black.shape[1]:
        raise UserError(f"images of {black.shape[1]} x {black.shape[0]} pixels are not square: no file can say so")
    middle = len(black) // 2
    low, high = black[middle, middle], white[middle, middle]
    mean, std = (tuple(np.round(numbers, 6).tolist()) for numbers in (-low / (high - low), 1 / (high - low)))
    return Preprocessing(mean, std, len(black), _interpolation(parse(section["augment"])))


def _interpolation(augment: Call) -> Interpolation:
    """By which the augmentation brings images to its size; `bilinear`, as sources do, where it does not."""
    if augment.name == "resize":
        return augment.kwargs["interpolation"]
    nested = [value for value in (*augment.args, *augment.kwargs.values()) if isinstance(value, Call)]
    return next((each for each in map(_interpolation, nested) if each != "bilinear"), "bilinear")
