"""Which of the known namings a file of weights has; an encoder filled from it, and an encoder as such a file."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from lt_noisy.errors import UserError, did_you_mean
from lt_noisy.models.base import Encoder
from lt_noisy.models.efficientnet import EfficientNetLite
from lt_noisy.models.resnet import ResNet
from lt_noisy.models.vit import ViT
from lt_noisy.training.state import flatten, unflatten
from lt_noisy.weights import efficientnet, resnet, vit
from lt_noisy.weights.pairs import Naming, Tensors

PyTree = Any
NAMINGS: Mapping[type[Encoder], Callable[[Any], tuple[Naming, ...]]] = {
    ResNet: resnet.namings,
    ViT: vit.namings,
    EfficientNetLite: efficientnet.namings,
}

# Of several copies of an encoder in one checkpoint the one that was trained by gradients, but DINO's teacher.
_PREFERRED = ("module.encoder_q.", "teacher.backbone.", "teacher.", "backbone.", "encoder.", "")
_COPIES = ("momentum", "encoder_k", "teacher", "student", "target", "ema")
# Parts of a checkpoint that stand beside the encoder, which self-supervised programs leave in it.
_BESIDE = (
    "queue",
    "dino_loss",
    "projector",
    "projection",
    "predictor",
    "prediction",
    "classifier",
    "head",
    "fc",
    "prototypes",
    "decoder",
)


def known(encoder: Encoder) -> tuple[Naming, ...]:
    """The namings of an encoder's layers; `UserError` where none is known."""
    namings = NAMINGS.get(type(encoder))
    if namings is None:
        kinds = ", ".join(sorted(kind.__name__ for kind in NAMINGS))
        raise UserError(f"no published weights fit {type(encoder).__name__}, only {kinds}")
    return namings(encoder)


def fill(encoder: Encoder, template: PyTree, tensors: Tensors, prefix: str | None = None) -> PyTree:
    """The encoder's parameters and statistics out of a file.

    Args:
      encoder: the network.
      template: {"params": ..., "batch_stats": ...} of it, anything with shapes.
      tensors: of the file.
      prefix: of the names in it; None: found.

    Returns:
      Arrays float32 in the place of the template's leaves.

    Raises:
      UserError: no naming fits, a tensor is missing or of another shape, or one is left that nothing reads.
    """
    if prefix is not None:  # what else the file holds is then of no concern
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    naming, prefix = _naming(known(encoder), tensors, prefix)
    wanted = {name: np.shape(leaf) for name, leaf in flatten(template).items()}
    missing = [prefix + theirs for pair in naming.pairs for theirs in pair.theirs if prefix + theirs not in tensors]
    if missing:
        raise UserError(f"{_some(missing)} missing, by the naming of {naming.name}: {_another(naming, missing)}")
    if left := _unread(naming, prefix, tensors):
        raise UserError(f"{_some(left)} of no use to it, by the naming of {naming.name}: {_another(naming, left)}")
    found = {}
    for pair in naming.pairs:
        if pair.ours not in wanted:
            raise ValueError(f"the naming {naming.name} has {pair.ours}, the network does not")
        given, shape = [tensors[prefix + theirs] for theirs in pair.theirs + pair.beside], wanted[pair.ours]
        try:
            array = pair.form.load(given, shape)
        except UserError as error:
            raise UserError(f"{prefix}{pair.theirs[0]}: {error}") from None
        except ValueError:  # of other dimensions
            array = None
        if array is None or array.shape != shape:
            sizes = ", ".join("x".join(map(str, tensor.shape)) for tensor in given)
            raise UserError(f"{prefix}{pair.theirs[0]} is {sizes}, and {list(shape)} is asked for: another network")
        found[pair.ours] = np.ascontiguousarray(array, np.float32)
    return unflatten(template, found)


def chosen(encoder: Encoder, name: str) -> Naming:
    """The naming of this name, or the first that is known; `UserError` where there is none."""
    namings = {naming.name: naming for naming in known(encoder)}
    if name and name not in namings:
        raise UserError(f"naming {name!r} is not one of {', '.join(namings)}{did_you_mean(name, namings)}")
    return namings[name] if name else next(iter(namings.values()))


def tensors_of(naming: Naming, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The encoder's parameters and statistics, which are given by our names, as a file has them: float32."""
    return {
        name: np.ascontiguousarray(tensor, np.float32)
        for pair in naming.pairs
        for name, tensor in zip(pair.theirs, pair.form.save(np.asarray(arrays[pair.ours])), strict=True)
    }


def _naming(namings: tuple[Naming, ...], tensors: Tensors, prefix: str | None) -> tuple[Naming, str]:
    """The naming and the prefix under which most of its names are there."""
    fits = [
        (sum(start + theirs in tensors for pair in naming.pairs for theirs in pair.theirs), naming, start)
        for naming in namings
        for start in ({prefix} if prefix is not None else set(_prefixes(naming, tensors)))
    ]
    best = max((fit[0] for fit in fits), default=0)
    if not best:
        names = ", ".join(naming.name for naming in namings)
        raise UserError(f"its names, such as {next(iter(tensors), 'none')}, are not those of {names}")
    same = [(naming, start) for number, naming, start in fits if number == best]
    return min(same, key=lambda fit: _rank(fit[1]))


def _prefixes(naming: Naming, tensors: Tensors) -> Iterator[str]:
    """What stands before the first names of a naming, up to a dot or a stroke."""
    for first in (pair.theirs[0] for pair in naming.pairs[:3]):
        for name in tensors:
            if name.endswith(first) and (prefix := name.removesuffix(first))[-1:] in ("", ".", "/"):
                yield prefix


def _rank(prefix: str) -> tuple[int, int, str]:
    known = _PREFERRED.index(prefix) if prefix in _PREFERRED else len(_PREFERRED)
    copy = any(word in prefix for word in _COPIES) and prefix not in _PREFERRED
    return int(copy), known, prefix


def _unread(naming: Naming, prefix: str, tensors: Tensors) -> list[str]:
    """Names that nothing reads, and that are neither a classifier nor what training leaves beside an encoder."""
    used = {prefix + theirs for pair in naming.pairs for theirs in pair.theirs}

    def known(name: str) -> bool:
        if name in used or name.endswith("num_batches_tracked"):
            return True
        if name.startswith(prefix):
            return name.removeprefix(prefix).startswith(naming.also)
        part = name.removeprefix("module.").removeprefix("model.").partition(".")[0]
        return part.startswith(_BESIDE) or any(word in part for word in _COPIES)

    return [name for name in tensors if not known(name)]


def _some(names: list[str]) -> str:
    """`a, b, c and 5 more are`."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"


def _another(naming: Naming, names: list[str]) -> str:
    """Why names are missing or left, as far as an argument of the model says it."""
    said = sorted({argument for part, argument in naming.arguments if any(part in name for name in names)})
    return f"it is another network{', see ' * bool(said)}{' and '.join(said)}{' of the model' * bool(said)}"
