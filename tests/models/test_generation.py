"""Everything that is asked of a model: beams, draws, rules, streams, and the shapes of answers."""

import itertools

import numpy as np
import pytest
import small_models

from keras_attn import zoo
from keras_attn.models import corpus

WORDS = ["abc", "de", "", "hello"]


def model():
    return small_models.shared("attention")


def test_several_targets_come_best_first_and_only_those_that_are():
    found = model().generate(WORDS, beam_size=4, num_return=3, return_scores=True)
    texts, scores = found
    assert [len(row) for row in texts] == [3, 3, 1, 3] == [len(row) for row in scores]
    assert texts[2] == [""] and all(isinstance(x, float) for row in scores for x in row)
    assert all(row == sorted(row, reverse=True) for row in scores)
    one = model().generate("abc", beam_size=4, num_return=3)
    assert one == texts[0] and model().generate("abc", beam_size=4) == one[0]
    assert model().generate(["abc"], num_return=1) == [[model().generate("abc")]]
    assert model().generate([], beam_size=2, num_return=2) == []


def test_scores_are_those_of_the_targets():
    texts, scores = model().generate(WORDS, beam_size=3, num_return=2, return_scores=True)
    search = model().search(WORDS, beam_size=3, num_return=2)
    for i, k in itertools.product((0, 1, 3), range(2)):
        if search.finished[i, k] and "<unk>" not in texts[i][k]:
            assert abs(model().score(WORDS[i], texts[i][k])[0] - scores[i][k]) < 1e-4
        assert scores[i][k] == pytest.approx(search.scores[i, k])
    assert search.token_ids.shape[:2] == (4, 2)


def test_alignments_are_plain_lists_as_long_as_the_texts():
    text, score, alignments = model().generate(
        "abc", beam_size=3, return_scores=True, return_alignments=True
    )
    found = model().search("abc", beam_size=3)
    assert isinstance(text, str) and isinstance(score, float)
    assert [len(row) for row in alignments] == [4] * found.lengths[0, 0]
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in alignments)
    nested = model().generate(WORDS, num_return=1, return_alignments=True)[1]
    assert [len(row) for row in nested] == [1] * 4 and len(nested[2][0]) == 1
    with pytest.raises(ValueError, match="return_alignments: this model has no attention"):
        small_models.shared("combined").generate("abc", return_alignments=True)


def test_ids_in_ids_out():
    ids_model = small_models.randomised(zoo.build("attention", source=9, target=8, units=4))
    source = np.array([[4, 5, 2], [6, 2, 0]])
    found, scores = ids_model.generate(
        source, beam_size=3, num_return=2, max_length=4, return_scores=True
    )
    assert found.shape[:2] == (2, 2) and isinstance(scores[0][1], float)
    best = ids_model.generate(source, beam_size=3, max_length=4)
    assert (best == found[:, 0, : best.shape[1]]).all()
    assert list(ids_model.stream(source[:1], max_length=4)) == [
        i for i in ids_model.generate(source[:1], max_length=4)[0] if i > 2
    ]


def test_the_same_seed_draws_the_same_whatever_the_batch():
    words = [*WORDS, *small_models.WORDS] * 3
    asked = {"temperature": 1.3, "seed": 5}
    expected = model().generate(words, **asked)
    assert model().generate(words, batch_size=5, **asked) == expected
    assert model().generate(words[:7], **asked) == expected[:7]
    assert len(set(expected)) > 20  # also equal sources differ
    assert model().generate(words, temperature=1.3, seed=6) != expected
    seeds = np.arange(len(words))
    drawn = model().generate(words, temperature=1.3, seed=seeds)
    turned = model().generate(words[::-1], temperature=1.3, seed=seeds[::-1])
    assert turned == drawn[::-1]
    several = model().generate(words, num_return=3, **asked)
    assert [row[0] for row in several] == expected and several[0][0] != several[0][1]
    scores = model().search(words, num_return=3, **asked)
    assert [row[0] for row in several] == model().generate(words, **asked)
    assert np.isfinite(scores.scores).all()


