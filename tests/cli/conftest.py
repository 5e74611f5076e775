"""Runs that several tests read and none changes."""

from pathlib import Path

import pytest

from tests.cli.terminal import call, job_file


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    assert call("run", job_file(folder), "--folder", folder / "run", "--quiet").exit_code == 0
    return folder / "run"


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """A file with five rows that the run's model can predict, in another order of columns and one column more."""
    from fedpact.data.datasets import breast_cancer

    test = breast_cancer()["Eastfield General"].test
    assert test is not None
    table = test.x.head(5)[test.x.columns[::-1]].assign(ward="B")
    table.to_csv(tmp_path / "patients.csv", index=False)
    return tmp_path / "patients.csv"
