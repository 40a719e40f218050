"""Tokenizers: exact round trips, hostile text, errors, copies, and use in every kind of graph."""

import copy
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn.text.tokenizers import ByteTokenizer, CharacterTokenizer, WhitespaceTokenizer
from keras_attn.types import BOS, EOS, PAD, SPECIAL_TOKENS, UNK

few = settings(max_examples=50, deadline=None, derandomize=True)
BLANKS = " \t\n\v\f\r"
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=BLANKS), min_size=1)

TOKENIZERS = {
    "character": CharacterTokenizer.learn(["banana split"]),
    "whitespace": WhitespaceTokenizer.learn(["F OW N IY M", "F IY"]),
    "byte": ByteTokenizer(),
}
every = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
CLASSES = [CharacterTokenizer, WhitespaceTokenizer, ByteTokenizer]


def vocabulary(*tokens):
    return [*SPECIAL_TOKENS, *tokens]


def ids(tokenizer, strings):
    return tokenizer.tokenize(strings).to_list()


def texts(tokenizer, rows):
    return tokenizer.detokenize(rows).numpy().tolist()


# Round trips.


@few
@given(st.lists(st.text(), min_size=1).filter(any))
def test_characters_round_trip_exactly(batch):
    tokenizer = CharacterTokenizer.learn(batch)
    rows = tokenizer.tokenize(batch)
    assert [len(row) for row in rows.to_list()] == [len(text) for text in batch]
    assert UNK not in rows.values.numpy()
    assert texts(tokenizer, rows) == [text.encode() for text in batch]


@few
@given(st.lists(st.lists(words, max_size=5), min_size=1).filter(any), st.data())
def test_whitespace_tokens_come_back_joined_by_single_blanks(batch, data):
    blank = st.text(st.sampled_from(BLANKS), min_size=1, max_size=3)
    strings = ["".join(data.draw(blank) + word for word in row) + " " for row in batch]
    tokenizer = WhitespaceTokenizer.learn(strings)
    assert texts(tokenizer, tokenizer.tokenize(strings)) == [
        " ".join(row).encode() for row in batch
    ]
    assert [len(row) for row in ids(tokenizer, strings)] == [len(row) for row in batch]


@few
@given(st.lists(st.binary()))
def test_bytes_round_trip_exactly(batch):
    tokenizer = ByteTokenizer()
    assert ids(tokenizer, batch) == [[4 + value for value in row] for row in batch]
    assert texts(tokenizer, tokenizer.tokenize(batch)) == batch


@pytest.mark.parametrize("learner", CLASSES)
@pytest.mark.parametrize(
    "text",
    ["\0a\0", "👩‍👩‍👧 🇨🇭 \U0010ffff", "e\u0301 é", "\u202eאב\ufeff", "x" * 10_000, "￾ \uffff"],
    ids=["nul", "emoji", "combining", "rtl", "long", "noncharacter"],
)
def test_unusual_text_round_trips(learner, text):
    tokenizer = learner.learn([text])
    assert texts(tokenizer, tokenizer.tokenize([text, ""])) == [text.encode(), b""]


def test_newlines_are_characters_like_others():
    tokenizer = CharacterTokenizer.learn(["a\r\nb\u2028\x85"])
    assert texts(tokenizer, tokenizer.tokenize(["a\r\nb\u2028\x85"])) == [
        "a\r\nb\u2028\x85".encode()
    ]


def test_only_ascii_whitespace_separates_tokens():
    text = "a\u00a0b\u2003c\x1cd e"
    assert WhitespaceTokenizer.learn([text]).vocabulary[4:] == ("a\u00a0b\u2003c\x1cd", "e")


@few
@given(st.lists(st.binary(), min_size=1).filter(any))
def test_invalid_utf8_is_replaced_as_python_does(batch):
    tokenizer = CharacterTokenizer.learn(batch)
    assert texts(tokenizer, tokenizer.tokenize(batch)) == [
        row.decode("utf-8", "replace").encode() for row in batch
    ]


def test_invalid_utf8_joins_words_only_where_no_blank_is():
    tokenizer = WhitespaceTokenizer.learn([b"a\xff \xc3 b"])
    assert tokenizer.vocabulary[4:] == ("a\ufffd", "b", "\ufffd")