def test_a_cold_draw_is_greedy():
    assert model().generate(WORDS, top_k=1) == model().generate(WORDS)
    assert model().generate(WORDS, temperature=1e-4, seed=1) == model().generate(WORDS)


def test_rules_hold_in_texts():
    words = [*small_models.WORDS, ""]
    beam = {"beam_size": 4, "num_return": 4}
    for asked in ({}, beam, {"temperature": 1.5, "seed": 1}):
        found = flat(model().generate(words, prefix="c b", **asked))
        assert all(text.startswith("c b") for text in found if text) and "" in found
        banned = ["a", "<unk>", "s"]
        tokens = flat(model().generate(words, banned=banned, **asked))
        assert not {*banned} & {token for text in tokens for token in text.split()}
        for text in flat(model().generate(words, no_repeat_ngram_size=2, **asked)):
            pairs = list(itertools.pairwise(text.split()))
            assert len(pairs) == len(set(pairs))
        found = model().search(words, min_length=5, max_length=7, **asked)
        there = found.lengths > 0
        assert ((found.lengths >= 5) & (found.lengths <= 7) | ~there)[:-1].all()
        allowed = ["c b a", "c b", "e d", "z"]
        found = flat(model().generate(words, allowed=allowed, **asked))
        assert set(found) <= {*allowed, ""} and found.count("") == 1  # of the source without tokens


def flat(found):
    return [text for row in found for text in ([row] if isinstance(row, str) else row)]


def test_a_trie_is_made_once():
    trie = model().trie(["c b a", "e d"])
    found = model().search(WORDS, allowed=trie, beam_size=2)
    scores = model().score(["abc"] * 2, ["c b a", "e d"])
    np.testing.assert_allclose(found.scores[0], np.sort(scores)[::-1], atol=1e-4)
    assert model().generate("abc", allowed=trie) in ("c b a", "e d")


def test_nothing_possible_is_an_empty_answer():
    asked = {"banned": ["c"], "allowed": ["c b a"]}
    assert model().generate(WORDS[:2], **asked) == ["", ""]
    assert model().generate("abc", num_return=1, return_scores=True, **asked) == ([], [])
    texts, scores = model().generate(["abc"], return_scores=True, **asked)
    assert (texts, scores) == ([""], [-np.inf])
    assert list(model().stream("abc", **asked)) == []
    shown = model().attend("abc", **asked)
    assert shown.target_tokens == [] and shown.matrix.shape == (0, 4)


def test_given_targets_are_followed():
    found = model().search(WORDS, target=["c b a", "", "z", "e d"])
    scores = model().score(WORDS, ["c b a", "", "z", "e d"])
    for i in (0, 1, 3):  # a source without tokens has no target but ""
        assert abs(found.scores[i, 0] - scores[i]) < 1e-4
    assert found.lengths[:, 0].tolist() == [4, 1, 1, 3] and found.finished.all()
    shown = model().attend("abc", target="c b a")
    assert shown.target_tokens == ["c", "b", "a", "</s>"]
    np.testing.assert_allclose(shown.matrix, found.alignments[0, 0, :4, :4], atol=1e-6)
    beam = model().attend("abc", beam_size=3)
    assert " ".join(beam.target_tokens).startswith(model().generate("abc", beam_size=3))


def test_ids_are_followed_as_they_stand_up_to_pad():
    ids_model = small_models.randomised(zoo.build("attention", source=9, target=8, units=4))
    source, target = np.array([[4, 2], [5, 2]]), np.array([[4, 5], [4, 0]])
    found = ids_model.search(source, target=target)
    assert found.token_ids[:, 0].tolist() == target.tolist() and not found.finished.any()
    np.testing.assert_allclose(found.scores[:, 0], ids_model.score(source, target), atol=1e-5)


