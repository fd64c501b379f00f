"""Fixtures that several test files use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Derandomized, so that a failure is the change's own; no deadline, for compiling takes its time.
settings.register_profile("numinit", deadline=None, max_examples=150, derandomize=True)
settings.load_profile("numinit")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository; tests that use it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no folder of shared reference data beside the repository")
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
