"""Files of weights as named arrays: safetensors and NumPy's `.npz`, and with the extra `torch` PyTorch's own."""

import argparse
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lt_noisy.errors import UserError, first_line
from lt_noisy.weights.pairs import Tensors

_TORCH = (".pth", ".pt", ".bin", ".tar", ".ckpt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # where checkpoints of a training keep the network
_OTHER = ("optimizer", "optimizer_states", "scheduler", "lr_schedulers", "scaler", "loops", "callbacks")


def read(path: Path) -> Tensors:
    """All tensors of a file by name, floats as float32.

    Raises:
      UserError: no such file, another kind of file, a damaged one, or PyTorch's without PyTorch.
    """
    if not path.is_file():
        raise UserError(f"{path} {'is a directory' if path.is_dir() else 'does not exist'}: name a file of weights")
    kinds = {".safetensors": load_file, ".npz": _npz, **dict.fromkeys(_TORCH, _torch)}
    if path.suffix not in kinds:
        raise UserError(f"{path}: weights are read from {', '.join(kinds)} files")
    try:
        floats = {name: _float32(tensor) for name, tensor in kinds[path.suffix](path).items()}
    except (OSError, ValueError, EOFError, SafetensorError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    if broken := [name for name, tensor in floats.items() if not np.isfinite(tensor).all()]:
        raise UserError(f"{path}: {broken[0]} has numbers that are not finite")
    return floats


def _float32(tensor: np.ndarray) -> np.ndarray:
    return tensor if tensor.dtype.kind in "iub" else np.asarray(tensor, np.float32)


def _npz(path: Path) -> Tensors:
    with open(path, "rb") as file:  # which NumPy leaves open where it is no zip file
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise ValueError("it holds one array without a name")
        return dict(found)


def _torch(path: Path) -> Tensors:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{path} is read by PyTorch, which is not here: pip install 'lt_noisy[torch]', or save it as safetensors"
        ) from None
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # a program's own flags, as DINO's saves them
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's own, zip's, and what PyTorch says of classes that it does not trust
        raise UserError(f"{path}: it holds more than tensors, or is damaged ({first_line(error)})") from None
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: it holds a {type(found).__name__}, not tensors by name")
    for wrapper in _WRAPPERS:
        if isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    tensors = _flat({name: value for name, value in found.items() if name not in _OTHER}, "")
    return {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in tensors.items()}


def _flat(found: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """{dotted name: tensor} of nested mappings; what is neither is left out."""
    flat: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif hasattr(value, "is_floating_point"):
            flat[f"{prefix}{name}"] = value
    return flat
