"""What a search is asked: numbers for each source, and what is refused before any work."""

import numpy as np
import pytest
import small_models

from keras_attn import zoo
from keras_attn.models import inputs
from keras_attn.models.request import OPTIONS, request_of, trie_for
from keras_attn.search import Draw, Ranking, fold

WORDS = ["abc", "de", ""]


def asked(model=None, source=WORDS, **options):
    model = model or small_models.shared("attention")
    rows = inputs.source_rows(
        "source", source, model.codec, model.max_source, model._runner.source_rows
    )
    return request_of(model, source, rows, options)


def ids_model():
    return zoo.build("attention", source=9, target=8, units=4, embedding_size=4, max_target=5)


def test_plain_is_greedy():
    found = asked()
    assert found.width == found.returned == 1 and found.steps == 9
    assert isinstance(found.how, Ranking)
    assert found.how.beam_size.tolist() == found.how.num_return.tolist() == [1, 1, 1]
    assert found.settings.max_length.tolist() == [9, 9, 9]
    widths = [x.shape[1] for x in (*found.settings[2:5], found.how.coverage_penalty)]
    assert widths == [0, 0, 0, 0] and found.settings.trie.tokens.size == 0


def test_numbers_are_for_all_or_for_each():
    found = asked(
        beam_size=[1, 4, 2],
        num_return=1,
        length_penalty=0.6,
        coverage_penalty=[0, 0.5, 0],
        max_length=np.array([2, 3, 4]),
        min_length=2,
        no_repeat_ngram_size=[0, 2, 0],
    )
    assert found.width == 4 and found.returned == 1 and found.steps == 4
    assert found.how.beam_size.tolist() == [1, 4, 2]
    assert found.how.coverage_penalty.ravel().tolist() == [0, 0.5, 0]
    assert found.settings.no_repeat.ravel().tolist() == [0, 2, 0]
    settings, how = found.part(np.array([2, 0]))
    assert settings.max_length.tolist() == [4, 2] and how.beam_size.tolist() == [2, 1]
    assert settings.trie is found.settings.trie
    for array in (*found.settings[:5], *found.how):
        assert array.dtype in (np.int32, np.float32) and len(array) == 3


def test_none_is_as_if_it_was_not_said():
    found = asked(**{name: None for name in OPTIONS})
    assert found.width == 1 and isinstance(found.how, Ranking)


def test_defaults_as_lists_and_tokens_as_bytes():
    found = asked(beam_size=[1, 1, 1], length_penalty=[0, 0, 0], temperature=1.0)
    assert isinstance(found.how, Draw)
    assert (asked(banned=[b"a"]).settings.banned == asked(banned=["a"]).settings.banned).all()


def test_what_has_to_be_followed_has_its_own_length():
    found = asked(ids_model(), np.array([[4, 2], [5, 2]]), target=[[4, 5], [4, 0]])
    assert found.settings.max_length.tolist() == [2, 1] and found.steps == 2
    with pytest.raises(ValueError, match=r"target\[1\]: expected at least one token"):
        asked(ids_model(), np.array([[4, 2], [5, 2]]), target=[[4, 5], [0, 0]])


def test_of_no_sources():
    for options in ({"prefix": "c"}, {"prefix": []}, {"target": []}, {"beam_size": []}):
        assert len(asked(source=[], **options).settings.max_length) == 0
    assert asked(source=[], temperature=1.0, seed=[]).how.seed.shape == (0, 1)
    found = asked(source=[], beam_size=3)
    assert found.width == 3 and len(found.settings.max_length) == 0


def test_seeds_depend_on_the_place_alone():
    found = asked(temperature=0.5, seed=11, num_return=2)
    assert isinstance(found.how, Draw) and found.width == found.returned == 2
    assert found.how.seed.shape == (3, 2) and len(np.unique(found.how.seed)) == 6
    assert found.how.seed[:, 0].tolist() == fold(11, np.arange(3)).numpy().tolist()
    again = asked(source=WORDS[:2], top_k=3, seed=11)
    assert again.how.seed.ravel().tolist() == found.how.seed[:2, 0].tolist()
    given = asked(top_p=0.5, seed=[5, -6, 2**63 - 1])
    assert given.how.seed.ravel().tolist() == [5, -6, 2**63 - 1]
    assert given.how.temperature.tolist() == [1, 1, 1] and given.how.top_k.tolist() == [0, 0, 0]
    first, second = (asked(temperature=1.0).how.seed for _ in range(2))
    assert (first != second).all()


def test_prefixes():
    model = small_models.shared("attention")
    names = model.target.vocabulary
    found = asked(prefix=["c b", "e", ""]).settings.prefix
    assert [[names[i] for i in row if i] for row in found] == [["c", "b"], ["e"], []]
    assert asked(prefix="c").settings.prefix.shape == (3, 1)
    assert asked(prefix="").settings.prefix.shape == (3, 0)
    whole = asked(target=["c b", "e", ""]).settings.prefix
    assert [row[row > 0][-1] for row in whole] == [2, 2, 2]
    ids = asked(ids_model(), np.array([[4, 2], [5, 2]]), prefix=np.array([[4, 5], [6, 0]]))
    assert ids.settings.prefix.tolist() == [[4, 5], [6, 0]]


def test_banned_tokens_and_allowed_targets():
    model = small_models.shared("attention")
    found = asked(banned=["a", "<unk>", 7]).settings.banned
    assert found.tolist() == [[model.target.vocabulary.index("a"), 3, 7]] * 3
    trie = asked(allowed=["c b a", "c"]).settings.trie
    known = trie_for(model, ["c", "c b a", "c"])
    assert all((ours == theirs).all() for ours, theirs in zip(trie, known, strict=True))
    assert asked(allowed=known).settings.trie is known
    ids = trie_for(ids_model(), [[4, 5, 0], [4, 2, 0]])
    assert ids.tokens.tolist() == [4, 2, 5, 2]


