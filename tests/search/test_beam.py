"""Beam search against every hypothesis there is, and against a loop over one source."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from search_tables import (
    FIRSTS,
    STEPS,
    WIDE,
    Asked,
    assert_nothing,
    assert_row,
    assert_same,
    batches,
    beam,
    best,
    few,
    graph,
    ids_of,
    narrowed,
    reference_beam,
    table,
    tables,
    targets,
)

from keras_attn.search import Ranking
from keras_attn.types import BOS, EOS, PAD

NARROW = [2, 3, 7]
FIRST = range(FIRSTS)
maybe_targets = st.none() | targets


def broken(nodes, seed, share=0.3):
    """Return a table in which the model fails at some nodes, and some tokens are impossible."""
    random = np.random.default_rng(seed)
    log_p, alignments = nodes.log_p.copy(), nodes.alignments.copy()
    log_p[random.random(log_p.shape) < share / 2] = -np.inf
    # Where the first tokens are chosen it holds, or nothing is left.
    failed = 2 * FIRSTS + np.flatnonzero(random.random(len(log_p) - 2 * FIRSTS) < share)
    log_p[failed], alignments[failed] = np.nan, np.nan
    log_p[failed[::3]] = -np.inf
    return nodes.changed(log_p=log_p, alignments=alignments)


def renormalised(nodes):
    """Return a table of which log p is what the reference makes of it as logits."""
    with np.errstate(invalid="ignore"):
        rows = [reference.log_softmax(row) for row in nodes.log_p]
    return nodes.changed(log_p=rows)


# === Wide beams are exact ===


@few
@given(tables(), batches())
def test_a_wide_beam_finds_every_hypothesis_in_order(nodes, rows):
    found = beam(nodes, rows, WIDE)
    for b, row in enumerate(rows):
        assert_row(found, b, best(nodes, row), nodes, row.first)


@few
@given(tables(sizes=[6]), batches(), targets)
def test_a_wide_beam_finds_every_hypothesis_among_allowed_targets(nodes, rows, allowed):
    found = beam(nodes, rows, WIDE, allowed=allowed)
    for b, row in enumerate(rows):
        assert_row(found, b, best(nodes, row, allowed), nodes, row.first)


EACH = {
    "nothing": {},
    "length": {"length_penalty": 0.9},
    "coverage": {"coverage_penalty": 0.7},
    "masked coverage": {"coverage_penalty": 0.7, "source_mask": (True, False, True)},
    "both": {"length_penalty": 2.0, "coverage_penalty": 0.3},
    "min_length": {"min_length": 4},
    "banned": {"banned": (4,)},
    "unknown token banned": {"banned": (3, 3)},
    "end banned": {"banned": (EOS,), "max_length": 4},
    "no repeat": {"no_repeat": 1},
    "no bigram twice": {"no_repeat": 2},
    "prefix": {"prefix": (5, 3)},
    "short": {"max_length": 1},
    "all": {
        "length_penalty": 1.0,
        "coverage_penalty": 0.2,
        "min_length": 3,
        "banned": (5,),
        "no_repeat": 2,
        "prefix": (4, 4),
    },
}


@pytest.mark.parametrize("name", EACH)
def test_each_option_alone_is_exact_and_counts(name):
    nodes, plain = table(1, kind="history"), [Asked(first) for first in FIRST]
    rows = [row._replace(**EACH[name]) for row in plain]
    found = beam(nodes, rows, WIDE)
    for b, row in enumerate(rows):
        assert_row(found, b, best(nodes, row), nodes, row.first)
    if EACH[name]:  # or the comparison would show nothing of it
        expected = [[one.token_ids for one in best(nodes, row)] for row in plain]
        assert [[one.token_ids for one in best(nodes, row)] for row in rows] != expected


@few
@given(tables(), st.integers(0, 999), batches())
def test_where_the_model_fails_there_is_no_hypothesis(nodes, seed, rows):
    """Some tokens are impossible; at some nodes log p is -inf for all, or NaN as are alignments."""
    nodes = renormalised(broken(nodes, seed))
    found = beam(nodes, rows, WIDE)
    for b, row in enumerate(rows):
        assert_row(found, b, best(nodes, row), nodes, row.first)


# === Narrow beams ===


@few
@given(tables(), batches(), st.sampled_from(NARROW), st.integers(1, 7))
def test_a_narrow_beam_is_that_of_the_reference(nodes, rows, width, number):
    rows = [row._replace(num_return=number + b) for b, row in enumerate(rows)]
    found = beam(nodes, rows, width)
    taken = graph(Ranking, width).taken
    most = 0
    for b, row in enumerate(rows):
        expected, steps = reference_beam(nodes, row, width)
        assert_row(found, b, expected, nodes, row.first)
        most = max(most, steps)
    assert taken == most


@few
@given(tables(sizes=[6]), batches(), st.sampled_from(NARROW), targets)
def test_a_narrow_beam_among_allowed_targets(nodes, rows, width, allowed):
    found = beam(nodes, rows, width, allowed=allowed)
    for b, row in enumerate(rows):
        expected, _ = reference_beam(nodes, row, width, allowed)
        assert_row(found, b, expected, nodes, row.first)


@few
@given(tables(), st.integers(0, 999), batches(), st.sampled_from(NARROW))
def test_a_narrow_beam_of_a_model_that_fails_here_and_there(nodes, seed, rows, width):
    nodes = renormalised(broken(nodes, seed))
    found = beam(nodes, rows, width)
    for b, row in enumerate(rows):
        expected, _ = reference_beam(nodes, row, width)
        assert_row(found, b, expected, nodes, row.first)


@few
@given(tables(), batches())
def test_no_beam_finds_better_than_the_best_and_all_that_it_finds_exists(nodes, rows):
    for width in (1, *NARROW):
        found = beam(nodes, rows, width)
        for b, row in enumerate(rows):
            there = {one.token_ids: one.penalised_score for one in best(nodes, row)}
            highest = max(there.values(), default=-np.inf) + 1e-9
            for k in np.flatnonzero(found.lengths[b]):
                ids = ids_of(found, b)[k]
                score = found.penalised_scores[b, k]
                assert score == pytest.approx(there.pop(ids), rel=1e-11) and score <= highest


def test_wider_beams_find_what_narrow_ones_miss():
    rows = [Asked(first) for first in FIRST]
    better = 0
    for seed in range(5):
        nodes = table(seed, kind="history")
        exact = beam(nodes, rows, WIDE).scores[:, 0]
        for width in NARROW:
            scores = beam(nodes, rows, width).scores[:, 0]
            assert (scores <= exact + 1e-12).all()
            better += (scores < exact - 1e-12).sum()
    assert better > 0


# === Greedy search ===


@few
@given(tables(sizes=[6]), batches(), maybe_targets)
def test_width_1_is_greedy_whatever_the_penalties(nodes, rows, allowed):
    found = beam(nodes, rows, 1, allowed=allowed)
    for b, row in enumerate(rows):
        expected = reference.greedy(nodes.one_step, row.first, row.max_length, **row.rules(allowed))
        if not expected.token_ids:
            assert_nothing(found, b)
            continue
        length = len(expected.token_ids)
        assert found.token_ids[b, 0, :length].tolist() == list(expected.token_ids)
        assert found.lengths[b, 0] == length and found.finished[b, 0] == expected.finished
        np.testing.assert_allclose(found.scores[b, 0], expected.score, rtol=1e-12)
        np.testing.assert_allclose(found.token_scores[b, 0, :length], expected.token_scores)
    plain = [row._replace(length_penalty=0.0, coverage_penalty=0.0) for row in rows]
    plain = beam(nodes, plain, 1, allowed=allowed)
    assert_same(found._replace(penalised_scores=found.scores), plain)


def test_pad_and_bos_are_scored_but_never_chosen():
    nodes = table(1)
    log_p = nodes.log_p.copy()
    log_p[:, [PAD, BOS]] = log_p.max(axis=1, keepdims=True) + 3
    nodes = renormalised(nodes.changed(log_p=log_p))
    rows = [Asked(first) for first in FIRST]
    for width in (1, 3, WIDE):
        found = beam(nodes, rows, width)
        tokens = found.token_ids[found.token_scores != 0]
        assert len(tokens) and not set(tokens) & {PAD, BOS}
        # Were they left out of the distribution, the best of 4 would have more than 1 / 4.
        assert found.token_scores[:, 0, 0].max() < np.log(1 / 4)


# === Sizes ===


@few
@given(tables(), batches(), st.integers(1, 7))
def test_beam_size_below_the_width_is_a_beam_of_that_width(nodes, rows, size):
    for width in (1, *NARROW):
        less = [row._replace(beam_size=width) for row in rows]
        for wider in (7, WIDE):
            found = beam(nodes, less, wider)
            assert_same(narrowed(found, width), beam(nodes, rows, width))
            assert_nothing(found, slice(None), slice(width, None))


@few
@given(tables(), batches(), st.sampled_from(NARROW))
def test_fewer_to_return_are_the_first_of_all(nodes, rows, width):
    every = beam(nodes, rows, width)
    most = graph(Ranking, width).taken
    for number in range(1, width):
        found = beam(nodes, [row._replace(num_return=number) for row in rows], width)
        assert_same(narrowed(found, number), narrowed(every, number))
        assert_nothing(found, slice(None), slice(number, None))
        assert graph(Ranking, width).taken <= most


def test_fewer_to_return_end_the_search_sooner():
    nodes, taken = table(1, end=1.0), []
    for number in (1, 3, 7):
        beam(nodes, [Asked(1, 5, num_return=number)], 7)
        taken.append(graph(Ranking, 7).taken)
    assert taken[0] < taken[1] < taken[2] == 5


def test_a_length_penalty_makes_it_wait_for_longer_hypotheses():
    """The bound on what may come is log p over the penalty of the largest length."""
    stopped = []
    for seed in range(6):
        nodes = table(seed, end=1.0, kind="history")
        for alpha in (0.0, 4.0):
            row = Asked(0, 5, num_return=1, length_penalty=alpha)
            found = beam(nodes, [row], WIDE)
            stopped.append(graph(Ranking, WIDE).taken)
            assert_row(found, 0, best(nodes, row)[:1], nodes, 0)
    assert sum(stopped[::2]) < sum(stopped[1::2])


@pytest.mark.parametrize("size", [0, -5, 8, 99, 2**31 - 1])
def test_sizes_are_clamped(size):
    nodes, clamped = table(3), min(max(size, 1), 7)
    rows = [Asked(0, beam_size=size), Asked(1, num_return=size), Asked(2, 3, 0, (), (), 0, 3, size)]
    inside = [
        Asked(0, beam_size=clamped),
        Asked(1, num_return=clamped),
        Asked(2, 3, beam_size=3, num_return=min(clamped, 3)),
    ]
    assert_same(beam(nodes, rows, 7), beam(nodes, inside, 7))


@pytest.mark.parametrize("name", ["length_penalty", "coverage_penalty"])
@pytest.mark.parametrize(
    ("value", "clamped"),
    [(np.nan, 0.0), (-0.5, 0.0), (-np.inf, 0.0), (10.5, 10.0), (1e30, 10.0), (np.inf, 10.0)],
)
def test_penalties_are_clamped(name, value, clamped):
    nodes = table(3)
    rows = [Asked(first, **{name: value if first % 2 else 0.5}) for first in FIRST]
    inside = [Asked(first, **{name: clamped if first % 2 else 0.5}) for first in FIRST]
    assert_same(beam(nodes, rows, 3), beam(nodes, inside, 3))


def test_penalties_of_one_row_do_not_reach_another():
    nodes = table(3)
    rows = [Asked(0, length_penalty=np.nan, coverage_penalty=np.inf), Asked(1)]
    found = beam(nodes, rows, 3)
    assert_row(found, 1, reference_beam(nodes, rows[1], 3)[0], nodes, 1)


# === Ended hypotheses ===


@few
@given(tables(), st.integers(0, 3), st.sampled_from(NARROW))
def test_ended_hypotheses_never_change(nodes, first, width):
    """Those that have ended and lead stay first, however long the search may go on."""
    previous = None
    for length in range(1, STEPS + 1):
        found = beam(nodes, [Asked(first, length)], width, steps=STEPS)
        if previous is not None:
            leading = int(np.cumprod(previous.finished[0]).sum())
            assert_same(narrowed(found, leading), narrowed(previous, leading))
        previous = found


def test_an_ended_hypothesis_keeps_its_scores_and_its_coverage_while_it_waits():
    """Steps that others take add no attention to it."""
    nodes = table(7, end=2.0)
    log_p = nodes.log_p.copy()
    log_p[FIRSTS : 2 * FIRSTS] = reference.log_softmax([0, 0, 9.0, 8.9, 0, 0])
    nodes = nodes.changed(log_p=log_p)
    row = Asked(0, 5, coverage_penalty=0.05)
    found = beam(nodes, [row, row._replace(min_length=5)], 3)
    place = [tuple(ids) for ids in found.token_ids[0]].index((EOS, 0, 0, 0, 0))
    alone = beam(nodes, [row._replace(max_length=1)], 3)
    for name in ("scores", "penalised_scores"):
        assert getattr(found, name)[0, place] == pytest.approx(getattr(alone, name)[0, 0], 1e-12)


# === Ties ===


@pytest.mark.parametrize("alpha", [0.0, 0.6, 4.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_of_equals_the_better_slot_comes_first_and_then_the_smaller_id(dtype, alpha):
    """All tokens are equally probable at every node; every row of a batch decides alike."""
    nodes = table(size=5)
    nodes = nodes.changed(log_p=np.full(nodes.log_p.shape, np.log(1 / 5)))
    row = Asked(0, 5, length_penalty=alpha)
    for width in (1, 3):
        expected = [one.token_ids for one in reference_beam(nodes, row, width)[0]]
        for batch in range(1, 10):
            found = beam(nodes, [row] * batch, width, dtype=dtype)
            assert [ids_of(found, b) for b in range(batch)] == [expected] * batch


@few
@given(st.integers(0, 9999), st.sampled_from(NARROW), st.sampled_from([0.0, 0.6, 1.0, 4.0]))
def test_ties_are_broken_as_in_the_reference(seed, width, alpha):
    """Log p are dyadic, so that every sum is exact, whatever its order."""
    random = np.random.default_rng(seed)
    nodes = table(seed, kind="history")
    tokens = -np.array([80, 80, 108, 133]) / 64
    rest = np.log1p(-np.exp(tokens).sum()) - np.log(2)
    log_p = [[rest, rest, *random.permutation(tokens)] for _ in nodes.log_p]
    nodes = nodes.changed(log_p=log_p)
    rows = [Asked(first, 5, length_penalty=alpha) for first in FIRST]
    found = beam(nodes, rows, width)
    for b, row in enumerate(rows):
        expected, _ = reference_beam(nodes, row, width)
        assert_row(found, b, expected, nodes, row.first)
        scores = [one.score for one in best(nodes, row)]
        assert len(set(scores)) < len(scores) / 4


def test_a_row_that_could_still_be_equalled_does_not_stop():
    """34 stands before 4 EOS, and both have 1/4; its certain end keeps it there."""
    nodes = table(size=5, kind="history")
    log_p = np.full(nodes.log_p.shape, -np.inf)
    half = np.log(0.5)
    first = nodes.following[0, BOS]
    log_p[first, [3, 4]] = half
    log_p[nodes.following[first, 3], [4, EOS]] = half, 2 * half
    log_p[nodes.following[first, 4], [EOS, 3]] = half, 2 * half
    log_p[nodes.following[nodes.following[first, 3], 4], EOS] = 0.0
    row = Asked(0, num_return=1)
    found = beam(nodes.changed(log_p=log_p), [row], 2)
    assert found.token_ids[0, 0].tolist() == [3, 4, EOS, PAD, PAD]
    assert graph(Ranking, 2).taken == 3


# === Failures of the model ===


@pytest.mark.parametrize("value", [-np.inf, np.nan])
@pytest.mark.parametrize("alignments", ["as they are", "nan"])
@pytest.mark.parametrize("width", [1, 3])
def test_a_model_that_fails_at_once_has_no_hypothesis(value, alignments, width):
    nodes = table(1)
    nodes = nodes.changed(log_p=np.full(nodes.log_p.shape, value))
    if alignments == "nan":
        nodes = nodes.changed(alignments=np.full(nodes.alignments.shape, np.nan))
    for coverage in (0.0, 0.5):
        rows = [Asked(0, 500, coverage_penalty=coverage), Asked(1, 2, prefix=(3,))]
        assert_nothing(beam(nodes, rows, width), slice(None))
        assert graph(Ranking, width).taken == 1


@pytest.mark.parametrize("value", [-np.inf, np.nan])
@pytest.mark.parametrize("width", [1, 3, WIDE])
def test_a_model_that_fails_later_leaves_what_has_ended(value, width):
    nodes = table(1, end=4.0)
    log_p = nodes.log_p.copy()
    log_p[3 * FIRSTS :] = value  # from the third token on
    nodes = nodes.changed(log_p=log_p)
    found = beam(nodes, [Asked(0, 500), Asked(1, 500, min_length=3)], width)
    assert_nothing(found, 1)
    expected, _ = reference_beam(nodes, Asked(0, 3), width)
    assert 1 <= len(expected) <= 4
    assert_row(found, 0, expected, nodes, 0)
    assert graph(Ranking, width).taken <= 3


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("width", NARROW)
def test_a_slot_in_which_the_model_fails_leaves_the_others_alone(which, width):
    """Whether it is the first or a later one, and has alignments or NaN instead of them."""
    rows = [Asked(0), Asked(0, coverage_penalty=0.5), Asked(0, length_penalty=1.0)]
    for seed in range(4):
        nodes = table(seed, kind="history", end=-1.0)
        behind = nodes.following[0, BOS]
        failed = nodes.following[behind, np.argsort(-nodes.log_p[behind, 3:])[which] + 3]
        log_p, alignments = nodes.log_p.copy(), nodes.alignments.copy()
        log_p[failed] = np.nan
        for value in (0.5, np.nan):
            alignments[failed] = value
            nodes = nodes.changed(log_p=log_p, alignments=alignments)
            found = beam(nodes, rows, width)
            for b, row in enumerate(rows):
                expected, _ = reference_beam(nodes, row, width)
                assert expected
                assert_row(found, b, expected, nodes, 0)


@pytest.mark.parametrize("place", [EOS, 3, 5])
@pytest.mark.parametrize("width", [1, 3])
def test_a_token_of_probability_nan_is_never_chosen(place, width):
    """Log p of the others is a number all the same."""
    nodes = table(1)
    log_p = nodes.log_p.copy()
    log_p[:, place] = np.nan
    found = beam(nodes.changed(log_p=log_p), [Asked(first) for first in FIRST], width)
    log_p[:, place] = -np.inf
    expected = beam(nodes.changed(log_p=log_p), [Asked(first) for first in FIRST], width)
    assert_same(found, expected)
    assert (found.lengths > 0).any() and not (found.token_ids == place).any()
