"""Placement: where TensorFlow's own placer puts an exported graph, given a GPU that is not there.

The placer is C++ alone: a small program is compiled against the headers and libraries of the
TensorFlow wheel, which takes some ten seconds, and kept in a cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

SOURCE = Path(__file__).with_name("placer.cc")
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")


def placed(path: Any, signatures: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Return how many nodes of each operation are put on which device, by signature.

    Args:
        path: The folder of an exported model.
        signatures: Names.

    Returns:
        {signature: {device: {operation: nodes}}}, devices "CPU:0" and "GPU:0".

    Raises:
        RuntimeError: there is no C++ compiler, or the program fails.
    """
    program = compiled()
    done = subprocess.run([program, path, *signatures], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the placer failed: {done.stderr.strip()[-500:]}")
    lines = done.stdout.splitlines()
    return {name: json.loads(line) for name, line in zip(signatures, lines, strict=True)}


def compiled() -> Path:
    """Return the compiled program, compiling it where it is not in the cache."""
    key = SOURCE.read_bytes() + f"{tf.__version__} {tf.sysconfig.get_lib()}".encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keras_attn"
    program = cache / f"placer-{hashlib.sha256(key).hexdigest()[:16]}"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as aside:
            compile_against_tensorflow(SOURCE, Path(aside) / program.name).replace(program)
    return program


def compile_against_tensorflow(source: Path, program: Path) -> Path:
    """Compile a C++ file with the headers and libraries of the TensorFlow wheel, in place.

    Raises:
        RuntimeError: there is no C++ compiler, or it fails.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise RuntimeError(f"{source.name} needs a C++ compiler, g++ or that of the variable CXX.")
    home = Path(tf.sysconfig.get_lib())
    command = [compiler, "-O1", "-w", "-DNDEBUG", "-std=c++17", "-D_GLIBCXX_USE_CXX11_ABI=1"]
    command += [f"-I{home / 'include'}", str(source), "-o", str(program)]
    # without the first, the library with the session is dropped as if nobody needed it
    command += ["-Wl,--no-as-needed", f"-L{home}", f"-Wl,-rpath,{home}"]
    command += [f"-l:{library}" for library in LIBRARIES]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{source.name} does not compile: {done.stderr.strip()[-500:]}")
    return program
