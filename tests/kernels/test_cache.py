"""What is compiled is kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import keras_attn
from keras_attn.kernels import cache, cores


def test_it_is_too_late_once_tensorflow_has_started(tmp_path):
    keras_attn.zoo.build("attention", source=9, target=9, size="tiny")
    with pytest.raises(RuntimeError, match="cache_compiled: TensorFlow has started"):
        keras_attn.cache_compiled(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_it_is_too_late_once_threads_are_set(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_configured", True)
    with pytest.raises(RuntimeError, match="before configure_cpu"):
        keras_attn.cache_compiled(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_what_is_compiled_is_there_for_the_next_process(tmp_path):
    code = f"""
import os, keras_attn
os.environ["TF_XLA_FLAGS"] = "--tf_xla_persistent_cache_directory=x --tf_xla_min_cluster_size=5"
try:
    keras_attn.cache_compiled("two words")
except ValueError as error:
    assert "without spaces" in str(error)
folder = keras_attn.cache_compiled({str(tmp_path)!r})
assert os.environ["TF_XLA_FLAGS"].split() == [
    "--tf_xla_min_cluster_size=5", f"--tf_xla_persistent_cache_directory={{folder}}"]
assert folder.parent == __import__("pathlib").Path({str(tmp_path)!r})
assert keras_attn.cache_compiled({str(tmp_path)!r}) == folder
try:
    keras_attn.cache_compiled({str(tmp_path / "other")!r})
except RuntimeError as error:
    assert "is in use already" in str(error)
keras_attn.configure_cpu()
import tensorflow as tf
print(tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1)).numpy())
assert keras_attn.cache_compiled({str(tmp_path)!r}) == folder  # as before, though all has started
"""
    kept = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        kept.append([(x.name, x.stat().st_mtime_ns) for x in tmp_path.rglob("*") if x.is_file()])
    assert len(kept[0]) == 1 and kept[0] == kept[1]


def test_a_cache_that_does_not_work_is_told_of(tmp_path):
    """Damaged files name their folder; flags that were read before are said to have been."""
    code = f"""
import sys, warnings, keras_attn, tensorflow as tf
if "late" in sys.argv:
    tf.config.list_physical_devices()
folder = keras_attn.cache_compiled({str(tmp_path)!r})
from keras_attn.kernels import cache
warnings.simplefilter("error")
try:
    with cache.compiling():
        tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1))
except (tf.errors.OpError, UserWarning) as error:
    print(*getattr(error, "__notes__", [error]))
"""

    def said(*arguments):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert "nothing was kept in" in said("late")
    assert said() == ""
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    kept.write_bytes(b"no loop")
    assert said() == f"If a file in the cache is damaged, delete the folder: {kept.parent}\n"


def test_a_folder_that_cannot_be_made_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TF_XLA_FLAGS", "--before")
    monkeypatch.setattr(cache.cores, "configured", lambda: False)
    with pytest.raises(OSError, match="cannot make a folder"):
        keras_attn.cache_compiled(tmp_path / "file")
    assert os.environ["TF_XLA_FLAGS"] == "--before"
