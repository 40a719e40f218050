"""Codecs: how a pair of texts becomes ids, and ids become text again.

A plain codec treats the sides apart. One that copies gives tokens that its vocabularies do not know
ids of their own, by their place in the source, so that they can be answered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_attn.text.tokenizers import Tokenizer
from keras_attn.types import BOS, EOS, PAD, UNK


def size_of(vocabulary: Any) -> int:
    """Return the number of ids of a tokeniser, or of a size."""
    return vocabulary if isinstance(vocabulary, int) else vocabulary.vocabulary_size


class Codec:
    """Each side by its own tokeniser.

    Args:
        source: A tokeniser, or a vocabulary size for ids.
        target: A tokeniser, or a vocabulary size.

    Attributes:
        copies: Whether targets may have tokens of their source that the vocabulary lacks.
    """

    copies = False

    def __init__(self, source: Any, target: Any):
        self.source, self.target = source, target
        self.source_size, self.target_size = size_of(source), size_of(target)

    def builds(self) -> int:
        """Return a number that grows when a graph with these tokenisers is to be made anew."""
        sides = (side for side in (self.source, self.target) if isinstance(side, Tokenizer))
        return sum(side.builds() for side in sides)

    @property
    def to_target(self) -> np.ndarray:
        """The target's id of every source id, int32 (Vs,), UNK where it has none.

        Ids are matched by text; with sizes alone, they are shared.
        """
        if isinstance(self.source, int):
            ids = np.arange(self.source_size)
            return np.where(ids < self.target_size, ids, UNK).astype(np.int32)
        known = {token: i for i, token in enumerate(self.target.vocabulary)}
        return np.array([known.get(token, UNK) for token in self.source.vocabulary], np.int32)

    def source_limit(self, width: int) -> int:
        """Return the number of ids of sources (B, width)."""
        return self.source_size

    def target_limit(self, width: int) -> int:
        """Return the number of ids of targets of sources (B, width)."""
        return self.target_size

    def reachable(self, target_ids: np.ndarray, source_lengths: np.ndarray) -> np.ndarray:
        """Return target ids (n, T), or (n,), with UNK for copies of what a source lacks.

        Args:
            target_ids: Int (n, ...).
            source_lengths: Int (n,), tokens of each source, EOS included.
        """
        return target_ids

    def canonical(self, ids: np.ndarray, sources: Any) -> np.ndarray:
        """Return target ids (n, T) in which a token that the vocabulary knows has its own id."""
        return ids

    def source_ids(self, texts):
        """Turn sources (B,) into ids, ragged (B, None), without EOS."""
        return self.source.tokenize(texts)

    def target_ids(self, texts, sources):
        """Turn targets (B,) of `sources` (B,) into ids, ragged (B, None), without EOS."""
        return self.target.tokenize(texts)

    def text(self, ids, sources):
        """Turn ids (B, T) of targets of `sources` (B,) into strings (B,), up to the first EOS."""
        return self.target.detokenize(ids)

    def source_tokens(self, ids, sources):
        """Name the ids (B, S) of `sources` (B,)."""
        return self.source.tokens(ids)

    def target_tokens(self, ids, sources):
        """Name the ids (B, T) of targets of `sources` (B,)."""
        return self.target.tokens(ids)


class CopyCodec(Codec):
    """Tokens without an id get one: Vs + j in a source, V + j in a target.

    j is the first position of the token in the source, among those that are not cut off. A target's
    token that is not there is UNK. Best have one tokeniser for both: of a token that the target's
    vocabulary knows and the source's does not, a copy is another id than the token's own, and
    training gives it no credit.

    Args:
        source: A tokeniser with `pieces`, or a vocabulary size for ids.
        target: The same.
        max_source: Most tokens of a source, EOS included.

    Raises:
        ValueError: a tokeniser that does not keep the text of unknown tokens.
    """

    copies = True

    def __init__(self, source: Any, target: Any, max_source: int):
        super().__init__(source, target)
        for argument, vocabulary in (("source", source), ("target", target)):
            if not isinstance(vocabulary, int) and not hasattr(vocabulary, "pieces"):
                raise ValueError(
                    f"{argument}: copying needs the text of unknown tokens, which a "
                    f"{type(vocabulary).__name__} does not keep; use a CharacterTokenizer or a "
                    "WhitespaceTokenizer."
                )
        if isinstance(source, int) != isinstance(target, int):
            raise ValueError(
                "source, target: copying needs tokenisers on both sides, or sizes on both."
            )
        self.max_source = max_source

    def source_limit(self, width):
        """See `Codec.source_limit`."""
        return self.source_size + width

    def target_limit(self, width):
        """See `Codec.target_limit`."""
        return self.target_size + width

    def reachable(self, target_ids, source_lengths):
        """See `Codec.reachable`."""
        lengths = np.reshape(source_lengths, (-1, *[1] * (np.ndim(target_ids) - 1)))
        return np.where(target_ids >= self.target_size + lengths, UNK, target_ids)

    def canonical(self, ids, sources):
        """See `Codec.canonical`."""
        if isinstance(self.target, int) or not (ids >= self.target_size).any():
            return ids
        known = {token.encode(): i for i, token in enumerate(self.target.vocabulary)}
        tokens = self.target_tokens(ids, sources).numpy()
        own = np.vectorize(lambda token, i: known.get(token, i), otypes=[ids.dtype])(tokens, ids)
        return np.where(ids >= self.target_size, own, ids)

    def source_ids(self, texts):
        """See `Codec.source_ids`."""
        ids, pieces = self.source.tokenize(texts), self.source.pieces(texts)
        return _with_places(ids, pieces, pieces, self.source_size)

    def target_ids(self, texts, sources):
        """See `Codec.target_ids`."""
        ids, pieces = self.target.tokenize(texts), self.target.pieces(texts)
        return _with_places(ids, pieces, self._source_pieces(sources), self.target_size)

    def _source_pieces(self, sources):
        return self.source.pieces(sources)[:, : self.max_source - 1]

    def text(self, ids, sources):
        """See `Codec.text`."""
        ids = tf.cast(ids, tf.int64)
        before_end = tf.cumsum(tf.cast(ids == EOS, tf.int32), axis=-1) == 0
        kept = before_end & (ids != PAD) & (ids != BOS)
        tokens = tf.ragged.boolean_mask(self.target_tokens(ids, sources), kept)
        return self.target.join(tokens)

    def source_tokens(self, ids, sources):
        """See `Codec.source_tokens`."""
        return self._named(ids, self.source.tokens(ids), sources, self.source_size)

    def target_tokens(self, ids, sources):
        """See `Codec.target_tokens`."""
        return self._named(ids, self.target.tokens(ids), sources, self.target_size)

    def _named(self, ids, tokens, sources, size):
        """Name ids (B, T) from `size` on by the piece of the source at that place."""
        places = tf.cast(ids, tf.int64) - size
        pieces = self._source_pieces(sources).to_tensor("<unk>")  # (B, S)
        pieces = tf.pad(pieces, [[0, 0], [0, 1]], constant_values="<unk>")  # never empty
        inside = tf.clip_by_value(places, 0, tf.shape(pieces, tf.int64)[1] - 1)
        return tf.where(places >= 0, tf.gather(pieces, inside, batch_dims=1), tokens)


def _with_places(ids, pieces, source_pieces, size):
    """Give unknown tokens the id `size` + their first place in the source, if they are there.

    Args:
        ids: Int32, ragged (B, None).
        pieces: Strings, ragged (B, None), the text of each id.
        source_pieces: Strings, ragged (B, None).
        size: The number of ids of the vocabulary.
    """
    unknown = tf.where(ids.flat_values == UNK)  # (n, 1)
    rows, needles = (tf.gather(x, unknown[:, 0]) for x in (ids.value_rowids(), pieces.flat_values))
    keys = [
        tf.strings.join([tf.strings.as_string(row), text], ":")
        for row, text in (
            (source_pieces.value_rowids(), source_pieces.flat_values),
            (rows, needles),
        )
    ]
    tokens, same = tf.unique(tf.concat(keys, axis=0))  # memory grows with the texts, not squared
    there = tf.shape(keys[0])[0]
    starts = tf.gather(source_pieces.row_starts(), source_pieces.value_rowids())
    places = tf.cast(tf.range(tf.cast(there, starts.dtype)) - starts, tf.int32)
    first = tf.math.unsorted_segment_min(places, same[:there], tf.shape(tokens)[0])
    place = tf.gather(first, same[there:])
    found = tf.where(place < tf.int32.max, size + place, UNK)  # an empty segment's is the largest
    return ids.with_flat_values(tf.tensor_scatter_nd_update(ids.flat_values, unknown, found))
