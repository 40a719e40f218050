r"""Subwords: words in pieces, learnt from texts. Frequent words are whole, no word is too rare.

`WordPieceTokenizer` splits the words between blanks; `SentencePieceTokenizer` splits text, blanks
included, and takes any SentencePiece model. Both need tensorflow-text, here and wherever an export
runs: a model server has its operations, a bare TensorFlow session must load them.
"""

from __future__ import annotations

import base64
import binascii
import collections
import dataclasses
import functools
import io
import os
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf

from keras_attn.text.arguments import NUM_SPECIAL, as_vocabulary, check_limits, chunks
from keras_attn.text.cleaning import Cleaning, tensorflow_text
from keras_attn.text.tokenizers import Tokenizer
from keras_attn.types import BOS, EOS, PAD, SPECIAL_TOKENS, UNK

__all__ = ["SentencePieceTokenizer", "WordPieceTokenizer"]

_SUFFIX = "##"
_MAX_BYTES = 2**31 - 1  # of a word: no word is unknown for its length alone
# Spellings inside tensorflow-text's operation. No word holds whitespace, so no word spells them.
_SECRET_SUFFIX = "\v"
_SECRET_SPECIAL = tuple(f"\n{token}" for token in SPECIAL_TOKENS)
_SECRET_NUL = "\t"  # the operation's own tables end a piece at a NUL


class _Subwords(Tokenizer):
    """A tokenizer whose pieces tensorflow-text finds, and which are named by position."""

    @property
    def needs_tf_text(self) -> bool:
        """Whether tensorflow-text must be there, here and wherever an export runs: yes."""
        return True

    def resources(self) -> list[Any]:
        """Return what an export must track: `tf.Module().tables = ...`."""
        return [self._tables().pieces]

    def _names(self, ids: Any) -> Any:
        return _pick(self._tables().names, ids)

    def _spell(self, ids: Any) -> Any:
        return _pick(self._tables().spellings, ids)


class _Built(NamedTuple):
    pieces: Any  # tensorflow-text's tokenizer, a tf.Module
    names: Any  # string (V,): what `tokens` shows
    spellings: Any  # string (V,): what `detokenize` joins
    ids: Any = None  # int32 (pieces,): our id of each piece of tensorflow-text, where they differ


def _pick(texts: Any, ids: Any) -> Any:
    """Gather texts (V,) by int64 ids, dense or ragged; an id out of range takes that of UNK."""

    def pick(ids: Any) -> Any:
        known = (ids >= 0) & (ids < tf.size(texts, tf.int64))
        return tf.gather(texts, tf.where(known, ids, UNK))

    return tf.ragged.map_flat_values(pick, ids)


# WordPiece.


