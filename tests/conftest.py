"""What every test shares: one thread, generous Hypothesis, MNIST where there is one, and `--bless`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# One thread for whatever numeric library is imported later, in this process and in those that tests start:
# several processes with a thread per core each are many times slower, and bits depend on the thread count.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# A machine under load is slow, not wrong; the same examples each time, so that a failure is the change's.
settings.register_profile("research", deadline=None, derandomize=True)
settings.load_profile("research")


def pytest_addoption(parser):
    """Let `make bless` rewrite the golden files: a test asks `request.config.getoption("bless")`."""
    parser.addoption("--bless", action="store_true", help="rewrite the golden files, compare nothing")


def pytest_runtest_setup():
    """Start every test with one thread, whatever the one before left; torch is not imported for it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir():
    """The folder that $RESEARCH_DATA_DIR names; without one the test is skipped."""
    name = os.environ.get("RESEARCH_DATA_DIR")
    if not name:
        pytest.skip("RESEARCH_DATA_DIR is not set: it names a folder with data sets in torchvision's layout")
    if not Path(name).is_dir():
        pytest.skip(f"RESEARCH_DATA_DIR is no folder: {name}")
    return Path(name).resolve()


@pytest.fixture(scope="session")
def mnist_dir(data_dir):
    """A data directory (torchvision's ``root``) that holds MNIST; without one the test is skipped."""
    if not any((data_dir / "MNIST" / "raw").glob("train-images-idx3-ubyte*")):
        pytest.skip(f"RESEARCH_DATA_DIR holds no MNIST/raw: {data_dir}")
    return data_dir