def test_lone_surrogates_are_invalid_utf8():
    tokenizer = CharacterTokenizer.learn(["a\ud800"])
    assert tokenizer.vocabulary[4:] == ("\ufffd", "a")
    assert ids(tokenizer, ["\udfffa"]) == [[4, 4, 4, 5]]  # one for each of the three bytes
    assert texts(ByteTokenizer(), ids(ByteTokenizer(), ["\ud800"])) == [b"\xed\xa0\x80"]


# Unknown and special.


def test_unknown_tokens_are_unk():
    assert ids(TOKENIZERS["character"], ["baz"]) == [[7, 4, UNK]]
    assert ids(TOKENIZERS["whitespace"], ["F ZZ f"]) == [[4, UNK, UNK]]


def test_literal_special_tokens_are_never_special():
    text = " ".join(SPECIAL_TOKENS)
    tokenizer = WhitespaceTokenizer.learn([f"a {text} {text}"])
    assert tokenizer.vocabulary == (*SPECIAL_TOKENS, "a")
    assert ids(tokenizer, [f"a {text}"]) == [[4, UNK, UNK, UNK, UNK]]
    for tokenizer in (CharacterTokenizer.learn([text]), ByteTokenizer()):
        (row,) = ids(tokenizer, [text])
        assert len(row) == len(text) and min(row) >= 4
        assert texts(tokenizer, [row]) == [text.encode()]


def test_lowercasing_makes_no_special_token():
    tokenizer = WhitespaceTokenizer.learn(["</S> <PAD> a"], lowercase=True)
    assert tokenizer.vocabulary[4:] == ("a",)
    assert ids(tokenizer, ["</S> A"]) == [[UNK, 4]]


# Lowercase.


@few
@given(st.text(st.characters(max_codepoint=0x4FF, exclude_categories=["Cs"]), min_size=1))
def test_lowercase_agrees_with_python(text):
    tokenizer = CharacterTokenizer.learn([text], lowercase=True)
    assert texts(tokenizer, tokenizer.tokenize([text])) == [text.lower().encode()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("É", "é"), ("ΟΔΟΣ ΣΑ", "οδος σα"), ("A\0B\0\0", "a\0b\0\0"), ("İI", "i\u0307i"), ("", "")],
)
def test_lowercase_by_example(text, expected):
    tokenizer = CharacterTokenizer.learn(["abioδς σαé\u0307\0ο"], lowercase=True)
    assert texts(tokenizer, tokenizer.tokenize([text])) == [expected.encode()]


def test_lowercase_of_an_empty_batch():
    assert ids(WhitespaceTokenizer.learn(["a"], lowercase=True), []) == []


def test_lowercase_words_are_learnt_together():
    tokenizer = WhitespaceTokenizer.learn(["É b É", "é B b b"], lowercase=True)
    assert tokenizer.vocabulary[4:] == ("b", "é")
    assert ids(tokenizer, ["B É"]) == [[4, 5]]


def test_bytes_lowercase_ascii_alone():
    tokenizer = ByteTokenizer(lowercase=True)
    batch = ["AÉZ".encode(), b"\xffB\0C"]
    assert texts(tokenizer, tokenizer.tokenize(batch)) == ["aÉz".encode(), b"\xffb\0c"]


def test_lowercase_ignores_the_locale():
    # A model server may run anywhere; ICU reads the locale once, hence a process of its own.
    code = (
        "from keras_attn.text.tokenizers import CharacterTokenizer as C\n"
        "print(ascii(''.join(C.learn(['I\u0130'], lowercase=True).vocabulary[4:])))"
    )
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "LC_ALL": "tr_TR.UTF-8", "PYTHONPATH": path}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == ascii("i\u0307")


# Learning.


def test_vocabulary_is_ordered_by_count_then_code_point():
    strings = ["b b é a", "é a \uffff \U00010000 c c c"]
    expected = ("c", "a", "b", "é", "\uffff", "\U00010000")
    assert WhitespaceTokenizer.learn(strings).vocabulary == (*SPECIAL_TOKENS, *expected)
    assert WhitespaceTokenizer.learn(strings[::-1]).vocabulary[4:] == expected


