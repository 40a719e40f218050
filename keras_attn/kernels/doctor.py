"""Doctor: what of the fast forms is on here, and what would make it faster."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from keras_attn.kernels import cores

HALF = ("amx_bf16", "avx512_bf16")  # instructions that multiply bfloat16
# How many times as fast training became on two cores with avx512_bf16, without AMX: least and most
# of the cases in benchmarks/training.md.
GAINS = {"configured": (1.1, 1.3), "bfloat16": (1.1, 1.4), "fast": (1.6, 1.8)}


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: What.
        found: How it is.
        advice: What to do to be faster, or "" where nothing is to be done.
    """

    name: str
    found: str
    advice: str = ""


def findings() -> list[Finding]:
    """Return what matters to speed on this machine, in this process."""
    return [_gpu(), _cores(), _threads(), _onednn(), _half_precision()]


def flags(about: str | None = None) -> set[str]:
    """Return the processor's flags, empty where the system does not tell; `about` is cpuinfo."""
    file = Path("/proc/cpuinfo")
    if about is None:
        about = file.read_text() if file.exists() else ""
    kinds = ("flags", "Features")  # of x86 and of ARM
    line = next((line for line in about.splitlines() if line.startswith(kinds)), ":")
    return set(line.partition(":")[2].split())


def _gpu():
    count = len(tf.config.list_physical_devices("GPU"))
    if count:
        return Finding("GPU", f"{count}: Keras runs recurrences by cuDNN there")
    return Finding("GPU", "none: recurrences run by the kernels for CPUs")


def _cores():
    return Finding("cores", f"{cores.available()} for this process")


def _threads():
    if tf.config.list_physical_devices("GPU"):
        return Finding("threads", "TensorFlow's own, beside a GPU")
    if cores.available() == 1:
        return Finding("threads", "one core: there is nothing to split a batch over")
    if cores.parts() == 1:
        return Finding("threads", "whole batches: TensorFlow runs one operation at a time")
    split = f"batches are split over {cores.parts()} cores in training"
    if cores.configured():
        return Finding("threads", f"{split}, with few threads for each operation")
    return Finding(
        "threads",
        f"{split}, with TensorFlow's own threads",
        "call keras_attn.configure_cpu() before the first model is made: parts of a batch no "
        f"longer wait for each other's threads (`keras-attn train` does it). "
        f"{_gain('configured')}",
    )


def _gain(what):
    least, most = GAINS[what]
    return f"Training was {least} to {most} times as fast by it on two cores with avx512_bf16"


def _onednn():
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") not in ("1", "true", "True"):
        advice = "unset TF_ENABLE_ONEDNN_OPTS: products are slower, and in bfloat16 very much so"
        return Finding("oneDNN", "off", advice)
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return Finding("oneDNN", "unknown: TensorFlow turns it on by itself on Linux, x86_64")
    return Finding("oneDNN", "on")


def _half_precision():
    known = flags()
    has = [name for name in HALF if name in known]
    if tf.config.list_physical_devices("GPU"):
        return Finding("bfloat16", "a matter of the GPU's kind, which is not looked at")
    if not known:
        return Finding("bfloat16", "unknown: the system does not tell what the processor has")
    if platform.machine() not in ("x86_64", "AMD64"):
        return Finding("bfloat16", f"not measured on {platform.machine()}")
    if not has:
        return Finding("bfloat16", "no instructions for it: dtype='mixed_bfloat16' would be slower")
    if _onednn().found == "off":
        return Finding("bfloat16", f"slow without oneDNN ({', '.join(has)})")
    advice = (
        'build with dtype="mixed_bfloat16" (keras-attn train ... -o dtype=mixed_bfloat16): weights '
        f"and states of recurrences stay float32. {_gain('bfloat16')}"
    )
    if cores.available() > 1:
        least, most = GAINS["fast"]
        advice += f", and {least} to {most} times by both"
    return Finding("bfloat16", f"fast ({', '.join(has)})", advice)
