"""Subwords: round trips, hostile text, foreign models, copies, determinism, graphs and exports."""

import base64
import copy
import functools
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import zlib

import keras
import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn import zoo
from keras_attn.text import SentencePieceTokenizer, WordPieceTokenizer
from keras_attn.types import SPECIAL_TOKENS, UNK

few = settings(max_examples=60, deadline=None, derandomize=True)
HOSTILE = " ".join(SPECIAL_TOKENS) + " ##a ## # ##ab#"
CORPUS = [
    "the plays were played, playing on",
    "ünïcødé 👩‍👩‍👧 e\u0301 the the",
    HOSTILE,
    "a\tb\nc\r \v\f ",
] * 3
ALPHABET = "".join(sorted({c for text in CORPUS for c in text} - set(" \t\n\v\f\r")))
known_words = st.lists(st.text(ALPHABET, min_size=1, max_size=9), max_size=5)
known_text = st.text(ALPHABET + " \t\n\v\f\r", max_size=30)


def sentencepiece_model(**options):
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=written,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"vocab_size": 120, "character_coverage": 1.0, **options},
    )
    return written.getvalue()


@functools.cache
def model(name):
    return sentencepiece_model(
        **{
            "default": {},
            "bpe": {"model_type": "bpe"},
            "bytes": {"byte_fallback": True, "vocab_size": 400},
            "padded": {"pad_id": 3, "control_symbols": ["[C]"], "user_defined_symbols": ["[U]"]},
            "named": {"bos_piece": "[BOS]", "eos_piece": "[EOS]", "unk_piece": "[UNK]"},
            "bare": {"bos_id": -1, "eos_id": -1, "add_dummy_prefix": False},
        }[name]
    )


MODELS = ["default", "bpe", "bytes", "padded", "named", "bare"]


@functools.cache
def tokenizer(name):
    if name == "wordpiece":
        return WordPieceTokenizer.learn(CORPUS, 110)
    if name in ("unigram", "bpe"):
        return SentencePieceTokenizer.learn(CORPUS, 110, kind=name)
    return SentencePieceTokenizer(model(name.removeprefix("foreign ")))


NAMES = ["wordpiece", "unigram", "bpe", "foreign default", "foreign bytes"]
every = pytest.mark.parametrize("name", NAMES)
learnt = pytest.mark.parametrize("kind", ["unigram", "bpe"])


def ids(tokenizer, strings):
    return tokenizer.tokenize(strings).to_list()


def texts(tokenizer, rows):
    return tokenizer.detokenize(rows).numpy().tolist()


# Round trips.


@few
@given(st.lists(known_words, min_size=1))
def test_wordpiece_gives_known_words_back(batch):
    rows = tokenizer("wordpiece").tokenize(["\t ".join(words) + "\n" for words in batch])
    assert UNK not in rows.values.numpy()
    assert texts(tokenizer("wordpiece"), rows) == [" ".join(words).encode() for words in batch]


@learnt
@few
@given(st.lists(known_text, min_size=1))
def test_sentencepiece_gives_known_text_back_exactly(kind, batch):
    rows = tokenizer(kind).tokenize(batch)
    assert UNK not in rows.values.numpy()
    assert texts(tokenizer(kind), rows) == [text.encode() for text in batch]


@few
@given(st.lists(st.text() | known_text, min_size=1))
def test_byte_pieces_give_any_text_back(batch):
    it = tokenizer("foreign bytes")
    own = sentencepiece.SentencePieceProcessor(model_proto=it.model)
    rows = it.tokenize(batch)
    assert UNK not in rows.values.numpy()
    expected = [own.decode(own.encode(text)).encode() for text in batch]
    assert texts(it, rows) == expected


@every
@few
@given(st.lists(st.binary()))
def test_any_bytes_are_taken(name, batch):
    it = tokenizer(name)
    rows = it.tokenize(batch)
    assert (rows.dtype, rows.row_splits.dtype) == (tf.int32, tf.int64)
    repaired = [text.decode("utf-8", "replace") for text in batch]
    assert rows.to_list() == ids(it, repaired)
    assert all(3 <= i < len(it) for i in rows.values.numpy())


@every
@few
@given(st.data())
def test_any_ids_are_taken(name, data):
    it = tokenizer(name)
    number = st.integers(-3, 8) | st.integers(-(2**62), 2**62) | st.integers(0, len(it))
    rows = data.draw(st.lists(st.lists(number, max_size=6), min_size=1))
    ragged = tf.ragged.constant(rows, tf.int64, ragged_rank=1)
    assert it.tokens(ragged).to_list() == [
        [it.vocabulary[i if 0 <= i < len(it) else UNK].encode() for i in row] for row in rows
    ]
    for text in texts(it, rows):
        text.decode()
    assert texts(it, ragged.to_tensor()) == texts(it, rows)


