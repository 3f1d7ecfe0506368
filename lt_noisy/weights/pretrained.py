"""The spec of weights that were trained elsewhere, and what is read of them."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lt_noisy.config.spec import table
from lt_noisy.errors import prefixed
from lt_noisy.files import user_path
from lt_noisy.models.base import Encoder
from lt_noisy.weights import names
from lt_noisy.weights.files import read
from lt_noisy.weights.pairs import Tensors
from lt_noisy.weights.preprocessing import Preprocessing, chosen

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Weights in a file; nothing is read before it is asked for.

    Attributes:
      path: of the file.
      mean: as `pretrained` has it, as are the others.
    """

    path: Path
    mean: tuple
    std: tuple
    size: int
    interpolation: str
    prefix: str | None

    @property
    def sha256(self) -> str:
        """Of the file."""
        return _read(self.path).sha256

    @property
    def preprocessing(self) -> Preprocessing:
        """How images were prepared; `UserError` where nobody says so."""
        return chosen(self.path, self.mean, self.std, self.size, self.interpolation)

    def fill(self, encoder: Encoder, template: PyTree) -> PyTree:
        """The encoder's parameters and statistics, as `names.fill`; errors name the file."""
        with prefixed(self.path):
            return names.fill(encoder, template, _read(self.path).tensors, self.prefix)


class _Read(NamedTuple):
    tensors: Tensors
    sha256: str


def _read(path: Path) -> _Read:
    try:
        stat = path.stat()
    except OSError:
        read(path)  # says what is wrong
        raise
    return _remembered(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _remembered(path: Path, size: int, changed: int) -> _Read:
    with open(path, "rb") as file:
        return _Read(read(path), hashlib.file_digest(file, "sha256").hexdigest())


def pretrained(
    path: str,
    mean: tuple = (),
    std: tuple = (),
    size: int = 0,
    interpolation: Literal["", "bilinear", "bicubic"] = "",
    prefix: str = "",
) -> Pretrained:
    """An encoder's weights that were trained elsewhere; the network is `config.model`, the naming is found.

    `.safetensors` and `.npz` (big_vision) are read as they are, `.pth` with the extra `torch` (`weights_only=True`). A
    tensor that is missing, or that nothing reads, is refused unless it is a classifier's.
    How images are prepared is said by the file beside the weights (`<name>.json` or `config.json` with timm's
    `pretrained_cfg`, or Hugging Face's `preprocessor_config.json`), or has to be written here; what is written wins.

    Args:
      path: of the file.
      mean: of the pixels in [0, 1], one number or three; (): as the file beside it says.
      std: likewise.
      size: pixels of the square images; 0: as the file beside it says.
      interpolation: by which images are brought to that size; empty: as the file beside it says.
      prefix: of the encoder's names in the file, such as 'module.encoder_q.'; empty: found.

    Raises:
      UserError: when the file is read, for what it cannot be.
    """
    return Pretrained(user_path(path), tuple(mean), tuple(std), size, interpolation, prefix or None)


PRETRAINED = table({"pretrained": pretrained})
