"""What is refused before anything is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [("KERAS_BACKEND", "jax", "it is 'jax'"), ("TF_USE_LEGACY_KERAS", "1", "unset it")],
)
def test_wrong_surroundings_are_one_clear_error(variable, value, message, tmp_path):
    if value == "jax":  # Keras itself fails without jax: let it think that it runs on it
        code = "import keras; keras.config.backend = lambda: 'jax'; import keras_attn"
    else:
        code = "import keras_attn"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if value != "jax":
        environment[variable] = value
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("ImportError") and message in last