@every
def test_empty_strings_and_batches(name):
    it = tokenizer(name)
    assert ids(it, []) == [] and texts(it, []) == []
    assert ids(it, ["", ""]) == [[], []] and texts(it, [[], []]) == [b"", b""]
    assert it.tokenize("the").dtype == tf.int32 and it.detokenize(it.tokenize("the")) == b"the"


def test_wordpiece_by_example():
    it = WordPieceTokenizer([*SPECIAL_TOKENS, "a", "##b", "##", "\0", "##\0", "b#", "🙂", "##é"])
    assert ids(it, ["ab  a\nbb", "## a\0\0", "\0b b#", "🙂é", "a\xa0"]) == [
        [4, 5, 4, UNK],
        [6, 4, 8, 8],
        [7, 5, 9],
        [10, 11],
        [UNK],
    ]
    assert texts(it, [[4, 8, 2, 4], [5, 4], [3, 5, 99], [1, 4, 0, 5, 6]]) == [
        b"a\0",
        b"b a",
        b"<unk>b <unk>",
        b"ab ##",
    ]
    assert ids(it, ["a" + "b" * 100_000])[0] == [4] + [5] * 100_000


@pytest.mark.parametrize("text", [HOSTILE, "##a", "##", "<s>", "</s></s>", "<unk>a", "##ab##"])
@pytest.mark.parametrize("name", ["wordpiece", "unigram", "bpe"])
def test_literal_special_tokens_and_suffixes_are_text(name, text):
    (row,) = ids(tokenizer(name), [text])
    assert min(row) >= 4
    assert texts(tokenizer(name), [row]) == [text.encode()]


def test_a_literal_suffix_is_no_piece_that_continues():
    it = WordPieceTokenizer([*SPECIAL_TOKENS, "##a", "b"])
    assert ids(it, ["##a a ba <s>"]) == [[UNK, UNK, 5, 4, UNK]]


@learnt
def test_sentencepiece_has_no_piece_for_a_nul(kind):
    assert texts(tokenizer(kind), ids(tokenizer(kind), ["a\0b"])) == [b"a<unk>b"]


def test_wordpiece_takes_a_nul_as_any_character():
    it = WordPieceTokenizer.learn(["a\0b"], 20)
    assert texts(it, it.tokenize(["\0a\0 b\0", "\0"])) == [b"\0a\0 b\0", b"\0"]


# Foreign models.


@pytest.mark.parametrize("name", MODELS)
def test_any_model_agrees_with_the_sentencepiece_package(name):
    it = SentencePieceTokenizer(model(name))
    own = sentencepiece.SentencePieceProcessor(model_proto=model(name))
    special = {own.pad_id(): 0, own.bos_id(): 1, own.eos_id(): 2, own.unk_id(): 3}
    others = [i for i in range(own.get_piece_size()) if i not in special]
    assert it.vocabulary == (*SPECIAL_TOKENS, *map(own.id_to_piece, others))
    assert len(it) == it.vocabulary_size == 4 + len(others)
    ours = {**special, **{i: 4 + rank for rank, i in enumerate(others)}}
    batch = [*CORPUS, " the", "  the  a ", "", "zZ", "the 🦄\0 the", "[U] [C] <s> [BOS]", "▁a"]
    rows = it.tokenize(batch)
    assert rows.to_list() == [[ours[i] for i in own.encode(text)] for text in batch]
    for text, row in zip(batch, rows.to_list(), strict=True):
        if UNK not in row:
            assert texts(it, [row]) == [own.decode(own.encode(text)).encode()]


def test_bytes_that_are_no_text_are_repaired():
    it = tokenizer("foreign bytes")
    first = it.vocabulary.index("<0x00>")
    row = [first + value for value in b"a\xff\xc3\xa9\0 \xe2\x96"]
    assert texts(it, [row]) == ["a\ufffdé\0 \ufffd".encode()]
    assert texts(it, [[first + 32, first + 97]]) == [b" a"]  # a byte is no piece's own blank


def test_a_control_piece_of_the_model_says_nothing():
    it = SentencePieceTokenizer(model("padded"))
    row = [it.vocabulary.index(piece) for piece in ("[C]", "[U]")]
    assert texts(it, [row]) == [b"[U]"]
    assert it.tokens(row).numpy().tolist() == [b"[C]", b"[U]"]


