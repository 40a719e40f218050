"""Files of datasets: from their homes the first time, or from a folder, and verified always."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import keras


class File(NamedTuple):
    """A file of a dataset.

    Attributes:
        name: String, its place in a folder of the dataset, such as "raw/train.de.gz".
        url: String, where it is published.
        sha256: String, its hash.
    """

    name: str
    url: str
    sha256: str


def folder(directory: str | os.PathLike[str]) -> Path:
    """Return a folder that a caller gave.

    Raises:
        TypeError: it is no path.
    """
    if not isinstance(directory, (str, os.PathLike)) or not isinstance(os.fspath(directory), str):
        raise TypeError(f"`directory` must be a path or None. Received: {directory!r}")
    return Path(directory)


def content(
    file: File, directory: str | os.PathLike[str] | None, dataset: str, instead: str = ""
) -> bytes:
    """Read a file.

    Args:
        file: `File`.
        directory: A folder that holds it under its name. None to download it with
            `keras.utils.get_file`, which keeps it in the folder `keras_attn` of the Keras cache.
        dataset: String, the module of the dataset, for messages and the name in the cache.
        instead: String, what else a folder may hold, for a message.

    Raises:
        OSError: the download failed.
        FileNotFoundError: the folder does not hold it.
        TypeError: `directory` is not a path.
        ValueError: it is another file than the published one.
    """
    path = _downloaded(file, dataset) if directory is None else folder(directory) / file.name
    if not path.is_file():
        wanted = f"{file.name}, or {instead}" if instead else file.name
        raise FileNotFoundError(f"`directory` must hold {wanted}. Received: {str(directory)!r}")
    found = path.read_bytes()
    verify(found, file.sha256, str(path))
    return found


def verify(found: bytes, sha256: str, name: str) -> None:
    """Refuse what is not the published file, as it may hold what is kept back for the test.

    Raises:
        ValueError: it is another.
    """
    came = hashlib.sha256(found).hexdigest()
    if came != sha256:
        raise ValueError(f"{name}: expected sha256 {sha256}, came {came}")


def _downloaded(file: File, dataset: str) -> Path:
    """Fetch a file, or find it in the cache of Keras."""
    try:
        return Path(
            keras.utils.get_file(
                f"{dataset}.{file.name.replace('/', '.')}",
                origin=file.url,
                file_hash=file.sha256,
                hash_algorithm="sha256",
                cache_subdir="keras_attn",
            )
        )
    except Exception as error:  # `get_file` raises a bare `Exception` without a network
        raise OSError(
            f"{dataset} could not be downloaded ({error}). Put {file.url} into a folder as "
            f"{file.name} and give that: load(directory=...)"
        ) from error


def rows(found: bytes) -> list[list[str]]:
    """Return the fields of the lines of a verified file, which tabs part."""
    return [line.split("\t") for line in lines(found)]


def lines(found: bytes) -> list[str]:
    """Return the lines of a verified file that are not blank; line feeds alone end them."""
    return [line for line in found.decode("utf-8").split("\n") if line.strip()]
