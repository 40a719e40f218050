"""Settings: what is put together of them, and values out of their range."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from search_tables import (
    FIRSTS,
    SETTINGS,
    Asked,
    assert_row,
    assert_same,
    beam,
    draw_of,
    few,
    ranking_of,
    reference_beam,
    sample,
    settings_of,
    table,
)

from keras_attn.search import (
    NO_TRIE,
    Beam,
    Forbidden,
    Members,
    NoRepeat,
    Occasional,
    Prefix,
    Sample,
    choice_of,
    clamped,
    plain,
    rules_of,
    trie_of,
)

FIRST = range(FIRSTS)
LARGEST, SMALLEST = 2**31 - 1, -(2**31)
int32s = st.integers(SMALLEST, LARGEST) | st.integers(-3, 9)


@few
@given(st.lists(st.tuples(int32s, int32s), max_size=5), st.integers(1, 9))
def test_lengths_are_clamped(pairs, steps):
    largest, least = np.array(pairs, np.int32).reshape(-1, 2).T
    given_settings = plain(tf.constant(largest))._replace(min_length=tf.constant(least))
    found = clamped(given_settings, tf.constant(steps))
    largest = [min(max(int(x), 1), steps) for x in largest]
    assert found.max_length.numpy().tolist() == largest
    least = [min(max(int(x), 0), most) for x, most in zip(least, largest, strict=True)]
    assert found.min_length.numpy().tolist() == least
    assert found[2:] == given_settings[2:]


def test_plain_settings_have_no_rules():
    settings = plain(tf.constant([3, 4]))
    assert settings.max_length.numpy().tolist() == [3, 4]
    assert settings.min_length.numpy().tolist() == [0, 0]
    for array in (settings.prefix, settings.banned, settings.no_repeat):
        assert array.shape == (2, 0) and array.dtype == tf.int32
    assert settings.trie is NO_TRIE
    assert [field.shape[0] for field in plain(tf.zeros([0], tf.int32))[:5]] == [0] * 5


def kinds_of(settings):
    forbidden, occasional = rules_of(settings, 4, 2)
    assert type(occasional) is Occasional
    return [type(rule) for rule in (forbidden, *occasional.rules)]


def test_the_prefix_is_the_last_rule_and_those_known_to_be_absent_are_left_out():
    nothing = tf.nest.map_structure(tf.constant, settings_of([Asked()]))
    repeats = nothing._replace(no_repeat=tf.constant([[2]]))
    members = nothing._replace(trie=trie_of([(3, 2)]))
    assert kinds_of(plain(tf.constant([3, 4]))) == kinds_of(nothing) == [Forbidden, Prefix]
    assert kinds_of(repeats) == [Forbidden, NoRepeat, Prefix]
    assert kinds_of(members) == [Forbidden, Members, Prefix]
    every = [Forbidden, NoRepeat, Members, Prefix]
    assert kinds_of(members._replace(no_repeat=tf.constant([[2]]))) == every
    found = []

    @tf.function(input_signature=tf.nest.flatten(SETTINGS), autograph=False)
    def run(*arrays):  # whose widths are known only when it runs
        found.extend(kinds_of(tf.nest.pack_sequence_as(SETTINGS, arrays)))

    run.get_concrete_function()
    assert found == every


def as_tensors(record):
    return type(record)(*map(tf.constant, record))


def test_a_choice_is_a_beam_of_a_ranking_and_a_sample_of_a_draw():
    rows = [Asked(0, seeds=(1, 2)), Asked(1, seeds=(3, 4))]
    rest = tf.constant([3, 4]), tf.ones([2, 3], tf.bool)
    chosen = choice_of(as_tensors(ranking_of(rows)), 3, *rest)
    assert isinstance(chosen, Beam) and chosen.width == 3 and chosen.reorders
    assert chosen.num_return.numpy().tolist() == [3, 3]
    greedy = choice_of(as_tensors(ranking_of(rows)), 1, *rest)
    assert isinstance(greedy, Beam) and greedy.width == 1 and not greedy.reorders
    drawn = choice_of(as_tensors(draw_of(rows, 2)), 2, *rest)
    assert isinstance(drawn, Sample) and drawn.width == 2 and not drawn.reorders


# === In searches ===


def both(rows, steps):
    """Return the beams and the draws of one table."""
    rows = [row._replace(seeds=(4, 5, 6)) for row in rows]
    nodes = table(3)
    return beam(nodes, rows, 3, steps=steps), sample(nodes, rows, 3, steps=steps)


@pytest.mark.parametrize(
    ("outside", "inside"),
    [
        ({"max_length": 0}, {"max_length": 1}),
        ({"max_length": -3}, {"max_length": 1}),
        ({"max_length": SMALLEST}, {"max_length": 1}),
        ({"max_length": 6}, {"max_length": 5}),
        ({"max_length": LARGEST}, {"max_length": 5}),
        ({"min_length": -1}, {}),
        ({"min_length": SMALLEST}, {}),
        ({"min_length": 6}, {"min_length": 5}),
        ({"min_length": LARGEST}, {"min_length": 5}),
        ({"min_length": 4, "max_length": 2}, {"min_length": 2, "max_length": 2}),
        ({"min_length": LARGEST, "max_length": 0}, {"max_length": 1, "min_length": 1}),
        ({"no_repeat": -1}, {}),
        ({"no_repeat": SMALLEST}, {}),
        ({"no_repeat": LARGEST}, {}),
        ({"no_repeat": 6}, {}),
        ({"banned": (-1, 9, LARGEST, SMALLEST)}, {}),
        ({"banned": (0, 1, 4, 4)}, {"banned": (4,)}),
        ({"prefix": (4, 4, 4, 3, 4, 4, 4)}, {"prefix": (4, 4, 4, 3, 4)}),
    ],
)
def test_values_out_of_their_range_are_clamped(outside, inside):
    rows = [Asked(first, **outside) for first in FIRST] + [Asked(0, no_repeat=1, banned=(5,))]
    expected = [Asked(first, **inside) for first in FIRST] + rows[-1:]
    for found, same in zip(both(rows, 5), both(expected, 5), strict=True):
        assert_same(found, same)
        assert (found.lengths > 0).any(axis=1).all()


def test_a_least_length_at_the_largest_allows_an_end_there():
    nodes = table(3, end=9.0)
    row = Asked(0, 4, min_length=4)
    found = beam(nodes, [row], 3)
    assert_row(found, 0, reference_beam(nodes, row, 3)[0], nodes, 0)
    assert found.finished.any() and (found.lengths == 4).all()


def test_every_row_has_its_own_lengths():
    nodes = table(2, end=-20.0)
    found = beam(nodes, [Asked(0, n) for n in (1, 4, 2, 3)], 1)
    assert found.lengths.ravel().tolist() == [1, 4, 2, 3] and not found.finished.any()
    nodes = table(2, end=20.0)
    found = beam(nodes, [Asked(0, 5, min_length=n) for n in (1, 4, 2, 0)], 1)
    assert found.lengths.ravel().tolist() == [1, 4, 2, 1] and found.finished.all()


def test_one_step_is_the_least_there_is():
    for found in both([Asked(first) for first in FIRST], 1):
        assert found.token_ids.shape == (4, 3, 1) and (found.lengths == 1).all()
