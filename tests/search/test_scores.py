"""Scores of logits and of log p."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.search import (
    Beam,
    Draw,
    Ranking,
    Sample,
    beam,
    of_log_p,
    of_logits,
    plain,
    rules_of,
    search,
)
from keras_attn.search.scores import scores_of
from keras_attn.types import EOS, SearchResult

STEPS, SIZE = 6, 9


def logits_of(seed, rows=4, dtype="float64"):
    """Return logits (N, V) of wildly different levels."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(rows, SIZE)) * 3 + draw.normal(size=(rows, 1)) * 50).astype(dtype)


def log_softmax(x):
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("dtype, within", [("float64", 1e-13), ("float32", 1e-5)])
def test_log_p_of_logits_is_their_log_softmax(dtype, within):
    logits = logits_of(0, dtype=dtype)
    logits[1, 3] = -np.inf
    scores = of_logits(tf.constant(logits))
    expected = log_softmax(logits.astype("float64"))
    np.testing.assert_allclose(scores.log_p(scores.values), expected, within, within)
    assert scores.values.dtype == dtype


def test_log_p_is_itself_and_nan_counts_as_never():
    log_p = np.array([[-0.5, np.nan, -np.inf], [-1.0, -2.0, -3.0]])
    scores = scores_of(tf.constant(log_p))
    expected = [[-0.5, -np.inf, -np.inf], [-1.0, -2.0, -3.0]]
    np.testing.assert_array_equal(scores.values, expected)
    np.testing.assert_array_equal(scores.log_p(scores.values), expected)
    assert scores_of(scores) is scores


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_fail_leave_no_token(bad):
    logits = logits_of(1)
    logits[2, 4] = bad
    scores = of_logits(tf.constant(logits))
    found = scores.log_p(scores.values).numpy()
    assert np.isneginf(found[2]).all() and np.isfinite(found[[0, 1, 3]]).all()


def found_with(scored, choice):
    """Search a chain of 4 states whose logits are given."""
    logits = tf.constant(np.stack([logits_of(seed) for seed in range(SIZE)]))  # by token, by row

    def step(token_ids, state):
        (rows,) = state
        given = tf.gather_nd(logits, tf.stack([token_ids, rows], axis=1))
        return scored(given), tf.zeros([tf.shape(rows)[0], 2], tf.float64), state

    first = tf.range(4, dtype=tf.int64)
    return search(step, (first,), choice, (), batch=4, steps=STEPS)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("kind", ["beam", "sample"])
def test_a_search_by_logits_finds_what_one_by_log_p_does(kind, width):
    whole, length = tf.fill([4], width), tf.fill([4], STEPS)
    if kind == "beam":
        ranking = Ranking(whole, whole, tf.zeros([4]), tf.zeros([4, 0]))
        choice = Beam(width, ranking, length, tf.ones([4, 2], tf.bool))
    else:
        seeds = tf.reshape(tf.range(4 * width, dtype=tf.int64), [4, width])
        draw = Draw(seeds, tf.fill([4], 0.8), tf.fill([4], 5), tf.fill([4], 0.9))
        choice = Sample(width, draw, length)
    by_logits = found_with(of_logits, choice)
    by_log_p = found_with(lambda x: of_log_p(tf.nn.log_softmax(x)), choice)
    np.testing.assert_array_equal(by_logits.token_ids, by_log_p.token_ids)
    for name in ("scores", "penalised_scores", "token_scores"):
        np.testing.assert_allclose(getattr(by_logits, name), getattr(by_log_p, name), 1e-12, 1e-12)
    assert (by_logits.token_ids.numpy() == EOS).any() and (by_logits.lengths.numpy() > 2).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_search_ends_where_logits_fail(bad):
    def step(token_ids, state):
        logits = tf.constant(logits_of(3), tf.float32)
        failed = tf.constant([False, True, False, False])[:, None] & (tf.range(SIZE) == 4)
        return of_logits(tf.where(failed, bad, logits)), tf.zeros([4, 1]), state

    one, long = tf.ones([4], tf.int32), tf.fill([4], STEPS)
    choice = Beam(1, Ranking(one, one, tf.zeros([4]), tf.zeros([4, 0])), long, tf.ones([4, 1]) > 0)
    found = search(step, (), choice, (), batch=4, steps=STEPS)
    assert found.scores.numpy()[1] == -np.inf and found.lengths.numpy()[1] == 0
    assert np.isfinite(found.scores.numpy()[[0, 2, 3]]).all()


LARGE = 2500


def top_k(x, k):
    values, places = tf.math.top_k(x, k)
    return values, tf.cast(places, tf.int64)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_large_vocabularies_are_searched_as_by_top_k(monkeypatch, width, jit):
    draw = np.random.default_rng(width)
    logits = tf.constant(draw.normal(size=(50, LARGE)) * 2, tf.float32)
    banned = tf.argsort(logits[0], direction="DESCENDING")[None, :3]  # tempting
    settings = plain(tf.fill([3], STEPS))._replace(
        banned=tf.repeat(banned, 3, axis=0), prefix=tf.constant([[7, 9], [8, 0], [0, 0]])
    )

    def found(scored):
        @tf.function(autograph=False, jit_compile=jit)
        def run():
            def step(token_ids, state):
                given = tf.gather(logits, token_ids % 50)
                return scored(given), tf.zeros([3 * width, 2]), state

            whole = tf.fill([3], width)
            ranking = Ranking(whole, whole, tf.fill([3], 0.5), tf.zeros([3, 0]))
            choice = Beam(width, ranking, settings.max_length, tf.ones([3, 2], tf.bool))
            rules = rules_of(settings, STEPS, width)
            return search(step, (), choice, rules, batch=3, steps=STEPS)

        return SearchResult(*(x.numpy() for x in run()))

    by_blocks = found(of_logits)
    monkeypatch.setattr(beam, "largest", top_k)
    by_top_k = found(lambda x: of_log_p(tf.nn.log_softmax(x)))
    np.testing.assert_array_equal(by_blocks.token_ids, by_top_k.token_ids)
    np.testing.assert_allclose(by_blocks.penalised_scores, by_top_k.penalised_scores, rtol=1e-5)
    assert (by_blocks.token_ids[0, :, :2] == [7, 9]).all() and (by_blocks.token_ids > 1000).any()
