"""Embedding tables that a user brings, such as pretrained word vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_attn.models import Seq2Seq


def width_of(tables: dict[str, Any], options: dict[str, Any]) -> dict[str, int]:
    """Return the `embedding_size` that the tables given have, or nothing if there are none.

    Args:
        tables: "source_embeddings" and "target_embeddings", each a matrix or None.
        options: What the user changes.

    Raises:
        ValueError: no matrix of finite numbers, or widths that differ.
    """
    widths = {}
    for argument, table in tables.items():
        if table is not None:
            array = np.asarray(table)
            if array.ndim != 2 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
                raise ValueError(
                    f"{argument}: expected a matrix (vocabulary, embedding_size) of finite "
                    f"numbers, got shape {array.shape} of {array.dtype}."
                )
            widths[argument] = array.shape[1]
    if "embedding_size" in options:
        widths["embedding_size"] = options["embedding_size"]
    if len(set(widths.values())) > 1:
        raise ValueError(f"embedding widths differ: {widths}.")
    return {"embedding_size": next(iter(widths.values()))} if widths else {}


def assign(model: Seq2Seq, tables: dict[str, Any]) -> None:
    """Put tables into a model, row i for id i; they are trained on like any other weight.

    Raises:
        ValueError: a table of another shape than the model's, or for embeddings that it has not.
    """
    for argument, table in tables.items():
        if table is None:
            continue
        if argument == "target_embeddings":
            if not model.decoder.feedback:
                raise ValueError(f"{argument}: with feedback=False there are no target embeddings.")
            if model.share_embeddings:
                raise ValueError(
                    f"{argument}: with share_embeddings=True there is one table, source_embeddings."
                )
        layer = getattr(model, argument.removesuffix("s"))
        expected, found = tuple(layer.embeddings.shape), np.shape(table)
        if found != expected:
            raise ValueError(
                f"{argument}: expected shape {expected}, a row an id (0 to 3 are special), got "
                f"{found}."
            )
        layer.embeddings.assign(table)
