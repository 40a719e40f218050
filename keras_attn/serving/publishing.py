"""Publishing: folders that appear whole or not at all, versions that count up, and old ones gone.

What is being written stands beside its place, in a folder whose name starts with a dot and which
its process holds a lock of. The lock ends with the process, so that a folder without one is what a
killed export left behind; the next one clears it away.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no POSIX: what killed exports leave behind stays there
    fcntl = None  # type: ignore[assignment]

ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{32}")
REPLACED, REMOVED = "replaced", "removed"  # versions set aside


@contextlib.contextmanager
def published(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give a folder beside `path` to write to, and rename it into place when all went well.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is False, or it is not an exported model.
        OSError: its parent cannot be written.
    """
    with contextlib.suppress(OSError):
        clear(path.parent)
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"filepath: {str(path)!r} exists; export to the next version, or give overwrite=True."
        )
    if path.exists() and not _replaceable(path):
        raise FileExistsError(
            f"filepath: {str(path)!r} is not an exported model, and overwrite=True replaces "
            "nothing else."
        )
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = stack.enter_context(_folder_beside(path))
        except OSError as error:
            raise type(error)(
                error.errno, f"filepath: cannot write beside {str(path)!r}: {error.strerror}"
            ) from error
        yield aside
        _rename(aside, path, overwrite)


def clear(parent: Path) -> None:
    """Remove what exports that were killed left in a folder.

    A version that one of them was about to replace goes back to its place.
    """
    for folder in parent.glob(".*"):
        name = ASIDE.fullmatch(folder.name)
        if not name or not folder.is_dir():
            continue
        with _locked(folder) as free:
            replaced, path = folder / REPLACED, parent / name[1]
            if free and replaced.exists() and not path.exists():
                os.rename(replaced, path)
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def next_version(folder: Any) -> Path:
    """Return the next numbered folder in `folder`: 1, or one more than the largest there."""
    folder = Path(folder)
    versions = [int(entry.name) for entry in folder.glob("*") if entry.name.isdigit()]
    return folder / str(max(versions, default=0) + 1)


def prune(folder: Any, keep: int) -> list[Path]:
    """Remove all versions of a model but the `keep` newest, and return their paths.

    A version vanishes at once, as a server sees it; folders that hold no exported model stay.

    Args:
        folder: The versions' folder.
        keep: Positive int.
    """
    versions = (entry for entry in Path(folder).glob("*") if entry.name.isdigit())
    models = [entry for entry in versions if _is_model(entry)]
    old = sorted(models, key=lambda entry: int(entry.name))[:-keep]
    for path in old:
        with _folder_beside(path) as aside:
            os.rename(path, aside / REMOVED)
    return old


def _replaceable(path: Path) -> bool:
    """Return whether `path` is an empty folder, or one that holds an exported model."""
    return path.is_dir() and (_is_model(path) or not any(path.iterdir()))


def _is_model(path: Path) -> bool:
    """Return whether a folder holds a SavedModel, or a model for another runtime."""
    return any((path / name).exists() for name in ("saved_model.pb", "keras_attn.json"))


@contextlib.contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Make an empty folder that no server takes for a version, and remove it in the end."""
    folder = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    fresh = folder.with_name(f"{folder.name}.new")  # which `clear` leaves alone: not yet locked
    fresh.mkdir()
    with _locked(fresh):
        os.rename(fresh, folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder while its process lives; give whether that could be done."""
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another's, or a file system without locks
        return False
    return True


def _rename(aside: Path, path: Path, overwrite: bool) -> None:
    if not path.exists():
        os.rename(aside, path)
        return
    if not overwrite:
        raise FileExistsError(f"filepath: {str(path)!r} was made meanwhile; nothing was written.")
    with _folder_beside(path) as old:
        os.rename(path, old / REPLACED)
        try:
            os.rename(aside, path)
        except OSError:
            os.rename(old / REPLACED, path)
            raise
