"""The command line: flags to a config, every mistake in one line."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from lt_noisy.config.python_file import errors_named, read_module
from lt_noisy.errors import UserError, did_you_mean
from lt_noisy.training import profile

USAGE = """\
python main.py --config=configs/NAME.py[:VARIANT] [--workdir=DIR] [--store=DIR] [--distributed=off|auto|env]
               [--profile=[STAGE/]FIRST:LAST] [--quiet] [--config.FIELD=VALUE ...]
python main.py --config=... --plan --devices=N --accelerator=NAME [--examples=N --classes=C] [--json=FILE] [...]
python main.py --list [NAME]
python main.py check SPEC [--json=FILE] [--png=FILE]
python main.py predict RUN[/STAGE] IMAGES... [--out=FILE.csv] [--top=5]
python main.py review RUN[/STAGE] [--out=DIR] [--limit=N] [--neighbours=3] [--size=160]
python main.py apply RUN DECISIONS.csv [--out=DIR]
python main.py report RUN... [--out=DIR] [--embedding=pca|umap|none]
python main.py export RUN[/STAGE] FILE.onnx|FILE.stablehlo|FILE.safetensors [--license=ID] [--naming=NAME]

  --config    the experiment; its docstring says what it costs and shows. VARIANT: 'small' for a CPU-sized one.
  --workdir   where the run goes (default: runs/NAME-HASH; the same command goes on where it stopped).
  --store     where stages go that runs of the same code share: the workdir gets links to them.
  --distributed
              whether this is one of several processes that train together: off; env: as JAX_COORDINATOR_ADDRESS,
              JAX_NUM_PROCESSES and JAX_PROCESS_ID say; auto: as JAX finds out from Slurm or a TPU.
  --profile   traces these steps of the first training stage, or of STAGE, into the workdir, such as 100:110.
  --quiet     prints warnings, errors and the results at the end alone.
  --config.x  any field of the config, such as --config.seed=1 or --config.finetune.loss='gce(q=0.7)'.
  --plan      what the run would take on N devices that need not be there, such as h100 or v5e: operations, memory,
              bytes sent, time. Trains nothing. --examples and --classes stand for data that are not there; docs/plan.md
              has its other flags: --shape, --network, --decode_rate, --efficiency, --compiler.
  --list      what a config can name; with a NAME, such as losses or supervised, all of that.

  check       looks at a data set, such as "folder(path='photos', size=64)", and reports all that is wrong with it;
              trains nothing. Exit status 1 where something is. --json writes the whole report, --png a histogram.

  export      writes a finished run's network for other programs, with a model card: as a graph whose outputs were
              compared with the run's own, or as weights under names of PyTorch's programs (docs/export.md).

  predict     classes of pictures, folders and lists by a finished run's network, as a CSV, with a flag for what is
              unlike the training images. Exit status 1 where a file cannot be read (docs/own_data.md).

  review      writes a page on which to look at the labels that are probably wrong, and to decide.

  apply       makes a corrected training set of these decisions, from which the same config trains.

  report      writes one page of a finished run, or of several side by side: figures, and tables for papers
              (docs/report.md).

Where the package is installed `lt-noisy` is the same program.
"""


def _joined(argv: list[str]) -> list[str]:
    """`--config x` and `--config.field x` as `--config=x` and `--config.field=x`, one hyphen before them as two."""
    joined: list[str] = []
    for argument in argv:
        argument = re.sub(r"^-(?=config\b)", "--", argument)
        last = joined[-1] if joined else ""
        if last.partition(".")[0] == "--config" and "=" not in last and not argument.startswith("--"):
            joined[-1] = f"{last}={argument}"
        else:
            joined.append(argument)
    return joined


def listed(argv: list[str]) -> str | None:
    """What `--list NAME` asks for: the name, the empty string without one; None where the command line has no `--list`.

    Raises:
      UserError: something else stands beside it.
    """
    flags_given = [argument for argument in argv[1:] if argument.partition("=")[0] == "--list"]
    if not flags_given:
        return None
    names = [argument for argument in argv[1:] if argument not in flags_given]
    names += [flag.removeprefix("--list=") for flag in flags_given if "=" in flag]
    if len(names) > 1 or any(name.startswith("-") for name in names):
        raise UserError(f"--list only prints, and takes one name at most, not {' '.join(names)!r}")
    return names[0] if names else ""


def _read(path: str, variant: str) -> ConfigDict:
    """What the config file's `get_config` returns."""
    module = read_module(path)
    with errors_named(path):
        config = module.get_config(variant) if variant else module.get_config()
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config returns a ConfigDict, not {type(config).__name__}")
    return config


