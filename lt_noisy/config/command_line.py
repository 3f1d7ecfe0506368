"""The command line: flags to a config, every mistake in one line."""

import pathlib

from absl import flags
from ml_collections import ConfigDict, config_flags

from lt_noisy.errors import UserError, did_you_mean

USAGE = """\
python main.py --config=configs/NAME.py[:VARIANT] [--workdir=DIR] [--store=DIR] [--config.FIELD=VALUE ...]

  --config    the experiment; its docstring says what it costs and shows. VARIANT: 'small' for a CPU-sized one.
  --workdir   where the run goes (default: runs/NAME-HASH; the same command goes on where it stopped).
  --store     where stages go that runs of the same code share: the workdir gets links to them.
  --config.x  any field of the config, such as --config.seed=1 or --config.finetune.loss='gce(q=0.7)'.
"""


def _joined(argv: list[str]) -> list[str]:
    """`--config x` and `--config.field x` as `--config=x` and `--config.field=x`."""
    joined: list[str] = []
    for argument in argv:
        last = joined[-1] if joined else ""
        if last.partition(".")[0] == "--config" and "=" not in last and not argument.startswith("--"):
            joined[-1] = f"{last}={argument}"
        else:
            joined.append(argument)
    return joined


def _refuse_override(argv: list[str], error: Exception) -> None:
    """`UserError` for the first override of a field that the config does not have, or whose value `error` is about."""
    overrides = [argument for argument in argv if argument.startswith("--config.")]
    config = parse([argument for argument in argv if argument not in overrides])[0] if overrides else None
    for override in overrides:
        flag, _, value = override.partition("=")
        node, *names = flag[2:].split(".")
        at = config
        for name in names:
            if not isinstance(at, ConfigDict):
                raise UserError(f"{flag}: {node} is {at!r} and has no fields")
            if name not in at:
                known = sorted(at.keys())
                raise UserError(
                    f"{flag}: {node} has no {name!r}{did_you_mean(name, known)} (it has {', '.join(known)})"
                )
            node, at = f"{node}.{name}", at[name]
        if str(error).startswith(f"flag {override}:"):  # absl names the one that it cannot parse
            if isinstance(at, ConfigDict):
                known = ", ".join(sorted(at.keys()))
                raise UserError(f"{flag} is a section: set its fields one by one (it has {known})")
            raise UserError(f"{flag} takes {type(at).__name__}, not {value!r}")


def _told(error: Exception, path: str) -> str:
    """What went wrong while flags were parsed or the config file at `path` was read, in one line."""
    if "Traceback (most recent call last)" in str(error):  # so ml_collections wraps a ValueError of the file
        last = str(error).strip().splitlines()[-1]
        return last.partition("UserError: ")[2] or f"{path}: {last}"
    if isinstance(error, flags.Error):
        return f"command line: {' '.join(str(error).split())}"
    inner = next((cause for cause in (error, *error.args) if isinstance(cause, KeyError)), None)
    said = inner.args[0] if inner and inner.args else error  # a KeyError's own text is a repr: quotes, backslashes
    return f"{path}: {type(error).__name__}: {' '.join(str(said).split())}"


def parse(argv: list[str]) -> tuple[ConfigDict, str, str, str]:
    """Flags to what `run` takes: config, workdir, name of the config, store; `UserError` (one line) if one is wrong."""
    argv = _joined(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True, sys_argv=argv)
    flags.DEFINE_string("workdir", "", "where the run goes", flag_values=values)
    flags.DEFINE_string("store", "", "where shared stages go", flag_values=values)
    given = next((a.split("=", 1)[1] for a in argv if a.startswith("--config=")), "")
    path, _, variant = given.partition(":")
    if not given:
        raise UserError("no --config given; try: python main.py --config=configs/digits_lt_noise.py")
    if not pathlib.Path(path).is_file():
        raise UserError(f"--config: no file {path!r} (configs are in configs/)")
    try:
        rest = values(argv)[1:]
        if not hasattr(values.config, "to_dict"):  # the file failed; ml_collections tells on first use
            values.config.anything  # noqa: B018
    except UserError:
        raise
    except Exception as error:
        _refuse_override(argv, error)
        raise UserError(_told(error, path)) from None
    if rest:
        raise UserError(f"left-over argument {rest[0]!r} (overrides look like --config.seed=1)")
    name = pathlib.Path(path).stem + (f"-{variant}" if variant else "")
    return values.config, values.workdir, name, values.store
