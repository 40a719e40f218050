"""Set-up of all tests."""

import os
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_configure(config):
    """Make a folder of exports that all workers share, see `small_models.exported`."""
    if not hasattr(config, "workerinput"):
        os.environ["KERAS_ATTN_EXPORTS"] = tempfile.mkdtemp()


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop("KERAS_ATTN_EXPORTS"))
