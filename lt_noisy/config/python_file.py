"""Config files are Python files: read as modules, with an error in one of them as one line."""

import contextlib
import importlib.util
import pathlib
from collections.abc import Iterator
from types import ModuleType

from lt_noisy.errors import UserError, did_you_mean
from lt_noisy.files import user_path


def read_module(path: str | pathlib.Path) -> ModuleType:
    """Runs a config file; returns it as a module, which no import finds.

    Raises:
      UserError: no such file, not a Python file by its name, or an error of the file's own.
    """
    path = user_path(str(path))
    if not path.is_file():
        there = [str(config) for config in (path.parent, pathlib.Path("configs")) for config in config.glob("*.py")]
        raise UserError(f"--config: no file {str(path)!r}{did_you_mean(str(path), there)} (configs are in configs/)")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config: {str(path)!r} is not a Python file (configs are in configs/)")
    module = importlib.util.module_from_spec(spec)
    with errors_named(path):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def errors_named(path: str | pathlib.Path) -> Iterator[None]:
    """Makes any error of the block a `UserError` that names the config file and says what Python does."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a slip in the file, of any kind
        # A KeyError's own text is a repr: quotes, backslashes.
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise UserError(f"{path}: {type(error).__name__}: {' '.join(str(text).split())}") from None
