"""Sampling: what is drawn how often, and the same for a seed wherever it stands."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from search_tables import (
    FIRSTS,
    STEPS,
    Asked,
    asked,
    assert_nothing,
    assert_row,
    assert_same,
    beam,
    few,
    graph,
    reference_draws,
    rows_of,
    sample,
    table,
    tables,
    targets,
)

from keras_attn.search import Draw, fold
from keras_attn.search.sample import uniform
from keras_attn.types import BOS, EOS, PAD

FIRST = range(FIRSTS)
DRAWS, WIDTH = 100_000, 200
# Chi-squared of 1 to 5 degrees of freedom is above these with a probability of .001.
CRITICAL = [math.nan, 10.83, 13.82, 16.27, 18.47, 20.52]
EXTREMES = [0, 1, -1, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63), 0x9E3779B97F4A7C15 - 2**64]

int64s = st.integers(-(2**63), 2**63 - 1)
FILTERS = {
    "none": {},
    "sharper": {"temperature": 0.5},
    "flatter": {"temperature": 2.0},
    "top_k": {"top_k": 3},
    "top_p": {"top_p": 0.8},
    "all": {"temperature": 1.7, "top_k": 4, "top_p": 0.9},
    "banned": {"banned": (3,)},
    "banned and all": {"banned": (4,), "temperature": 1.7, "top_k": 2, "top_p": 0.99},
    "no end yet": {"min_length": 2, "top_k": 3},
}


@st.composite
def drawn(draw, width=3, **fixed):
    """What may be asked of a row of draws."""
    given = {
        "seeds": tuple(draw(st.lists(int64s, min_size=width, max_size=width))),
        "temperature": draw(st.sampled_from([0.3, 1.0, 3.0])),
        "top_k": draw(st.sampled_from([0, 1, 2, 3, 4, 7])),
        "top_p": draw(st.sampled_from([0.1, 0.5, 0.9, 1.0])),
    }
    return draw(asked(penalties=False, **given | fixed))


def assert_draws(found, rows, nodes, allowed=None):
    """Assert that every slot is the draw of its seed."""
    for b, row in enumerate(rows):
        for k, expected in enumerate(reference_draws(nodes, row, allowed)):
            one = rows_of(found, slice(b, b + 1))._asdict().items()
            one = type(found)(**{name: array[:, k : k + 1] for name, array in one})
            assert_row(one, 0, [] if expected is None else [expected], nodes, row.first)


# === Seeds ===


@few
@given(st.lists(int64s, min_size=1, max_size=9), st.lists(int64s, min_size=1, max_size=9))
def test_fold_and_uniform_are_those_of_the_reference_bit_for_bit(seeds, parts):
    seeds, parts = [*seeds, *EXTREMES], [*parts, *EXTREMES, *range(5)]
    found = fold(np.array(seeds)[:, None], np.array(parts))
    expected = [[reference.fold(seed, part) for part in parts] for seed in seeds]
    assert found.dtype == tf.int64 and found.numpy().tolist() == expected
    numbers = uniform(np.array(seeds)[:, None], np.array(parts))
    expected = [[reference.uniform(word) for word in row] for row in expected]
    assert numbers.dtype == tf.float64 and numbers.numpy().tolist() == expected


def test_fold_takes_numbers_of_any_integer_type_and_graphs():
    expected = reference.fold(-7, 3)
    assert int(fold(-7, 3)) == int(fold(np.int32(-7), tf.constant(3, tf.int32))) == expected
    compiled = tf.function(fold, jit_compile=True)
    assert int(compiled(tf.constant(-7, tf.int64), tf.constant(3, tf.int64))) == expected
    grid = fold(np.arange(4)[:, None], np.arange(3))
    assert grid.shape == (4, 3) and len(set(grid.numpy().ravel())) == 12


# === Against the reference, draw by draw ===


@few
@given(tables(), st.lists(drawn(), min_size=4, max_size=6))
def test_every_draw_is_that_of_its_seed(nodes, rows):
    assert_draws(sample(nodes, rows, 3), rows, nodes)


@few
@given(tables(sizes=[6]), st.lists(drawn(), min_size=4, max_size=6), targets)
def test_every_draw_among_allowed_targets_is_that_of_its_seed(nodes, rows, allowed):
    assert_draws(sample(nodes, rows, 3, allowed=allowed), rows, nodes, allowed)


# === Frequencies ===


def frequencies(nodes, length, **filters):
    """Return 100,000 draws of `length` tokens, (DRAWS, length)."""
    seeds = np.arange(DRAWS).reshape(-1, WIDTH)
    rows = [Asked(0, length, seeds=tuple(row), **filters) for row in seeds]
    return sample(nodes, rows, WIDTH).token_ids.reshape(DRAWS, length)


def assert_as_often(ids, probabilities):
    """Assert that ids are drawn as often as they should be."""
    probabilities = np.array(probabilities)
    counts = np.bincount(ids, minlength=len(probabilities))
    assert not counts[probabilities == 0].any()
    expected = len(ids) * probabilities[probabilities > 0]
    assert expected.min() > 5
    distance = np.sum((counts[probabilities > 0] - expected) ** 2 / expected)
    if len(expected) > 1:
        assert distance < CRITICAL[len(expected) - 1]


@pytest.mark.parametrize("name", FILTERS)
def test_tokens_are_drawn_as_often_as_the_filters_say(name):
    nodes, filters = table(2, size=7, sharp=1.0), FILTERS[name]
    log_p = nodes.log_p[nodes.following[0, BOS]]
    plain = {x: y for x, y in filters.items() if x in ("temperature", "top_k", "top_p")}
    may_be = [
        token
        for token in range(2, 7)
        if token not in filters.get("banned", ()) and not (token == EOS and "min_length" in filters)
    ]
    # One token is asked for, or two so that a least length may forbid an end.
    length = 2 if "min_length" in filters else 1
    ids = frequencies(nodes, length, **filters)[:, 0]
    expected = reference.sampling_probabilities(log_p, may_be=may_be, **plain)
    assert_as_often(ids, expected)
    if filters:
        unfiltered = reference.sampling_probabilities(log_p)
        assert np.abs(expected - unfiltered).max() > 0.02


@pytest.mark.parametrize("name", ["none", "all"])
def test_the_second_token_depends_on_the_first_alone(name):
    nodes, filters = table(2, size=7, sharp=1.0, kind="history"), FILTERS[name]
    ids = frequencies(nodes, 2, **filters)
    behind = nodes.following[0, BOS]
    tokens = set(ids[:, 0])
    assert len(tokens) >= 4
    for token in tokens - {EOS}:
        log_p = nodes.log_p[nodes.following[behind, token]]
        second = ids[ids[:, 0] == token, 1]
        assert_as_often(second, reference.sampling_probabilities(log_p, **filters))
    assert not ids[ids[:, 0] == EOS, 1].any()


# === A seed draws the same wherever it stands ===


@few
@given(tables(), st.lists(drawn(), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_a_seed_draws_the_same_alone_and_in_any_batch_order_and_slot(nodes, rows, random):
    together = sample(nodes, rows, 3, steps=STEPS)
    order = random.sample(range(len(rows)), len(rows))
    other = sample(nodes, [rows[b] for b in order], 3, steps=STEPS)
    assert_same(rows_of(together, order), other)
    assert_same(rows_of(together, [0]), sample(nodes, rows[:1], 3, steps=STEPS))
    swapped = sample(nodes, [row._replace(seeds=row.seeds[::-1]) for row in rows], 3, steps=STEPS)
    assert_same(type(together)(*(array[:, ::-1] for array in together)), swapped)
    for k in range(3):
        alone = sample(nodes, [row._replace(seeds=row.seeds[k : k + 1]) for row in rows], 1)
        np.testing.assert_array_equal(
            alone.token_ids[:, 0], together.token_ids[:, k, : alone.token_ids.shape[2]]
        )


def test_slots_of_unequal_seeds_differ_and_those_of_the_same_do_not():
    nodes = table(1, end=-3.0, sharp=0.5)
    found = sample(nodes, [Asked(0, seeds=(5, 6, 5)), Asked(0, seeds=(6, 7, 8))], 3)
    ids = found.token_ids
    assert (ids[0, 0] == ids[0, 2]).all() and (ids[0, 1] == ids[1, 0]).all()
    assert len({tuple(row) for row in ids.reshape(6, -1)}) == 4
    many = sample(nodes, [Asked(0, seeds=tuple(range(WIDTH)))], WIDTH)
    assert len({tuple(row) for row in many.token_ids[0]}) > WIDTH / 2
    # And every step draws anew.
    assert (many.token_ids[0, :, 0] == many.token_ids[0, :, 1]).mean() < 0.6


# === Scores and order ===


def test_scores_are_those_of_the_model_and_hypotheses_stay_in_the_order_of_their_seeds():
    nodes = table(5)
    plain = Asked(0, seeds=tuple(range(WIDTH)))
    found = sample(nodes, [plain._replace(temperature=2.0, top_p=0.95)], WIDTH)
    np.testing.assert_array_equal(found.scores, found.penalised_scores)
    assert (np.diff(found.scores) > 0).any()
    for k in range(WIDTH):
        ids = found.token_ids[0, k, : found.lengths[0, k]]
        visited = nodes.visited(0, ids)
        assert found.scores[0, k] == pytest.approx(nodes.log_p[visited, ids].sum())


@few
@given(tables(), st.lists(drawn(width=1), min_size=4, max_size=6))
def test_drawing_from_the_best_alone_is_greedy_search(nodes, rows):
    expected = beam(nodes, rows, 1)
    for best in ({"top_k": 1}, {"top_p": 1e-6}):
        filters = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | best
        assert_same(sample(nodes, [row._replace(**filters) for row in rows]), expected)


# === Options out of their range ===


@pytest.mark.parametrize(
    ("outside", "inside"),
    [
        ({"temperature": 0.0}, {"top_k": 1}),
        ({"temperature": -2.0}, {"top_k": 1}),
        ({"temperature": math.nan}, {"top_k": 1}),
        ({"temperature": -math.inf}, {"top_k": 1}),
        ({"top_k": -1}, {}),
        ({"top_k": -(2**31)}, {}),
        ({"top_k": 6}, {}),
        ({"top_k": 2**31 - 1}, {}),
        ({"top_p": 0.0}, {"top_k": 1}),
        ({"top_p": -3.0}, {"top_k": 1}),
        ({"top_p": 2.0}, {}),
        ({"top_p": math.nan}, {}),
        ({"top_p": math.inf}, {}),
        ({"top_p": 1.0, "top_k": 0, "temperature": 1.0}, {}),
    ],
)
def test_filters_are_clamped(outside, inside):
    # Nowhere are the two best within .001 of each other, where a cold temperature may take either.
    nodes, plain = table(4, sharp=1.0), [Asked(first, seeds=(1, 2, 3)) for first in FIRST]
    ranked = np.sort(nodes.log_p[:, EOS:], axis=1)
    assert np.diff(ranked, axis=1).min() > 1e-3
    for others in ({}, {"banned": (4,)}):
        rows = [row._replace(**outside | others) for row in plain]
        found = sample(nodes, [*rows, plain[0]], 3)
        expected = [row._replace(**inside | others) for row in plain]
        assert_same(found, sample(nodes, [*expected, plain[0]], 3))


def test_an_endless_temperature_makes_all_that_is_possible_equally_likely():
    nodes = table(2)
    for temperature in (1e30, math.inf):
        ids = frequencies(nodes, 1, temperature=temperature, banned=(4,))[:, 0]
        assert_as_often(ids, [0, 0, 1 / 3, 1 / 3, 0, 1 / 3])


def test_a_cold_temperature_does_not_overflow():
    nodes = table(1, sharp=300.0)
    rows = [Asked(first, seeds=(1, 2, 3), temperature=0.0) for first in FIRST]
    for dtype in ("float32", "float64"):
        found = sample(nodes, rows, 3, dtype=dtype)
        greedy = beam(nodes, rows, 1, dtype=dtype)
        assert (found.token_ids == greedy.token_ids).all() and np.isfinite(found.scores).all()


# === Failures of the model ===


@pytest.mark.parametrize("value", [-np.inf, np.nan])
@pytest.mark.parametrize("filters", [{}, {"top_k": 2}, {"top_p": 0.5}, {"prefix": (3,)}])
def test_a_model_that_fails_at_once_has_no_hypothesis(value, filters):
    nodes = table(1)
    nodes = nodes.changed(log_p=np.full(nodes.log_p.shape, value))
    rows = [Asked(0, 500, seeds=(1, 2, 3), **filters), Asked(1, 2, seeds=(4, 5, 6), **filters)]
    assert_nothing(sample(nodes, rows, 3), slice(None))
    assert graph(Draw, 3).taken == 1


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_a_model_that_fails_later_leaves_what_has_ended(value):
    nodes = table(1, end=1.0)
    log_p = nodes.log_p.copy()
    log_p[3 * FIRSTS :] = value  # from the third token on
    nodes = nodes.changed(log_p=log_p, alignments=np.full(nodes.alignments.shape, 0.5))
    rows = [Asked(first, 500, seeds=tuple(range(WIDTH))) for first in FIRST]
    found = sample(nodes, rows, WIDTH)
    assert set(found.lengths.ravel()) == {0, 1, 2} and graph(Draw, WIDTH).taken == 3
    for b in FIRST:
        assert_nothing(found, b, found.lengths[b] == 0)
    assert (found.finished == (found.lengths > 0)).all()
    assert_draws(found, rows[:1], nodes)


@pytest.mark.parametrize("value", [-np.inf, np.nan])
@pytest.mark.parametrize("place", [EOS, 3, 5])
def test_an_impossible_token_is_never_drawn_and_the_others_as_often_as_without_it(value, place):
    nodes = table(2, sharp=1.0)
    log_p = nodes.log_p.copy()
    log_p[:, place] = value
    ids = frequencies(nodes.changed(log_p=log_p), 1, temperature=2.0, top_k=5)[:, 0]
    log_p = log_p[nodes.following[0, BOS]]
    assert_as_often(ids, reference.sampling_probabilities(log_p, temperature=2.0))


def test_pad_and_bos_are_never_drawn():
    nodes = table(1)
    log_p = nodes.log_p - 20
    log_p[:, [PAD, BOS]] = np.log(0.5)
    found = sample(nodes.changed(log_p=log_p), [Asked(0, seeds=tuple(range(WIDTH)))], WIDTH)
    assert (found.lengths > 0).all()
    for ids, length in zip(found.token_ids[0], found.lengths[0], strict=True):
        assert (ids[:length] > BOS).all()
