"""What tokenisers are given: texts, strings, ids and vocabularies, checked and made tensors."""

from __future__ import annotations

import collections
import numbers
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_attn.types import SPECIAL_TOKENS

NUM_SPECIAL = len(SPECIAL_TOKENS)
CHUNK = 16384  # texts taken at once: bounds memory, amortises the call of an operation
_EMPTY = "Invalid `texts`: expected at least one text to learn from. Received none."


def check_limits(vocabulary_size: int | None, min_count: int) -> None:
    """Check the numbers that `learn` takes.

    Args:
        vocabulary_size: Int above 4, or None.
        min_count: Positive int.

    Raises:
        ValueError: A number is none, or too small.
    """
    for name, value in (("vocabulary_size", vocabulary_size), ("min_count", min_count)):
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole and not (name == "vocabulary_size" and value is None):
            raise ValueError(f"Invalid `{name}`: expected a positive int. Received: {value!r}.")
    if vocabulary_size is not None and vocabulary_size <= NUM_SPECIAL:
        raise ValueError(
            f"Invalid `vocabulary_size`: {NUM_SPECIAL} ids are special. "
            f"Expected more than {NUM_SPECIAL}. Received: {vocabulary_size}."
        )
    if min_count < 1:
        raise ValueError(f"Invalid `min_count`: expected 1 or more. Received: {min_count}.")


def as_vocabulary(vocabulary: Iterable[str]) -> tuple[str, ...]:
    """Check a vocabulary: the special tokens, then at least one token, none twice.

    Raises:
        TypeError: It is a single string, or an element is not a str.
        ValueError: The special tokens are not first, nothing follows them, a token is repeated or
            holds a lone surrogate.
    """
    if isinstance(vocabulary, str | bytes):
        raise TypeError(
            f"Invalid `vocabulary`: expected a list of str. Received: {reprlib.repr(vocabulary)}."
        )
    tokens = tuple(vocabulary)
    for position, token in enumerate(tokens):
        if not isinstance(token, str):
            raise TypeError(
                f"Invalid `vocabulary`: vocabulary[{position}] must be a str. "
                f"Received: {reprlib.repr(token)} ({type(token).__name__})."
            )
        if any("\ud800" <= character <= "\udfff" for character in token):
            raise ValueError(
                f"Invalid `vocabulary`: vocabulary[{position}] holds a lone surrogate, which "
                f"UTF-8 cannot spell. Received: {reprlib.repr(token)}."
            )
    if tokens[:NUM_SPECIAL] != SPECIAL_TOKENS or len(tokens) == NUM_SPECIAL:
        raise ValueError(
            f"Invalid `vocabulary`: expected {SPECIAL_TOKENS}, then at least one token. "
            f"Received: {reprlib.repr(tokens)}."
        )
    if len(set(tokens)) < len(tokens):
        repeated = [token for token, n in collections.Counter(tokens).items() if n > 1]
        raise ValueError(f"Invalid `vocabulary`: repeated tokens: {reprlib.repr(repeated)}.")
    return tokens


def chunks(texts: Any) -> Iterator[Any]:
    """Yield texts as string tensors (n,).

    Args:
        texts: A list, tuple or NumPy array of str or bytes, or a `tf.data.Dataset` of string
            tensors, single or batched.

    Raises:
        TypeError: `texts` is a single string or no collection; an element is not a string.
        ValueError: There is no text, the array is no vector, or the dataset is infinite.
    """
    if isinstance(texts, tf.data.Dataset):
        return _dataset_chunks(texts)
    if isinstance(texts, str | bytes):
        raise TypeError(
            "Invalid `texts`: expected a list of strings. Received a single "
            f"{type(texts).__name__}: pass a list, `[text]`."
        )
    if not isinstance(texts, list | tuple):
        if not hasattr(texts, "__array__"):
            raise TypeError(
                "Invalid `texts`: expected a list, tuple, NumPy array or tf.data.Dataset of "
                f"strings. Received: {type(texts).__name__}."
            )
        array = np.asarray(texts)
        if array.ndim != 1:
            raise ValueError(f"Invalid `texts`: expected shape (N,). Received: {array.shape}.")
        texts = array.tolist()
    if not texts:
        raise ValueError(_EMPTY)
    starts = range(0, len(texts), CHUNK)
    return (tf.constant(utf8(texts[start : start + CHUNK], "texts", start)) for start in starts)


def _dataset_chunks(texts: Any) -> Iterator[Any]:
    spec = texts.element_spec
    if not isinstance(spec, tf.TensorSpec) or spec.dtype != tf.string:
        raise TypeError(
            "Invalid `texts`: expected a dataset of string tensors, single or batched. "
            f"Received a dataset of {spec}."
        )
    if texts.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("Invalid `texts`: expected a finite dataset. Received an infinite one.")
    if spec.shape.rank == 0:
        texts = texts.batch(CHUNK)
    else:
        texts = texts.map(lambda batch: tf.reshape(batch, [-1])).rebatch(CHUNK)
    empty = True
    for chunk in texts:
        empty = False
        yield chunk
    if empty:
        raise ValueError(_EMPTY)


def utf8(texts: Iterable[Any], name: str, start: int = 0) -> list[bytes]:
    """Encode texts; a lone surrogate becomes invalid UTF-8, to be treated as such.

    Args:
        texts: Str or bytes.
        name: What errors call them.
        start: Number of the first one, for errors.

    Raises:
        TypeError: An element is neither str nor bytes.
    """
    encoded = []
    for position, text in enumerate(texts, start):
        if isinstance(text, str):
            encoded.append(text.encode("utf-8", "surrogatepass"))
        elif isinstance(text, bytes):
            encoded.append(text)
        else:
            raise TypeError(
                f"Invalid `{name}`: {name}[{position}] must be str or bytes. "
                f"Received: {reprlib.repr(text)} ({type(text).__name__})."
            )
    return encoded


def as_strings(strings: Any) -> Any:
    """Turn what `tokenize` takes into a string tensor, () or (B,).

    Raises:
        TypeError: An element is neither str nor bytes, or there is nothing of the kind.
        ValueError: The rank is above 1.
    """
    if isinstance(strings, str | bytes):
        return tf.constant(utf8([strings], "strings")[0])
    if isinstance(strings, np.ndarray):
        strings = strings.tolist() if strings.ndim == 1 else tf.constant(strings)
    if isinstance(strings, list | tuple):
        return tf.constant(utf8(strings, "strings"), tf.string, shape=[len(strings)])
    if not tf.is_tensor(strings) or strings.dtype != tf.string:
        raise TypeError(
            "Invalid `strings`: expected a list, NumPy array or tensor of strings. "
            f"Received: {reprlib.repr(strings)} ({type(strings).__name__})."
        )
    if strings.shape.rank is not None and strings.shape.rank > 1:
        raise ValueError(f"Invalid `strings`: expected shape (B,). Received: {strings.shape}.")
    return strings


def as_ids(ids: Any) -> Any:
    """Turn ids of any kind into an int64 tensor, ragged where they are.

    Raises:
        TypeError: The ids are not integers.
    """
    if not tf.is_tensor(ids):
        try:
            ids = np.asarray(ids)
        except ValueError:  # rows of unequal lengths
            ids = tf.ragged.constant(ids)
        else:
            ids = ids.astype(np.int64) if ids.size == 0 else ids  # NumPy makes [] a float
    if not tf.as_dtype(ids.dtype).is_integer:
        raise TypeError(f"Invalid `ids`: expected integers. Received dtype: {ids.dtype}.")
    return tf.cast(ids, tf.int64)
