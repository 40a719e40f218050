"""Checking: whether a server answers what a model did before it was exported."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_attn.types import EOS


def golden(folder: Any) -> list[dict]:
    """Return the golden rows of an exported model's folder, or of its `assets.extra`.

    Raises:
        FileNotFoundError: there is no golden.jsonl.
    """
    lines = beside(folder, "golden.jsonl").split("\n")  # not `splitlines`: texts hold U+2028
    return [json.loads(line) for line in lines if line]


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


CLOSE = 0.01  # nats: farther apart, two tokens are no tie, whatever scores may be off


class Difference(NamedTuple):
    """What a server says otherwise than a golden row.

    Attributes:
        text: It, for people.
        tie: Whether two tokens were so close to each other that rounding decided.
    """

    text: str
    tie: bool = False


def differences(client: Any, rows: list[dict], tolerance: float = 1e-5) -> Iterator[Difference]:
    """Yield what a server says otherwise than golden rows; scores may differ by rounding.

    Args:
        client: A `Client`.
        rows: From `golden`.
        tolerance: How far, in nats and relative to scores beyond 1, a score may be from the golden
            one; ten times that, and at most 0.01 nats, is how close two tokens are of which either
            may be taken.

    Raises:
        ValueError: the tolerance is not positive and finite.
        ServerError: the server does not answer.
    """
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance: expected a positive number, got {tolerance!r}.")
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
                expected = f"expected {len(rows)} rows; it is another model's"
                yield Difference(f"{signature}: {output}: {expected}")
                return
    for i, row in enumerate(rows):
        target = said["target"][i].decode("utf-8", "replace")
        yield from _compared(row, "texts", "target", target, said["score"][i], tolerance)
        target_ids = _ended(of_ids["target_ids"][i].tolist())
        yield from _compared(row, "ids", "target_ids", target_ids, of_ids["score"][i], tolerance)


def _compared(row, kind, name, value, score, tolerance) -> Iterator[Difference]:
    """Yield how an answer differs from a golden row; of another target the score says nothing."""
    source, gap = row["source"], row.get("gap")
    if value != row[name]:
        tie = gap is not None and gap < min(10 * tolerance, CLOSE)
        told = f" (a tie: two tokens are {gap:.1e} apart)" if tie else ""
        expected = f"expected {row[name]!r}, got {value!r}"
        yield Difference(f"{source!r}: {name}: {expected}{told}", tie)
    elif not abs(score - row["score"]) <= tolerance * max(1, abs(row["score"])):
        expected = f"expected {row['score']:.6f}, got {float(score):.6f}"
        yield Difference(f"{source!r}: score of {kind}: {expected}")


def _ended(ids: list[int]) -> list[int]:
    """Return ids up to EOS, or to the last that is not padding."""
    if EOS in ids:
        return ids[: ids.index(EOS) + 1]
    return ids[: len(ids) - next((n for n, i in enumerate(reversed(ids)) if i), len(ids))]
