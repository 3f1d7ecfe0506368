"""Which code made a result: its commit, and hashes of the sources that it ran."""

import ast
import functools
import hashlib
import json
import os
import pathlib
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import lt_noisy

PACKAGE = pathlib.Path(lt_noisy.__file__).resolve().parent
UNRECORDED = "not recorded: made before records named their code"

# Read as the process starts, since the modules that it runs were: what is edited later is not what ran.
# {"lt_noisy/losses/plain.py": content}, with the same line ends everywhere.
SOURCES = {
    path.relative_to(PACKAGE.parent).as_posix(): path.read_bytes().replace(b"\r\n", b"\n")
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.is_file()  # an editor's lock is a link to nowhere
}
MODULES = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in SOURCES}


@functools.cache
def code() -> dict[str, Any]:
    """Names the code of this process.

    Returns:
      `commit`: the full hash; None where the package is not tracked by a git checkout, or there is no git.
      `changed`: whether the package, main.py, launch/ or benchmarks/ are other than in the commit, or the package has
        a .py file that it does not have; None without a commit.
      `sources_sha256`: of all .py files of the package, their paths and contents.
    """
    commit, changed = _checkout()
    return {"commit": commit, "changed": changed, "sources_sha256": _sha256(SOURCES)}


def describe(code: Any) -> str:
    """A few characters for what `code` returned, or for what stands in its place in an older file."""
    if not isinstance(code, Mapping):
        return "unrecorded code"
    sources = f"sources {code['sources_sha256'][:7]}"
    if code["commit"] is None:
        return sources
    return f"{code['commit'][:7]}, changed ({sources})" if code["changed"] else code["commit"][:7]


def distinct(values: Iterable[Any]) -> list[Any]:
    """Each once, in their order: codes, versions, machines, which have no hash."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def codes(summaries: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The `code` of the summaries, each once, in their order."""
    return distinct(summary.get("code", UNRECORDED) for summary in summaries)


@functools.cache
def closure(module: str) -> tuple[str, ...]:
    """Sorted names of a module of the package and of all that it imports of the package, also through others.

    Imports inside functions count. Of a package on the way to a module only the `__init__` itself does, unless
    something is imported from it: `lt_noisy.stages` imports every stage, and none of them runs the others for that.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(name)
    on_the_way = {name.rsplit(".", n)[0] for name in found for n in range(1, name.count(".") + 1)}
    return tuple(sorted(found | on_the_way))


@functools.cache
def sources_sha256(*modules: str) -> str:
    """Hash of the files of the modules' closures, their paths and contents."""
    return _sha256({MODULES[name] for module in modules for name in closure(module)})


@functools.cache
def _imports(module: str) -> frozenset[str]:
    path = MODULES[module]
    package = module if path.endswith("/__init__.py") else module.rpartition(".")[0]
    names: set[str] = set()
    tree = ast.parse(SOURCES[path])
    for_types = {id(inner) for node in tree.body if _is_of_types(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            inner = (f"{base}.{alias.name}" for alias in node.names)
            names |= {name if name in MODULES else base for name in inner}
    return frozenset(names & MODULES.keys())


def _is_of_types(node: ast.stmt) -> bool:
    """Whether it is `if TYPE_CHECKING:`, which no program runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _sha256(paths: Iterable[str]) -> str:
    content = {path: hashlib.sha256(SOURCES[path]).hexdigest() for path in paths}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checkout() -> tuple[str | None, bool | None]:
    """`commit` and `changed` of `code`."""
    name = PACKAGE.name
    tracked = set((_git("ls-files", "-z", "--", name) or "").split("\0"))
    commit = _git("rev-parse", "HEAD")
    edited = _git("status", "--porcelain", "--untracked-files=no", "--", name, "main.py", "launch", "benchmarks")
    if f"{name}/__init__.py" not in tracked or commit is None or edited is None:
        return None, None
    return commit.strip(), bool(edited or SOURCES.keys() - tracked)


def _git(*arguments: str) -> str | None:
    """What git says in the directory that holds the package; None where it fails or is not there."""
    # The variables that a hook has set are about another checkout.
    environment = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")}
    command = ["git", "--no-optional-locks", "-C", str(PACKAGE.parent), *arguments]
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