@keras.saving.register_keras_serializable(package="keras_attn")
class WordPieceTokenizer(_Subwords):
    r"""Words between runs of ASCII whitespace, each split into the longest known pieces.

    A piece that continues a word is written `##piece`. A word that cannot be made of pieces is one
    unknown token. Invalid UTF-8 becomes U+FFFD. `detokenize` puts single blanks between words.
    Needs tensorflow-text.

    Args:
        vocabulary: Strings: the 4 special tokens, then pieces without whitespace. What starts with
            `##` and is longer than that continues a word.
        lowercase: Bool, whether to lowercase text.
        nfkc: Bool, whether to normalise text to NFKC.
        casefold: Bool, whether to fold case.

    Raises:
        TypeError: An element of `vocabulary` is not a str.
        ValueError: The special tokens are not first, or nothing follows them; a token is repeated,
            empty, or holds whitespace.

    >>> special = ["<pad>", "<s>", "</s>", "<unk>"]
    >>> tokenizer = WordPieceTokenizer([*special, "play", "##ing", "##ed"])
    >>> tokenizer.tokenize(["playing played", "plays </s>"]).to_list()
    [[4, 5, 4, 6], [3, 3]]
    >>> tokenizer.detokenize([[4, 5, 4, 6, 2]]).numpy().tolist()
    [b'playing played']
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
        for position, token in enumerate(self._vocabulary):
            if not token or not set(token).isdisjoint(" \t\n\v\f\r"):
                raise ValueError(
                    f"Invalid `vocabulary`: vocabulary[{position}] must be non-empty and without "
                    f"ASCII whitespace, or no text ever yields it. Received: {token!r}."
                )

    @classmethod
    def learn(
        cls,
        texts: Any,
        vocabulary_size: int = 8000,
        *,
        lowercase: bool = False,
        nfkc: bool = False,
        casefold: bool = False,
    ) -> Self:
        """Learn pieces of words with tensorflow-text's learner: the same ones for the same texts.

        Characters come first: every character of the texts is a piece, at the start of a word and
        inside one, unless they take more than all the ids; then words with rare ones are unknown.

        Args:
            texts: A list, tuple or NumPy array of str or bytes, or a `tf.data.Dataset` of string
                tensors, single or batched.
            vocabulary_size: Int, the most ids to give, the 4 special ids included.
            lowercase: Bool, whether to lowercase text, here and ever after.
            nfkc: Bool, whether to normalise text to NFKC.
            casefold: Bool, whether to fold case.

        Returns:
            The tokenizer.

        Raises:
            TypeError: `texts` is a single string or no collection; an element is not a string.
            ValueError: `texts` is empty or yields no piece; `vocabulary_size` is below 6.
            ImportError: tensorflow-text is not installed.
        """
        _check_size(vocabulary_size, NUM_SPECIAL + 2)
        cleaning = Cleaning(lowercase, nfkc, casefold)
        counts = _count_words(texts, cleaning)
        pieces = _learn_pieces(counts, vocabulary_size - NUM_SPECIAL)
        if not pieces:
            raise ValueError("No piece can be learnt from `texts`: they hold no word.")
        return cls([*SPECIAL_TOKENS, *pieces], **dataclasses.asdict(cleaning))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The text of every id, in id order, special tokens first."""
        return self._vocabulary

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-able."""
        return {"vocabulary": list(self._vocabulary), **super().get_config()}

    def _encode(self, strings: Any) -> Any:
        words = tf.strings.split(self._cleaning.apply(strings))  # (B, None)
        hidden = tf.strings.regex_replace(words.values, r"\x00", _SECRET_NUL)
        pieces = self._tables().pieces.tokenize(hidden)  # (words, None)
        splits = tf.gather(pieces.row_splits, words.row_splits)
        return tf.RaggedTensor.from_row_splits(pieces.values, splits, validate=False)

    def _join(self, rows: Any) -> Any:
        joined = tf.strings.reduce_join(self._spell(rows), axis=1)
        return tf.strings.regex_replace(joined, "^ ", "")

    def _build(self) -> _Built:
        pieces = self._vocabulary[NUM_SPECIAL:]
        module = tensorflow_text("A WordPieceTokenizer").FastWordpieceTokenizer(
            [*_SECRET_SPECIAL, *map(_secret, pieces)],
            suffix_indicator=_SECRET_SUFFIX,
            max_bytes_per_word=_MAX_BYTES,
            token_out_type=tf.int32,
            unknown_token=_SECRET_SPECIAL[UNK],
            no_pretokenization=True,
        )
        spellings = [piece[2:] if _is_suffix(piece) else f" {piece}" for piece in pieces]
        specials = [f" {token}" for token in SPECIAL_TOKENS]
        return _Built(module, _constant(self._vocabulary), _constant([*specials, *spellings]))


def _is_suffix(piece: str) -> bool:
    return piece.startswith(_SUFFIX) and len(piece) > len(_SUFFIX)


def _secret(piece: str) -> str:
    spelt = _SECRET_SUFFIX + piece[len(_SUFFIX) :] if _is_suffix(piece) else piece
    return spelt.replace("\0", _SECRET_NUL)


def _constant(texts: Iterable[str]) -> Any:
    return tf.constant([text.encode() for text in texts])


def _count_words(texts: Any, cleaning: Cleaning) -> list[tuple[str, int]]:
    """Count the words of texts, most frequent first, ties in code point order."""
    counts: collections.Counter[bytes] = collections.Counter()
    for chunk in chunks(texts):
        words, _, repeats = tf.unique_with_counts(tf.strings.split(cleaning.apply(chunk)).values)
        counts.update(dict(zip(words.numpy().tolist(), repeats.numpy().tolist(), strict=True)))
    decoded = ((word.decode(), count) for word, count in counts.items())
    return sorted(decoded, key=lambda item: (-item[1], item[0]))


def _learn_pieces(counts: list[tuple[str, int]], limit: int) -> list[str]:
    """Return at most `limit` pieces of counted words: characters first, so that no cut costs one.

    A learnt start of a word that would read as a suffix, or as a special token, is left out: other
    pieces spell it.
    """
    tensorflow_text("WordPieceTokenizer.learn")
    from tensorflow_text.tools.wordpiece_vocab import wordpiece_tokenizer_learner_lib as learner

    # The learner leaves longer words out, and does not stand having none left.
    longest = 50
    counts = [(word, count) for word, count in counts if len(word) <= longest] or [
        (word[:longest], count) for word, count in counts
    ]
    if not counts:
        return []
    learnt = learner.learn(
        counts,
        limit,
        reserved_tokens=[],
        lower_thresh=1,
        max_token_length=longest,
        max_unique_chars=max(1, limit // 2),  # each is two pieces
        joiner=_SECRET_SUFFIX,
    )
    ordered = sorted(learnt, key=lambda piece: len(piece.removeprefix(_SECRET_SUFFIX)) > 1)
    pieces = [
        _SUFFIX + piece[1:] if piece.startswith(_SECRET_SUFFIX) else piece
        for piece in ordered
        if not _is_suffix(piece) and piece not in SPECIAL_TOKENS
    ]
    return pieces[:limit]


def _check_size(vocabulary_size: Any, smallest: int) -> None:
    if vocabulary_size is None:
        raise ValueError("Invalid `vocabulary_size`: expected an int. Received: None.")
    check_limits(vocabulary_size, 1)
    if vocabulary_size < smallest:
        raise ValueError(
            f"Invalid `vocabulary_size`: expected {smallest} or more. Received: {vocabulary_size}."
        )


# SentencePiece.

_BLANK = "\u2581"  # how pieces spell a blank
_RESERVED = "\u2585"  # the trainer leaves out texts that hold it
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # types of pieces
_LONGEST = 2**20  # bytes of a text to learn from; the trainer leaves out longer ones


class _Model(NamedTuple):
    """What is read of a SentencePiece model.

    Attributes:
        pieces: Pairs of text and type, in the model's order.
        special: Our special id of each piece that has one, by position.
        dummy: The regular expression of what a decoded text starts with too much.
    """

    pieces: tuple[tuple[str, int], ...]
    special: dict[int, int]
    dummy: str

    @property
    def others(self) -> tuple[int, ...]:
        """The positions of all pieces that have ids behind the special ones, in order."""
        return tuple(i for i in range(len(self.pieces)) if i not in self.special)


@keras.saving.register_keras_serializable(package="keras_attn")
class SentencePieceTokenizer(_Subwords):
    """Pieces of text, blanks included, as a SentencePiece model has them.

    Any model works, whatever its own ids: PAD, BOS, EOS and UNK come first, then its other pieces
    in its order. A `learn`ed model gives text of known characters back exactly, with all blanks;
    but U+2581, which pieces write for a blank, becomes one. Invalid UTF-8 becomes U+FFFD, in text
    and where byte pieces make it. Needs tensorflow-text.

    Args:
        model: Bytes, the content of a SentencePiece `.model` file, or the path to one, which is
            read at once.
        lowercase: Bool, whether to lowercase text before the model's own rules.
        nfkc: Bool, whether to normalise text to NFKC before that.
        casefold: Bool, whether to fold case.

    Raises:
        TypeError: `model` is neither bytes nor a path.
        FileNotFoundError: There is no such file.
        ValueError: It is no SentencePiece model.
    """

    def __init__(
        self,
        model: Any,
        *,
        lowercase: bool = False,
        nfkc: bool = False,
        casefold: bool = False,
    ):
        super().__init__(lowercase=lowercase, nfkc=nfkc, casefold=casefold)
        self._model, source = _model_bytes(model)
        self._read = _read_model(self._model, source)
        others = (self._read.pieces[position][0] for position in self._read.others)
        self._vocabulary = (*SPECIAL_TOKENS, *others)

    @classmethod
    def learn(
        cls,
        texts: Any,
        vocabulary_size: int = 8000,
        *,
        kind: str = "unigram",
        lowercase: bool = False,
        nfkc: bool = False,
        casefold: bool = False,
    ) -> Self:
        """Learn a model with the `sentencepiece` package: the same one for the same texts.

        Every character of the texts is a piece, but NUL, which is unknown. Texts above 1 MiB, or
        with U+2585, which the trainer keeps to itself, are left out.

        Args:
            texts: A list, tuple or NumPy array of str or bytes, or a `tf.data.Dataset` of string
                tensors, single or batched.
            vocabulary_size: Int, the most ids to give, the 4 special ids included. Few texts may
                give fewer.
            kind: `"unigram"` or `"bpe"`.
            lowercase: Bool, whether to lowercase text, here and ever after.
            nfkc: Bool, whether to normalise text to NFKC.
            casefold: Bool, whether to fold case.

        Returns:
            The tokenizer.

        Raises:
            TypeError: `texts` is a single string or no collection; an element is not a string.
            ValueError: `texts` is empty or yields no piece; `kind` is none; `vocabulary_size` is
                too small for all the characters.
            ImportError: The `sentencepiece` package, or tensorflow-text where `nfkc` or `casefold`
                need it, is not installed.
        """
        if kind not in ("unigram", "bpe"):
            raise ValueError(f'Invalid `kind`: expected "unigram" or "bpe". Received: {kind!r}.')
        _check_size(vocabulary_size, NUM_SPECIAL + 1)
        cleaning = Cleaning(lowercase, nfkc, casefold)
        cleaned = (cleaning.apply(chunk).numpy().tolist() for chunk in chunks(texts))
        model = _train([text for chunk in cleaned for text in chunk], vocabulary_size, kind)
        return cls(model, **dataclasses.asdict(cleaning))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The text of every id, in id order, special tokens first; U+2581 is a blank."""
        return self._vocabulary

    @property
    def model(self) -> bytes:
        """The content of the model's file."""
        return self._model

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, JSON-able: the model as base64."""
        return {"model": base64.b64encode(self._model).decode(), **super().get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the tokenizer that gave `config`."""
        try:
            model = base64.b64decode(config["model"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("Invalid config: `model` is not base64.") from error
        return cls(**{**config, "model": model})

    def _encode(self, strings: Any) -> Any:
        built = self._tables()
        rows = built.pieces.tokenize(self._cleaning.apply(strings))  # the model's ids, (B, None)
        rows = rows.with_row_splits_dtype(tf.int64)
        return rows.with_values(tf.gather(built.ids, rows.values))

    def _join(self, rows: Any) -> Any:
        joined = tf.strings.reduce_join(self._spell(rows), axis=1)
        joined = tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")
        if self._read.dummy:
            joined = tf.strings.regex_replace(joined, self._read.dummy, "")
        return tf.strings.regex_replace(joined, _BLANK, " ")

    def _build(self) -> _Built:
        others = self._read.others
        ids = np.zeros(len(self._read.pieces), np.int32)
        ids[list(self._read.special)] = list(self._read.special.values())
        ids[list(others)] = np.arange(NUM_SPECIAL, NUM_SPECIAL + len(others))
        spellings = [_spelling(*self._read.pieces[position]) for position in others]
        specials = [token.encode() for token in SPECIAL_TOKENS]
        return _Built(
            tensorflow_text("A SentencePieceTokenizer").SentencepieceTokenizer(
                self._model, out_type=tf.int32
            ),
            _constant(self._vocabulary),
            tf.constant([*specials, *spellings]),
            tf.constant(ids),
        )

    def _lives(self, built: _Built) -> bool:
        try:
            built.pieces.vocab_size()
        except tf.errors.NotFoundError:  # gone with the operation that made it: see the test
            return False
        return True


def _spelling(piece: str, kind: int) -> bytes:
    """Return what a piece adds to a text, before U+2581 becomes a blank."""
    if kind == _BYTE:  # <0xNN>
        return bytes([int(piece[3:-1], 16)])
    return b"" if kind == _CONTROL else piece.encode()


def _model_bytes(model: Any) -> tuple[bytes, str]:
    """Return the content of a model, and where it is from."""
    if isinstance(model, bytes):
        return model, "these bytes"
    if not isinstance(model, str | os.PathLike):
        raise TypeError(
            "Invalid `model`: expected the bytes of, or the path to, a SentencePiece model. "
            f"Received: {reprlib.repr(model)} ({type(model).__name__})."
        )
    path = Path(model)
    if not path.is_file():
        raise FileNotFoundError(f"Invalid `model`: there is no file {str(path)!r}.")
    return path.read_bytes(), repr(str(path))


def _read_model(content: bytes, source: str) -> _Model:
    """Read the pieces of a model, and which are special.

    Raises:
        ValueError: It is no SentencePiece model.
    """
    from google.protobuf.message import DecodeError

    wrong = f"Invalid `model`: expected a SentencePiece model, which {source} is not: "
    try:
        proto = _message_class().FromString(content)
    except DecodeError as error:
        raise ValueError(f"{wrong}it is no such protocol buffer.") from error
    pieces = tuple((piece.piece, piece.type) for piece in proto.pieces)
    if [kind for _, kind in pieces].count(_UNKNOWN) != 1:
        raise ValueError(f"{wrong}it has {len(pieces)} pieces, and not exactly one for unknown.")
    names = {proto.trainer.pad: PAD, proto.trainer.bos: BOS, proto.trainer.eos: EOS}
    special = {}
    for position, (piece, kind) in enumerate(pieces):
        if kind == _UNKNOWN:
            special[position] = UNK
        elif kind == _CONTROL and piece in names:
            special[position] = names[piece]
    dummy = f"^{_BLANK}" if proto.normaliser.dummy_prefix else ""
    return _Model(pieces, special, f"^{_BLANK}+" if proto.normaliser.remove_extra else dummy)


@functools.cache
def _message_class() -> Any:
    """Return a message class for what is needed of SentencePiece's `ModelProto`.

    It has a pool of its own: in the common one it might meet the `sentencepiece` package's.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    def field(message: Any, name: str, number: int, type_: str, **options: Any) -> None:
        message.field.add(
            name=name,
            number=number,
            type=f"TYPE_{type_}",
            **{"label": "LABEL_OPTIONAL", **options},
        )

    file = descriptor_pb2.FileDescriptorProto(name="model", package="keras_attn", syntax="proto2")
    piece = file.message_type.add(name="Piece")
    field(piece, "piece", 1, "STRING")
    field(piece, "score", 2, "FLOAT")
    field(piece, "type", 3, "INT32", default_value=str(_NORMAL))  # an enumeration, on the wire
    trainer = file.message_type.add(name="Trainer")
    for number, name, token in ((46, "bos", "<s>"), (47, "eos", "</s>"), (48, "pad", "<pad>")):
        field(trainer, name, number, "STRING", default_value=token)
    normaliser = file.message_type.add(name="Normaliser")
    field(normaliser, "dummy_prefix", 3, "BOOL", default_value="true")
    field(normaliser, "remove_extra", 4, "BOOL", default_value="true")
    model = file.message_type.add(name="Model")
    of = {"label": "LABEL_REPEATED", "type_name": ".keras_attn.Piece"}
    field(model, "pieces", 1, "MESSAGE", **of)
    field(model, "trainer", 2, "MESSAGE", type_name=".keras_attn.Trainer")
    field(model, "normaliser", 3, "MESSAGE", type_name=".keras_attn.Normaliser")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("keras_attn.Model"))


def _train(texts: list[bytes], vocabulary_size: int, kind: str) -> bytes:
    """Train a model whose ids are ours, and which changes no text.

    Raises:
        ValueError: The trainer refuses.
        ImportError: The `sentencepiece` package is not installed.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise ImportError(
            "SentencePieceTokenizer.learn needs the sentencepiece package: "
            "`pip install sentencepiece`."
        ) from error
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError("No piece can be learnt from `texts`: all are empty.")
    # The trainer cuts these names out of the texts: they hold what no text that it takes can.
    pad, bos, eos, unk = (_RESERVED + token for token in SPECIAL_TOKENS)
    written = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=written,
            model_type=kind,
            vocab_size=vocabulary_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=_LONGEST,
            num_threads=1,
            minloglevel=2,
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            pad_piece=pad,
            bos_piece=bos,
            eos_piece=eos,
            unk_piece=unk,
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(f"sentencepiece cannot learn from `texts`: {error}") from error
    return written.getvalue()
