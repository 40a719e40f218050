"""Checking: whether a server answers what a model did before it was exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_attn.types import EOS


def golden(folder: Any) -> list[dict]:
    """Return the golden rows of an exported model's folder, or of its `assets.extra`.

    Raises:
        FileNotFoundError: there is no golden.jsonl.
    """
    return [json.loads(line) for line in beside(folder, "golden.jsonl").splitlines()]


def name(folder: Any) -> str:
    """Return the name that an exported model was made to be served by."""
    return json.loads(beside(folder, "keras_attn.json"))["name"]


def beside(folder: Any, file: str) -> str:
    """Return the text of a file in the folder of an exported model, or in its `assets.extra`.

    Raises:
        FileNotFoundError: it is not there.
    """
    for place in (Path(folder) / "assets.extra", Path(folder)):
        if (place / file).is_file():
            return (place / file).read_text("utf-8")
    raise FileNotFoundError(f"folder: there is no {file} in {str(folder)!r}.")


def differences(client: Any, rows: list[dict]) -> Iterator[str]:
    """Yield what a server says otherwise than golden rows; scores may differ by rounding.

    Where the two best tokens of a step are within rounding of each other, a server on another
    machine may take the other one; that is told as a difference too.

    Args:
        client: A `Client`.
        rows: From `golden`.

    Raises:
        ServerError: the server does not answer.
    """
    said = client.predict(source=[row["source"] for row in rows])
    width = max(len(row["source_ids"]) for row in rows)
    ids = np.zeros((len(rows), width), np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row["source_ids"])] = row["source_ids"]
    lengths = np.array([len(row["source_ids"]) for row in rows], np.int32)
    of_ids = client.predict("ids", source_ids=ids, source_lengths=lengths)
    for signature, answer, wanted in (
        ("serving_default", said, ("target", "score")),
        ("ids", of_ids, ("target_ids", "score")),
    ):
        for output in wanted:
            if len(answer.get(output, ())) != len(rows):
                yield f"{signature}: {output}: expected {len(rows)} rows; it is another model's"
                return
    for i, row in enumerate(rows):
        found = {
            "target": said["target"][i].decode("utf-8", "replace"),
            "target_ids": _ended(of_ids["target_ids"][i].tolist()),
        }
        for name, value in found.items():
            if value != row[name]:
                yield f"{row['source']!r}: {name}: expected {row[name]!r}, got {value!r}"
        for kind, score in (("texts", said["score"][i]), ("ids", of_ids["score"][i])):
            if not abs(score - row["score"]) <= 1e-5 * max(1, abs(row["score"])):
                expected = f"expected {row['score']:.6f}, got {float(score):.6f}"
                yield f"{row['source']!r}: score of {kind}: {expected}"


def _ended(ids: list[int]) -> list[int]:
    """Return ids up to EOS, or to the last that is not padding."""
    if EOS in ids:
        return ids[: ids.index(EOS) + 1]
    return ids[: len(ids) - next((n for n, i in enumerate(reversed(ids)) if i), len(ids))]
