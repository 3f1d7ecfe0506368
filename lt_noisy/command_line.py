"""The command line: flags to a config, every mistake in one line."""

import pathlib

from absl import flags
from ml_collections import ConfigDict, config_flags

from lt_noisy.spec import UserError, nearest

USAGE = """\
python main.py --config=configs/NAME.py[:VARIANT] [--workdir=DIR] [--store=DIR] [--config.FIELD=VALUE ...]

  --config    the experiment; its docstring says what it costs and shows. VARIANT: 'small' for a CPU-sized one.
  --workdir   where the run goes (default: runs/NAME-HASH; the same command goes on where it stopped).
  --store     where stages go that several runs share: the workdir gets links to them.
  --config.x  any field of the config, such as --config.seed=1 or --config.finetune.loss='gce(q=0.7)'.
"""


def _joined(argv: list[str]) -> list[str]:
    """`--config x` as `--config=x`."""
    for i, argument in enumerate(argv[:-1]):
        if argument == "--config":
            return [*argv[:i], f"--config={argv[i + 1]}", *argv[i + 2 :]]
    return argv


def _refuse_unknown_fields(argv: list[str]) -> None:
    """`UserError` for the first override of a field that the config file does not have."""
    overrides = [argument[2:].partition("=")[0] for argument in argv if argument.startswith("--config.")]
    config = parse([argument for argument in argv if not argument.startswith("--config.")])[0] if overrides else None
    for override in overrides:
        node, *names = override.split(".")
        at = config
        for name in names:
            if not isinstance(at, ConfigDict):
                raise UserError(f"--{override}: {node} is {at!r} and has no fields")
            if name not in at:
                known = sorted(at.keys())
                raise UserError(
                    f"--{override}: {node} has no {name!r}{nearest(name, known)} (it has {', '.join(known)})"
                )
            node, at = f"{node}.{name}", at[name]


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
        _refuse_unknown_fields(argv)
        detail = " ".join(str(error).replace("\\n", " ").split()).strip("'\"")
        if "UserError: " in detail:  # of the config file itself; ml_collections wraps it in its traceback
            raise UserError(detail.rpartition("UserError: ")[2]) from None
        raise UserError(f"command line: {detail}") from None
    if rest:
        raise UserError(f"left-over argument {rest[0]!r} (overrides look like --config.seed=1)")
    name = pathlib.Path(path).stem + (f"-{variant}" if variant else "")
    return values.config, values.workdir, name, values.store
