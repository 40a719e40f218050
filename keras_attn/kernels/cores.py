"""Cores: how many a training step is split over, and the threads that go with it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import tensorflow as tf

MOST = 4  # parts of a batch; more than that has not been measured
# Where Linux says what a container gets: control groups of version 2, and of 1.
GROUPS = "/sys/fs/cgroup"
QUOTAS = (
    (f"{GROUPS}/cpu.max",),
    (f"{GROUPS}/cpu/cpu.cfs_quota_us", f"{GROUPS}/cpu/cpu.cfs_period_us"),
)

_parts: int | None = None  # as many as operations may run at once
_configured = False


def configure_cpu(cores: int | None = None) -> None:
    """Give operations the threads that training on all cores wants: few each, as many as run.

    On a CPU a training batch is split into a part a core, four at most, as TensorFlow runs the
    products of a recurrence on one thread: they are faster side by side. By itself it gives each
    operation all threads, which then get into each other's way; this gives it as many as there are
    cores for a part, one on up to four cores. More than two cores have not been measured. It holds
    for the process, other models included, of which those without a recurrence may become slower.
    Parts change the rounding of sums, and which numbers dropout draws from a seed.

    Args:
        cores: Positive int, at most those there are; None for all of them.

    Raises:
        ValueError: `cores` is out of its range.
        RuntimeError: TensorFlow has run something already and cannot change its threads any more;
            call this first.
    """
    there = available()
    cores = there if cores is None else cores
    if isinstance(cores, bool) or not isinstance(cores, int) or not 1 <= cores <= there:
        raise ValueError(f"cores: expected an int from 1 to {there}, got {cores!r}.")
    threading = tf.config.threading
    now = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
    pieces = min(cores, MOST)
    wanted = -(-cores // pieces), cores
    if now != wanted:
        refuse_if_started("configure_cpu")
        threading.set_intra_op_parallelism_threads(wanted[0])
        threading.set_inter_op_parallelism_threads(cores)
    global _parts, _configured
    _configured = True
    _parts = pieces


def configured() -> bool:
    """Return whether `configure_cpu` was called."""
    return _configured


def refuse_if_started(function: str) -> None:
    """Raise a RuntimeError if TensorFlow has run something, and so does not change any more."""
    threads = tf.config.threading.get_inter_op_parallelism_threads()
    try:
        tf.config.threading.set_inter_op_parallelism_threads(threads + 1)  # any other number
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise RuntimeError(
            f"{function}: TensorFlow has started, and cannot be configured any more. Call it "
            "before the first model or tensor is made."
        ) from error


def available() -> int:
    """Return how many cores this process may run on, or has the time of, rounded up."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        there = len(os.sched_getaffinity(0))
    else:
        there = os.cpu_count() or 1
    return max(1, min(there, math.ceil(_quota())))


def _quota() -> float:
    """Return how many cores' time a container gets, as `docker run --cpus` sets it."""
    for files in QUOTAS:
        try:
            quota, period = " ".join(Path(file).read_text() for file in files).split()
            if quota not in ("max", "-1"):
                return int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue  # another system, or another version of control groups
    return os.cpu_count() or 1


def parts() -> int:
    """Return into how many parts a batch is split in training; a GPU takes it whole."""
    if tf.config.list_logical_devices("GPU"):
        return 1
    return _parts or min(_at_once(), available(), MOST)


def _at_once() -> int:
    """Return how many operations may run at once: as set, by the environment, or a core each."""
    threads = tf.config.threading.get_inter_op_parallelism_threads()
    given = os.environ.get("TF_NUM_INTEROP_THREADS", "")  # where TensorFlow looks too
    return threads or (int(given) if given.isdecimal() else 0) or available()


def split(tensors: Any, number: int) -> list:
    """Split nested tensors along their first axis into `number` parts, as equal as can be."""
    size = tf.shape(tf.nest.flatten(tensors)[0])[0]
    bounds = [size * i // number for i in range(number + 1)]
    if number == 1:
        return [tensors]
    return [
        tf.nest.map_structure(lambda x, a=a, b=b: x[a:b], tensors)
        for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    ]
