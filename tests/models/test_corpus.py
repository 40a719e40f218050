"""Many sources, in order, and never all at once."""

from __future__ import annotations

import contextvars
import functools
import itertools
import threading
import time
import warnings

import numpy as np
import pytest
from small_models import CHEAP, WORDS, small

from keras_attn import kernels, text, zoo
from keras_attn.kernels import layers
from keras_attn.models import corpus


@pytest.fixture(scope="module")
def model():
    return small("attention", **CHEAP)


def test_results_come_in_order_and_no_more_is_read_than_is_worked_on():
    read, both = [], threading.Barrier(2, timeout=20)

    def square(i):
        both.wait()  # passes only if two work at a time
        return i * i

    def calls():
        for i in range(6):
            read.append(i)
            yield functools.partial(square, i)

    found = corpus.in_order(calls(), 2)
    assert read == []
    assert next(found) == 0 and len(read) == 2
    assert list(found) == [1, 4, 9, 16, 25]


def test_an_error_comes_in_its_turn_and_ends_it():
    done = []

    def work(i):
        done.append(i)
        return 1 // (2 - i)

    found = corpus.in_order((functools.partial(work, i) for i in itertools.count()), 2)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert max(done) <= 3


def test_nothing_gives_nothing(model):
    assert list(corpus.in_order([], 2)) == []
    assert list(model.generate(iter([]))) == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_scores": True},
        {"beam_size": 2, "num_return": 2, "return_alignments": True},
        {"temperature": 1.5, "seed": 7, "num_return": 2},
    ],
    ids=lambda options: "+".join(options) or "plain",
)
def test_an_iterator_gives_what_a_list_gives(model, monkeypatch, options):
    monkeypatch.setattr(corpus, "BATCHES", 2)
    words = [word * (1 + i % 2) for i, word in enumerate(WORDS * 3)]
    expected = model.generate(words, batch_size=4, **options)
    expected = list(zip(*expected, strict=True)) if isinstance(expected, tuple) else expected
    found = list(model.generate(iter(words), batch_size=4, **options))
    assert [_rounded(x) for x in found] == [_rounded(x) for x in expected]


def _rounded(x):
    if isinstance(x, float):
        return round(x, 3)
    return [_rounded(part) for part in x] if isinstance(x, list | tuple) else x


def test_an_iterator_is_read_a_window_ahead(model, monkeypatch):
    monkeypatch.setattr(corpus, "BATCHES", 1)
    read = []

    def endless():
        for word in itertools.cycle(WORDS):
            read.append(word)
            yield word

    found = model.generate(endless(), batch_size=4)
    assert list(itertools.islice(found, 8)) == model.generate(WORDS)
    assert len(read) <= 4 * 4


def test_draws_without_a_seed_differ(model):
    draws = [tuple(model.generate(iter(["abc"] * 9), temperature=3.0)) for _ in range(2)]
    assert draws[0] != draws[1] and len(set(draws[0])) > 1


def test_options_are_checked_before_anything_is_read(model):
    for error, message, options in (
        (TypeError, "'beams' is no option", {"beams": 2}),
        (ValueError, "max_length: expected 1 to", {"max_length": 99}),
        (ValueError, r"max_length: .* for all sources, got \[3\]", {"max_length": [3]}),
        (ValueError, r"max_length: .* for all sources, got \[\]", {"max_length": []}),
        (ValueError, "seed: .* for all sources", {"temperature": 1.0, "seed": np.arange(2)}),
        (ValueError, "batch_size", {"batch_size": 0}),
        (ValueError, r"prefix: .* one value for all sources, got \['a'\]", {"prefix": ["a"]}),
        (ValueError, "prefix: a token of 'a 5' is not in", {"prefix": "a 5"}),
        (ValueError, r"prefix\[0\]: .* max_length=2 tokens", {"prefix": "a b c", "max_length": 2}),
        (ValueError, "target: it is of one source", {"target": "a"}),
        (ValueError, "target: it is of one source", {"target": ["a"]}),
        (TypeError, "banned: expected a list", {"banned": iter(["a"])}),
        (ValueError, "allowed: the longest target has 4", {"allowed": ["a b c"], "max_length": 3}),
    ):
        source = iter(["abc"])
        with pytest.raises(error, match=f"^{message}"):
            model.generate(source, **options)
        assert list(source) == ["abc"]


