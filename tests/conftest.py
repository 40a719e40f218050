"""Set-up of all tests."""

import gc
import os
import shutil
import tempfile

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Workers share the cores, and small operations on many threads wait for each other.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")


def pytest_configure(config):
    """Make a folder of exports that all workers share, see `small_models.exported`."""
    gc.set_threshold(20_000, 10, 10)  # graphs are millions of objects: a tenth of all time
    if not hasattr(config, "workerinput"):
        os.environ["KERAS_ATTN_EXPORTS"] = tempfile.mkdtemp()


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop("KERAS_ATTN_EXPORTS"))


@pytest.fixture(autouse=True, scope="session")
def whole_batches():
    """Train whole batches, so that graphs are small; test_stepping has them in parts.

    `make evidence` splits them over the cores, as users do.
    """
    from small_models import EVIDENCE

    from keras_attn.kernels import cores

    cores._parts = None if EVIDENCE else 1
