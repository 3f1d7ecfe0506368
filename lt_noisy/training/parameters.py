"""What a network's parameters are, by clu's overview: arrays, or their shapes alone, of any nested dictionary."""

import pathlib
from collections.abc import Mapping
from typing import Any

from clu import parameter_overview

from lt_noisy import processes
from lt_noisy.errors import say
from lt_noisy.files import replacing

Parameters = dict[str, Any]  # nested, its leaves arrays or `jax.ShapeDtypeStruct`s


def parts(parameters: Parameters) -> dict[str, int]:
    """Parameters of each part: of `encoder` and `head`, or of an encoder's `stem` and `group1`.

    A part is what comes before the first underscore of a name at the top.
    """
    counted: dict[str, int] = {}
    for name, tree in parameters.items():
        part = name.partition("_")[0]
        within = tree if isinstance(tree, Mapping) else {name: tree}
        counted[part] = counted.get(part, 0) + int(parameter_overview.count_parameters(dict(within)))
    return counted


def line(parameters: Parameters) -> str:
    """Such as "5,500 parameters (encoder 4,836, head 664)"."""
    counted = parts(parameters)
    return f"{sum(counted.values()):,} parameters ({', '.join(f'{name} {n:,}' for name, n in counted.items())})"


def table(parameters: Parameters) -> str:
    """Every array with its shape, type and size, then the total, also in bytes."""
    return parameter_overview.get_parameter_overview(parameters, include_stats=False)


def tell(name: str, directory: pathlib.Path, parameters: Parameters) -> None:
    """Says the line of a stage or network, and writes the table into its directory as `parameters.txt`."""
    say(f"{name}: {line(parameters)}")
    if processes.first():
        with replacing(directory / "parameters.txt", "w") as file:
            file.write(f"{table(parameters)}\n")
