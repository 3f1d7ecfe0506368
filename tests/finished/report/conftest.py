"""Finished runs and their reports, written once."""

import pytest
from helpers.finished_runs import write_run

from lt_noisy.finished.report.command import report


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run with everything, and its report in `report/`."""
    directory = write_run(tmp_path_factory.mktemp("one") / "a <run> & 'more'")
    assert report([str(directory)]) == 0
    return directory


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Three seeds of one config in `several/`, a run of another loss, and their report in `out/`."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1, 2):
        write_run(root / "several" / f"seed_{seed}", seed=seed)
    write_run(root / "other", loss="gce(q=0.7)", features=False)
    assert report([str(root / "several"), str(root / "other"), f"--out={root / 'out'}"]) == 0
    return root
