"""Rules, token by token and in searches, against the choices of the reference."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from search_tables import (
    FIRSTS,
    STEPS,
    WIDE,
    Asked,
    assert_nothing,
    assert_row,
    beam,
    best,
    few,
    ids_of,
    reference_beam,
    rows_of,
    sample,
    settings_of,
    table,
    tables,
    targets,
)

from keras_attn.search import (
    NO_TRIE,
    Forbidden,
    Members,
    NoRepeat,
    Occasional,
    Prefix,
    rules_of,
    trie_of,
)
from keras_attn.search.rules import nowhere, without
from keras_attn.types import BOS, EOS, PAD

SIZE = 6
FIRST = range(FIRSTS)
ALLOWED = [(3, 4, 2), (4, 2), (4, 5, 5, 2), (5, 2), (4, 4, 4, 4, 2)]
tokens = st.integers(3, SIZE - 1)


def walked(rules, histories, size=SIZE, log_p=None):
    """Return what is allowed at each step along equally long histories, bool (T + 1, N, V).

    Whatever is allowed has to keep its log p.
    """
    histories = np.array(histories, np.int64)
    if log_p is None:
        log_p = np.random.default_rng(0).normal(size=(len(histories), size))
    log_p = tf.constant(log_p)
    states = [rule.begin(len(histories)) for rule in rules]
    found = []
    for t in range(histories.shape[1] + 1):
        step, allowed = tf.constant(t, tf.int64), log_p
        for rule, state in zip(rules, states, strict=True):
            allowed = rule.restrict(step, allowed, state, log_p)
        finite = np.isfinite(allowed)
        np.testing.assert_array_equal(allowed.numpy()[finite], log_p.numpy()[finite])
        assert (allowed.numpy()[~finite] == -np.inf).all()
        found.append(finite)
        if t < histories.shape[1]:
            token = tf.constant(histories[:, t])
            pairs = zip(rules, states, strict=True)
            states = [rule.advance(step, token, state) for rule, state in pairs]
    return np.array(found)


def expected_of(histories, options, size=SIZE):
    """Return the same of the reference; options by row."""
    found = np.zeros((len(histories[0]) + 1, len(histories), size), bool)
    for t, n in np.ndindex(found.shape[:2]):
        found[t, n, reference.choices(size, histories[n][:t], **options[n])] = True
    return found


# === Token by token ===


@few
@given(st.data(), st.integers(1, 2))
def test_all_rules_together_allow_what_the_reference_does(data, width):
    batch, length = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 6))
    history = st.lists(tokens, min_size=length, max_size=length)
    histories = [data.draw(history) for _ in range(batch * width)]
    rows = [
        Asked(
            max_length=7,
            min_length=data.draw(st.integers(0, 7)),
            prefix=tuple(data.draw(st.lists(st.integers(2, 5), max_size=3))),
            banned=tuple(data.draw(st.lists(st.integers(2, 5), max_size=2))),
            no_repeat=data.draw(st.integers(0, 4)),
        )
        for _ in range(batch)
    ]
    allowed = data.draw(st.none() | targets)
    settings = tf.nest.map_structure(tf.constant, settings_of(rows, allowed))
    found = walked(rules_of(settings, 7, width), histories)
    options = [rows[n // width].rules(allowed) for n in range(len(histories))]
    np.testing.assert_array_equal(found, expected_of(histories, options))


@few
@given(
    st.lists(st.tuples(st.integers(-1, 5), st.lists(tokens, min_size=8, max_size=8)), min_size=1)
)
def test_no_n_gram_comes_twice(pairs):
    n, histories = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    # Ids of few kinds and many n-grams of them.
    histories = [[3 + token % 2 for token in row[:-1]] + row[-1:] for row in histories]
    rule = NoRepeat(np.array(n)[:, None], 9, 1)
    options = [{"no_repeat": one} for one in n]
    found = walked([rule], histories)
    expected = expected_of(histories, options)
    np.testing.assert_array_equal(found[:, :, EOS:], expected[:, :, EOS:])


def test_no_n_gram_twice_by_hand():
    found = walked([NoRepeat([[2], [1], [3], [0]], 9, 1)], [[3, 4, 3, 3, 4, 5]] * 4)
    forbidden = [
        [sorted(set(range(EOS, SIZE)) - set(np.flatnonzero(found[t, n]))) for t in range(7)]
        for n in range(4)
    ]
    assert forbidden[0] == [[], [], [], [4], [3, 4], [3], []]
    assert forbidden[1] == [[], [3], [3, 4], [3, 4], [3, 4], [3, 4], [3, 4, 5]]
    assert forbidden[2] == [[], [], [], [], [], [3], []]
    assert forbidden[3] == [[]] * 7


def test_n_grams_longer_than_any_target_never_come_twice():
    for n in (9, 10, 2**31 - 1):
        found = walked([NoRepeat(np.array([[n]], np.int32), 9, 1)], [[3] * 8])
        assert found[:, :, EOS:].all()


def test_forbidden_tokens_and_the_least_length():
    rule = Forbidden(np.array([[3, PAD], [5, 4]]), np.array([0, 3]), 2)
    found = walked([rule], [[3, 3, 3]] * 4)
    for t in range(4):
        ends = [EOS] if t >= 2 else []
        assert [np.flatnonzero(row).tolist() for row in found[t]] == [
            [2, 4, 5],
            [2, 4, 5],
            [*ends, 3],
            [*ends, 3],
        ]


@pytest.mark.parametrize("unknown", [-1, -(2**31), SIZE, 2**31 - 1])
def test_banned_ids_that_are_none_are_left_out(unknown):
    rule = Forbidden(np.array([[unknown, 4]], np.int32), np.array([0]), 1)
    assert np.flatnonzero(walked([rule], [[]])[0, 0]).tolist() == [2, 3, 5]


def test_without_takes_ids_by_row_and_leaves_the_rest_as_it_is():
    log_p = np.random.default_rng(0).normal(size=(3, 4))
    log_p[0, 3] = -np.inf
    ids = tf.constant([[1, 1], [2, 9], [-1, 3]], tf.int64)
    found = without(tf.constant(log_p), ids, tf.ones_like(ids, tf.bool)).numpy()
    expected = log_p.copy()
    expected[0, 1] = expected[1, 2] = expected[2, 3] = -np.inf
    np.testing.assert_array_equal(found, expected)
    forbidden = tf.constant([[False, True], [False, True], [True, False]])
    expected = log_p.copy()
    expected[0, 1] = -np.inf
    np.testing.assert_array_equal(without(tf.constant(log_p), ids, forbidden), expected)
    none = tf.zeros([3, 0], tf.int64)
    np.testing.assert_array_equal(without(tf.constant(log_p), none, none > 0), log_p)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nowhere(dtype):
    found = nowhere(tf.zeros([2, 3], dtype)).numpy()
    assert found.dtype == dtype and found.shape == (2, 3) and (found == -np.inf).all()


def test_members_by_hand():
    histories = [(4, 5, 5, 2), (3, 4, 2, 0), (5, 2, 0, 0), (3, 3, 4, 2), (2, 4, 2, 2)]
    found = walked([Members(trie_of(ALLOWED))], histories)
    ids = [[np.flatnonzero(found[t, n]).tolist() for t in range(5)] for n in range(5)]
    assert ids[0] == [[3, 4, 5], [2, 4, 5], [5], [2], []]
    assert ids[1] == [[3, 4, 5], [4], [2], [], []]
    assert ids[2] == [[3, 4, 5], [2], [], [], []]
    # What has left the targets never comes back.
    assert ids[3] == [[3, 4, 5], [4], [], [], []]
    assert ids[4] == [[3, 4, 5], [], [], [], []]


def test_no_targets_allow_everything():
    for trie in (NO_TRIE, trie_of([])):
        assert walked([Members(trie)], [(3, 2), (5, 5)]).all()


def test_members_and_a_rule_before_it_both_have_to_allow():
    rules = [Forbidden(np.array([[4]]), np.array([2]), 1), Members(trie_of([(4, 2), (5, 2), (2,)]))]
    found = walked(rules, [(5,)])
    assert [np.flatnonzero(row[0]).tolist() for row in found] == [[5], [2]]


def test_a_prefix_overrules_what_stands_before_it():
    rules = [Forbidden(np.array([[4]] * 3), np.array([9] * 3), 1)]
    rules.append(Prefix(np.array([[4, 2, 0], [0, 0, 0], [3, 4, 4]]), 1))
    found = walked(rules, [(4, 3, 3, 3)] * 3)
    ids = [[np.flatnonzero(found[t, n]).tolist() for t in range(5)] for n in range(3)]
    assert ids == [
        [[4], [2], [3, 5], [3, 5], [3, 5]],
        [[3, 5]] * 5,
        [[3], [4], [4], [3, 5], [3, 5]],
    ]


def test_a_prefix_keeps_the_log_p_of_the_model_and_what_it_cannot_say():
    log_p = np.random.default_rng(0).normal(size=(2, SIZE))
    log_p[1] = np.nan
    rule = Prefix(np.array([[4], [3]]), 1)
    forbidden = nowhere(tf.constant(log_p))
    found = rule.restrict(tf.constant(0, tf.int64), forbidden, (), tf.constant(log_p)).numpy()
    assert found[0, 4] == log_p[0, 4] and np.isinf(np.delete(found[0], 4)).all()
    assert np.isnan(found[1, 3]) and np.isinf(np.delete(found[1], 3)).all()


def test_a_prefix_of_an_unknown_token_leaves_nothing():
    assert not walked([Prefix(np.array([[SIZE]]), 1)], [()]).any()


# === In searches ===

EACH = {
    "min_length": {"min_length": 4},
    "banned": {"banned": (4,)},
    "end banned": {"banned": (EOS,)},
    "no repeat": {"no_repeat": 1},
    "no bigram twice": {"no_repeat": 2},
    "allowed": {},
    "all": {"min_length": 3, "banned": (3,), "no_repeat": 2},
}
PREFIXES = [(), (4,), (4, 4), (3, 4, 2), (4, 5, 5, 5, 5, 5), (2,), (5, 5)]


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("width", [3, WIDE])
def test_each_rule_with_each_prefix(name, width):
    nodes, allowed = table(4, kind="history"), ALLOWED if name in ("allowed", "all") else None
    rows = [Asked(i % FIRSTS, prefix=prefix, **EACH[name]) for i, prefix in enumerate(PREFIXES)]
    found = beam(nodes, rows, width, allowed=allowed)
    drawn = sample(nodes, [row._replace(seeds=(1, 2, 3)) for row in rows], 3, allowed=allowed)
    for b, row in enumerate(rows):
        if width == WIDE:
            expected = best(nodes, row, allowed)
        else:
            expected, _ = reference_beam(nodes, row, width, allowed)
        assert_row(found, b, expected, nodes, row.first)
        every = {one.token_ids for one in best(nodes, row, allowed)}
        assert set(ids_of(drawn, b)) <= every | {()}
        for ids in ids_of(found, b):
            assert ids[: len(row.prefix)] == row.prefix[: len(ids)]


def test_scores_of_a_forced_prefix_are_those_of_the_model():
    nodes = table(2)
    row = Asked(1, 3, prefix=(4, 3), banned=(3, 4), no_repeat=1, min_length=9)
    found = beam(nodes, [row], 3)
    assert found.token_ids[0, 0, :2].tolist() == [4, 3]
    visited = nodes.visited(1, (4, 3))
    np.testing.assert_allclose(
        found.token_scores[0, 0, :2], nodes.log_p[visited, [4, 3]], rtol=1e-12
    )


def test_a_prefix_that_leaves_the_allowed_targets_has_no_hypothesis_unless_it_ends():
    nodes = table(2)
    rows = [Asked(0, prefix=(3, 3)), Asked(0, prefix=(3, 3), max_length=2), Asked(0, prefix=(3, 2))]
    found = beam(nodes, rows, 3, allowed=ALLOWED)
    assert_nothing(found, 0)
    assert found.lengths[1:].tolist() == [[2, 0, 0], [2, 0, 0]]
    assert found.finished[1:, 0].tolist() == [False, True]


def test_a_prefix_whose_token_is_impossible_has_no_hypothesis():
    nodes = table(2)
    log_p = nodes.log_p.copy()
    log_p[:, 4] = -np.inf
    rows = [Asked(0, prefix=(4,), seeds=(1,)), Asked(0, prefix=(3, 4), seeds=(1,))]
    nodes = nodes.changed(log_p=log_p)
    for found in (beam(nodes, rows, 3), beam(nodes, rows, 1), sample(nodes, rows)):
        assert_nothing(found, slice(None))


@few
@given(tables(), st.integers(0, STEPS))
def test_a_whole_target_as_prefix_is_followed_and_scored(nodes, length):
    """That is how a given target is followed rather than searched for."""
    target = (*[3] * length, EOS)[:STEPS]
    row = Asked(2, prefix=target, banned=(3, EOS), min_length=5, no_repeat=1, seeds=(3,))
    (expected,) = best(nodes, row)
    assert expected.token_ids == target
    for found in (beam(nodes, [row], 1), beam(nodes, [row], 3), sample(nodes, [row])):
        assert_row(found, 0, [expected], nodes, 2)


@pytest.mark.parametrize("width", [1, 3])
def test_rules_of_one_row_do_not_reach_another(width):
    nodes = table(5)
    rows = [
        Asked(0, banned=(3, 4), seeds=(1, 2, 3)[:width]),
        Asked(0, no_repeat=1, seeds=(1, 2, 3)[:width]),
        Asked(0, prefix=(4, 4, 3), seeds=(1, 2, 3)[:width]),
        Asked(0, min_length=5, seeds=(1, 2, 3)[:width]),
        Asked(0, seeds=(1, 2, 3)[:width]),
    ]
    for search in (beam, sample):
        together = search(nodes, rows, width, steps=STEPS)
        for b, row in enumerate(rows):
            alone = search(nodes, [row], width, steps=STEPS)
            np.testing.assert_array_equal(rows_of(together, [b]).token_ids, alone.token_ids)


def test_ids_that_no_search_chooses():
    """PAD and BOS are forbidden without any rule."""
    found = walked([Forbidden(np.zeros((1, 0), np.int32), np.array([0]), 1)], [(3,)])
    assert not found[:, 0, [PAD, BOS]].any() and found[:, 0, EOS:].all()


@pytest.mark.parametrize("active", [True, False])
def test_occasional_rules_are_the_rules_in_their_order_or_nothing(active):
    log_p = tf.constant(np.random.default_rng(0).normal(size=(2, 6)))
    repeats = NoRepeat(tf.constant([[1], [1]]) * int(active), 3, 1)
    prefix = Prefix(tf.constant([[4, 4], [0, 0]]) * int(active), 1)
    rule, token = Occasional(repeats, prefix), tf.constant([4, 5], tf.int64)

    @tf.function(autograph=False)
    def run():
        state = rule.advance(tf.constant(0, tf.int64), token, rule.begin(2))
        return state, rule.restrict(tf.constant(1, tf.int64), log_p, state, log_p)

    (carried, nothing), found = run()
    expected, tokens = log_p.numpy(), np.zeros((2, 3))
    if active:
        expected[0, [0, 1, 2, 3, 5]] = expected[1, 5] = -np.inf  # the prefix comes last
        tokens[:, 0] = [4, 5]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(carried[0], tokens)
    assert nothing == () and bool(rule.active) is active


def test_rules_are_active_where_any_row_asks_for_them():
    absent = np.zeros((2, 0), np.int32)
    idle = [NoRepeat(absent, 9, 1), NoRepeat(np.array([[0], [-1]]), 9, 1), Members(NO_TRIE)]
    idle += [Prefix(absent, 1), Prefix(np.array([[PAD], [PAD]]), 1)]
    assert not any(rule.active for rule in idle) and not Occasional(*idle).active
    assert walked([Occasional(*idle)], [(3, 3), (4, 5)]).all()
    busy = [NoRepeat(np.array([[0], [2]]), 9, 1), Members(trie_of([(2,)]))]
    busy.append(Prefix(np.array([[PAD], [3]]), 1))
    assert all(rule.active for rule in busy)
    for rule in busy:
        assert Occasional(*idle, rule).active
        found = walked([Occasional(*idle, rule)], [(3, 3), (4, 5)])
        np.testing.assert_array_equal(found, walked([rule], [(3, 3), (4, 5)]))
