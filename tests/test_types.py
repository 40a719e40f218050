"""The records and ids that everything agrees on."""

from keras_attn import types


def test_special_ids_are_where_their_tokens_are():
    ids = (types.PAD, types.BOS, types.EOS, types.UNK)
    assert ids == (0, 1, 2, 3)
    assert [types.SPECIAL_TOKENS[i] for i in ids] == ["<pad>", "<s>", "</s>", "<unk>"]


def test_fields_of_a_search_result_are_the_published_ones():
    assert types.SearchResult._fields == (
        "token_ids",
        "lengths",
        "scores",
        "penalised_scores",
        "token_scores",
        "alignments",
        "finished",
    )
