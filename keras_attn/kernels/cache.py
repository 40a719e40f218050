"""Cache: what XLA has compiled for one process, kept for those to come."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from keras_attn.kernels import cores, doctor

FLAG = "--tf_xla_persistent_cache_directory="
_used: Path | None = None


def cache_compiled(directory: str | os.PathLike[str] | None = None) -> Path:
    """Keep what is compiled for a frozen model, so that the next process need not compile it again.

    It holds for all that XLA compiles in this process. Call it before anything is asked of
    TensorFlow, its list of devices included: it reads its flags then. Files are kept apart by
    processor and version of TensorFlow, since they hold machine code; delete the folder whenever
    you like.

    Args:
        directory: A folder, made if it is not there; by default `keras_attn` in the user's folder
            of caches, `$XDG_CACHE_HOME` or `~/.cache`.

    Returns:
        The folder in use.

    Raises:
        ValueError: a path with a space in it, which TensorFlow's flags cannot hold.
        RuntimeError: TensorFlow has run something already, or `configure_cpu` was called, and it
            looks for no cache any more; call this first, or again with the folder in use. Or
            another folder is in use already.
        OSError: the folder cannot be made.
    """
    global _used
    folder = _of_user() if directory is None else Path(directory)
    known = sorted(doctor.flags()) or [platform.processor(), platform.node()]
    about = " ".join([platform.machine(), *known])
    kind = hashlib.sha256(about.encode()).hexdigest()[:8]
    folder = (folder / f"tensorflow-{tf.__version__}-{kind}").absolute()
    if any(character.isspace() for character in str(folder)):
        raise ValueError(f"directory: expected a path without spaces, got {str(folder)!r}.")
    if _used == folder:
        return folder
    if _used is not None:
        raise RuntimeError(f"cache_compiled: {str(_used)!r} is in use already, in this process.")
    if cores.configured():  # TensorFlow reads its flags when it is first asked for its threads
        raise RuntimeError("cache_compiled: call it before configure_cpu, not behind it.")
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):  # before TensorFlow reads the flag
        raise OSError(f"directory: cannot make a folder in {str(there)!r}.")
    before = os.environ.get("TF_XLA_FLAGS", "")
    others = [flag for flag in before.split() if not flag.startswith(FLAG)]
    os.environ["TF_XLA_FLAGS"] = " ".join([*others, f"{FLAG}{folder}"])
    try:
        cores.refuse_if_started("cache_compiled")  # which has the flags read
    except RuntimeError:
        os.environ["TF_XLA_FLAGS"] = before
        raise
    folder.mkdir(parents=True, exist_ok=True)
    _used = folder
    return folder


def _of_user() -> Path:
    """Return the user's folder of ours for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "keras_attn")


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Tell of a cache that is in use and does not work, while something is compiled."""
    try:
        yield
    except tf.errors.OpError as error:
        if _used is not None:
            error.add_note(f"If a file in the cache is damaged, delete the folder: {_used}")
        raise
    if _used is not None and not any(_used.iterdir()):
        warnings.warn(
            f"cache_compiled: nothing was kept in {str(_used)!r}; TensorFlow had read its flags "
            "before, as `tf.config.list_physical_devices` makes it do. Call it first.",
            stacklevel=2,
        )
