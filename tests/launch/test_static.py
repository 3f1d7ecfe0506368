"""Linters over what no other test reads: shell scripts, the shell inside of YAML files, the Dockerfile."""

import fnmatch
import pathlib
import re
import subprocess
import sysconfig

import pytest
import yaml
from helpers.launchers import ROOT

LAUNCH = [*sorted(ROOT.glob("launch/*.sh")), ROOT / "launch" / "slurm.sbatch"]
SCRIPTS = [*LAUNCH, *sorted(ROOT.glob("benchmarks/*.sh")), ROOT / ".ci" / "run"]
TOOLS = pathlib.Path(sysconfig.get_path("scripts"))  # where the `test` extra puts them
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def lint(tool, *arguments, **more):
    done = subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_scripts():
    assert {path.name for path in SCRIPTS} >= {"tpu_pod.sh", "gpu_pod.sh", "gpu.sh", "run"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts(path):
    lint("shellcheck", path)


@pytest.mark.parametrize("part", ["setup", "run"])
def test_the_shell_inside_of_skypilot(part):
    document = yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())
    lint("shellcheck", "--shell=bash", "--exclude=SC2155", "-", input=document[part])


def test_the_dockerfile():
    lint("hadolint", "--no-color", ROOT / "Dockerfile")


def ignored(path):
    """Whether .dockerignore leaves a path out: the last line that fits decides."""
    left_out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.lstrip("!")
        if line and not line.startswith("#") and fnmatch.fnmatch(path.split("/")[0], pattern):
            left_out = not line.startswith("!")
    return left_out


def test_the_image_gets_what_it_copies_and_no_more():
    copied = [name for line in re.findall("^COPY (?!--from)(.*) ", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert {"setup.py", "lt_noisy", "configs"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists() and not ignored(name), name
    for name in (".git", ".venv", "runs", "tests", "results", "docs"):
        assert ignored(name), name


def test_the_image_runs_as_somebody_and_its_extras_are_those_of_the_package():
    assert re.search(r"^USER 1000$", DOCKERFILE, re.MULTILINE)  # what the pods' fsGroup is for
    assert DOCKERFILE.rstrip().endswith('ENTRYPOINT ["lt-noisy"]')
    setup = (ROOT / "setup.py").read_text()
    for extra in re.findall(r"EXTRA=(\w+)", DOCKERFILE):
        assert f'"{extra}":' in setup
