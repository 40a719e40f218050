"""Publishing: folders that appear whole or not at all, versions that count up, and old ones gone.

What is being written stands beside its place, in a folder whose name starts with a dot and which
its process holds a lock of. The lock ends with the process, so that a folder without one is what a
killed export left behind; the next one on this machine clears it away. (Some file systems keep
locks to a machine, so others' folders stay.)
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # no POSIX: what killed exports leave behind stays there
    fcntl = None  # type: ignore[assignment]

HOST = re.sub(r"[^\w-]", "_", platform.node(), flags=re.ASCII) or "localhost"
ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{32}\.([\w-]+)\.keras_attn", re.ASCII)
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h
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
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(
            f"filepath: {str(path)!r} exists; export to the next version, or give overwrite=True."
        )
    _check_replaceable(path)
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
        if name[2] != HOST:
            _tell_of_others(folder, parent / name[1])
            continue
        with _locked(folder) as free:
            replaced, path = folder / REPLACED, parent / name[1]
            if free and replaced.exists() and not path.exists():
                os.rename(replaced, path)
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def _tell_of_others(folder: Path, path: Path) -> None:
    """Warn of a version that an export on another machine had set aside, and nothing replaced."""
    if (folder / REPLACED).exists() and not path.exists():
        warnings.warn(
            f"{str(folder / REPLACED)!r} is version {path.name!r}, which an export on another "
            f"machine was replacing; if that was killed, rename it to {str(path)!r}.",
            stacklevel=3,
        )


def newer_versions(folder: Any, version: int) -> int:
    """Return how many versions with a larger number there are in `folder`."""
    return sum(int(name) > version for name in _versions(Path(folder)))


def next_version(folder: Any) -> Path:
    """Return the next numbered folder in `folder`: 1, or one more than the largest there."""
    folder = Path(folder)
    with contextlib.suppress(OSError):
        clear(folder)  # which may bring back the largest
    return folder / str(max(map(int, _versions(folder)), default=0) + 1)


def newest(folder: Any) -> Path:
    """Return the newest version in a folder that holds a model, or else the folder itself."""
    models = [Path(folder, name) for name in _versions(Path(folder)) if _is_model(folder, name)]
    itself = _is_model(folder) or not models
    return Path(folder) if itself else max(models, key=lambda path: int(path.name))


def _versions(folder: Path) -> list[str]:
    """Return the names of what a server takes for versions."""
    return [entry.name for entry in folder.glob("*") if re.fullmatch("[0-9]+", entry.name)]


def runtimes(folder: Any) -> set[str]:
    """Return what the versions in `folder` are for: "tensorflow", "onnx", "litert"."""
    found = set()
    for version in (Path(folder, name) for name in _versions(Path(folder))):
        for file in (version / "assets.extra" / "keras_attn.json", version / "keras_attn.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found.add(json.loads(file.read_text("utf-8"))["runtime"])
    return found


def prune(folder: Any, keep: int) -> list[Path]:
    """Remove all versions of a model but the `keep` newest, and return their paths.

    A version vanishes at once, as a server sees it; folders that hold no exported model stay.

    Args:
        folder: The versions' folder.
        keep: Positive int.
    """
    models = [Path(folder, name) for name in _versions(Path(folder)) if _is_model(folder, name)]
    old, removed = sorted(models, key=lambda path: int(path.name))[:-keep], []
    for path in old:
        with _folder_beside(path) as aside, contextlib.suppress(FileNotFoundError):
            os.rename(path, aside / REMOVED)  # unless another process has just done so
            removed.append(path)
    return removed


def _check_replaceable(path: Path) -> None:
    """Refuse what is there, unless it is an empty folder or an exported model."""
    folder = path.is_dir() and (_is_model(path) or not any(path.iterdir()))
    if os.path.lexists(path) and not folder:
        raise FileExistsError(
            f"filepath: {str(path)!r} is not an exported model, and overwrite=True replaces "
            "nothing else."
        )


def _is_model(*path: Any) -> bool:
    """Return whether a folder holds a SavedModel, or a model for another runtime."""
    return any(Path(*path, name).exists() for name in ("saved_model.pb", "keras_attn.json"))


@contextlib.contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Make an empty folder that no server takes for a version, and remove it in the end."""
    folder = path.parent / f".{path.name}.{uuid.uuid4().hex}.{HOST}.keras_attn"
    fresh = folder.with_name(f"{folder.name}.new")  # which `clear` leaves alone: not yet locked
    fresh.mkdir()
    with _locked(fresh):
        os.rename(fresh, folder)
        try:
            yield folder
        finally:
            if path.exists() or not (folder / REPLACED).exists():  # else it is all that is left
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


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, so that there is one at each moment, where that is known.

    Linux and its file systems can, by renameat2(2); elsewhere there is a moment between two
    renames, and a process that is killed there leaves what it replaced aside.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def _rename(aside: Path, path: Path, overwrite: bool) -> None:
    """Put what is complete in its place; what was there goes, but not before."""
    if not os.path.lexists(path):
        try:
            os.rename(aside, path)
            return
        except OSError:  # such as that another process has made it just now
            if not os.path.lexists(path):
                raise
    if not overwrite:
        raise FileExistsError(f"filepath: {str(path)!r} was made meanwhile; nothing was written.")
    _check_replaceable(path)
    if path.is_dir() and _exchanged(aside, path):
        return  # what was there is now aside, and goes with that
    with _folder_beside(path) as old:
        try:
            with contextlib.suppress(FileNotFoundError):  # another process has just replaced it
                os.rename(path, old / REPLACED)
            os.rename(aside, path)
        except BaseException:
            if (old / REPLACED).exists() and not path.exists():
                os.rename(old / REPLACED, path)
            raise
