r"""Pairs from one's own files: TSV, CSV and JSON lines.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "small.tsv")
    ...     _ = path.write_text("un chat\ta cat\n")
    ...     pairs(path)
    Pairs(sources=['un chat'], targets=['a cat'])

A file that is not as expected is refused with its name and line rather than read wrongly.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import reprlib
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, cast

from keras_attn.datasets.about import Pairs

LIMIT = 1_000_000  # bytes of a line, so that a file without line ends does not fill the memory
_FORMATS = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_MARK = "\ufeff"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_CSV_LIMIT = threading.Lock()  # the module csv has one limit of a field for all threads

Columns = Sequence[int] | Sequence[str] | None
Row = tuple[int, list[str]]  # the line that it begins in, and its fields


def pairs(path: str | os.PathLike[str], *, columns: Columns = None) -> Pairs:
    r"""Reads sources and targets from a file, whose format is told by its name.

    `.tsv` and `.txt` have a tab between the fields, and quotes are text. `.csv` is as Python's
    module csv reads and writes it, also with line ends in quotes. `.jsonl` and `.ndjson` have a
    JSON object a line. Each can end in `.gz` too. Text is UTF-8, with or without a byte-order
    mark; lines end in \n or \r\n; blank lines are skipped; fields are kept as they are.

    Args:
        path: String or path of the file.
        columns: Which fields are the source and the target: two ints, from 0, for TSV or CSV
            without a header; two names, for TSV or CSV whose first line is a header, or for the
            keys of JSON. None for TSV or CSV of two columns and no header, and for the keys
            "source" and "target".

    Returns:
        `Pairs`, at least one.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: `path` is a folder.
        TypeError: `path` is not a path.
        ValueError: `columns` is something else, the name has another ending, the file has no
            pairs, or a line is not as it should be: the message begins with `<path>:<line>:`.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"`path` must be a string or a path. Received: {path!r}")
    path = os.fspath(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path}: expected a file, came a folder")
    kind = _format(path)
    _check_columns(columns, kind)
    with _open(path) as file:
        lines = _Lines(path, file)
        if kind == "jsonl":
            rows = _json_rows(lines, columns or ("source", "target"))
        else:
            rows = _chosen(lines, _csv_rows(lines) if kind == "csv" else _tsv_rows(lines), columns)
        found = Pairs([], [])
        for number, (source, target) in rows:
            for name, text in (("source", source), ("target", target)):
                if not text.strip():
                    raise lines.complaint(f"expected a text, came an empty {name}", number)
            found.sources.append(source)
            found.targets.append(target)
    if not found.sources:
        raise ValueError(f"{path}: no pairs")
    return found


def _format(path: str) -> str:
    """Tells the format by the name's ending."""
    ending = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    if ending not in _FORMATS:
        raise ValueError(
            f"{path}: expected a name that ends in {', '.join(_FORMATS)}, or one of them and .gz"
        )
    return _FORMATS[ending]


def _check_columns(columns: Any, kind: str) -> None:
    """Refuses what is neither None, two places nor two names."""
    if columns is None:
        return
    two = isinstance(columns, (list, tuple)) and len(columns) == 2
    names = two and all(isinstance(column, str) for column in columns)
    places = two and all(type(column) is int and column >= 0 for column in columns)
    if kind == "jsonl" and not names:
        raise ValueError(f"`columns` must be None or two names in JSON. Received: {columns!r}")
    if not names and not places:
        raise ValueError(
            f"`columns` must be None, two ints from 0, or two names. Received: {columns!r}"
        )


def _open(path: str) -> BinaryIO:
    """Opens a file for reading bytes, unpacked."""
    if path.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return open(path, "rb")


class _Lines:
    """The lines of a file as text with their ends, and complaints that name the line.

    Args:
        path: String, the file's name in complaints.
        file: File of bytes.

    Attributes:
        number: Int, the line that was read last, from 1.
    """

    def __init__(self, path: str, file: BinaryIO):
        self.number = 0
        self._path = path
        self._file = file

    def complaint(self, text: str, number: int | None = None) -> ValueError:
        """Makes an error about a line, by default the one that was read last."""
        return ValueError(f"{self._path}:{number or self.number}: {text}")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number += 1
        line = self._read()
        if not line:
            raise StopIteration
        if self.number == 1 and line.startswith(_UTF_16_MARKS):
            raise self.complaint("expected UTF-8, came UTF-16: save it as UTF-8")
        if self.number == 1 and line.startswith(b"\x1f\x8b"):
            raise self.complaint("expected text, came gzip: let its name end in .gz")
        if b"\0" in line:
            raise self.complaint(
                f"expected text, came a NUL as byte {line.index(0) + 1} of the line, as in UTF-16 "
                "or a file that is not text: save it as UTF-8"
            )
        if len(line.removesuffix(b"\n").removesuffix(b"\r")) > LIMIT:
            raise self.complaint(f"expected at most {LIMIT:,} bytes in a line, came more")
        text = self._decode(line)
        return text.removeprefix(_MARK) if self.number == 1 else text

    def _read(self) -> bytes:
        """Reads to the line's end or just beyond the limit; nothing at the end of the file."""
        try:
            return self._file.readline(LIMIT + len("\r\n"))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.complaint(f"expected gzip, came a broken file: {error}") from error

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.complaint(
                f"expected UTF-8, came 0x{line[error.start]:02X} as byte {error.start + 1} of the "
                "line: save it as UTF-8"
            ) from error


