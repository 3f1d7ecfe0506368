"""What the command line of a plan asks for."""

import math
import pathlib
from typing import NamedTuple

from absl import flags

from lt_noisy.config.command_line import Command, parse
from lt_noisy.errors import UserError, did_you_mean
from lt_noisy.files import user_path
from lt_noisy.runs.planning.accelerators import ACCELERATORS, GB, Accelerator

COMPILERS = ("cpu", "tpu")


class Given(NamedTuple):
    """A training set of which only this is known.

    Attributes:
      examples: N, after the long tail.
      classes: C.
      shape: of an image, [H, W, C] or [D]; None: as the data set's spec says.
    """

    examples: int
    classes: int
    shape: tuple[int, ...] | None


class Request(NamedTuple):
    """What to plan.

    Attributes:
      command: the config, as of a run.
      devices: how many of the accelerator.
      accelerator: a value of `ACCELERATORS`.
      compiler: one of `COMPILERS`: whose program is looked at, the CPU's or, by libtpu, that of the TPU itself.
      given: the data, where they are not to be read.
      efficiency: share of the peak FLOP/s that the devices reach.
      network: bytes/s of a device to the others, each way.
      decode_rate: pictures per second that the hosts together read and decode; None: not known.
      json: where the plan goes; None: nowhere.
    """

    command: Command
    devices: int
    accelerator: Accelerator
    compiler: str
    given: Given | None
    efficiency: float
    network: float
    decode_rate: float | None
    json: pathlib.Path | None


def request(argv: list[str]) -> Request:
    """The command line of a plan, the program's name first.

    Raises:
      UserError: an unknown, missing or wrong flag, in one line.
    """
    values = flags.FlagValues()
    flags.DEFINE_bool("plan", False, "", flag_values=values)
    flags.DEFINE_integer("devices", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_string("accelerator", "", "", flag_values=values)
    flags.DEFINE_string("compiler", "cpu", "", flag_values=values)
    flags.DEFINE_integer("examples", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("classes", None, "", lower_bound=1, flag_values=values)
    flags.DEFINE_string("shape", "", "", flag_values=values)
    flags.DEFINE_float("efficiency", 1.0, "", flag_values=values)
    flags.DEFINE_float("network", None, "", flag_values=values)
    flags.DEFINE_float("decode_rate", None, "", flag_values=values)
    flags.DEFINE_string("json", "", "", flag_values=values)
    values.set_gnu_getopt()  # `--config FILE`
    try:
        rest = values(argv, known_only=True)
    except flags.Error as error:
        raise UserError(f"command line: {' '.join(str(error).split())}") from None
    if values.devices is None:
        raise UserError("--plan takes --devices=N, how many devices to plan for")
    accelerator = _accelerator(values.accelerator)
    command = parse(rest)
    if command.workdir or command.store or command.distributed != "off" or command.profiled is not None:
        raise UserError("--plan trains nothing in no directory: leave --workdir, --store, --distributed, --profile out")
    for name in ("network", "decode_rate"):
        if (number := getattr(values, name)) is not None and not 0 < number < math.inf:
            raise UserError(f"--{name} is above 0, not {number}")
    if not 0 < values.efficiency <= 1:
        raise UserError(f"--efficiency is a share of the peak in (0, 1], not {values.efficiency}")
    return Request(
        command,
        values.devices,
        accelerator,
        _compiler(values.compiler, accelerator),
        _given(values.examples, values.classes, values.shape),
        values.efficiency,
        accelerator.interconnect if values.network is None else values.network * GB,
        values.decode_rate,
        _json(values.json),
    )


def _accelerator(name: str) -> Accelerator:
    if name not in ACCELERATORS:
        raise UserError(
            f"--plan takes --accelerator, one of {', '.join(ACCELERATORS)}"
            + (f", not {name!r}{did_you_mean(name, ACCELERATORS)}" if name else "")
        )
    return ACCELERATORS[name]


def _compiler(name: str, accelerator: Accelerator) -> str:
    if name not in COMPILERS:
        raise UserError(f"--compiler is one of {', '.join(COMPILERS)}, not {name!r}")
    if name == "tpu" and accelerator.topology is None:
        raise UserError(f"--compiler=tpu is for TPUs: a {accelerator.name} is planned by --compiler=cpu")
    return name


def _given(examples: int | None, classes: int | None, shape: str) -> Given | None:
    if examples is None and classes is None and not shape:
        return None
    if examples is None or classes is None:
        raise UserError("--examples=N and --classes=C go together: the training set in place of one that is read")
    if not shape:
        return Given(examples, classes, None)
    sizes = shape.split("x")
    if len(sizes) not in (1, 3) or not all(size.isdecimal() and int(size) for size in sizes):
        raise UserError(f"--shape is that of an image, such as 224x224x3, or the length of a vector, not {shape!r}")
    return Given(examples, classes, tuple(map(int, sizes)))


def _json(name: str) -> pathlib.Path | None:
    if not name:
        return None
    path = user_path(name)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"--json={name} is no file in a directory that exists")
    return path
