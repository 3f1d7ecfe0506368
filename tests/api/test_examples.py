"""The examples of the docs run, as a reader would run them."""

import os
import re
import subprocess
import sys

import pytest
from helpers.commands import HANGS, ROOT

EXAMPLES = ROOT / "docs" / "examples"


def test_the_losses_in_a_loop_of_ones_own(env):
    """The loop is plain Flax and Optax; it learns from noisy labels under both losses."""
    command = [sys.executable, EXAMPLES / "optax_loop.py"]
    environment = {**env, "PYTHONPATH": str(ROOT), "JAX_NUMPY_RANK_PROMOTION": "allow"}  # the reader's own settings
    environment["JAX_NUMPY_DTYPE_PROMOTION"] = "standard"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"(.+): balanced accuracy ([\d.]+) %", done.stdout))
    assert set(found) == {"cross-entropy", "logit adjustment in SuperLoss"}
    assert all(float(figure) > 60 for figure in found.values())


def test_the_notebook_goes_from_a_messy_folder_to_a_corrected_one(env, monkeypatch):
    """Every cell runs; of the suspects most are wrong, and the corrected set gives no worse a classifier."""
    nbformat = pytest.importorskip("nbformat", reason="no notebooks: pip install -e '.[test]'")
    nbclient = pytest.importorskip("nbclient", reason="no notebooks: pip install -e '.[test]'")
    for name, value in {**env, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(EXAMPLES / "wrong_labels.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # what it shows is of the reader's machine
    nbclient.NotebookClient(notebook, timeout=HANGS, kernel_name="python3").execute(cwd=os.getcwd())
    said = "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    wrong, listed = map(int, re.search(r"(\d+) of (\d+) suspects are wrong labels", said).groups())
    assert wrong > listed / 2
    before, after = (float(re.search(rf"{name} ([\d.]+)", said)[1]) for name in ("before", "after"))
    assert after >= before - 0.05 and before > 0.7