def _tsv_rows(lines: _Lines) -> Iterator[Row]:
    """Splits lines at tabs."""
    for line in lines:
        line = line.removesuffix("\n").removesuffix("\r")
        if "\r" in line:
            raise lines.complaint(
                "expected lines that end in line feeds, came a carriage return within one"
            )
        if line.strip() or "\t" in line:
            yield lines.number, line.split("\t")


def _csv_rows(lines: _Lines) -> Iterator[Row]:
    """Reads rows, each of a line or, with line ends in quotes, of several."""
    reader = csv.reader(lines, strict=True)  # else an open quote takes in the rest of the file
    while True:
        number = lines.number + 1
        try:
            row = _csv_row(reader)
        except csv.Error as error:
            what = str(error).split(" - ")[0]  # without its hint on how to open files in Python
            raise lines.complaint(f"expected CSV, came a row with: {what}", number) from error
        if row is None:
            return
        if row and not (len(row) == 1 and row[0].isspace()):
            yield number, row


def _csv_row(reader: Iterator[list[str]]) -> list[str] | None:
    """Reads a row, whose fields may be as long as a line may; None at the end."""
    with _CSV_LIMIT:
        before = csv.field_size_limit(LIMIT)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(before)


def _chosen(lines: _Lines, rows: Iterator[Row], columns: Columns) -> Iterator[Row]:
    """Chooses two fields of each row, and complains of rows that do not have them."""
    source, target, width = 0, 1, 2
    expected = "2 columns"
    hint = "; choose two with `columns=`"
    if columns is not None:
        hint = ""
        if isinstance(columns[0], str):
            source, target, width = _header(lines, rows, columns)
            expected = f"{width} columns, as in the header"
        else:
            source, target = cast(Sequence[int], columns)
            width = 0  # any
            expected = f"columns {source} and {target}, from 0"
    for number, row in rows:
        if (width and len(row) != width) or len(row) <= max(source, target):
            came = f"{len(row)} column{'s' * (len(row) != 1)}"
            raise lines.complaint(f"expected {expected}, came {came}{hint}", number)
        yield number, [row[source], row[target]]


def _header(lines: _Lines, rows: Iterator[Row], columns: Sequence[Any]) -> tuple[int, int, int]:
    """Reads the header: the places of two columns, and how many there are."""
    number, header = next(rows, (0, None))
    if header is None:
        return 0, 0, 0  # no rows follow: the caller tells that there are no pairs
    for name in columns:
        if header.count(name) != 1:
            raise lines.complaint(
                f"expected a header with one column {name!r}, came {_listed(header)}", number
            )
    return header.index(columns[0]), header.index(columns[1]), len(header)


def _json_rows(lines: _Lines, names: Sequence[Any]) -> Iterator[Row]:
    """Reads an object a line and takes two strings of it."""
    for line in lines:
        if not line.strip():
            continue
        try:
            value = json.loads(line.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            came = f"{error.msg} (character {error.colno})"
            raise lines.complaint(f"expected a JSON object, came bad JSON: {came}") from error
        except (ValueError, RecursionError) as error:  # a number too long, or too many brackets
            raise lines.complaint(f"expected a JSON object, came bad JSON: {error}") from error
        if not isinstance(value, dict):
            raise lines.complaint(f"expected a JSON object, came {reprlib.repr(value)}")
        yield lines.number, [_json_text(lines, value, name) for name in names]


def _json_text(lines: _Lines, value: dict[str, Any], name: str) -> str:
    """Takes a string that can be written as UTF-8 out of an object."""
    if name not in value:
        raise lines.complaint(f"expected a key {name!r}, came {_listed(value)}")
    text = value[name]
    if not isinstance(text, str):
        raise lines.complaint(f"expected a string as {name!r}, came {reprlib.repr(text)}")
    if "\0" in text:
        raise lines.complaint(f"expected text as {name!r}, came a NUL")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise lines.complaint(f"expected text as {name!r}, came half a surrogate pair")
    return text


def _listed(names: Iterable[str]) -> str:
    """Names on one line, the first twenty of them."""
    names = list(names)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (", ".join(map(reprlib.repr, names[:20])) or "none") + more