def test_what_no_source_token_stands_for_is_no_copy():
    copier = small_models.randomised(
        zoo.build("attention_copy", source=9, target=6, units=8, embedding_size=6, max_target=4),
        scale=0.8,
    )
    source = np.array([[5, 6, 2, 0, 0, 0], [9, 2, 0, 0, 0, 0], [7, 5, 8, 12, 5, 2]], np.int32)
    for asked in (
        {"beam_size": 5, "banned": [3, 4, 5], "min_length": 2},
        {"temperature": 30.0, "seed": [7] * 3, "num_return": 6},
    ):
        together = copier.search(source, **asked)
        for row, length in enumerate((3, 2, 6)):
            mine = {k: v[row : row + 1] if k == "seed" else v for k, v in asked.items()}
            alone = copier.search(source[row : row + 1, :length], **mine)
            width = alone.token_ids.shape[2]
            assert (alone.token_ids[0] == together.token_ids[row, :, :width]).all()
            np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-4)
            there = np.isfinite(alone.scores[0])
            assert there.any() and (alone.token_ids[0] < 6 + length).all()
            for k in np.flatnonzero(there):
                score = copier.score(source[row : row + 1, :length], alone.token_ids[:, k])
                assert abs(score[0] - alone.scores[0, k]) < 1e-4

    targets = [[7, 2], [9, 2], [9, 2]]  # of the second what it cannot copy is unknown
    for batch_size in (1, 3):
        found = copier.search(source, target=targets, batch_size=batch_size)
        np.testing.assert_allclose(found.scores[:, 0], copier.score(source, targets), atol=1e-4)


def test_double_precision():
    double = small_models.small("attention", dtype="float64")
    for asked in ({}, {"beam_size": 3, "length_penalty": 0.6}, {"temperature": 1.0, "seed": 1}):
        found = double.search(WORDS, **asked)
        assert found.scores.dtype == np.float64
        there = found.lengths > 0
        np.testing.assert_allclose(
            found.token_scores.sum(-1)[there], found.scores[there], atol=1e-12
        )


def test_streams():
    assert " ".join(model().stream("abc")) == model().generate("abc")
    asked = {"temperature": 1.5, "seed": 7, "min_length": 3, "banned": ["c"]}
    assert " ".join(model().stream("abc", **asked)) == model().generate("abc", **asked)
    assert next(iter(model().stream("abc"))) == model().generate("abc").split()[0]
    assert list(model().stream("")) == []
    for wrong in (["abc"], ["abc", "de"], [[4, 2]]):
        with pytest.raises(TypeError, match="expected"):
            model().stream(wrong)
    with pytest.raises(ValueError, match="a stream follows one target"):
        model().stream("abc", beam_size=2)


def test_metrics_and_predict_take_options():
    found = model().generate(small_models.WORDS, beam_size=3)
    measured = model().generation_metrics(small_models.WORDS, found, beam_size=3)
    unknown = sum("<unk>" in text for text in found)
    assert measured["exact_match"] == 1 - unknown / len(found)
    assert model().predict(small_models.WORDS, beam_size=3) == found


def test_a_penalty_changes_the_order():
    plain = model().search(WORDS, beam_size=4)
    longer = model().search(WORDS, beam_size=4, length_penalty=5.0)
    assert longer.lengths[:, 0].sum() >= plain.lengths[:, 0].sum()
    assert (longer.penalised_scores != longer.scores).any()
    np.testing.assert_array_equal(plain.penalised_scores, plain.scores)


def test_cores_share_a_large_batch(monkeypatch):
    asked = model()
    words = ["abcdefghijk"[: 1 + i % 11] for i in range(33)]
    expected = asked.search(words, temperature=1.1, seed=4)
    parts = []
    search = asked._runner.search

    def counted(source_ids, *given):
        parts.append(len(source_ids))
        return search(source_ids, *given)

    monkeypatch.setattr(asked._runner, "search", counted)
    monkeypatch.setattr(asked._runner, "shared", 33)
    monkeypatch.setattr(corpus, "workers", lambda: 3)
    found = asked.search(words, temperature=1.1, seed=4)
    for name, x, y in zip(found._fields, found, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5, err_msg=name)
    assert parts == [11] * 3
    asked.search(words[:32])
    assert parts[3:] == [32]
    asked.search(words[:31], beam_size=2, batch_size=8)
    assert sorted(parts[4:]) == [7, 8, 8, 8]