def test_vocabulary_size_counts_special_ids_and_min_count_drops_rare_tokens():
    strings = ["aaa bb bb c"]
    assert CharacterTokenizer.learn(strings, 6).vocabulary[4:] == ("b", " ")
    assert CharacterTokenizer.learn(strings, 100).vocabulary_size == 4 + 4
    assert CharacterTokenizer.learn(strings, min_count=3).vocabulary[4:] == ("b", " ", "a")


@pytest.mark.parametrize("learner", [CharacterTokenizer, WhitespaceTokenizer])
def test_all_sources_of_texts_agree(learner, monkeypatch):
    monkeypatch.setattr("keras_attn.text.arguments.CHUNK", 2)
    batch = ["b a", "a é", "", "b c b", "a"]
    dataset = tf.data.Dataset.from_tensor_slices(batch)
    sources = {
        "list": batch,
        "tuple": tuple(batch),
        "bytes": [text.encode() for text in batch],
        "unicode array": np.array(batch),
        "bytes array": np.array([text.encode() for text in batch]),
        "object array": np.array(batch, object),
        "tensor": tf.constant(batch),
        "dataset": dataset,
        "batched": dataset.batch(3),
        "matrices": dataset.take(4)
        .batch(2)
        .batch(2)
        .concatenate(dataset.skip(4).batch(1).batch(1)),
    }
    learnt = {name: learner.learn(source) for name, source in sources.items()}
    assert learnt["list"].vocabulary_size > 4
    assert {name for name, it in learnt.items() if it != learnt["list"]} == set()


@pytest.mark.parametrize("learner", CLASSES)
def test_learning_refuses_what_it_cannot_use(learner):
    def refuses(error, message, texts, *args, **kwargs):
        with pytest.raises(error, match=message):
            learner.learn(texts, *args, **kwargs)

    dataset = tf.data.Dataset.from_tensor_slices
    refuses(TypeError, r"a single str: pass a list, `\[text\]`", "abc")
    refuses(TypeError, r"a single bytes: pass a list", b"abc")
    refuses(TypeError, r"list, tuple, NumPy array or tf.data.Dataset .* Received: int", 5)
    refuses(TypeError, r"texts\[1\] must be str or bytes. Received: 5 \(int\)", ["a", 5])
    refuses(TypeError, r"texts\[0\] must be .* \(float\)", np.array([1.5]))
    refuses(TypeError, r"texts\[20000\] must be .* None \(NoneType\)", ["a"] * 20000 + [None])
    refuses(TypeError, r"dataset of string tensors.*int32", dataset([np.int32(1)]))
    refuses(TypeError, r"dataset of string tensors.*\(TensorSpec", dataset((["a"], ["b"])))
    refuses(ValueError, r"expected shape \(N,\). Received: \(1, 2\)", np.array([["a", "b"]]))
    refuses(ValueError, r"at least one text", [])
    refuses(ValueError, r"at least one text", np.array([], str))
    refuses(ValueError, r"at least one text", dataset(["a"]).take(0))
    refuses(ValueError, r"infinite", dataset(["a"]).repeat())
    refuses(ValueError, r"`min_count`: expected 1 or more. Received: 0", ["a"], min_count=0)
    refuses(ValueError, r"`vocabulary_size`", ["a"], 4)
    refuses(TypeError, r"unexpected keyword argument 'size'", ["a"], size=3)


@pytest.mark.parametrize("learner", [CharacterTokenizer, WhitespaceTokenizer])
def test_learning_refuses_texts_without_tokens(learner):
    with pytest.raises(ValueError, match=r"No token in `texts` occurs 1 time"):
        learner.learn([""])
    with pytest.raises(ValueError, match=r"No token in `texts` occurs 2 time"):
        learner.learn(["a"], min_count=2)
    with pytest.raises(ValueError, match=r"Expected more than 4. Received: 4"):
        learner.learn(["a"], vocabulary_size=4)


def test_bytes_have_one_vocabulary_size():
    assert ByteTokenizer.learn(["a"], 260, lowercase=True) == ByteTokenizer(lowercase=True)
    with pytest.raises(ValueError, match="has 260 ids. Expected None or 260. Received: 300"):
        ByteTokenizer.learn(["a"], 300)


# The constructor.


