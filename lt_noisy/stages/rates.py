"""How fast, and whether at all, each layer of an encoder is trained beside the head on it."""

from collections.abc import Iterable
from typing import Protocol

from lt_noisy.augment.base import Augment
from lt_noisy.errors import UserError
from lt_noisy.models.base import depths
from lt_noisy.stages.base import Job
from lt_noisy.stages.origin import encoder_shapes
from lt_noisy.stages.prediction import prepared_shape


class Rates(Protocol):
    """The fields of a classifier's section that set its learning rates."""

    @property
    def augment(self) -> Augment: ...

    @property
    def freeze_encoder(self) -> bool: ...

    @property
    def encoder_rate(self) -> float: ...

    @property
    def layer_decay(self) -> float: ...

    @property
    def last_blocks(self) -> int: ...


def of_layers(section: Rates, layers: Iterable[str]) -> dict[str, float]:
    """The learning rates of the encoder's layers relative to the head's, for `optim.by_part`."""
    rate = 0.0 if section.freeze_encoder else section.encoder_rate
    if section.layer_decay == 1 and not section.last_blocks:
        return {} if rate == 1 else {"encoder": rate}
    depth = depths(layers)
    deepest = max(depth.values(), default=0)
    blocks = sorted({depth[name] for name in depth if "block" in name})
    first = blocks[-section.last_blocks] if section.last_blocks else 0
    return {
        f"encoder/{name}": rate * section.layer_decay ** (deepest - d) if d >= first else 0.0
        for name, d in depth.items()
    }


def check(job: Job, section: Rates) -> None:
    """Refuses rates that make no sense, and blocks that the encoder has not."""
    where = f"config.{job.name.partition('/')[0]}"
    if not section.encoder_rate > 0:
        raise UserError(f"{where}.encoder_rate is above 0, not {section.encoder_rate} (freeze_encoder=True freezes it)")
    if not 0 < section.layer_decay <= 1:
        raise UserError(f"{where}.layer_decay is above 0 and at most 1, not {section.layer_decay}")
    if section.freeze_encoder and (section.layer_decay != 1 or section.last_blocks):
        raise UserError(f"{where}: layer_decay and last_blocks are of a trained encoder; set freeze_encoder=False")
    if section.last_blocks:
        shapes = encoder_shapes(job, prepared_shape(job, section.augment)).get("params", {})
        blocks = len({depth for name, depth in depths(shapes).items() if "block" in name})
        if not 0 < section.last_blocks <= blocks:
            raise UserError(
                f"{where}.last_blocks is 0 to {blocks}, the blocks of config.model, not {section.last_blocks}"
            )