def test_a_prefix_for_all_sources_may_be_of_what_only_some_can_copy():
    letters = text.CharacterTokenizer.learn(WORDS)
    copying = zoo.build("attention_copy", source=letters, target=letters, size="tiny")
    assert "5" not in letters.vocabulary
    sources = [letter + "5" for letter in WORDS[0]] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a prefix is no source, which could be cut
        found = list(copying.generate(iter(sources), prefix="5", max_length=2))
        long = "5" * copying.max_source
        with pytest.raises(ValueError, match="a token of .* is not in the vocabulary"):
            list(copying.generate(iter(["ab"]), prefix=long))
    assert {target[0] for target in found} == {"5"} and len(found) == len(sources)
    with pytest.raises(ValueError, match="^prefix: a token of '5' is not in the vocabulary"):
        list(copying.generate(iter(["ab"]), prefix="5"))


def test_what_was_read_before_an_error_is_answered(model, monkeypatch):
    monkeypatch.setattr(corpus, "BATCHES", 2)

    def broken():
        yield from WORDS
        yield "abc"
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        for target in model.generate(broken(), batch_size=2):
            found.append(target)
    assert found == model.generate([*WORDS, "abc"])


@pytest.mark.parametrize("place", [0, 3, 9])
def test_what_is_no_text_is_named_by_its_place_behind_what_was_read_before(
    model, monkeypatch, place
):
    monkeypatch.setattr(corpus, "BATCHES", 2)
    words = list(itertools.islice(itertools.cycle(WORDS), place))
    found = []
    with pytest.raises(TypeError, match=rf"source\[{place}\]: expected str or bytes, got int 7"):
        for target in model.generate(iter([*words, 7, *words]), batch_size=2):
            found.append(target)
    assert found == (model.generate(words) if words else [])


def test_who_stops_does_not_wait():
    going = threading.Event()
    found = corpus.in_order([lambda: 1, functools.partial(going.wait, 30)], 2)
    assert next(found) == 1
    begun = time.monotonic()
    found.close()
    assert time.monotonic() - begun < 20  # not for the call under way
    going.set()


def test_ids_come_as_arrays():
    by_ids = zoo.build("attention", source=9, target=9, size="tiny")
    with pytest.raises(TypeError, match="an iterator is one of strings"):
        by_ids.generate(iter([[4, 2]]))


def test_what_holds_where_it_is_asked_holds_where_it_is_worked_on():
    """`kernels.plain` is such a thing: without this, many sources would be answered otherwise."""
    said = contextvars.ContextVar("said", default="nothing")
    token = said.set("here")
    assert list(corpus.in_order([said.get] * 3, 2)) == ["here"] * 3
    said.reset(token)


def test_keras_own_layers_answer_many_sources(model, monkeypatch):
    loops = []
    monkeypatch.setattr(layers, "run", lambda *given: loops.append(given))
    other = small("context_as_init", cell="lstm")
    with kernels.plain():
        assert len(other.generate(WORDS * 40)) == 40 * len(WORDS)
    assert loops == []


def test_a_model_that_has_answered_answers_by_keras_own_layers_and_back(monkeypatch):
    run, loops = layers.run, []
    monkeypatch.setattr(layers, "run", lambda *given: loops.append(given) or run(*given))
    model = small("context_as_init", cell="lstm")
    with kernels.plain():
        expected = model.search(WORDS)
    assert loops == []
    found = model.search(WORDS)
    first = len(loops)
    assert first > 0
    with kernels.plain():
        model.search(WORDS)
    model.search(WORDS)
    assert len(loops) == first  # each form's graph is kept
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
