"""An export that is killed loses nothing: no half a version, and the next one is whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import small_models

from keras_attn.serving.servable import Servable

EXPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import small_models
model = small_models.small("context_as_init", **small_models.CHEAP)
print("ready", flush=True)
model.export(sys.argv[2], verbose=False)
"""


def killed(path: Path, once: str) -> bool:
    """Export in a process that is killed once its folder has something; whether it was."""
    tests = str(Path(small_models.__file__).parent)
    command = [sys.executable, "-c", EXPORT, tests, str(path)]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **quiet) as process:
        assert process.stdout.readline() == "ready\n"
        while not list(path.parent.glob(f".{path.name}.*/{once}")) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def test_a_killed_export_leaves_the_old_version_served(tmp_path):
    base = tmp_path / "letters"
    model = small_models.shared("context_as_init", **small_models.CHEAP)
    shutil.copytree(small_models.exported("context_as_init", **small_models.CHEAP), base / "1")
    whole = sorted(os.listdir(base / "1"))
    servable = Servable(base, tell=lambda _: None)
    # with the graph there but not what lies beside it; and, given time, as it begins
    for once in (".", "saved_model.pb") if small_models.EVIDENCE else ("saved_model.pb",):
        assert killed(base / "2", once)
        servable.look()
        assert servable.version("letters").number == 1
        assert [name for name in os.listdir(base) if not name.startswith(".")] == ["1"]
        assert sorted(os.listdir(base / "1")) == whole
    model.export(base / "2", verbose=False)
    servable.look()
    assert servable.version("letters").number == 2 and sorted(os.listdir(base / "2")) == whole
    assert sorted(os.listdir(base)) == ["1", "2"]