@pytest.mark.parametrize("tokenizer_class", [CharacterTokenizer, WhitespaceTokenizer])
@pytest.mark.parametrize(
    ("tokens", "error", "message"),
    [
        ("abc", TypeError, "expected a list of str. Received: 'abc'"),
        (vocabulary("a", 5), TypeError, r"vocabulary\[5\] must be a str. Received: 5 \(int\)"),
        (vocabulary(b"a"), TypeError, r"vocabulary\[4\] must be a str.*bytes"),
        (["a", "b"], ValueError, r"expected \('<pad>', '<s>', '</s>', '<unk>'\), then"),
        (["<pad>", "</s>", "<s>", "<unk>", "a"], ValueError, "expected .*, then at least one"),
        (vocabulary(), ValueError, "then at least one token"),
        (vocabulary("a", "b", "a"), ValueError, r"repeated tokens: \['a'\]"),
        (vocabulary("a", "<s>"), ValueError, r"repeated tokens: \['<s>'\]"),
        (vocabulary("\ud800"), ValueError, r"vocabulary\[4\] holds a lone surrogate"),
        (vocabulary("a", ""), ValueError, r"vocabulary\[5\] must be"),
    ],
)
def test_constructor_refuses_bad_vocabularies(tokenizer_class, tokens, error, message):
    with pytest.raises(error, match=message):
        tokenizer_class(tokens)


@pytest.mark.parametrize("token", ["ab", "e\u0301"])
def test_a_character_token_is_one_character(token):
    with pytest.raises(ValueError, match=r"vocabulary\[4\] must be exactly one character"):
        CharacterTokenizer(vocabulary(token))


@pytest.mark.parametrize("blank", BLANKS)
def test_a_whitespace_token_holds_no_whitespace(blank):
    with pytest.raises(ValueError, match=r"vocabulary\[5\] must be non-empty and without ASCII"):
        WhitespaceTokenizer(vocabulary("a", f"b{blank}"))


@every
def test_size_names_and_repr(tokenizer):
    assert tokenizer.vocabulary[:4] == SPECIAL_TOKENS
    assert tokenizer.vocabulary_size == len(tokenizer) == len(tokenizer.vocabulary)
    expected = f"{type(tokenizer).__name__}(vocabulary_size={len(tokenizer)}, lowercase=False)"
    assert repr(tokenizer) == expected


def test_bytes_have_260_ids():
    assert len(ByteTokenizer()) == 260
    assert [ByteTokenizer().vocabulary[i] for i in (4, 36, 96, 130, 131, 259)] == [
        r"\x00",
        " ",
        "\\",
        "~",
        r"\x7f",
        r"\xff",
    ]


# tokenize.


@every
def test_ids_are_int32_rows_without_bos_or_eos(tokenizer):
    rows = tokenizer.tokenize(["F IY", "", "a"])
    assert isinstance(rows, tf.RaggedTensor)
    assert (rows.dtype, rows.row_splits.dtype, rows.shape.as_list()) == (
        tf.int32,
        tf.int64,
        [3, None],
    )
    assert rows.to_list()[1] == []
    assert not {PAD, BOS, EOS} & set(rows.values.numpy().tolist())


@every
def test_every_container_tokenizes_alike(tokenizer):
    batch = ["an F", "", "IY é"]
    expected = ids(tokenizer, batch)
    encoded = [text.encode() for text in batch]
    for same in (
        tuple(batch),
        encoded,
        np.array(batch),
        np.array(encoded),
        np.array(batch, object),
        tf.constant(batch),
    ):
        assert ids(tokenizer, same) == expected


@every
def test_empty_batches(tokenizer):
    for nothing in ([], np.array([], str), tf.constant([], tf.string)):
        rows = tokenizer.tokenize(nothing)
        assert (rows.to_list(), rows.dtype) == ([], tf.int32)
        assert texts(tokenizer, rows) == []
    for nothing in ([], np.zeros((0, 3), int), np.zeros((0, 0), int)):
        assert texts(tokenizer, nothing) == []
    assert texts(tokenizer, np.zeros((2, 0), int)) == texts(tokenizer, [[], []]) == [b"", b""]


