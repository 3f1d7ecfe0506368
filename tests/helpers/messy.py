"""One finished run on a messy folder for all tests of what becomes of one; no test changes it."""

import shutil

import pytest
from helpers import photos


@pytest.fixture(scope="session")
def messy(env, tmp_path_factory):
    """(folder, workdir) of a finished run."""
    root = tmp_path_factory.mktemp("messy")
    photos.make(root / "photos")
    photos.train(env, root / "photos", root / "run")
    return root / "photos", root / "run"


@pytest.fixture
def own_run(messy, tmp_path):
    """A copy of the run, to change."""
    return shutil.copytree(messy[1], tmp_path / "run", symlinks=True)