def test_a_model_is_read_from_its_path_at_once(tmp_path):
    path = tmp_path / "a.model"
    path.write_bytes(model("default"))
    from_path, from_string = SentencePieceTokenizer(path), SentencePieceTokenizer(str(path))
    path.unlink()
    assert from_path == from_string == SentencePieceTokenizer(model("default"))
    assert ids(from_path, ["the"]) == ids(tokenizer("foreign default"), ["the"])


# Learning.


@pytest.mark.parametrize("name", ["wordpiece", "unigram", "bpe"])
def test_the_vocabulary_is_limited_and_special_tokens_are_first(name):
    it = tokenizer(name)
    assert it.vocabulary[:4] == SPECIAL_TOKENS and len(it) <= 110
    assert len(it.vocabulary_text().splitlines()) == len(it)
    assert "the" in it.vocabulary or "▁the" in it.vocabulary


def test_wordpiece_keeps_frequent_characters_where_ids_are_few():
    it = WordPieceTokenizer.learn(["aaaa bb", "aab c"], 9)
    assert it.vocabulary[4:8] == ("a", "b", "##a", "##b") and len(it) <= 9
    assert ids(it, ["c"]) == [[UNK]]
    assert len(WordPieceTokenizer.learn(["x" * 60], 8)) <= 8  # longer than the learner takes


def test_learning_is_deterministic():
    code = "import test_subwords; print(test_subwords.fingerprint())"
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"  # not that of this process
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().splitlines()[-1:] == [fingerprint()], done.stderr[-2000:]


def fingerprint():
    made = [WordPieceTokenizer.learn(CORPUS[::-1], 110)]
    made += [SentencePieceTokenizer.learn(CORPUS, 110, kind=kind) for kind in ("unigram", "bpe")]
    return str(zlib.crc32(json.dumps([it.get_config() for it in made]).encode()))


@pytest.mark.parametrize("learner", [WordPieceTokenizer, SentencePieceTokenizer])
def test_all_sources_of_texts_agree_and_flags_are_used(learner):
    expected = learner.learn(CORPUS, 110)
    assert learner.learn(np.array(CORPUS, object), 110) == expected
    assert learner.learn(tf.data.Dataset.from_tensor_slices(CORPUS).batch(5), 110) == expected
    folded = learner.learn(["Ａ STRASSE straße"] * 3, 40, casefold=True)
    assert texts(folded, folded.tokenize(["ＡA Straße"])) == [b"aa strasse"]
    assert folded.cleaning.casefold and folded.get_config()["casefold"]
    lowered = learner.learn(["A É"] * 3, 40, lowercase=True)
    assert texts(lowered, lowered.tokenize(["É a"])) == ["é a".encode()]


# Errors.


@pytest.mark.parametrize("learner", [WordPieceTokenizer, SentencePieceTokenizer])
def test_learning_refuses_what_it_cannot_use(learner):
    def refuses(error, message, *args, **kwargs):
        with pytest.raises(error, match=message):
            learner.learn(*args, **kwargs)

    refuses(TypeError, r"a single str: pass a list", "abc")
    refuses(ValueError, "at least one text", [])
    refuses(ValueError, "No piece can be learnt", [""])
    refuses(ValueError, "`vocabulary_size`: .* Received: None", ["a"], None)
    refuses(ValueError, "`vocabulary_size`", ["a"], 4)
    refuses(ValueError, "`nfkc`: expected True or False", ["a"], nfkc=1)


def test_other_errors(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r'`kind`: expected "unigram" or "bpe". Received: \'x\''):
        SentencePieceTokenizer.learn(["a"], kind="x")
    with pytest.raises(ValueError, match="sentencepiece cannot learn .*required_chars"):
        SentencePieceTokenizer.learn(["abcdefgh"], 6)
    with pytest.raises(ValueError, match=r"vocabulary\[4\] must be non-empty and without"):
        WordPieceTokenizer([*SPECIAL_TOKENS, "a b"])
    with pytest.raises(FileNotFoundError, match="there is no file .*gone.model"):
        SentencePieceTokenizer(tmp_path / "gone.model")
    with pytest.raises(TypeError, match=r"the bytes of, or the path to.*Received: 5 \(int\)"):
        SentencePieceTokenizer(5)
    (tmp_path / "text.model").write_text("not a model")
    with pytest.raises(ValueError, match="expected a SentencePiece model, which .*text.model"):
        SentencePieceTokenizer(tmp_path / "text.model")
    for wrong in (b"", b"\x08\x01", model("default")[:-7]):
        with pytest.raises(ValueError, match="which these bytes is not"):
            SentencePieceTokenizer(wrong)
    with pytest.raises(ValueError, match="not base64"):
        SentencePieceTokenizer.from_config({"model": "?"})
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match="learn needs .*`pip install sentencepiece`"):
        SentencePieceTokenizer.learn(["a"])
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    for it in (WordPieceTokenizer([*SPECIAL_TOKENS, "a"]), SentencePieceTokenizer(model("bpe"))):
        with pytest.raises(ImportError, match=f"A {type(it).__name__} needs tensorflow-text"):
            it.tokenize(["a"])