@every
def test_one_string_gives_one_row_and_back(tokenizer):
    for one in ("F", b"F", np.array("F"), tf.constant("F")):
        row = tokenizer.tokenize(one)
        assert (row.dtype, row.numpy().tolist()) == (tf.int32, ids(tokenizer, ["F"])[0])
    assert tokenizer.tokenize("").shape == (0,)
    back = tokenizer.detokenize(tokenizer.tokenize("F"))
    assert (back.shape, back.numpy()) == ((), texts(tokenizer, ids(tokenizer, ["F"]))[0])


@every
def test_tokenize_refuses_what_is_no_text(tokenizer):
    with pytest.raises(TypeError, match=r"strings\[1\] must be str or bytes. Received: None"):
        tokenizer.tokenize(["a", None])
    with pytest.raises(TypeError, match=r"tensor of strings. Received: .*int32"):
        tokenizer.tokenize(tf.constant([1]))
    with pytest.raises(TypeError, match=r"tensor of strings. Received: 5 \(int\)"):
        tokenizer.tokenize(5)
    nested = [["a", "b"]]
    for matrix in (np.array(nested), tf.constant(nested), tf.ragged.constant(nested)):
        with pytest.raises(ValueError, match=r"expected shape \(B,\). Received: \(1, (2|None)\)"):
            tokenizer.tokenize(matrix)


# detokenize and tokens.


def reference(tokenizer, row, separator, spell):
    row = list(itertools.takewhile(lambda i: i != EOS, row))
    known = [i if 0 <= i < len(tokenizer) else UNK for i in row if i not in (PAD, BOS)]
    return separator.join("<unk>" if i == UNK else spell(i) for i in known)


@every
@few
@given(st.data())
def test_any_ids_detokenize_as_specified(tokenizer, data):
    number = st.integers(-3, 8) | st.integers(-(2**62), 2**62) | st.integers(0, len(tokenizer))
    rows = data.draw(st.lists(st.lists(number, max_size=8), min_size=1, max_size=4))
    is_byte = isinstance(tokenizer, ByteTokenizer)
    separator = " " if isinstance(tokenizer, WhitespaceTokenizer) else ""
    expected = [
        reference(
            tokenizer,
            row,
            separator,
            lambda i: chr(i - 4) if is_byte else tokenizer.vocabulary[i],
        ).encode("latin-1" if is_byte else "utf-8")
        for row in rows
    ]
    ragged = tf.ragged.constant(rows, tf.int64, ragged_rank=1)
    assert texts(tokenizer, rows) == expected
    assert texts(tokenizer, ragged) == expected
    assert texts(tokenizer, ragged.to_tensor(PAD)) == expected
    assert tokenizer.tokens(ragged).to_list() == [
        [tokenizer.vocabulary[i if 0 <= i < len(tokenizer) else UNK].encode() for i in row]
        for row in rows
    ]


@every
@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_any_integer_dtype_is_accepted(tokenizer, dtype):
    rows = np.array([[1, 4, 5, 2, 6], [0, 4, 127, 0, 0]], dtype)
    expected = texts(tokenizer, rows.astype("int64"))
    assert texts(tokenizer, rows) == texts(tokenizer, tf.constant(rows)) == expected
    assert tokenizer.tokens(rows).shape == (2, 5)


def test_detokenize_by_example():
    tokenizer = WhitespaceTokenizer(vocabulary("a", "b"))
    rows = [[1, 4, 0, 5, 2, 4], [2, 4, 4, 4, 4, 4], [3, -1, 6, 4, 0, 0]]
    assert texts(tokenizer, rows) == [b"a b", b"", b"<unk> <unk> <unk> a"]


@every
def test_detokenize_joins_the_last_axis(tokenizer):
    beams = np.arange(24).reshape(2, 3, 4)
    joined = tokenizer.detokenize(beams)
    assert joined.shape == (2, 3)
    assert joined.numpy().tolist() == [texts(tokenizer, rows) for rows in beams]


def test_tokens_show_special_names_and_bytes():
    assert ByteTokenizer().tokens([[2, 0, 4 + 0xC3], [4 + 9, 4 + 92, 260]]).numpy().tolist() == [
        [b"</s>", b"<pad>", rb"\xc3"],
        [rb"\x09", b"\\", b"<unk>"],
    ]
    names = TOKENIZERS["character"].tokens([4, EOS, BOS, 99])
    assert names.numpy().tolist() == [b"a", b"</s>", b"<s>", b"<unk>"]


