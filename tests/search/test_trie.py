"""Tries: that they hold their targets and nothing else, and that searches stay in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_tables import Asked, batches, beam, few, ids_of, sample, table, tables

from keras_attn.search import NO_TRIE, depth_of, trie_of
from keras_attn.types import EOS

sets = st.sets(
    st.lists(st.integers(3, 6), max_size=5).map(lambda row: (*row, EOS)), min_size=1, max_size=12
)
small = st.sets(
    st.lists(st.integers(3, 5), max_size=4).map(lambda row: (*row, EOS)), min_size=1, max_size=8
)


def edges(trie, node):
    """Return where the tokens behind a node lead, {token: node}."""
    span = range(trie.offsets[node], trie.offsets[node + 1])
    return {int(trie.tokens[e]): e + 1 for e in span}


def paths(trie, node=0):
    """Return all ways from a node to a leaf."""
    following = edges(trie, node)
    if not following:
        return [()]
    return [(token, *rest) for token, behind in following.items() for rest in paths(trie, behind)]


@few
@given(sets)
def test_it_holds_exactly_the_members(targets):
    found = paths(trie_of(targets))
    assert len(found) == len(set(found)) and set(found) == targets


@few
@given(sets)
def test_every_beginning_is_one_node(targets):
    trie = trie_of(targets)
    beginnings = {row[:length] for row in targets for length in range(1, len(row) + 1)}
    assert len(trie.tokens) == len(beginnings)
    assert len(trie.offsets) == len(trie.tokens) + 2
    assert trie.offsets[0] == 0 and trie.offsets[-1] == len(trie.tokens)
    fans = np.diff(trie.offsets)
    assert (fans >= 0).all() and trie.fan.tolist() == list(range(fans.max()))
    for node in range(len(trie.tokens) + 1):
        span = trie.tokens[trie.offsets[node] : trie.offsets[node + 1]]
        assert (np.diff(span) > 0).all()  # no token twice, in order
    assert {array.dtype for array in trie} == {np.dtype(np.int32)}


@few
@given(sets)
def test_its_depth_is_the_length_of_the_longest(targets):
    assert depth_of(trie_of(targets)) == max(map(len, targets))


@few
@given(sets, st.randoms(use_true_random=False))
def test_order_repetition_and_type_of_targets_do_not_matter(targets, random):
    rows = [*targets, *list(targets)[:2]]
    random.shuffle(rows)
    expected = trie_of(sorted(targets))
    for given_rows in (rows, [list(row) for row in rows], map(np.array, rows)):
        for found, array in zip(trie_of(given_rows), expected, strict=True):
            np.testing.assert_array_equal(found, array)


def test_by_hand():
    # The edges by length: 3 and 4; 2 and 5 behind the 3, 2 behind the 4; 2 behind 3 5.
    trie = trie_of([(3, 5, 2), (3, 2), (4, 2)])
    assert trie.tokens.tolist() == [3, 4, 2, 5, 2, 2]
    assert trie.offsets.tolist() == [0, 2, 4, 5, 5, 6, 6, 6]
    assert trie.fan.tolist() == [0, 1] and depth_of(trie) == 3
    ends = trie_of([(2,)])
    assert ends.tokens.tolist() == [2] and ends.offsets.tolist() == [0, 1, 1]
    assert depth_of(ends) == 1


def test_no_trie():
    assert [len(array) for array in NO_TRIE] == [0, 0, 0] and depth_of(NO_TRIE) == 0
    assert len(trie_of([]).tokens) == 0 and depth_of(trie_of([])) == 0


def test_many_and_long_targets():
    random = np.random.default_rng(0)
    targets = {(*random.integers(3, 30_000, random.integers(0, 60)), EOS) for _ in range(2000)}
    trie = trie_of(targets)
    assert depth_of(trie) == max(map(len, targets))
    for target in list(targets)[:50]:
        node = 0
        for token in target:
            node = edges(trie, node)[token]
        assert not edges(trie, node)
    assert set(edges(trie, 0)) == {target[0] for target in targets}


# === Searches ===


@few
@given(tables(sizes=[6]), small, batches(most=4, rules=False))
@pytest.mark.parametrize("width", [1, 3, 7])
def test_a_beam_returns_members_and_as_many_as_it_can(width, nodes, targets, rows):
    rows = [row._replace(max_length=5) for row in rows]
    found = beam(nodes, rows, width, allowed=targets)
    for b in range(len(rows)):
        ids = [one for one in ids_of(found, b) if one]
        assert set(ids) <= targets and len(set(ids)) == len(ids)
        assert 1 <= len(ids) <= min(width, len(targets))
        assert found.finished[b, : len(ids)].all()
        if width >= len(targets):
            assert set(ids) == targets


@few
@given(tables(sizes=[6]), small, st.integers(0, 999), st.sampled_from([0.5, 1.0, 50.0]))
def test_every_draw_is_a_member(nodes, targets, seed, temperature):
    seeds = tuple(range(seed, seed + 100))
    row = Asked(1, seeds=seeds, temperature=temperature, top_p=1.0 if seed % 2 else 0.8)
    found = sample(nodes, [row], 100, allowed=targets)
    assert set(ids_of(found, 0)) <= targets and found.finished.all()


def test_hot_draws_come_to_every_member():
    targets = {(3, 2), (4, 2), (4, 3, 2), (5, 5, 5, 5, 2)}
    row = Asked(0, seeds=tuple(range(100)), temperature=1e6)
    found = sample(table(0), [row], 100, allowed=targets)
    assert set(ids_of(found, 0)) == targets


def test_a_target_longer_than_the_largest_length_is_cut():
    row = Asked(0, max_length=2, prefix=(5,))
    found = beam(table(0), [row], 1, allowed=[(5, 5, 5, 5, 2)])
    assert found.token_ids.tolist() == [[[5, 5]]] and not found.finished.any()
