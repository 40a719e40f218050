"""Set-up of the tests of the layers."""

import keras
import pytest


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Make every test draw the same masks of dropout, in whatever order the tests run."""
    keras.utils.set_random_seed(0)
