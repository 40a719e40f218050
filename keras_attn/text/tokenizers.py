"""Strings to ids and back, in the graph: an exported model takes text and gives text.

Core TensorFlow operations do it, so an exported model loads anywhere; only the options `nfkc` and
`casefold` need tensorflow-text's, as `needs_tf_text` tells. Special ids come first, and no text
ever becomes one: a literal `</s>` is an unknown token, or four characters. Everything works
eagerly, in `tf.data`, and in a `tf.function` that is exported.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import reprlib
import threading
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf

from keras_attn.text.arguments import (
    NUM_SPECIAL,
    as_ids,
    as_strings,
    as_vocabulary,
    check_limits,
    chunks,
)
from keras_attn.text.cleaning import Cleaning
from keras_attn.types import BOS, EOS, PAD, SPECIAL_TOKENS, UNK

__all__ = ["ByteTokenizer", "CharacterTokenizer", "Tokenizer", "WhitespaceTokenizer"]

_BYTE_VOCABULARY = (
    *SPECIAL_TOKENS,
    *(chr(value) if 0x20 <= value < 0x7F else f"\\x{value:02x}" for value in range(256)),
)
_BYTE_NAMES = tuple(name.encode() for name in _BYTE_VOCABULARY)
_BYTE_SPELLINGS = (*_BYTE_NAMES[:NUM_SPECIAL], *(bytes([value]) for value in range(256)))
_BUILDING = threading.Lock()  # shared: tables are built once in a tokenizer's life


class Tokenizer(abc.ABC):
    """What every tokenizer does: `tokenize`, `detokenize`, and naming ids for people.

    A tokenizer is an immutable value: equal configs are equal tokenizers, and copies, pickles and
    Keras files hold the config alone. A subclass gives `_encode` and `_names`, and `_build` if it
    looks things up.

    Args:
        lowercase: Bool, whether to lowercase text before anything else.
        nfkc: Bool, whether to normalise text to Unicode's form NFKC; needs tensorflow-text.
        casefold: Bool, whether to fold case, NFKC included; needs tensorflow-text.

    Raises:
        ValueError: A flag is not a bool.
    """

    _separator: ClassVar[str] = ""  # what `detokenize` puts between tokens

    def __init__(self, *, lowercase: bool = False, nfkc: bool = False, casefold: bool = False):
        self._cleaning = Cleaning(lowercase, nfkc, casefold)
        self._built: Any = None
        self._builds = 0

    @property
    def cleaning(self) -> Cleaning:
        """What is done to text first."""
        return self._cleaning

    @property
    def lowercase(self) -> bool:
        """Whether text is lowercased."""
        return self._cleaning.lowercase

    @property
    def needs_tf_text(self) -> bool:
        """Whether tensorflow-text must be there, here and wherever an export runs."""
        return self._cleaning.needs_tf_text

    @property
    @abc.abstractmethod
    def vocabulary(self) -> tuple[str, ...]:
        """The text of every id, in id order, special tokens first."""

    @property
    def vocabulary_size(self) -> int:
        """The number of ids, special ids included."""
        return len(self.vocabulary)

    def tokenize(self, strings: Any) -> Any:
        """Turn strings into ids, without BOS or EOS.

        Args:
            strings: Str or bytes (B,): a list, tuple, NumPy array or string tensor. A tensor of
                unknown rank is taken to be (B,), which is checked when it runs. Or one string.

        Returns:
            int32 `tf.RaggedTensor` (B, None); of one string, int32 tensor (T,).

        Raises:
            TypeError: An element is neither str nor bytes.
            ValueError: The rank is above 1.
        """
        strings = as_strings(strings)
        if strings.shape.rank == 0:
            return self._encode(strings[tf.newaxis]).values  # (T,)
        return self._encode(tf.ensure_shape(strings, [None]))  # (B, None)

    def detokenize(self, ids: Any) -> Any:
        """Turn ids into strings, up to the first EOS of a row, without PAD and BOS.

        UNK, and an id that is none of the vocabulary's, reads `<unk>`.

        Args:
            ids: Ints (B, T) of any dtype: tensor, ragged tensor, NumPy array or lists. Other ranks
                work alike: the last axis is joined. The list [] is an empty batch.

        Returns:
            String tensor (B,), UTF-8 (of a `ByteTokenizer`: any bytes).

        Raises:
            TypeError: The ids are not integers.
            ValueError: `ids` is a scalar.
        """
        ids = as_ids(np.zeros((0, 0)) if isinstance(ids, list) and not ids else ids)
        if isinstance(ids, tf.RaggedTensor):
            ids = ids.to_tensor(PAD)
        if ids.shape.rank == 0:
            raise ValueError("Invalid `ids`: expected ints (B, T). Received a scalar.")
        before_end = tf.cumsum(tf.cast(ids == EOS, tf.int32), axis=-1) == 0
        kept = before_end & (ids != PAD) & (ids != BOS)  # (..., T)
        lengths = tf.reshape(tf.math.count_nonzero(kept, axis=-1), [-1])
        values = tf.boolean_mask(tf.reshape(ids, [-1]), tf.reshape(kept, [-1]))
        rows = tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)
        texts = tf.reshape(self._join(rows), tf.shape(ids)[:-1])
        return tf.ensure_shape(texts, ids.shape[:-1])  # (B,)

    def tokens(self, ids: Any) -> Any:
        """Name every id, for plots and tables: EOS is `</s>`, an id out of range `<unk>`.

        Args:
            ids: Ints of any shape and dtype: tensor, ragged tensor, NumPy array or lists.

        Returns:
            String tensor of the shape of `ids`, ragged where `ids` is.

        Raises:
            TypeError: The ids are not integers.
        """
        return self._names(as_ids(ids))

    def resources(self) -> list[Any]:
        """Return the lookup tables, which an export must track: `tf.Module().tables = ...`."""
        return []

    def vocabulary_text(self) -> str:
        r"""Return the vocabulary for people to read: a token a line, in id order.

        A backslash and every unprintable character is escaped as in Python source (a backslash is
        doubled; \n, \x00, \u2028). To read a line back:
        `line.encode("latin-1", "backslashreplace").decode("unicode_escape")`.
        """
        return "".join(_escape(token) + "\n" for token in self.vocabulary)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-able."""
        return dataclasses.asdict(self._cleaning)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the tokenizer that gave `config`."""
        return cls(**config)

    @abc.abstractmethod
    def _encode(self, strings: Any) -> Any:
        """Turn a string tensor (B,) into ids, int32 ragged (B, None)."""

    @abc.abstractmethod
    def _names(self, ids: Any) -> Any:
        """Name int64 ids, dense or ragged, known or not."""

    def _spell(self, ids: Any) -> Any:
        """Turn int64 ids into what `detokenize` joins."""
        return self._names(ids)

    def _join(self, rows: Any) -> Any:
        """Turn int64 ids, ragged (B, None), into strings (B,)."""
        return tf.strings.reduce_join(self._spell(rows), axis=1, separator=self._separator)

    def _tables(self) -> Any:
        """Build the tables at first use, outside any graph that may be under construction."""
        with _BUILDING, tf.init_scope(), tf.device("CPU:0"):
            if self._built is None or not self._lives(self._built):
                self._built = self._build()
                self._builds += 1
            return self._built

    def builds(self) -> int:
        """Return how often tables were built: a graph that reads older ones is to be made anew.

        TensorFlow keeps a model of SentencePiece only until a seed is set.
        """
        self._tables()
        return self._builds

    def _lives(self, built: Any) -> bool:
        """Return whether TensorFlow still has what was built."""
        return True

    def _build(self) -> Any:
        """Make what `_tables` gives; here nothing is looked up."""
        return ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_built": None}  # a table belongs to one process

    def __len__(self) -> int:
        return self.vocabulary_size

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), self._cleaning, self.vocabulary))

    def __repr__(self) -> str:
        flags = dataclasses.asdict(self._cleaning).items()
        shown = [f"{name}={on}" for name, on in flags if on or name == "lowercase"]
        size = f"vocabulary_size={self.vocabulary_size}"
        return f"{type(self).__name__}({', '.join([size, *shown])})"


class _Tables(NamedTuple):
    ids: Any  # key -> int32 id, UNK by default
    names: Any  # int64 id -> text, `<unk>` by default


class _VocabularyTokenizer(Tokenizer):
    """A tokenizer that learns a vocabulary and looks tokens up in it.

    A subclass splits strings into keys, and maps a key to its token and back.
    """

    def __init__(
        self,
        vocabulary: Iterable[str],
        *,
        lowercase: bool = False,
        nfkc: bool = False,
        casefold: bool = False,
    ):
        super().__init__(lowercase=lowercase, nfkc=nfkc, casefold=casefold)
        self._vocabulary = as_vocabulary(vocabulary)
        for position, token in enumerate(self._vocabulary[NUM_SPECIAL:], NUM_SPECIAL):
            if not self._is_token(token):
                raise ValueError(
                    f"Invalid `vocabulary`: vocabulary[{position}] must be {self._token_rule}. "
                    f"Received: {reprlib.repr(token)}."
                )

    @classmethod
    def learn(
        cls,
        texts: Any,
        vocabulary_size: int | None = None,
        *,
        lowercase: bool = False,
        nfkc: bool = False,
        casefold: bool = False,
        min_count: int = 1,
    ) -> Self:
        """Learn the vocabulary of texts: the most frequent tokens, ties in code point order.

        Args:
            texts: A list, tuple or NumPy array of str or bytes, or a `tf.data.Dataset` of string
                tensors, single or batched.
            vocabulary_size: The most ids to give, the 4 special ids included. Default: no limit.
            lowercase: Bool, whether to lowercase text, here and ever after.
            nfkc: Bool, whether to normalise text to NFKC; needs tensorflow-text.
            casefold: Bool, whether to fold case; needs tensorflow-text.
            min_count: The fewest times that a token must occur.

        Returns:
            The tokenizer.

        Raises:
            TypeError: `texts` is a single string or no collection; an element is not a string.
            ValueError: `texts` is empty or yields no token; a number is too small.
        """
        check_limits(vocabulary_size, min_count)
        cleaning = Cleaning(lowercase, nfkc, casefold)
        counts: collections.Counter[Any] = collections.Counter()
        for chunk in chunks(texts):
            keys, _, repeats = tf.unique_with_counts(cls._split(cleaning.apply(chunk)).values)
            counts.update(dict(zip(keys.numpy().tolist(), repeats.numpy().tolist(), strict=True)))
        ranked = sorted((-n, cls._token(key)) for key, n in counts.items() if n >= min_count)
        tokens = [token for _, token in ranked if token not in SPECIAL_TOKENS]
        if not tokens:
            raise ValueError(f"No token in `texts` occurs {min_count} time(s) or more.")
        if vocabulary_size is not None:
            tokens = tokens[: vocabulary_size - NUM_SPECIAL]
        return cls([*SPECIAL_TOKENS, *tokens], **dataclasses.asdict(cleaning))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The text of every id, in id order, special tokens first."""
        return self._vocabulary

    def resources(self) -> list[Any]:
        """Return the lookup tables, which an export must track: `tf.Module().tables = ...`."""
        return list(self._tables())

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-able."""
        return {"vocabulary": list(self._vocabulary), **super().get_config()}

    # What a subclass says about its tokens.

    _token_rule: ClassVar[str]

    @staticmethod
    @abc.abstractmethod
    def _is_token(token: str) -> bool:
        """Whether text can ever be split into this token."""

    @staticmethod
    @abc.abstractmethod
    def _split(strings: Any) -> Any:
        """Split valid UTF-8 (B,) into keys, ragged (B, None)."""

    @staticmethod
    @abc.abstractmethod
    def _key(token: str) -> Any:
        """Map a token to its key."""

    @staticmethod
    @abc.abstractmethod
    def _token(key: Any) -> str:
        """Map a key to its token."""

    # How they are looked up.

    def pieces(self, strings: Any) -> Any:
        """Return the text of the tokens of strings (B,), known or not, ragged (B, None)."""
        keys = self._split(self._cleaning.apply(as_strings(strings)))
        return tf.ragged.map_flat_values(self._texts, keys)

    def join(self, pieces: Any) -> Any:
        """Join the texts of tokens, ragged (B, None), into strings (B,)."""
        return tf.strings.reduce_join(pieces, axis=1, separator=self._separator)

    @staticmethod
    def _texts(keys: Any) -> Any:
        """Turn flat keys into the text of their tokens: here keys are texts."""
        return keys

    def _encode(self, strings: Any) -> Any:
        return self._tables().ids.lookup(self._split(self._cleaning.apply(strings)))

    def _names(self, ids: Any) -> Any:
        return self._tables().names.lookup(ids)

    def _build(self) -> _Tables:
        # Special tokens are no keys: whatever spells one in a text is unknown.
        keys = tf.constant([self._key(token) for token in self._vocabulary[NUM_SPECIAL:]])
        names = tf.constant([token.encode() for token in self._vocabulary])
        if keys.dtype != tf.string:
            keys = tf.cast(keys, tf.int64)
        size = self.vocabulary_size
        return _Tables(
            ids=_table(keys, tf.range(NUM_SPECIAL, size, dtype=tf.int32), UNK),
            names=_table(tf.range(size, dtype=tf.int64), names, SPECIAL_TOKENS[UNK]),
        )


@keras.saving.register_keras_serializable(package="keras_attn")
class CharacterTokenizer(_VocabularyTokenizer):
    """One token a character, that is, a Unicode code point: an accent may be a token of its own.

    Invalid UTF-8 becomes U+FFFD, one for each ill-formed piece.

    Args:
        vocabulary: Strings: the 4 special tokens, then single characters.
        lowercase: Bool, whether to lowercase text.
        nfkc: Bool, whether to normalise text to NFKC; needs tensorflow-text.
        casefold: Bool, whether to fold case; needs tensorflow-text.

    Raises:
        TypeError: An element of `vocabulary` is not a str.
        ValueError: The special tokens are not first, or nothing follows them; a token is repeated,
            or is not one character.

    >>> tokenizer = CharacterTokenizer.learn(["banana"])
    >>> tokenizer.vocabulary
    ('<pad>', '<s>', '</s>', '<unk>', 'a', 'n', 'b')
    >>> tokenizer.tokenize(["nab", "cab"]).to_list()
    [[5, 4, 6], [3, 4, 6]]
    >>> tokenizer.detokenize([[5, 4, 6, 2, 0]]).numpy().tolist()
    [b'nab']
    """

    _token_rule = "exactly one character"

    @staticmethod
    def _is_token(token: str) -> bool:
        return len(token) == 1

    @staticmethod
    def _split(strings: Any) -> Any:
        return tf.cast(tf.strings.unicode_decode(strings, "UTF-8", errors="replace"), tf.int64)

    @staticmethod
    def _texts(keys: Any) -> Any:
        return tf.strings.unicode_encode(tf.cast(keys, tf.int32)[:, None], "UTF-8")

    @staticmethod
    def _key(token: str) -> int:
        return ord(token)

    @staticmethod
    def _token(key: int) -> str:
        return chr(key)


@keras.saving.register_keras_serializable(package="keras_attn")
class WhitespaceTokenizer(_VocabularyTokenizer):
    r"""One token between runs of ASCII whitespace: blank, \t, \n, \v, \f and \r.

    Other separators, such as the no-break space, belong to tokens. Invalid UTF-8 becomes U+FFFD.
    `detokenize` puts single blanks between tokens.

    Args:
        vocabulary: Strings: the 4 special tokens, then tokens without whitespace.
        lowercase: Bool, whether to lowercase text.
        nfkc: Bool, whether to normalise text to NFKC; needs tensorflow-text.
        casefold: Bool, whether to fold case; needs tensorflow-text.

    Raises:
        TypeError: An element of `vocabulary` is not a str.
        ValueError: The special tokens are not first, or nothing follows them; a token is repeated,
            empty, or holds whitespace.

    >>> tokenizer = WhitespaceTokenizer.learn(["F OW N", "F IY"])
    >>> tokenizer.vocabulary[4:]
    ('F', 'IY', 'N', 'OW')
    >>> tokenizer.tokenize(["N  IY", "</s> F"]).to_list()
    [[6, 5], [3, 4]]
    >>> tokenizer.detokenize([[6, 5, 2]]).numpy().tolist()
    [b'N IY']
    """

    _separator = " "
    _token_rule = "non-empty and without ASCII whitespace, or no text ever yields it"

    @staticmethod
    def _is_token(token: str) -> bool:
        return bool(token) and set(token).isdisjoint(" \t\n\v\f\r")

    @staticmethod
    def _split(strings: Any) -> Any:
        return tf.strings.split(strings)

    @staticmethod
    def _key(token: str) -> bytes:
        return token.encode()

    @staticmethod
    def _token(key: bytes) -> str:
        return key.decode()


@keras.saving.register_keras_serializable(package="keras_attn")
class ByteTokenizer(Tokenizer):
    r"""One token a byte: nothing to learn, nothing unknown, and any bytes round-trip exactly.

    The id of a byte is 4 + its value, so there are 260 ids. `vocabulary` and `tokens` show
    printable ASCII as itself and every other byte as \xNN. With `nfkc` or `casefold`, which are
    about text, invalid UTF-8 first becomes U+FFFD.

    Args:
        lowercase: Bool, whether to lowercase text; ASCII letters alone, all other bytes stay.
        nfkc: Bool, whether to normalise text to NFKC; needs tensorflow-text.
        casefold: Bool, whether to fold case; needs tensorflow-text.

    >>> ByteTokenizer().tokenize(["é!"]).to_list()
    [[199, 173, 37]]
    >>> ByteTokenizer().tokens([199, 37, 2]).numpy().tolist()
    [b'\\xc3', b'!', b'</s>']
    """

    @classmethod
    def learn(
        cls,
        texts: Any,
        vocabulary_size: int | None = None,
        *,
        lowercase: bool = False,
        nfkc: bool = False,
        casefold: bool = False,
        min_count: int = 1,
    ) -> Self:
        """Check the arguments as other tokenizers do, and learn nothing.

        Args:
            texts: A list, tuple or NumPy array of str or bytes, or a `tf.data.Dataset` of string
                tensors, single or batched.
            vocabulary_size: None or 260.
            lowercase: Bool, whether to lowercase ASCII letters.
            nfkc: Bool, whether to normalise text to NFKC; needs tensorflow-text.
            casefold: Bool, whether to fold case; needs tensorflow-text.
            min_count: Without effect.

        Returns:
            The tokenizer.

        Raises:
            TypeError: `texts` is a single string or no collection; an element is not a string.
            ValueError: `texts` is empty; `vocabulary_size` is not 260; `min_count` is too small.
        """
        tokenizer = cls(lowercase=lowercase, nfkc=nfkc, casefold=casefold)
        if vocabulary_size not in (None, len(tokenizer)):
            raise ValueError(
                f"Invalid `vocabulary_size`: a ByteTokenizer has {len(tokenizer)} ids. "
                f"Expected None or {len(tokenizer)}. Received: {vocabulary_size!r}."
            )
        check_limits(None, min_count)
        for _ in chunks(texts):
            pass
        return tokenizer

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The name of every id, in id order, special tokens first."""
        return _BYTE_VOCABULARY

    def vocabulary_text(self) -> str:
        r"""Return the vocabulary for people to read: a token a line, in id order.

        Bytes are escaped as in Python source: a backslash is doubled, unprintable is \xNN.
        """
        names = _BYTE_VOCABULARY
        return "".join((r"\\" if name == "\\" else name) + "\n" for name in names)

    def _encode(self, strings: Any) -> Any:
        if self._cleaning.needs_tf_text:
            strings = dataclasses.replace(self._cleaning, lowercase=False).apply(strings)
        if self._cleaning.lowercase:
            strings = tf.strings.lower(strings)
        values = tf.io.decode_raw(tf.strings.reduce_join(strings), tf.uint8)
        lengths = tf.cast(tf.strings.length(strings), tf.int64)
        ids = tf.cast(values, tf.int32) + NUM_SPECIAL
        return tf.RaggedTensor.from_row_lengths(ids, lengths, validate=False)  # (B, None)

    def _names(self, ids: Any) -> Any:
        return _gather(_BYTE_NAMES, ids)

    def _spell(self, ids: Any) -> Any:
        return _gather(_BYTE_SPELLINGS, ids)


# Text.


def _escape(token: str) -> str:
    return "".join(
        character
        if character.isprintable() and character != "\\"
        else character.encode("unicode_escape").decode()
        for character in token
    )


# Lookup.


def _table(keys: Any, values: Any, default: Any) -> Any:
    initializer = tf.lookup.KeyValueTensorInitializer(keys, values)
    return tf.lookup.StaticHashTable(initializer, default)


def _gather(texts: tuple[bytes, ...], ids: Any) -> Any:
    def pick(ids: Any) -> Any:
        known = (ids >= 0) & (ids < len(texts))
        return tf.gather(tf.constant(texts), tf.where(known, ids, UNK))

    return tf.ragged.map_flat_values(pick, ids)
