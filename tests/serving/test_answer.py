"""The script beside graphs of other runtimes reads and writes text as the tokenisers do."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from small_models import SPOKEN, WORDS

from keras_attn import text
from keras_attn.serving.answer import Vocabulary
from keras_attn.text.codec import CopyCodec

ALL = "".join(chr(i) for i in range(1, 0x11000) if not 0xD800 <= i < 0xE000)
CHUNKS = [ALL[i : i + 500] for i in range(0, len(ALL), 500)]
ODD = [
    "",
    " ",
    "a\0B\0",
    "ΑΣ ΑΣ. Σ",
    "İI",
    "\u2028x\u00a0y",
    "\t\n\v\f\r\x1c",
    "e\u0301ﬁＡ",
    "\x85",
]
FLAGS = [{}, {"lowercase": True}, {"nfkc": True}, {"lowercase": True, "nfkc": True}]


def vocabulary_of(tokeniser):
    about = {"tokeniser": type(tokeniser).__name__}
    about["cleaning"] = dataclasses.asdict(tokeniser.cleaning)
    return Vocabulary(list(tokeniser.vocabulary), about)


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: " ".join(flags) or "plain")
@pytest.mark.parametrize("kind", [text.CharacterTokenizer, text.WhitespaceTokenizer])
def test_pieces_are_those_of_the_tokeniser(kind, flags):
    tokeniser = kind.learn(["abc ü"], **flags)
    ours = vocabulary_of(tokeniser)
    texts = [*ODD, *CHUNKS]
    differ = set()
    for string, pieces in zip(texts, tokeniser.pieces(texts).to_list(), strict=True):
        found = ours.pieces(string)
        assert len(found) == len(pieces) or flags.get("nfkc")
        for a, b in zip(found, pieces, strict=False):
            differ |= set(a) ^ set(b.decode())
    # only letters that are newer than one of the two tables
    assert len(differ) <= (100 if flags else 0) and min(map(ord, differ), default=9999) > 0x500


@pytest.mark.parametrize("flags", [{}, {"lowercase": True}, {"nfkc": True}])
def test_bytes(flags):
    tokeniser = text.ByteTokenizer(**flags)
    ours = vocabulary_of(tokeniser)
    for string in [*ODD, *WORDS, "ÜBER A"]:
        pieces = ours.pieces(string)
        assert [ours.ids[piece] for piece in pieces] == tokeniser.tokenize(string).numpy().tolist()
    ids = np.random.default_rng(0).integers(3, 260, (20, 9))
    texts = [t.decode("utf-8", "replace") for t in tokeniser.detokenize(ids).numpy()]
    assert [ours.join([ours.tokens[i] for i in row]) for row in ids] == texts


@pytest.mark.parametrize("kind", [text.CharacterTokenizer, text.WhitespaceTokenizer])
def test_ids_become_the_same_text(kind):
    tokeniser = kind.learn(SPOKEN)
    ours = vocabulary_of(tokeniser)
    ids = np.random.default_rng(0).integers(3, len(tokeniser), (20, 9))
    texts = [t.decode() for t in tokeniser.detokenize(ids).numpy()]
    assert [ours.join([ours.tokens[i] for i in row]) for row in ids] == texts


def test_copied_tokens_are_named_by_their_place(tmp_path):
    from keras_attn.serving.answer import Model

    source, target = text.CharacterTokenizer.learn(["abc"]), text.CharacterTokenizer.learn(["xy"])
    codec = CopyCodec(source, target, 6)
    model = object.__new__(Model)
    model.about, model.sizes, model.max_source = {"copies": True}, [len(source), len(target)], 6
    model.source, model.target = vocabulary_of(source), vocabulary_of(target)
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdeé ", k=rng.randrange(0, 9))) for _ in range(40)]
    ids = np.random.default_rng(0).integers(2, len(target) + 8, (40, 7))
    expected = codec.text(ids, texts).numpy().tolist()
    for string, row, ids_of, wanted in zip(
        texts, ids.tolist(), codec.source_ids(texts).to_list(), expected, strict=True
    ):
        pieces = model.source.pieces(string)
        assert model._ids(pieces) == ids_of
        row = row[: row.index(2)] if 2 in row else row
        assert model._text(row, pieces) == wanted.decode()


@pytest.mark.parametrize(
    "tokeniser",
    [
        text.WordPieceTokenizer.learn(["abc abd"] * 3, 20),
        text.CharacterTokenizer.learn(["abc"], casefold=True),
    ],
    ids=["wordpiece", "casefold"],
)
def test_texts_that_only_tensorflow_reads(tokeniser):
    with pytest.raises(NotImplementedError, match=r"become ids by TensorFlow's op.*search_ids"):
        vocabulary_of(tokeniser)
