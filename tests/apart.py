"""Exports that are asked in a process of their own, without Keras and this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras_attn.serving

HERE = Path(__file__).parent
SESSION = Path(keras_attn.serving.__file__).with_name("session.py")


def check(path, signatures, *flags):
    """Hold an export to what lies beside it; it has these signatures."""
    command = [sys.executable, str(HERE / "check_export.py"), str(SESSION), str(path), *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["golden"] + found["close calls"] == 10 and found["close calls"] <= 1
    assert set(found["warm-up"]) == signatures
    attends = "attend" in signatures
    assert found["refused"] == 11 + attends + max(found["sequences"] - 1, 0)
    assert found["merged"] == 10 + attends
    assert found["together"] == 120
