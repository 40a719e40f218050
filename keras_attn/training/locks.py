"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(folder: Path, wait: bool = False) -> Iterator[None]:
    """Be the only process that works in a folder, where the system can tell.

    The folder is made if need be, and goes again if nothing was put into it. However a process
    ends, the system lets the next one in.

    Args:
        folder: Its path.
        wait: Boolean, wait until another process has ended, rather than raise.

    Raises:
        ValueError: another process works there.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder, wait):
            yield
    finally:
        if new and not any(folder.iterdir()):
            folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[None]:
    """Hold a lock of the system on a folder; nothing is written."""
    try:
        import fcntl
    except ImportError:  # on Windows
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ValueError(
                f"{str(folder)!r}: another process trains there; wait for it, or give another."
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(opened)
