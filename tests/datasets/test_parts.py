"""Cutting pairs into parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_attn import datasets

texts = st.text("abc", max_size=3)


@given(st.lists(st.tuples(texts, texts), min_size=2), st.floats(0.01, 0.99))
def test_nothing_is_lost_and_no_source_is_on_both_sides(items, fraction):
    pairs = datasets.Pairs(*map(list, zip(*items, strict=True)))
    distinct = len(set(pairs.sources))
    if distinct < 2:
        with pytest.raises(ValueError, match="two different sources or more, got 1"):
            datasets.split(pairs, fraction)
        return
    parts = datasets.split(pairs, fraction)
    together = [pair for part in parts for pair in zip(*part, strict=True)]
    assert sorted(together) == sorted(items)
    assert not set(parts[0].sources) & set(parts[1].sources)
    held_out = len(set(parts[1].sources))
    assert 1 <= held_out < distinct and abs(held_out - fraction * distinct) <= 1


def test_the_cut_is_stable():
    pairs = datasets.Pairs([str(i) for i in range(50)], ["x"] * 50)
    again = datasets.Pairs(pairs.sources[::-1], ["x"] * 50)
    cuts = [set(datasets.split(p, 0.2)[1].sources) for p in (pairs, again)]
    assert cuts[0] == cuts[1] == set("13 29 39 41 43 46 47 49 8 9".split())


@pytest.mark.parametrize("fraction", [0, 1, -0.5, "a", True, None])
def test_fractions_are_checked(fraction):
    with pytest.raises(ValueError, match="fraction: expected a number between 0 and 1"):
        datasets.split(datasets.Pairs(["a", "b"], ["a", "b"]), fraction)