# Values.


@every
def test_config_copies_and_pickles(name):
    it = tokenizer(name)
    expected = ids(it, CORPUS)
    assert it.needs_tf_text
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(it)))
    assert serialized["registered_name"] == f"keras_attn>{type(it).__name__}"
    again = keras.saving.deserialize_keras_object(serialized)
    for same in (again, copy.deepcopy(it), pickle.loads(pickle.dumps(it))):
        assert same == it and hash(same) == hash(it)
        assert ids(same, CORPUS) == expected
        assert same.resources()[0] is not it.resources()[0]


def test_equality_and_config():
    it = tokenizer("unigram")
    config = it.get_config()
    assert base64.b64decode(config["model"]) == it.model
    assert set(config) == {"model", "lowercase", "nfkc", "casefold"}
    assert it != tokenizer("bpe") and it != SentencePieceTokenizer(it.model, nfkc=True)
    assert SentencePieceTokenizer.from_config({"model": config["model"]}) == it


# Graphs.


@every
def test_first_use_in_a_dataset_and_in_threads(name):
    expected = ids(tokenizer(name), CORPUS)
    fresh = copy.deepcopy(tokenizer(name))
    rows = tf.data.Dataset.from_tensor_slices(CORPUS).batch(5).map(fresh.tokenize)
    assert [row for batch in rows for row in batch.to_list()] == expected
    assert [t.numpy() for t in rows.map(fresh.detokenize).unbatch()] == texts(fresh, expected)
    fresh, found = copy.deepcopy(fresh), []
    threads = [threading.Thread(target=lambda: found.append(ids(fresh, CORPUS))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 6


@every
def test_export(name, tmp_path):
    it = copy.deepcopy(tokenizer(name))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "strings")])
    def text(strings):
        dense = it.tokenize(strings).to_tensor()
        return {"ids": dense, "texts": it.detokenize(dense), "tokens": it.tokens(dense)}

    batch = [b"the plays", b"", b"\xff\0 </s>"]
    expected = {key: value.numpy().tolist() for key, value in text(tf.constant(batch)).items()}
    root = tf.Module()
    root.tables = it.resources()
    tf.saved_model.save(root, tmp_path, signatures={"text": text})
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path)).signature_def[
            "text"
        ]
        answer = session.run(
            {key: signature.outputs[key].name for key in expected},
            {signature.inputs["strings"].name: batch},
        )
    assert {key: value.tolist() for key, value in answer.items()} == expected


def test_a_seed_does_not_take_sentencepieces_model_away():
    """`tf.random.set_seed` clears the operations that TensorFlow keeps, and the model with them."""
    tokenizer = SentencePieceTokenizer.learn(["a cat", "a dog"] * 3, 30)
    expected = tokenizer.tokenize(["a cat"]).to_list()
    tf.random.set_seed(1)
    assert tokenizer.tokenize(["a cat"]).to_list() == expected
    traced = tf.function(lambda texts: tokenizer.tokenize(texts).to_tensor(), autograph=False)
    tf.random.set_seed(2)
    assert traced(tf.constant(["a cat"])).numpy().tolist() == expected


@pytest.mark.parametrize("frozen", [False, True])
def test_a_model_answers_after_a_seed_was_set(frozen):
    tokenizer = SentencePieceTokenizer.learn(["a cat", "a dog"] * 3, 30)
    model = zoo.build("context_as_init", source=tokenizer, target=tokenizer, units=4)
    model = model.freeze(jit_compile=False) if frozen else model
    expected = model.generate(["a cat"], max_length=3)
    keras.utils.set_random_seed(1)
    assert model.generate(["a cat"], max_length=3) == expected
    assert list(model.stream("a cat", max_length=3)) == list(model.stream("a cat", max_length=3))
    tf.random.set_seed(2)
    assert model.generate(["a cat"], max_length=3) == expected
    assert len([key for key in model._runner._graphs if key[0] == "texts"]) == 1
    assert model.score(["a cat"], ["a dog"]) == pytest.approx(model.score(["a cat"], ["a dog"]))
