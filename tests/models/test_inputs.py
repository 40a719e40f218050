"""What users may give, and what is refused before any work is done, with a reason."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn import zoo
from keras_attn.models import inputs
from keras_attn.text import CharacterTokenizer, pipeline
from keras_attn.text.codec import Codec
from keras_attn.types import BOS, EOS

few = settings(max_examples=60, deadline=None, derandomize=True)
TINY = {"cell": "simple_rnn", "units": 4, "embedding_size": 3, "max_source": 5, "max_target": 6}


@pytest.fixture(scope="module")
def with_text():
    tokenizer = CharacterTokenizer.learn(["abc"])
    model = zoo.build("context_as_init", source=tokenizer, target=tokenizer, **TINY)
    model.compile()
    return model


@pytest.fixture(scope="module")
def with_ids():
    model = zoo.build("context_as_init", source=9, target=8, **TINY)
    model.compile()
    return model


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch, request):
    """Whatever is refused is refused before Keras trains, and before anything is tokenised."""
    if "refused" not in request.function.__name__:
        return

    def ran(*args, **kwargs):
        pytest.fail("work was done")

    for method in ("fit", "evaluate", "__call__"):
        monkeypatch.setattr(keras.Model, method, ran)
    monkeypatch.setattr(CharacterTokenizer, "tokenize", ran)


def refused(error, call, *needles):
    with pytest.raises(error) as caught:
        call()
    for needle in needles:
        assert needle in str(caught.value), str(caught.value)


def pairs(*columns):
    return tf.data.Dataset.from_tensor_slices(columns)


def ids(rows=2, width=3, value=4):
    array = np.full((rows, width), value, np.int32)
    return {"source": array, "target_in": array.copy()}


# Strings.

BAD_TEXT = {
    "empty": (([], []), {}, ValueError, ["x: expected at least one"]),
    "empty array": ((np.array([], str), []), {}, ValueError, ["x: expected at least one pair"]),
    "empty dataset": (
        (tf.data.Dataset.from_tensor_slices((["a"], ["b"])).take(0), None),
        {},
        ValueError,
        ["x: expected at least one pair", "empty dataset"],
    ),
    "no targets": ((["a"], None), {}, ValueError, ["y: expected the targets", "got None"]),
    "int among strings": (
        (["a", "b", 7], ["a", "b", "c"]),
        {},
        TypeError,
        ["x[2]: expected str or bytes, got int 7"],
    ),
    "string among ints": (([7, "a"], ["a", "b"]), {}, TypeError, ["x[0]", "str or bytes", "int 7"]),
    "None among targets": (
        (["a", "b"], ["a", None]),
        {},
        TypeError,
        ["y[1]: expected str or bytes, got NoneType None"],
    ),
    "NaN in an object array": (
        (np.array(["a", float("nan")], object), ["a", "b"]),
        {},
        TypeError,
        ["x[1]: expected str or bytes, got float nan"],
    ),
    "lists among strings": (([["a"], "b"], ["a", "b"]), {}, TypeError, ["x[0]", "list ['a']"]),
    "ids as targets": ((["a"], [[4, 2]]), {}, TypeError, ["y[0]: expected str or bytes, got list"]),
    "array of ids as targets": ((["a"], np.array([[4, 2]])), {}, ValueError, ["y:", "(1, 2)"]),
    "two-dimensional strings": (
        (np.array([["a", "b"]]), ["a"]),
        {},
        ValueError,
        ["x: expected a flat list of strings, got shape (1, 2)"],
    ),
    "two-dimensional tensor": (
        (["a"], tf.constant([["a"]])),
        {},
        ValueError,
        ["y: expected a flat list of strings, got shape (1, 1)"],
    ),
    "scalar tensor": (
        (tf.constant("a"), ["a"]),
        {},
        ValueError,
        ["x: expected a flat", "shape ()"],
    ),
    "fewer targets": (
        (["a", "b"], ["a"]),
        {},
        ValueError,
        ["y: expected 2 rows, as many as x has, got 1"],
    ),
    "fewer weights": (
        (["a", "b"], ["a", "b"]),
        {"sample_weight": [1.0]},
        ValueError,
        ["sample_weight: expected shape (2,), got (1,)"],
    ),
    "ids": ((np.array([[4, 2]]), np.array([[4, 2]])), {}, TypeError, ["x:", "string", "ndarray"]),
    "one string of ids": (([[4, 2]], [[4, 2]]), {}, TypeError, ["x: expected at least one string"]),
    "floats": (([1.5], ["a"]), {}, TypeError, ["x: expected at least one string", "list"]),
    "unknown too_long": (
        (["a"], ["b"]),
        {"too_long": "keep"},
        ValueError,
        ["too_long: expected 'cut' or 'drop', got 'keep'"],
    ),
    **{
        f"batch_size {size!r}": (
            (["a"], ["b"]),
            {"batch_size": size},
            ValueError,
            [f"batch_size: expected a positive int, got {size!r}"],
        )
        for size in (0, -1, 2.0, True, "2")
    },
    "dataset of numbers as targets": (
        (pairs(["a"], [3]), None),
        {},
        TypeError,
        ["x: expected a dataset of (source, target)", "both strings"],
    ),
    "dataset without targets": (
        (tf.data.Dataset.from_tensor_slices(["a"]), None),
        {},
        TypeError,
        ["x: expected a dataset of (source, target)"],
    ),
    "dataset of four": (
        (pairs(["a"], ["b"], [1.0], [2.0]), None),
        {},
        TypeError,
        ["x: expected a"],
    ),
    "dataset of nested targets": (
        (pairs(["a"], {"target": ["b"]}), None),
        {},
        TypeError,
        ["x: expected a dataset"],
    ),
    "targets beside a dataset": (
        (pairs(["a"], ["b"]), ["b"]),
        {},
        ValueError,
        ["a dataset brings its own"],
    ),
    "weights beside a dataset": (
        (pairs(["a"], ["b"]), None),
        {"sample_weight": [1.0]},
        ValueError,
        ["sample_weight", "a dataset brings its own"],
    ),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_bad_text_is_refused(with_text, case):
    (x, y), options, error, needles = BAD_TEXT[case]
    refused(error, lambda: with_text.fit(x, y, **options), *needles)
    refused(error, lambda: with_text.evaluate(x, y, **options), *needles)


def test_bad_validation_is_refused(with_text):
    def fit(**options):
        return lambda: with_text.fit(["a", "b"], ["a", "b"], **options)

    for fraction in (1.0, 1.5, -0.1):
        refused(ValueError, fit(validation_split=fraction), "validation_split", f"got {fraction}")
    for fraction in (0.1, 0.9):
        refused(
            ValueError,
            lambda fraction=fraction: with_text.fit(["a"], ["b"], validation_split=fraction),
            f"validation_split: {fraction} of 1 pairs leaves no pair",
        )
    dataset = pairs(["a"], ["b"])
    refused(
        ValueError,
        lambda: with_text.fit(dataset, validation_split=0.5),
        "validation_split",
        "got a dataset",
    )


def test_class_weight_is_refused(with_text, with_ids):
    for call in (
        lambda: with_text.fit(["a"], ["b"], class_weight={4: 2.0}),
        lambda: with_ids.fit(ids(), ids()["source"], class_weight={4: 2.0}),
    ):
        refused(ValueError, call, "class_weight", "sample_weight")


def test_ids_are_refused_where_there_are_tokenisers(with_text):
    array = np.array([[4, 2]])
    for call in (
        lambda: with_text.generate(array),
        lambda: with_text.generate(array.tolist()),
        lambda: with_text.score(array, ["a"]),
        lambda: with_text.search(array),
        lambda: with_text.search(4),
    ):
        refused(TypeError, call, "source: expected a string or a list of strings")
    refused(
        TypeError, lambda: inputs.target_rows("target", array, with_text.codec, 9, ["a"]), "target:"
    )
    refused(TypeError, lambda: with_text.generate(["a", 3]), "source[1]", "got int 3")


# Ids.


def test_strings_are_refused_where_there_are_no_tokenisers(with_ids):
    for call in (
        lambda: with_ids.fit(["a"], ["b"]),
        lambda: with_ids.fit(pairs(["a"], ["b"])),
        lambda: with_ids.evaluate(["a"], ["b"]),
    ):
        refused(TypeError, call, "x: got strings", "no source tokeniser", "zoo.build(name, source=")
    for source in ("a", ["a"], np.array(["a"]), b"a"):
        refused(
            TypeError,
            lambda source=source: with_ids.generate(source),
            "source: expected integer ids, got strings",
        )
    refused(TypeError, lambda: with_ids.score([[4, 2]], ["a"]), "target: expected integer ids")


BAD_IDS = {
    "floats": ([[4.0, 2.0]], TypeError, ["expected integer ids", "list of float64"]),
    "booleans": (np.array([[True]]), TypeError, ["expected integer ids", "ndarray of bool"]),
    "rank 1": ([4, 2], ValueError, ["expected shape (batch, tokens), got (2,)"]),
    "rank 3": ([[[4, 2]]], ValueError, ["expected shape (batch, tokens), got (1, 1, 2)"]),
    "rank 0": (np.int32(4), ValueError, ["expected shape (batch, tokens), got ()"]),
    "ragged": ([[4, 2], [2]], ValueError, ["expected rows of equal length, padded with 0"]),
    "too large": ([[4, 2], [8, 8]], ValueError, ["[1, 0]: expected", "0 to 7, got 8"]),
    "negative": ([[4, -1]], ValueError, ["[0, 1]: expected an id of the vocabulary", "got -1"]),
    "far too large": ([[2**40 + 4, 2]], ValueError, ["[0, 0]", f"got {2**40 + 4}"]),
}


@pytest.mark.parametrize("case", BAD_IDS)
def test_bad_ids_are_refused(with_ids, case):
    array, error, needles = BAD_IDS[case]
    fine = ids()
    target_out = fine["source"]
    refused(error, lambda: inputs.id_array("rows", array, lambda width: 8), "rows", *needles)
    refused(error, lambda: with_ids.fit(fine, array), "y", *needles)
    refused(
        error,
        lambda: with_ids.fit({**fine, "target_in": array}, target_out),
        "x['target_in']",
        *needles,
    )
    refused(error, lambda: with_ids.evaluate(fine, array), "y", *needles)
    refused(error, lambda: with_ids.score(fine["source"], array), "target", *needles)


def test_ids_of_the_other_vocabulary_are_refused(with_ids):
    source_ids = np.array([[8, 2]])  # 9 source ids, 8 target ids
    assert with_ids.source == 9 and with_ids.target == 8
    inputs.id_array("source", source_ids, with_ids.codec.source_limit)
    refused(ValueError, lambda: with_ids.score(source_ids, source_ids), "target[0, 0]", "got 8")
    refused(ValueError, lambda: with_ids.generate(source_ids + 1), "source[0, 0]", "got 9")


def test_unequal_numbers_of_ids_are_refused(with_ids):
    three = ids(3)["source"]
    refused(ValueError, lambda: with_ids.fit(ids(2), three), "y: expected 2 rows", "got 3")
    bad = {**ids(2), "target_in": three}
    refused(ValueError, lambda: with_ids.fit(bad, three), "x['target_in']: expected 2 rows")
    refused(ValueError, lambda: with_ids.score(ids(2)["source"], three), "target: expected 2 rows")
    empty = ids(0)
    refused(ValueError, lambda: with_ids.fit(empty, empty["source"]), "expected at least one pair")


def test_dicts_that_lack_something_are_refused(with_ids):
    array = ids()["source"]
    refused(ValueError, lambda: with_ids.fit({"source": array}, array), "['target_in']")
    refused(ValueError, lambda: with_ids.fit({}, array), "['source', 'target_in']")
    refused(ValueError, lambda: with_ids.fit(ids(), None), "got none of y")


def test_targets_of_another_width_are_refused(with_ids):
    wider = ids(width=4)["source"]
    refused(ValueError, lambda: with_ids.fit(ids(), wider), "x['target_in'], (2, 3), got (2, 4)")


# What is accepted.

SAME = ["abc", "", "é"]
FORMS = {
    "list": SAME,
    "tuple": tuple(SAME),
    "U array": np.array(SAME),
    "S array": np.array([text.encode() for text in SAME]),
    "O array": np.array(SAME, object),
    "O array of bytes": np.array([text.encode() for text in SAME], object),
    "tensor": tf.constant(SAME),
    "bytes": [text.encode() for text in SAME],
    "mixed": ["abc", b"", np.str_("é")],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_strings_is_accepted(form):
    assert inputs.is_text(FORMS[form])
    found = inputs.texts("x", FORMS[form])
    assert [item if isinstance(item, bytes) else item.encode() for item in found] == [
        text.encode() for text in SAME
    ]


def test_every_form_of_strings_trains_and_generates_alike(with_text):
    words = ["abc", "", "ca"]
    forms = [words, tuple(words), np.array(words), np.array(words, object), tf.constant(words)]
    forms += [np.array(words, bytes), [word.encode() for word in words]]
    losses = {with_text.evaluate(x, x, verbose=0)[0] for x in forms}
    assert len(losses) == 1
    made = with_text.generate(words)
    assert len(made) == 3 and all(with_text.generate(x) == made for x in forms)
    assert [with_text.generate(x) for x in ("ca", b"ca", np.str_("ca"))] == [made[2]] * 3


def test_text_is_told_from_other_things():
    dataset = tf.data.Dataset.from_tensor_slices
    for text in ("a", b"a", ["a"], ("a", 3), [3, "a"], dataset((["a"], ["b"])), dataset(["a"])):
        assert inputs.is_text(text)
    for other in (
        None,
        3,
        [],
        [3],
        [["a"]],
        np.array([3]),
        np.array([None], object),
        tf.constant([3]),
        ids(),
        dataset(([3], ["b"])),
        dataset({"source": ["a"]}),
    ):
        assert not inputs.is_text(other)


def test_the_sources_of_a_dataset_are_those_of_its_elements():
    texts = ["abc", "", "é", "a"]
    alone = tf.data.Dataset.from_tensor_slices(texts)
    for dataset in (alone, pairs(texts, texts[::-1]), pairs(texts, texts[::-1], [1.0] * 4)):
        for form in (dataset, dataset.batch(3)):
            assert inputs.sources_of(form) == [text.encode() for text in texts]


# Rows of ids.


def rows_of(found):
    return [
        found.values[a:b].tolist() for a, b in zip(found.starts, found.starts[1:], strict=False)
    ]


def array_of(rows, width):
    return np.array([row + [0] * (width - len(row)) for row in rows], np.int32).reshape(-1, width)


tokens = st.lists(st.integers(3, 8), max_size=6)
behind = st.lists(st.integers(1, 8), max_size=2)


@few
@given(st.lists(st.tuples(tokens, st.booleans(), behind), max_size=5), st.integers(1, 9))
def test_source_rows_end_with_one_eos(rows, max_source):
    """They are read up to EOS, or to their last token, and cut to max_source - 1 tokens and EOS."""
    given_rows = [row + ([EOS, *more] if ended else []) for row, ended, more in rows]
    found = inputs.source_rows("source", array_of(given_rows, 9), Codec(9, 9), max_source, None)
    assert rows_of(found) == [[*row[: max_source - 1], EOS] for row, _, _ in rows]
    assert found.cut.tolist() == [len(row) + 1 > max_source for row, _, _ in rows]
    assert found.values.dtype == np.int32 and found.lengths.tolist() == [
        min(len(row) + 1, max_source) for row, _, _ in rows
    ]


@few
@given(st.lists(st.tuples(tokens, st.booleans()), max_size=5), st.integers(1, 9))
def test_target_rows_stand_as_they_are_up_to_padding(rows, max_target):
    """They are cut at max_target tokens, and no EOS is added."""
    given_rows = [row + [EOS] * ended for row, ended in rows]
    found = inputs.target_rows("target", array_of(given_rows, 9), Codec(9, 9), max_target, [])
    assert rows_of(found) == [row[:max_target] for row in given_rows]
    assert found.cut.tolist() == [len(row) > max_target for row in given_rows]


def test_target_rows_end_at_the_first_padding():
    found = inputs.target_rows_of_ids(np.array([[5, EOS, 6, 0], [5, 0, 6, EOS], [0, 5, 6, 7]]), 9)
    assert rows_of(found) == [[5, EOS, 6], [5], []]


def test_rows_of_no_tokens():
    for shape, rows in (((0, 3), []), ((2, 0), [[], []]), ((2, 3), [[], []])):
        array = np.zeros(shape, np.int32)
        assert rows_of(inputs.target_rows_of_ids(array, 4)) == rows
        assert rows_of(inputs.source_rows_of_ids(array, 4)) == [[EOS] for _ in rows]


def test_rows_of_text_follow_the_same_rules(with_text):
    a, b, c = (int(with_text.source.tokenize(letter)[0]) for letter in "abc")
    texts = ["abca", "abcab", "", "abc"]
    rows = pipeline.rows_of(with_text.codec.source_ids, 5, pipeline.source_ids)
    sources = inputs.source_rows("source", texts, with_text.codec, 5, rows)
    assert rows_of(sources) == [[a, b, c, a, EOS], [a, b, c, a, EOS], [EOS], [a, b, c, EOS]]
    assert sources.cut.tolist() == [False, True, False, False]
    targets = inputs.target_rows("target", texts, with_text.codec, 5, texts)
    assert rows_of(targets) == [[a, b, c, a, EOS], [a, b, c, a, b], [EOS], [a, b, c, EOS]]
    assert targets.cut.tolist() == [False, True, False, False]


def test_ids_and_texts_mean_the_same(with_text, with_ids):
    """A source has the same hypothesis, and the same score, with EOS or without."""
    assert with_ids.max_source == 5
    bare, ended = [[4, 5, 0], [6, 0, 0]], [[4, 5, EOS], [6, EOS, 7]]
    assert with_ids.generate(bare).tolist() == with_ids.generate(ended).tolist()
    target = [[4, 5, EOS, 0, 0], [7, 7, 7, 7, 7]]
    scores = [with_ids.score(source, target) for source in (bare, ended)]
    np.testing.assert_array_equal(*scores)
    # As they stand: without EOS, its share of the score is not there.
    longer = with_ids.score(bare, [[4, 5, EOS, 0, 0], [7, 7, 7, 7, 7, EOS]][:1] * 2)
    assert longer[0] == scores[0][0] != with_ids.score(bare, [[4, 5, 0], [7, 7, 7]])[0]
    assert BOS not in with_ids.generate(bare)


def test_messages_have_no_endless_values(with_text):
    with pytest.raises(TypeError) as caught:
        inputs.texts("x", ["a", list(range(10_000))])
    assert re.match(r"x\[1\]: ", str(caught.value)) and len(str(caught.value)) < 120