MANY = "c " * 20


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"beams": 3}, TypeError, r"'beams' is no option of a search; they are \['allowed', "),
        ({"beam_size": 0}, ValueError, "beam_size: expected at least 1, got 0"),
        ({"beam_size": 2.5}, ValueError, "beam_size: expected an int.*got 2.5"),
        ({"beam_size": True}, ValueError, "beam_size: expected an int.*got True"),
        ({"beam_size": [1, 2]}, ValueError, r"beam_size: expected one value, or 3.*\(2,\)"),
        ({"beam_size": 3, "num_return": 4}, ValueError, "num_return: .*beam_size=3, got 4"),
        ({"num_return": 2}, ValueError, "num_return: expected at most beam_size=1, got 2"),
        ({"num_return": 0}, ValueError, "num_return: expected a positive int, got 0"),
        ({"length_penalty": -1}, ValueError, "length_penalty: expected 0 to 10, got -1"),
        ({"length_penalty": np.nan}, ValueError, "length_penalty: .*got nan"),
        ({"length_penalty": "a"}, ValueError, "length_penalty: expected a number.*'a'"),
        ({"coverage_penalty": 11}, ValueError, "coverage_penalty: expected 0 to 10, got 11"),
        ({"max_length": 10}, ValueError, "max_length: expected 1 to max_target=9, got 10"),
        ({"min_length": -1}, ValueError, "min_length: expected 0 to max_target=9, got -1"),
        ({"min_length": 5, "max_length": 3}, ValueError, "min_length.*max_length=3, got 5"),
        ({"temperature": 0}, ValueError, "temperature: expected a positive number"),
        ({"temperature": np.inf}, ValueError, "temperature.*got inf"),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1, got 0"),
        ({"top_p": 0}, ValueError, r"top_p: expected a number in \(0, 1\], got 0"),
        ({"top_p": 1.5}, ValueError, "top_p: expected 0 to 1"),
        ({"seed": 3}, ValueError, "seed: without temperature, top_k or top_p nothing is drawn"),
        ({"seed": 0.5, "top_k": 1}, ValueError, "seed: expected an int of 64 bits"),
        ({"seed": 2**64, "top_k": 1}, ValueError, "seed: expected an int of 64 bits"),
        ({"seed": [1, 2], "top_k": 1}, ValueError, "seed: expected one value, or 3"),
        ({"beam_size": [[1], [1, 2]]}, ValueError, "beam_size: expected a number, or one a source"),
        ({"beam_size": 2**31}, ValueError, "beam_size: expected 1 to 2147483647, got 2147483648"),
        ({"prefix": "c Q"}, ValueError, "prefix: a token of 'c Q' is not in the vocabulary"),
        ({"allowed": 3}, ValueError, "allowed: expected a list of targets.*got 3"),
        ({"beam_size": 2, "temperature": 1.0}, ValueError, "beam_size: .*temperature draws"),
        ({"length_penalty": 1, "top_p": 0.5}, ValueError, "length_penalty: .*top_p draws"),
        ({"prefix": ["c"]}, ValueError, "prefix: expected 3 rows|prefix.*expected.*3"),
        ({"prefix": MANY}, ValueError, r"prefix\[0\]: expected at most max_length=9 tokens, got"),
        ({"prefix": [[4]] * 3}, TypeError, "prefix: expected a string or a list of strings"),
        ({"prefix": "c", "target": WORDS}, ValueError, "prefix: target says all tokens"),
        ({"banned": "a"}, TypeError, "banned: expected a list"),
        ({"banned": ["aa"]}, ValueError, "banned: 'aa' is no token .* Did you mean 'a'"),
        ({"banned": [-1]}, ValueError, "banned: expected ids from 0 to"),
        ({"banned": [1.5]}, TypeError, "banned: expected tokens or ids, got float"),
        ({"no_repeat_ngram_size": -1}, ValueError, "no_repeat_ngram_size: expected at least 0"),
        ({"allowed": []}, ValueError, "allowed: expected a list of targets"),
        ({"allowed": "c b a"}, ValueError, "allowed: expected a list of targets"),
        ({"allowed": [MANY]}, ValueError, "allowed: expected at most max_target=9 tokens"),
        ({"allowed": ["c Q"]}, ValueError, "allowed: a token of 'c Q' is not in the vocabulary"),
        ({"allowed": ["c b a"], "max_length": 3}, ValueError, "longest target has 4 .*length=3"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        asked(**options)


def test_ids_and_texts_are_told_apart():
    model, source = ids_model(), np.array([[4, 2]])
    for options, error, message in [
        ({"banned": ["a"]}, TypeError, "no tokenisers"),
        ({"prefix": "a"}, TypeError, "expected integer ids"),
        ({"prefix": [[1, 4]]}, ValueError, r"got BOS \(1\)"),
        ({"prefix": [[99]]}, ValueError, r"prefix\[0, 0\]: expected an id of the vocabulary"),
        ({"allowed": ["a"]}, TypeError, "expected integer ids"),
    ]:
        with pytest.raises(error, match=message):
            asked(model, source, **options)
    with pytest.raises(ValueError, match="larger vocabulary"):
        trie = trie_for(zoo.build("attention", source=9, target=50, units=4), [[40, 2]])
        asked(model, source, allowed=trie)


def test_coverage_needs_attention():
    with pytest.raises(ValueError, match="coverage_penalty: .*no attention"):
        asked(small_models.shared("combined"), coverage_penalty=0.2)
