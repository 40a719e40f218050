"""Splitting a batch, and the threads of a process."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_attn import configure_cpu
from keras_attn.kernels import cores


@pytest.mark.parametrize("rows", [0, 1, 2, 7])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_parts_are_the_whole_in_order(rows, number):
    given = {"x": tf.range(rows * 2)}, tf.reshape(tf.range(rows * 2), [rows * 2, 1])
    parts = cores.split(given, number)
    assert len(parts) == number
    np.testing.assert_array_equal(tf.concat([p[0]["x"] for p in parts], 0), given[0]["x"])
    np.testing.assert_array_equal(tf.concat([p[1] for p in parts], 0), given[1])
    sizes = [int(tf.shape(p[1])[0]) for p in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("wrong", [0, -1, 10_000, 1.5, "2", True])
def test_impossible_numbers_of_cores_are_refused(wrong):
    before = cores.parts()
    with pytest.raises(ValueError, match="cores: expected an int from 1 to"):
        configure_cpu(wrong)
    assert cores.parts() == before


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"quota": "300000\n", "period": "100000\n"}, 3),
        ({"quota": "-1\n", "period": "100000\n"}, 64),
        ({"cpu.max": "nonsense"}, 64),
        ({}, 64),
    ],
)
def test_a_container_has_the_cores_that_it_has_the_time_of(files, most, tmp_path, monkeypatch):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 64)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = [(tmp_path / "cpu.max",), (tmp_path / "quota", tmp_path / "period")]
    monkeypatch.setattr(cores, "QUOTAS", paths)
    assert cores.available() == most


def test_threads_are_set_before_tensorflow_starts_and_not_after():
    code = """
import keras_attn, tensorflow as tf
from keras_attn.kernels import cores
keras_attn.configure_cpu(2)
assert cores.parts() == 2
tf.constant(1) + 1
assert tf.config.threading.get_intra_op_parallelism_threads() == 1
assert tf.config.threading.get_inter_op_parallelism_threads() == 2
keras_attn.configure_cpu(2)  # nothing changes
try:
    keras_attn.configure_cpu(1)
except RuntimeError as error:
    print(error)
assert cores.parts() == 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "TensorFlow has started" in done.stdout


@pytest.mark.parametrize(
    ("number", "threads", "parts"), [(1, 1, 1), (2, 1, 2), (4, 1, 4), (6, 2, 4), (16, 4, 4)]
)
def test_operations_have_as_many_threads_as_there_are_cores_for_a_part(
    monkeypatch, number, threads, parts
):
    there = {}
    for kind in ("intra", "inter"):
        name = f"{kind}_op_parallelism_threads"
        monkeypatch.setattr(cores.tf.config.threading, f"get_{name}", lambda: 0)
        keep = functools.partial(there.__setitem__, kind)
        monkeypatch.setattr(cores.tf.config.threading, f"set_{name}", keep)
    for name, value in (("_parts", 1), ("_configured", False), ("available", lambda: number)):
        monkeypatch.setattr(cores, name, value)
    configure_cpu()
    assert (there, cores._parts) == ({"intra": threads, "inter": number}, parts)


@pytest.mark.parametrize(
    ("there", "threads", "variable", "parts"),
    [
        (1, 0, "", 1),
        (2, 0, "", 2),
        (3, 0, "", 3),
        (16, 0, "", 4),
        (16, 2, "", 2),
        (2, 8, "", 2),
        (16, 0, "1", 1),
        (16, 3, "1", 3),
        (16, 0, "0", 4),
        (16, 0, "-1", 4),
        (16, 0, "many", 4),
    ],
)
def test_batches_are_split_over_the_cores_that_work_at_once(
    monkeypatch, there, threads, variable, parts
):
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", variable)
    monkeypatch.setattr(cores, "_parts", None)
    monkeypatch.setattr(cores, "available", lambda: there)
    getter = "get_inter_op_parallelism_threads"
    monkeypatch.setattr(cores.tf.config.threading, getter, lambda: threads)
    assert cores.parts() == parts


def test_a_gpu_takes_batches_whole(monkeypatch):
    monkeypatch.setattr(cores, "_parts", 4)
    assert cores.parts() == 4
    monkeypatch.setattr(cores.tf.config, "list_logical_devices", lambda kind: [kind])
    assert cores.parts() == 1
