"""What users give: told apart, checked, and turned into rows of ids, before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_attn.text.codec import Codec
from keras_attn.text.pipeline import Ids, rows_of, target_ids, tokenized
from keras_attn.types import EOS, PAD


def is_dataset(x: Any) -> bool:
    """Return whether `x` is a tf.data.Dataset."""
    return isinstance(x, tf.data.Dataset)


def is_text(x: Any) -> bool:
    """Return whether `x` is a string, many strings, or a dataset of pairs of strings."""
    if isinstance(x, str | bytes):
        return True
    if is_dataset(x):
        spec = x.element_spec
        first = spec[0] if isinstance(spec, tuple | list) and spec else spec
        return getattr(first, "dtype", None) == tf.string
    if isinstance(x, list | tuple):
        return bool(x) and any(isinstance(item, str | bytes | np.str_) for item in x)
    dtype = getattr(x, "dtype", None)
    if getattr(dtype, "kind", "") == "O":
        return any(isinstance(item, str | bytes) for item in np.ravel(x))
    return dtype == tf.string  # as NumPy's U and S are


def texts(argument: str, x: Any) -> list[Any]:
    """Return `x` as a list of str or bytes.

    Raises:
        TypeError: something in it is not a string.
        ValueError: it is not one-dimensional.
    """
    if isinstance(x, str | bytes):
        return [x]
    if x is None or isinstance(x, set | frozenset | dict):
        raise TypeError(
            f"{argument}: expected a list of strings, in order, got "
            f"{'None' if x is None else type(x).__name__}."
        )
    if tf.is_tensor(x):
        x = np.asarray(x)
    if getattr(x, "ndim", 1) != 1:
        raise ValueError(f"{argument}: expected a flat list of strings, got shape {x.shape}.")
    items = x.tolist() if isinstance(x, np.ndarray) else list(x)
    return list(checked_texts(argument, items))


def checked_texts(argument: str, items: Iterable[Any]) -> Iterator[Any]:
    """Yield what there is.

    Raises:
        TypeError: something is not a string; the message says at which place.
    """
    for i, item in enumerate(items):
        if not isinstance(item, str | bytes):
            raise TypeError(
                f"{argument}[{i}]: expected str or bytes, got {type(item).__name__} {item!r:.40}."
            )
        yield item


def same_number(x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> None:
    """Raise a ValueError unless `x` and `y` have as many rows, and at least one."""
    if len(x) != len(y):
        raise ValueError(
            f"{names[1]}: expected {len(x)} rows, as many as {names[0]} has, got {len(y)}."
        )
    if len(x) == 0:
        raise ValueError(f"{names[0]}: expected at least one pair, got none.")


def references(target: Any) -> tuple[Any, np.ndarray | None]:
    """Return lists of references as one list, and to which source each belongs, or None.

    Raises:
        ValueError: a source without a reference.
    """
    if not (isinstance(target, list | tuple) and target and isinstance(target[0], list | tuple)):
        return target, None
    counts = [len(several) if isinstance(several, list | tuple) else 0 for several in target]
    if any(counts) and not any(is_text(several) for several in target):
        return target, None  # ids
    if 0 in counts:
        raise ValueError(f"target[{counts.index(0)}]: expected a list of references, one or more.")
    return [text for several in target for text in several], np.repeat(range(len(counts)), counts)


def weights(sample_weight: Any, rows: int) -> np.ndarray:
    """Return sample weights of strings as float32 (rows,).

    Raises:
        TypeError: not numbers.
        ValueError: another shape than (rows,) or (rows, 1).
    """
    array = np.asarray(sample_weight)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"sample_weight: expected numbers, got {array.dtype}.")
    if array.shape not in ((rows,), (rows, 1)):
        raise ValueError(f"sample_weight: expected shape ({rows},), got {array.shape}.")
    return array.astype(np.float32).reshape(rows)


def id_array(argument: str, ids: Any, limit: Callable[[int], int]) -> np.ndarray:
    """Return `ids` as an int32 array (B, T), given the number of ids as a function of T.

    Raises:
        TypeError: not integers.
        ValueError: another rank, or an id outside the vocabulary.
    """
    try:
        array = np.asarray(ids)
    except ValueError as error:  # ragged lists
        raise ValueError(f"{argument}: expected rows of equal length, padded with 0.") from error
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{argument}: expected integer ids or strings, got {type(ids).__name__} of "
            f"{array.dtype}. A model built without tokenisers takes ids."
        )
    if array.ndim != 2:
        raise ValueError(f"{argument}: expected shape (batch, tokens), got {array.shape}.")
    size = limit(array.shape[1])
    outside = (array < 0) | (array >= size)
    if outside.any():
        row, column = (int(i[0]) for i in np.nonzero(outside))
        raise ValueError(
            f"{argument}[{row}, {column}]: expected an id of the vocabulary, 0 to "
            f"{size - 1}, got {array[row, column]}."
        )
    return array.astype(np.int32)


def id_pairs(x: Any, y: Any, codec: Codec) -> tuple[Any, Any]:
    """Return ids in memory as checked arrays; datasets and generators as they are.

    Args:
        x: {"source": ids (n, S), "target_in": ids (n, T)}, or what Keras iterates over.
        y: Ids (n, T), or None beside a dataset or a generator.
        codec: Knows which ids there are.

    Raises:
        TypeError: anything else.
        ValueError: a part is missing, of another shape, or has ids outside its vocabulary.
    """
    if isinstance(x, dict):
        missing = {"source", "target_in"} - set(x)
        if missing or y is None:
            raise ValueError(
                "x, y: expected strings, or a dict of ids 'source' and 'target_in' and ids "
                f"target_out; got none of {sorted(missing) or 'y'}."
            )
        source = id_array("x['source']", x["source"], codec.source_limit)
        limit = codec.target_limit(source.shape[1])
        target_in = id_array("x['target_in']", x["target_in"], lambda width: limit)
        x = {"source": source, "target_in": target_in}
        y = id_array("y", y, lambda width: limit)
        same_number(x["source"], x["target_in"], ("x['source']", "x['target_in']"))
        same_number(x["source"], y)
        if y.shape != x["target_in"].shape:
            raise ValueError(
                f"y: expected the shape of x['target_in'], {x['target_in'].shape}, got {y.shape}."
            )
    elif is_dataset(x):
        spec = x.element_spec
        ids = spec[0] if isinstance(spec, tuple) and len(spec) > 1 else spec
        if not isinstance(ids, dict) or {"source", "target_in"} - set(ids):
            raise TypeError(
                "x: expected a dataset of (source, target) strings, or of ({'source': ids, "
                f"'target_in': ids}}, target_out), got elements of {spec}."
            )
    elif x is None or isinstance(x, list | tuple | np.ndarray):
        nothing = x is None or len(x) == 0
        raise (ValueError if nothing else TypeError)(
            "x: expected at least one string, a dataset of pairs of strings, or a dict of ids "
            f"'source' and 'target_in'; got {'nothing' if nothing else type(x).__name__}."
        )
    return x, y


def sources_of(pairs: tf.data.Dataset) -> list[bytes]:
    """Return the sources of a dataset of strings, alone or in pairs, batched or not."""
    elements = (e[0] if isinstance(e, tuple) else e for e in pairs.as_numpy_iterator())
    return [source for element in elements for source in np.atleast_1d(element).tolist()]


def source_rows_of_ids(array: np.ndarray, max_source: int) -> Ids:
    """Return rows of ids (B, S) up to their first EOS, or last token, cut and ended with EOS.

    Raises:
        ValueError: PAD before or between tokens.
    """
    used = np.where(_from_end(array), PAD, array)
    bare = _token_counts(used)
    holes = (used == PAD) & (np.arange(array.shape[1]) < bare[:, None])
    if holes.any():
        row, column = (int(i[0]) for i in np.nonzero(holes))
        raise ValueError(
            f"source[{row}, {column}]: got PAD (0) before a token; pad behind the tokens alone."
        )
    kept = np.minimum(bare, max_source - 1)
    ended = np.pad(array, [(0, 0), (0, 1)])
    ended[np.arange(len(array)), kept] = EOS
    starts = np.concatenate([[0], np.cumsum(kept + 1)]).astype(np.int64)
    values = ended[np.arange(ended.shape[1]) <= kept[:, None]]
    return Ids(values, starts, bare > kept)


def target_rows_of_ids(array: np.ndarray, max_target: int) -> Ids:
    """Return the rows of ids (B, T) as they stand up to PAD, cut at `max_target`."""
    lengths = np.cumprod(array != PAD, axis=1).sum(axis=1)
    kept = np.minimum(lengths, max_target)
    starts = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    return Ids(array[np.arange(array.shape[1]) < kept[:, None]], starts, lengths > max_target)


def _from_end(array):
    """Return True from the first EOS of each row on."""
    return np.cumsum(array == EOS, axis=1) > 0


def _token_counts(array):
    """Return the position behind the last token of each row."""
    return np.where(array != PAD, np.arange(1, array.shape[1] + 1), 0).max(axis=1, initial=0)


def source_rows(argument: str, x: Any, codec: Codec, max_source: int, rows: Any) -> Ids:
    """Return source rows of strings (with a tokeniser) or of ids (with a size).

    Args:
        argument: What messages call `x`.
        x: n sources.
        codec: Knows which ids there are.
        max_source: Most tokens of a source.
        rows: What turns strings into rows, see `pipeline.rows_of`.
    """
    if isinstance(codec.source, int):
        return source_rows_of_ids(_ids(argument, x, codec.source_limit), max_source)
    return tokenized(rows, (_texts(argument, x),))


def target_rows(argument: str, x: Any, codec: Codec, max_target: int, sources: Any) -> Ids:
    """Return target rows of strings (with a tokeniser) or of ids (with a size).

    Args:
        argument: What messages call `x`.
        x: n targets.
        codec: Turns them into ids.
        max_target: Most tokens of a target.
        sources: As many sources.
    """
    if isinstance(codec.target, int):
        width = np.shape(sources)[-1] if np.ndim(sources) else 0
        array = _ids(argument, x, lambda _: codec.target_limit(width))
        return target_rows_of_ids(array, max_target)
    targets = _texts(argument, x)
    sources = texts("source", sources) if is_text(sources) else []
    same_number(sources, targets, ("source", argument))
    return tokenized(rows_of(codec.target_ids, max_target, target_ids), (targets, sources))


def _ids(argument, x, limit):
    if is_text(x):
        raise TypeError(
            f"{argument}: expected integer ids, got strings. This model has no tokenisers; build "
            "it with zoo.build(name, source=tokeniser, target=tokeniser)."
        )
    return id_array(argument, x, limit)


def _texts(argument, x):
    if not is_text(x) and not (isinstance(x, list | tuple) and not x):
        raise TypeError(
            f"{argument}: expected a string or a list of strings, got {type(x).__name__}. This "
            "model has tokenisers; it takes no ids."
        )
    return texts(argument, x)