@every
def test_ids_must_be_integers(tokenizer):
    for method in (tokenizer.detokenize, tokenizer.tokens):
        for wrong in ([[1.0]], np.array([[True]]), [["a"], ["b", "c"]], tf.constant([0.5])):
            with pytest.raises(TypeError, match=r"`ids`: expected integers. Received dtype"):
                method(wrong)
    with pytest.raises(ValueError, match=r"expected ints \(B, T\). Received a scalar"):
        tokenizer.detokenize(4)


# Values: config, equality, copies.


def learnt(tokenizer_class, **kwargs):
    return tokenizer_class.learn(["<unk> \n\\ é 👍 \0"], **kwargs)


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenizer_class", CLASSES)
def test_config_round_trips_through_json_and_keras(tokenizer_class, lowercase):
    tokenizer = learnt(tokenizer_class, lowercase=lowercase)
    config = json.loads(json.dumps(tokenizer.get_config()))
    assert tokenizer_class.from_config(config) == tokenizer
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(tokenizer)))
    assert serialized["registered_name"] == f"keras_attn>{tokenizer_class.__name__}"
    again = keras.saving.deserialize_keras_object(serialized)
    assert again == tokenizer
    assert ids(again, ["É 👍 \0"]) == ids(tokenizer, ["É 👍 \0"])


def test_equality_and_hash_are_those_of_the_config():
    one, same = (CharacterTokenizer.learn(["ab"]) for _ in range(2))
    others = [
        CharacterTokenizer.learn(["ac"]),
        CharacterTokenizer.learn(["ab"], lowercase=True),
        WhitespaceTokenizer.learn(["a b"]),
        ByteTokenizer(),
        "ab",
    ]
    assert one == same and hash(one) == hash(same)
    assert all(one != other for other in others)
    assert WhitespaceTokenizer.learn(["a b"]).vocabulary == one.vocabulary


@every
def test_copies_work_after_first_use(tokenizer):
    expected = ids(tokenizer, ["an F"])
    for again in (copy.deepcopy({"t": tokenizer})["t"], pickle.loads(pickle.dumps(tokenizer))):
        assert again == tokenizer
        assert ids(again, ["an F"]) == expected
        assert not {id(it) for it in again.resources()} & {id(it) for it in tokenizer.resources()}


def test_the_tokenizer_keeps_its_own_copy_of_the_vocabulary():
    tokens = vocabulary("a")
    tokenizer = CharacterTokenizer(tokens)
    tokens.append("b")
    tokenizer.get_config()["vocabulary"].append("c")
    assert tokenizer.vocabulary == (*SPECIAL_TOKENS, "a")


@few
@given(st.lists(words, min_size=1))
def test_vocabulary_text_has_one_readable_line_a_token(batch):
    tokenizer = WhitespaceTokenizer.learn([" ".join(batch)])
    lines = tokenizer.vocabulary_text().splitlines()
    unescaped = [
        line.encode("latin-1", "backslashreplace").decode("unicode_escape") for line in lines
    ]
    assert unescaped == list(tokenizer.vocabulary)


def test_vocabulary_text_by_example():
    tokenizer = CharacterTokenizer(vocabulary("\n", "\\", "é", "\0", "\u2028", "n"))
    assert tokenizer.vocabulary_text() == (
        "<pad>\n<s>\n</s>\n<unk>\n" + r"\n" + "\n" + r"\\" + "\né\n" + r"\x00" + "\n"
        r"\u2028" + "\nn\n"
    )
    lines = ByteTokenizer().vocabulary_text().splitlines()
    assert (len(lines), lines[4], lines[4 + 92], lines[259]) == (260, r"\x00", r"\\", r"\xff")


