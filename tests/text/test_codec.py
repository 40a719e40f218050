"""Codecs: ids of tokens that no vocabulary knows, by their place in the source, and text again."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn.text import (
    ByteTokenizer,
    CharacterTokenizer,
    SentencePieceTokenizer,
    WhitespaceTokenizer,
    WordPieceTokenizer,
)
from keras_attn.text.codec import Codec, CopyCodec
from keras_attn.types import BOS, EOS, PAD, SPECIAL_TOKENS, UNK

few = settings(max_examples=40, deadline=None, derandomize=True)

SOURCE = WhitespaceTokenizer([*SPECIAL_TOKENS, "a", "b", "c"])  # 7 ids
TARGET = WhitespaceTokenizer([*SPECIAL_TOKENS, "b", "d"])  # 6 ids
VS, V = 7, 6
CODEC = CopyCodec(SOURCE, TARGET, max_source=8)
CHARACTERS = CopyCodec(
    CharacterTokenizer([*SPECIAL_TOKENS, *"ab c"]), CharacterTokenizer([*SPECIAL_TOKENS, *"bd "]), 8
)

words = st.sampled_from(["a", "b", "c", "d", "x", "y", "ü", "</s>", "<unk>"])
sentences = st.lists(words, max_size=10)


def placed(tokens, vocabulary, source):
    """Return what the ids of tokens have to be, by loops."""
    ids = []
    for token in tokens:
        if token in vocabulary[4:]:
            ids.append(vocabulary.index(token))
        elif token in source:
            ids.append(len(vocabulary) + source.index(token))
        else:
            ids.append(UNK)
    return ids


def texts(tensor):
    return [text.decode() for text in tensor.numpy()]


def names(tensor):
    return [[token.decode() for token in row] for row in tensor.numpy()]


# === Copying: text to ids ===


@few
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=4))
def test_ids_are_those_of_a_loop(pairs):
    sources, targets = ([" ".join(row) for row in side] for side in zip(*pairs, strict=True))
    found = CODEC.source_ids(sources)
    assert found.dtype == tf.int32
    assert found.to_list() == [placed(source, SOURCE.vocabulary, source) for source, _ in pairs]
    found = CODEC.target_ids(targets, sources)
    assert found.dtype == tf.int32
    assert found.to_list() == [
        placed(target, TARGET.vocabulary, source[:7]) for source, target in pairs
    ]


def test_unknown_tokens_have_the_id_of_their_first_place():
    assert CODEC.source_ids(["x a y x", "y"]).to_list() == [[VS, 4, VS + 2, VS], [VS]]


def test_a_target_finds_its_tokens_in_the_source():
    # x is unknown to both, a to the target alone, d to the source alone; z stands nowhere.
    found = CODEC.target_ids(["x a d z b", "x"], ["b a x d", "y"])
    assert found.to_list() == [[V + 2, V + 1, 5, UNK, 4], [UNK]]


def test_what_is_cut_off_a_source_cannot_be_copied():
    codec = CopyCodec(SOURCE, TARGET, max_source=3)  # two tokens and EOS
    assert codec.target_ids(["x y z"], ["x y z"]).to_list() == [[V, V + 1, UNK]]
    ids, source = [[V, V + 1, V + 2]], ["x y z"]
    assert names(codec.target_tokens(ids, source)) == [["x", "y", "<unk>"]]
    assert texts(codec.text(ids, source)) == ["x y <unk>"]


def test_a_literal_special_token_is_a_word_like_any_other():
    source = ["a </s> <pad> <unk>"]
    ids = CODEC.target_ids(["<unk> </s>"], source)
    assert ids.to_list() == [[V + 3, V + 1]]
    assert texts(CODEC.text(ids.to_tensor(), source)) == ["<unk> </s>"]


def test_characters_of_any_script():
    sources = ["üb👍ü", "\0é", "Ж"]
    assert CHARACTERS.source_ids(sources).to_list() == [[8, 5, 10, 8], [8, 9], [8]]
    targets = ["👍d", "é\0b", "xЖ"]
    found = CHARACTERS.target_ids(targets, sources)
    assert found.to_list() == [[9, 5], [8, 7, 4], [UNK, 7]]
    assert texts(CHARACTERS.text(found.to_tensor(), sources)) == ["👍d", "é\0b", "<unk>Ж"]


def test_invalid_text_is_copied_as_the_replacement_character():
    sources = [b"a\xff", "\ufffd"]
    ids = CHARACTERS.target_ids([b"\xff", b"\xfe"], sources)
    assert ids.to_list() == [[8], [7]]
    assert texts(CHARACTERS.text(ids.to_tensor(), sources)) == ["\ufffd", "\ufffd"]


def test_words_of_the_target_may_be_characters_of_the_source():
    codec = CopyCodec(CHARACTERS.source, TARGET, 8)
    ids = codec.target_ids(["z b zz x"], ["xyz"])
    assert ids.to_list() == [[V + 2, 4, UNK, V]]
    assert texts(codec.text(ids.to_tensor(), ["xyz"])) == ["z b <unk> x"]


def test_tokens_are_compared_after_cleaning():
    vocabulary = [*SPECIAL_TOKENS, "a", "b"]
    codec = CopyCodec(
        WhitespaceTokenizer(vocabulary, lowercase=True),
        WhitespaceTokenizer(vocabulary, lowercase=True),
        8,
    )
    assert codec.source_ids(["A Foo FOO"]).to_list() == [[4, 7, 7]]
    ids = codec.target_ids(["fOO B"], ["A Foo FOO"])
    assert ids.to_list() == [[7, 5]]
    assert texts(codec.text(ids.to_tensor(), ["A Foo FOO"])) == ["foo b"]


def test_empty_strings_and_batches():
    assert CODEC.source_ids(["", "x"]).to_list() == [[], [VS]]
    assert CODEC.target_ids(["x", "", "x"], ["", "x", "x"]).to_list() == [[UNK], [], [V]]
    assert CODEC.target_ids(["x"], [""]).to_list() == [[UNK]]
    nothing = tf.constant([], tf.string)
    assert CODEC.source_ids(nothing).shape[0] == 0
    assert CODEC.target_ids(nothing, nothing).to_list() == []
    assert CODEC.text(np.zeros((0, 3), np.int64), nothing).shape == (0,)
    assert CODEC.target_tokens(np.zeros((0, 3), np.int64), nothing).shape == (0, 3)
    assert texts(CODEC.text(np.zeros((2, 0), np.int64), ["x", ""])) == ["", ""]
    assert texts(CODEC.text([[V, 4]], [""])) == ["<unk> b"]


# === Copying: ids to text ===


@few
@given(st.lists(st.tuples(sentences, st.lists(st.integers(0, 16), max_size=8)), min_size=1))
def test_names_and_text_are_those_of_a_loop(pairs):
    sources = [" ".join(source) for source, _ in pairs]
    width = max(len(ids) for _, ids in pairs)
    ids = np.array([row + [PAD] * (width - len(row)) for _, row in pairs], np.int64)
    for side, size, name in ((TARGET, V, "target_tokens"), (SOURCE, VS, "source_tokens")):
        expected = []
        for (source, _), row in zip(pairs, ids, strict=True):
            places = [*source[:7], *["<unk>"] * 20]
            known = [side.vocabulary[i] if i < size else places[i - size] for i in row]
            expected.append(known)
        assert names(getattr(CODEC, name)(ids, sources)) == expected
    expected = []
    for (source, _), row in zip(pairs, ids.tolist(), strict=True):
        places = [*source[:7], *["<unk>"] * 20]
        row = row[: row.index(EOS)] if EOS in row else row
        kept = [i for i in row if i not in (PAD, BOS)]
        expected.append(" ".join(TARGET.vocabulary[i] if i < V else places[i - V] for i in kept))
    assert texts(CODEC.text(ids, sources)) == expected


@few
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=4))
def test_text_comes_back_where_it_is_known_or_stands_in_the_source(pairs):
    sources, targets = ([" ".join(row) for row in side] for side in zip(*pairs, strict=True))
    ids = CODEC.target_ids(targets, sources).to_tensor(PAD)
    known = {*TARGET.vocabulary[4:]}
    expected = [
        " ".join(token if token in known | {*source[:7]} else "<unk>" for token in target)
        for source, target in pairs
    ]
    assert texts(CODEC.text(ids, sources)) == expected


def test_text_ends_at_eos_and_has_neither_pad_nor_bos():
    ids = [[BOS, V, PAD, 4, EOS, V, EOS], [EOS, 4, 4, 4, 4, 4, 4], [UNK, V + 1, V + 5, 5, 0, 0, 0]]
    sources = ["x y", "y", "a x"]
    assert texts(CODEC.text(ids, sources)) == ["x b", "", "<unk> x <unk> d"]
    assert names(CODEC.target_tokens(ids, sources))[0] == [
        "<s>",
        "x",
        "<pad>",
        "b",
        "</s>",
        "x",
        "</s>",
    ]


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_ids_outside_every_range_are_unknown(dtype):
    ids = np.array([[-1, -99, V + 2, V + 7, 10**6]], dtype)
    assert names(CODEC.target_tokens(ids, ["x y"])) == [["<unk>"] * 5]
    assert texts(CODEC.text(ids, ["x y"])) == [" ".join(["<unk>"] * 5)]


def test_neighbours_do_not_matter():
    ids, sources = [[V, V + 1], [V, V + 1], [V + 3, V]], ["x", "y z", "a b c d"]
    alone = [texts(CODEC.text(ids[i : i + 1], sources[i : i + 1]))[0] for i in range(3)]
    assert texts(CODEC.text(ids, sources)) == alone == ["x <unk>", "y z", "d a"]


# === Which ids there are ===


def test_the_target_ids_of_the_sources_vocabulary_are_found_by_text():
    assert CODEC.to_target.tolist() == [0, 1, 2, 3, UNK, 4, UNK]
    assert CODEC.to_target.dtype == np.int32


@pytest.mark.parametrize("sizes", [(7, 9), (9, 7), (7, 7)])
def test_sizes_share_their_ids(sizes):
    codec = CopyCodec(*sizes, max_source=8)
    assert codec.to_target.tolist() == [i if i < sizes[1] else UNK for i in range(sizes[0])]
    assert codec.source_limit(5) == sizes[0] + 5 and codec.target_limit(5) == sizes[1] + 5


def test_a_plain_codec_has_no_more_ids_than_its_vocabularies():
    codec = Codec(SOURCE, TARGET)
    assert (codec.source_limit(5), codec.target_limit(5)) == (VS, V)


@pytest.mark.parametrize(
    "tokenizer",
    [
        ByteTokenizer(),
        WordPieceTokenizer.learn(["abc abd"], 12),
        SentencePieceTokenizer.learn(["the cat sat on the mat"] * 9, 24),
    ],
    ids=lambda tokenizer: type(tokenizer).__name__,
)
def test_tokenisers_that_forget_the_text_are_refused(tokenizer):
    kind = type(tokenizer).__name__
    with pytest.raises(ValueError, match=f"^source: copying needs the text .* a {kind} does not"):
        CopyCodec(tokenizer, TARGET, 8)
    with pytest.raises(ValueError, match=f"^target: copying needs the text .* a {kind} does not"):
        CopyCodec(SOURCE, tokenizer, 8)
    Codec(tokenizer, tokenizer)


@pytest.mark.parametrize("pair", [(SOURCE, 9), (9, TARGET)], ids=["target", "source"])
def test_a_tokeniser_beside_a_size_is_refused(pair):
    with pytest.raises(ValueError, match="^source, target: copying needs tokenisers on both"):
        CopyCodec(*pair, max_source=8)


# === Graphs ===


def test_one_graph_serves_every_batch():
    spec = tf.TensorSpec([None], tf.string)
    traces = []

    @tf.function(input_signature=[spec, spec])
    def there_and_back(targets, sources):
        traces.append(1)
        ids = CODEC.target_ids(targets, sources).to_tensor(PAD)
        source = CODEC.source_ids(sources).to_tensor(PAD)
        return ids, CODEC.text(ids, sources), CODEC.source_tokens(source, sources)

    batches = [(["x a", "b"], ["b x", "y"]), ([""], [""]), (["q"] * 3, ["r q", "q", ""]), ([], [])]
    for targets, sources in batches:
        ids, text, tokens = there_and_back(
            tf.constant(targets, tf.string), tf.constant(sources, tf.string)
        )
        if not targets:
            assert ids.shape[0] == text.shape[0] == tokens.shape[0] == 0
            continue
        expected = CODEC.target_ids(targets, sources).to_tensor(PAD)
        np.testing.assert_array_equal(ids, expected)
        assert texts(text) == texts(CODEC.text(expected, sources))
        assert [" ".join(row).replace("<pad>", "").strip() for row in names(tokens)] == sources
    assert len(traces) == 1


def test_first_use_inside_a_dataset():
    codec = CopyCodec(WhitespaceTokenizer.learn(["a"]), WhitespaceTokenizer.learn(["b"]), 8)
    pairs = tf.data.Dataset.from_tensor_slices((["x a", "", "y"], ["a x z", "x", "y b"]))

    def ids(source, target):
        return codec.source_ids(source), codec.target_ids(target, source)

    found = [(s.to_list(), t.to_list()) for s, t in pairs.batch(2).map(ids)]
    assert found == [([[5, 4], []], [[6, 5, UNK], [UNK]]), ([[5]], [[5, 4]])]
    single = pairs.map(lambda s, t: tuple(rows[0] for rows in ids(s[None], t[None])))
    assert [t.numpy().tolist() for _, t in single] == [[6, 5, UNK], [UNK], [5, 4]]


# === The pieces that tokenisers keep ===

anything = st.lists(st.text(max_size=6), min_size=1, max_size=4)


@few
@given(anything)
def test_pieces_are_as_many_as_ids_and_join_to_the_text(batch):
    characters = CharacterTokenizer.learn(["ab"])
    pieces = characters.pieces(batch)
    assert [[p.decode() for p in row] for row in pieces.to_list()] == [list(text) for text in batch]
    assert texts(characters.join(pieces)) == batch
    whitespace = WhitespaceTokenizer.learn(["ab"])
    pieces = whitespace.pieces(batch)
    assert pieces.row_lengths().numpy().tolist() == [
        len(row) for row in whitespace.tokenize(batch).to_list()
    ]
    assert texts(whitespace.join(pieces)) == [
        " ".join(part.decode() for part in row) for row in pieces.to_list()
    ]


@pytest.mark.parametrize("learner", [CharacterTokenizer, WhitespaceTokenizer])
def test_pieces_are_cleaned_and_name_what_the_ids_name(learner):
    tokenizer = learner.learn(["a b ab"], lowercase=True)
    pieces = tokenizer.pieces(["A B", "aB"])
    assert pieces.to_list() == tokenizer.tokens(tokenizer.tokenize(["A B", "aB"])).to_list()
    assert tokenizer.pieces(tf.constant([], tf.string)).shape[0] == 0


def test_other_tokenisers_have_no_pieces():
    assert not hasattr(ByteTokenizer(), "pieces")


# === The plain codec ===


@few
@given(anything)
def test_a_plain_codec_is_its_tokenisers(batch):
    codec = Codec(SOURCE, TARGET)
    assert codec.source_ids(batch).to_list() == SOURCE.tokenize(batch).to_list()
    ids = codec.target_ids(batch, batch)
    assert ids.to_list() == TARGET.tokenize(batch).to_list()
    dense = tf.pad(ids.to_tensor(PAD), [[0, 0], [0, 2]], constant_values=99)
    assert texts(codec.text(dense, batch)) == texts(TARGET.detokenize(dense))
    assert names(codec.source_tokens(dense, batch)) == names(SOURCE.tokens(dense))
    assert names(codec.target_tokens(dense, batch)) == names(TARGET.tokens(dense))


def test_where_nothing_is_unknown_copying_changes_nothing():
    both = WhitespaceTokenizer.learn(["a b c d"])
    plain, copying = Codec(both, both), CopyCodec(both, both, 8)
    batch = ["a b", "", "d d c"]
    assert copying.source_ids(batch).to_list() == plain.source_ids(batch).to_list()
    ids = copying.target_ids(batch, batch[::-1])
    assert ids.to_list() == plain.target_ids(batch, batch[::-1]).to_list()
    assert texts(copying.text(ids.to_tensor(), batch)) == batch


def test_long_unknown_texts_take_no_room_squared():
    letters = CharacterTokenizer.learn(["ab"])
    both = CopyCodec(letters, letters, 9)
    long = "é" * 100_000 + "a"
    (ids,) = both.source_ids([long]).to_list()
    assert set(ids[:-1]) == {both.source_size}
    (ids,) = both.target_ids([long], ["b" + long]).to_list()
    assert set(ids[:-1]) == {both.target_size + 1}