def read_config(text: str) -> tuple[ConfigDict, str]:
    """The config of `FILE.py[:VARIANT]`, and what its runs are called: the file's name with the variant."""
    path, _, variant = text.partition(":")
    return _read(path, variant), pathlib.Path(path).stem + (f"-{variant}" if variant else "")


def set_fields(config: ConfigDict, values: Mapping[str, Any]) -> None:
    """Sets {"finetune.loss": ...} of a config in place; refuses a field that it does not have, and another type."""
    for field, value in values.items():
        flag = f"--config.{field}"
        before, (path, _, last) = _overridden(config, flag), field.rpartition(".")
        if type(before) is float and type(value) is int:
            value = float(value)
        if isinstance(before, ConfigDict) or type(value) is not type(before):
            raise UserError(_wrong_type(config, f"{flag}={value}"))
        section = _overridden(config, f"--config.{path}") if path else config
        section[last] = value


def _overridden(config: ConfigDict, override: str) -> Any:
    """The value in the place of `--config.FIELD=VALUE`; refuses a field that the config does not have."""
    flag, value, path = override.partition("=")[0], config, "config"
    for name in flag.removeprefix("--config.").split("."):
        if not isinstance(value, ConfigDict):
            raise UserError(f"{flag}: {path} is {value!r} and has no fields")
        if name not in value:
            known = sorted(value.keys())
            raise UserError(f"{flag}: {path} has no {name!r}{did_you_mean(name, known)} (it has {', '.join(known)})")
        value, path = value[name], f"{path}.{name}"
    return value


def _last_tuples(config: ConfigDict, argv: list[str]) -> list[str]:
    """The arguments without overrides of a tuple that a later one replaces: ml_collections would join them."""
    last = {argument.partition("=")[0]: place for place, argument in enumerate(argv)}
    return [
        argument
        for place, argument in enumerate(argv)
        if last[argument.partition("=")[0]] == place
        or not argument.startswith("--config.")
        or not isinstance(_overridden(config, argument), tuple)
    ]


def _wrong_type(config: ConfigDict, override: str) -> str:
    flag, _, text = override.partition("=")
    value = _overridden(config, flag)
    if isinstance(value, ConfigDict):
        return f"{flag} is a section: set its fields one by one (it has {', '.join(sorted(value.keys()))})"
    return f"{flag} takes {type(value).__name__}, not {text!r}"


class Command(NamedTuple):
    """What the command line asks for.

    Attributes:
      config: of the config file, overrides applied.
      workdir: see `USAGE`, as the others.
      config_name: for the default workdir.
      store: where shared stages go.
      distributed: one of `processes.MODES`.
      profiled: steps to trace.
      quiet: whether it prints warnings, errors and results alone.
    """

    config: ConfigDict
    workdir: str
    config_name: str
    store: str
    distributed: str
    profiled: profile.Steps | None
    quiet: bool = False


def parse(argv: list[str]) -> Command:
    """Flags to what they ask for; `UserError` (one line) if one is wrong."""
    argv = _joined(argv)
    files = [argument.removeprefix("--config=") for argument in argv if argument.startswith("--config=")]
    if not files or not files[-1]:
        raise UserError("no --config given; try: python main.py --config=configs/digits_lt_noise.py")
    config, name = read_config(files[-1])
    argv = [argument for argument in argv if not argument.startswith("--config=")]
    overrides = [argument for argument in argv if argument.startswith("--config.")]
    for override in overrides:
        _overridden(config, override)
    argv = _last_tuples(config, argv)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "where the run goes", flag_values=values)
    flags.DEFINE_string("store", "", "where shared stages go", flag_values=values)
    flags.DEFINE_string("distributed", "off", "how this process finds the others", flag_values=values)
    flags.DEFINE_string("profile", "", "steps to trace", flag_values=values)
    flags.DEFINE_boolean("quiet", False, "warnings, errors and results alone", flag_values=values)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)[1:]
    except Exception as error:  # of absl or of ml_collections
        for override in overrides:
            if str(error).startswith(f"flag {override}:"):  # absl names the one that it cannot parse
                raise UserError(_wrong_type(config, override)) from None
        raise UserError(f"command line: {' '.join(str(error).split())}") from None
    if rest:
        raise UserError(f"left-over argument {rest[0]!r} (overrides look like --config.seed=1)")
    profiled = profile.parse(values.profile)
    return Command(config, values.workdir, name, values.store, values.distributed, profiled, values.quiet)