# Graphs.


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("learner", CLASSES)
def test_first_use_inside_a_dataset(learner, lowercase):
    batch = ["b a", "", "A é"]
    strings = tf.data.Dataset.from_tensor_slices(batch)
    expected = ids(learner.learn(batch, lowercase=lowercase), batch)
    single = strings.map(learner.learn(batch, lowercase=lowercase).tokenize)
    assert single.element_spec == tf.TensorSpec([None], tf.int32)
    assert [row.numpy().tolist() for row in single] == expected
    tokenizer = learner.learn(batch, lowercase=lowercase)
    batched = strings.batch(2).map(tokenizer.tokenize)
    assert [row for rows in batched for row in rows.to_list()] == expected
    back = batched.map(tokenizer.detokenize).unbatch()
    assert [text.numpy() for text in back] == texts(tokenizer, expected)


@pytest.mark.parametrize("learner", CLASSES)
def test_first_use_inside_a_function_serves_later_eager_calls(learner):
    tokenizer = learner.learn(["b a"])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def there_and_back(strings):
        rows = tokenizer.tokenize(strings)
        texts = tokenizer.detokenize(rows)
        assert texts.shape.as_list() == [None]
        return rows.to_tensor(), texts, tokenizer.tokens(rows.to_tensor())

    batch = ["b a", "", "a"]
    dense, back, names = there_and_back(tf.constant(batch))
    assert dense.numpy().tolist() == tokenizer.tokenize(batch).to_tensor().numpy().tolist()
    assert back.numpy().tolist() == [text.encode() for text in batch]
    assert names.numpy()[1].tolist() == [b"<pad>"] * dense.shape[1]
    assert there_and_back(tf.constant([], tf.string))[1].shape == (0,)


def test_python_lists_inside_a_function():
    tokenizer = ByteTokenizer()
    assert tf.function(lambda: tokenizer.tokenize([b"a\0", "\0"]))().to_list() == [[101, 4], [4]]


@every
def test_unknown_ranks_are_checked_when_they_run(tokenizer):
    tokenize = tf.function(tokenizer.tokenize, input_signature=[tf.TensorSpec(None, tf.string)])
    assert tokenize(tf.constant(["F"])).to_list() == ids(tokenizer, ["F"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"):
        tokenize(tf.constant([["F"]]))
    detokenize = tf.function(tokenizer.detokenize, input_signature=[tf.TensorSpec(None, tf.int32)])
    assert detokenize(tf.constant([[4], [2]])).numpy().tolist() == texts(tokenizer, [[4], [2]])


def test_threads_share_tables_built_once(monkeypatch):
    tokenizer = CharacterTokenizer.learn(["ab"])
    build, built, rows = CharacterTokenizer._build, [], []

    def slow_build(self):
        built.append(self)
        time.sleep(0.05)
        return build(self)

    monkeypatch.setattr(CharacterTokenizer, "_build", slow_build)
    threads = [
        threading.Thread(target=lambda: rows.append(ids(tokenizer, ["ba"]))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(built), rows) == (1, [[[5, 4]]] * 8)


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("learner", CLASSES)
def test_export(learner, lowercase, tmp_path):
    tokenizer = learner.learn(["b a é", "</s>"], lowercase=lowercase)
    batch = [b"b \xc3\xa9", b"", b"B\0\xff </s>"]
    expected = tokenizer.tokenize(batch).to_tensor().numpy().tolist()
    expected_texts = texts(tokenizer, expected)
    _export(tokenizer, tmp_path)
    del tokenizer

    served = tf.saved_model.load(tmp_path).signatures["text"]
    for size in (3, 1, 0):
        answer = served(strings=tf.constant(batch[:size], tf.string))
        width = answer["ids"].shape[1]
        assert answer["ids"].numpy().tolist() == [row[:width] for row in expected[:size]]
        assert answer["texts"].numpy().tolist() == expected_texts[:size]

    # The session loader is what a model server uses: it runs the initialisers by itself.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path)).signature_def[
            "text"
        ]
        answer = session.run(
            [signature.outputs[name].name for name in ("ids", "texts")],
            {signature.inputs["strings"].name: batch},
        )
    assert [part.tolist() for part in answer] == [expected, expected_texts]


def _export(tokenizer, path):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "strings")])
    def text(strings):
        dense = tokenizer.tokenize(strings).to_tensor()
        return {"ids": dense, "texts": tokenizer.detokenize(dense)}

    root = tf.Module()
    root.tables = tokenizer.resources()
    tf.saved_model.save(root, path, signatures={"text": text})
