"""The compiled graphs."""

import threading

import numpy as np
import pytest
import small_models
import tensorflow as tf
from small_models import SPOKEN, WORDS

from keras_attn.models import runner as runners
from keras_attn.models.runner import Runner, served
from keras_attn.search import Draw, Ranking, plain


def greedy_of(rows):
    """What greedy search of so many rows is asked."""
    one, nothing = np.ones(rows, np.int32), np.zeros(rows, np.float32)
    return Ranking(one, one, nothing, nothing[:, None][:, :0])


def test_graphs_read_the_newest_weights():
    model = small_models.small("attention")
    runner = Runner(model)
    ids = np.array([[4, 5, 2]], np.int32)
    before = runner.score(ids, ids, ids).numpy()
    small_models.randomised(model, seed=1)
    after = runner.score(ids, ids, ids).numpy()
    assert before != after
    np.testing.assert_allclose(after, Runner(model).score(ids, ids, ids), atol=1e-6)


def with_lora(model):
    model.projection.enable_lora(2)
    model.projection.lora_kernel_b.assign(
        np.random.default_rng(0).normal(size=(2, model.target_size))
    )


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.parametrize("change", [with_lora, lambda model: model.quantize("int8")])
def test_graphs_are_made_again_for_other_weights(change):
    """What was asked before does not answer from weights that are gone."""
    model = small_models.small("combined", **small_models.CHEAP)

    def answers():
        tokens = list(model.stream("hello"))
        return model.score(WORDS, SPOKEN), model.search(WORDS).scores, tokens

    before = answers()
    change(model)
    found = answers()
    model._runner = Runner(model)
    expected = answers()
    for here, there in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(here, there)
    assert found[2] == expected[2]
    assert not np.allclose(found[0], before[0], atol=1e-4)


def test_limits_hold_for_each_row():
    model = small_models.small("attention")
    model.projection.bias.assign_add(np.eye(model.target_size)[2] * -99)  # never EOS
    ids = np.array([[4, 5, 2], [4, 5, 2], [2, 0, 0]], np.int32)
    found = Runner(model).search(ids, plain(np.array([1, 3, 3], np.int32)), greedy_of(3), 1, 5)
    np.testing.assert_array_equal(found.lengths[:, 0], [1, 3, 1])
    np.testing.assert_array_equal(found.finished[:, 0], [False, False, True])
    assert found.token_ids.shape == (3, 1, 5)


def test_one_graph_for_each_width_whatever_the_threads_and_the_rest(monkeypatch):
    made = []
    graph = runners.graph_of

    def counted(*given):
        if runners.TEXTS not in given:
            made.append(given)
        return graph(*given)

    monkeypatch.setattr(runners, "graph_of", counted)
    model = small_models.small("attention")
    words, spoken = small_models.WORDS, small_models.SPOKEN
    calls = [
        lambda: model.generate(words, beam_size=3),
        lambda: model.generate(words[:1], beam_size=3, length_penalty=0.5, max_length=4),
        lambda: model.generate(words, beam_size=[1, 2, 3, 3, 2, 1, 1, 2], min_length=2),
        lambda: model.generate(words, beam_size=3, num_return=2, coverage_penalty=0.3),
        lambda: model.search([], beam_size=3),
        lambda: model.generate(words, beam_size=3, banned=["a", "<unk>"], batch_size=3),
        lambda: model.generate(words, beam_size=3, no_repeat_ngram_size=2),
        lambda: model.generate(words, beam_size=3, prefix=spoken),
        lambda: model.generate(words, beam_size=3, allowed=spoken),
        lambda: model.search(words, beam_size=3, max_length=np.arange(1, 9)),
    ]
    threads = [threading.Thread(target=call) for call in calls[:4]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    for call in calls * 2:
        call()
    assert len(made) == 1
    model.generate(words)
    model.generate(words, temperature=0.5, seed=1)
    model.generate(words, top_k=3, top_p=0.9, seed=[1] * 8, max_length=3)
    model.score(words, spoken)
    assert len(made) == 4


def test_what_a_server_is_asked_is_what_generate_is_asked():
    model = small_models.small("attention", max_target=6)
    rows = np.array([2, 3, 1], np.int32)
    words = ["abc", "de", ""]
    tokens = model.codec.source_ids(words).to_list()
    ids = np.array([[*row, 2] + [0] * (3 - len(row)) for row in tokens], np.int32)
    penalty = np.array([0.0, 1.0, 0.5], np.float32)
    serve = tf.function(lambda ids, **given: served(model, ids, 3, **given), autograph=False)
    found = serve(ids, beam_size=rows, length_penalty=penalty, max_length=rows)
    expected = model.search(words, beam_size=rows, length_penalty=penalty, max_length=rows)
    width = expected.token_ids.shape[2]
    np.testing.assert_array_equal(found.token_ids[:, :, :width], expected.token_ids)
    np.testing.assert_allclose(found.penalised_scores, expected.penalised_scores, rtol=1e-5)
    seed = np.array([1, -2, 3])
    drawn = {"temperature": penalty + 0.5, "top_k": rows, "top_p": np.float32([1, 1, 0.5])}
    found = tf.function(lambda ids: served(model, ids, seed=seed, **drawn), autograph=False)(ids)
    expected = model.search(words, seed=seed, **drawn)
    width = expected.token_ids.shape[2]
    np.testing.assert_array_equal(found.token_ids[:, :, :width], expected.token_ids)
    assert (found.token_ids[:, :, width:].numpy() == 0).all()


def test_a_stream_follows_the_search():
    model = small_models.small("attention", max_target=6)
    ids = np.array([[4, 5, 6, 2]], np.int32)
    runner, limit = Runner(model), plain(np.array([6], np.int32))
    draw = Draw(np.array([[3]]), np.float32([1]), np.int32([0]), np.float32([1]))
    for how in (greedy_of(1), draw):
        found = runner.search(ids, limit, how, 1, 6)
        tokens, ended = zip(*runner.stream(ids, limit, how, 6), strict=True)
        length = int(found.lengths[0, 0])
        assert list(tokens) == found.token_ids[0, 0, :length].numpy().tolist()
        assert list(ended) == [False] * (length - 1) + [True]


def test_a_thread_that_comes_second_keeps_what_the_first_one_made():
    """The second sees, before the first has made a graph, that none is there, and waits."""
    runner, made = Runner(small_models.small("attention")), []
    waits, may_go_on, lock = threading.Event(), threading.Event(), threading.Lock()

    class Lock:
        def __enter__(self):
            if threading.current_thread() is second:
                waits.set()
                assert may_go_on.wait(60)
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    def ask():
        return runner._made(("key",), lambda: made.append("graph") or object())

    runner._lock = Lock()
    second = threading.Thread(target=ask)
    second.start()
    assert waits.wait(60)
    first = ask()
    may_go_on.set()
    second.join()
    assert made == ["graph"] and ask() is first
