"""The command that reports on finished runs: `lt-noisy report RUN... [--out=DIR] [--embedding=pca|umap|none]`."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from lt_noisy.config.arguments import Parser
from lt_noisy.errors import UserError
from lt_noisy.files import exit_status, has_text, naming, replacing, show, user_path

_EMBEDDINGS = ("pca", "umap", "none")
_OWN = ("index.html", "tables.md", "tables.tex", "figures")  # what a report consists of
_OURS = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # in its page, since there is one


def report(argv: Sequence[str]) -> int:
    """Writes the report that the arguments (those after `report`) ask for; returns the exit status."""
    return exit_status(lambda: _report(argv))


def _report(argv: Sequence[str]) -> int:
    parser = Parser("report", description="One HTML page of finished runs, its pictures, and its tables for papers.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the directory of a run, or that of several seeds of it")
    parser.add_argument("--out", metavar="DIR", help="where the report goes (default: RUN/report, of one RUN)")
    parser.add_argument(
        "--embedding", choices=_EMBEDDINGS, default="pca", help="how the map of the features is drawn (default: pca)"
    )
    given = parser.parse_args(argv)
    _require_libraries(given.embedding)
    from lt_noisy.finished.report.reported import named_runs  # after a look at the arguments: it loads JAX

    runs = named_runs(given.runs)
    directory = _directory(given.runs, given.out)
    from lt_noisy.finished.report.whole import whole

    page, tables, pictures = whole(runs, given.embedding)
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / "index.html", "w") as file:  # first: by it the directory is known as a report's
        file.write(page)
    with naming(directory):
        (directory / "figures").mkdir(exist_ok=True)
    for old in (directory / "figures").glob("*.png"):  # of a report before, of stages that there are no more
        if old.name not in pictures:
            old.unlink()
    for name, content in pictures.items():
        with replacing(directory / "figures" / name) as file:
            file.write(content)
    for name, text in {"tables.md": tables.markdown, "tables.tex": tables.latex}.items():
        with replacing(directory / name, "w") as file:
            file.write(text)
    show(f"{directory / 'index.html'}: {len(runs)} run(s), {len(pictures)} figures; tables.md and tables.tex beside it")
    return 0


def _require_libraries(embedding: str) -> None:
    """`UserError` where a page or its pictures cannot be made."""
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"report: {' and '.join(missing)} missing: pip install 'lt_noisy[report]'")
    if embedding == "umap" and importlib.util.find_spec("umap") is None:
        raise UserError("report: --embedding=umap takes umap-learn: pip install 'lt_noisy[umap]'")


def _directory(runs: Sequence[str], out: str | None) -> Path:
    """Where the report goes.

    Raises:
      UserError: that is no directory, holds something else, or is not said where there are several runs.
    """
    if out is None:
        if len(runs) > 1:
            raise UserError(f"report: of {len(runs)} directories the report needs a place of its own: --out=DIR")
        return _checked(user_path(runs[0]) / "report")
    path = user_path(out)
    if not path.absolute().parent.is_dir() or (path.exists() and not path.is_dir()):
        raise UserError(f"report: --out={out} is no directory, nor a new one in one that exists")
    if path.is_dir() and (others := sorted(entry.name for entry in path.iterdir() if entry.name not in _OWN)):
        raise UserError(f"report: --out={out} holds other files, such as {others[0]}; give a directory of its own")
    return _checked(path)


def _checked(path: Path) -> Path:
    """The same path; refuses one in which a report would take the place of what is none."""
    taken = [name for name in _OWN if (path / name).exists()]
    if taken and not has_text(path / "index.html", _OURS):
        raise UserError(f"report: {path / taken[0]} is of no report; remove it, or give another place: --out=DIR")
    return path
