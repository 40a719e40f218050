"""The loop of every search: what it returns, when it ends, and that rows are on their own."""

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
    Asked,
    Graph,
    arguments,
    asked,
    assert_nothing,
    assert_row,
    assert_same,
    batches,
    beam,
    best,
    draw_of,
    few,
    graph,
    ranking_of,
    reference_beam,
    rows_of,
    sample,
    searched,
    table,
    tables,
)

from keras_attn.search import (
    Choice,
    Draw,
    Ranking,
    Rule,
    advance,
    begin,
    choice_of,
    clamped,
    rules_of,
    search,
)
from keras_attn.types import BOS, EOS, PAD, SearchResult

ALLOWED = [(3, 4, 2), (4, 2), (4, 5, 5, 2), (5, 2), (4, 4, 4, 4, 2)]
MIXED = [  # all rules and penalties, none twice alike
    Asked(0, 5, length_penalty=0.7, min_length=3, seeds=(1, 2, 3)),
    Asked(1, 4, coverage_penalty=0.4, banned=(3, 9), seeds=(4, 5, 6), temperature=0.5),
    Asked(2, 3, prefix=(4, 4), no_repeat=1, seeds=(7, 8, 9), top_k=2),
    Asked(3, 2, num_return=1, beam_size=2, seeds=(-1, -2, -3), top_p=0.8),
    Asked(0, 1, source_mask=(True, False, False), coverage_penalty=2.0, seeds=(0, 0, 0)),
]


def both(nodes, rows, **options):
    """Return the beams and the draws of three slots."""
    return beam(nodes, rows, 3, **options), sample(nodes, rows, 3, **options)


# === What comes back ===


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shapes_and_dtypes(dtype):
    nodes = table()
    for found in both(nodes, MIXED, steps=7, dtype=dtype):
        assert {name: array.shape for name, array in found._asdict().items()} == {
            "token_ids": (5, 3, 7),
            "lengths": (5, 3),
            "scores": (5, 3),
            "penalised_scores": (5, 3),
            "token_scores": (5, 3, 7),
            "alignments": (5, 3, 7, 3),
            "finished": (5, 3),
        }
        floats = ("scores", "penalised_scores", "token_scores", "alignments")
        assert {getattr(found, name).dtype for name in floats} == {np.dtype(dtype)}
        assert found.token_ids.dtype == found.lengths.dtype == np.int64
        assert found.finished.dtype == bool


def test_single_precision_finds_the_same():
    nodes = table(4)
    for found, exact in zip(both(nodes, MIXED, dtype="float32"), both(nodes, MIXED), strict=True):
        np.testing.assert_array_equal(found.token_ids, exact.token_ids)
        np.testing.assert_allclose(found.penalised_scores, exact.penalised_scores, rtol=1e-5)
        np.testing.assert_allclose(found.alignments, exact.alignments, rtol=1e-5)


@few
@given(tables(), batches(), st.sampled_from([1, 3]))
def test_scores_and_alignments_are_those_of_walking_along_the_ids(nodes, rows, width):
    rows = [row._replace(seeds=tuple(range(width))) for row in rows]
    for found in (beam(nodes, rows, width), sample(nodes, rows, width)):
        assert ((found.lengths > 0) == (found.scores > -np.inf)).all()
        sums = np.where(found.lengths > 0, found.token_scores.sum(-1), -np.inf)
        np.testing.assert_allclose(found.scores, sums, rtol=1e-12)
        for b, k in np.argwhere(found.lengths > 0):
            length = found.lengths[b, k]
            ids = found.token_ids[b, k, :length]
            visited = nodes.visited(rows[b].first, ids)
            np.testing.assert_allclose(
                found.token_scores[b, k, :length], nodes.log_p[visited, ids], rtol=1e-12
            )
            np.testing.assert_array_equal(
                found.alignments[b, k, :length], nodes.alignments[visited]
            )
            assert found.finished[b, k] == (ids[-1] == EOS)
            assert found.finished[b, k] or length == rows[b].max_length
            assert EOS not in ids[:-1] and PAD not in ids
        assert not found.token_scores[found.token_ids == PAD].any()
        assert not found.alignments[found.token_ids == PAD].any()


@few
@given(tables(), asked(max_length=STEPS), st.integers(0, 9))
def test_steps_beyond_what_is_needed_change_nothing(nodes, row, more):
    row = row._replace(seeds=(1, 2, 3))
    long, short = both(nodes, [row], steps=STEPS + more), both(nodes, [row], steps=STEPS)
    for found, expected in zip(long, short, strict=True):
        assert found.token_ids.shape == (1, 3, STEPS + more)
        for name in ("token_ids", "token_scores", "alignments"):
            assert not getattr(found, name)[:, :, STEPS:].any()
        cut = {name: getattr(found, name)[:, :, :STEPS] for name in found._fields[::4]}
        assert set(cut) == {"token_ids", "token_scores"}
        cut["alignments"] = found.alignments[:, :, :STEPS]
        assert_same(found._replace(**cut), expected)


def test_no_rows_give_no_rows():
    for found in both(table(), [], steps=4):
        assert [len(array) for array in found] == [0] * 7
        assert found.token_ids.shape == (0, 3, 4) and found.alignments.shape == (0, 3, 4, 3)


def test_no_attention_gives_alignments_of_width_0():
    nodes = table(source=0)
    rows = [row._replace(source_mask=None) for row in MIXED]
    found, drawn = both(nodes, rows)
    assert found.alignments.shape == drawn.alignments.shape == (5, 3, 5, 0)
    without = beam(nodes, [row._replace(coverage_penalty=0.0) for row in rows], 3)
    assert_same(found, without)
    for b, row in enumerate(rows):
        assert_row(found, b, reference_beam(nodes, row, 3)[0], nodes, row.first)


# === When it ends ===


def test_it_ends_with_the_last_row():
    nodes = table(3, end=30.0)  # an end at once
    row = Asked(0, 500, seeds=(1, 2, 3))
    found = beam(nodes, [row], 1, steps=500)
    assert found.lengths.tolist() == [[1]] and graph(Ranking, 1).taken == 1
    sample(nodes, [row, row], 3, steps=500)
    assert graph(Draw, 3).taken == 1
    sample(nodes, [row, row._replace(first=2, min_length=4)], 3, steps=500)
    assert graph(Draw, 3).taken == 4
    beam(nodes, [row._replace(min_length=3), row], 1, steps=500)
    assert graph(Ranking, 1).taken == 3
    beam(table(3, end=-30.0), [Asked(0, 2), Asked(1, 4), Asked(2, 1)], 1)
    assert graph(Ranking, 1).taken == 4


def test_where_no_token_is_allowed_there_is_no_hypothesis_and_no_further_step():
    rows = [Asked(0, 500, banned=(2, 3, 4, 5), seeds=(1, 2, 3))] * 2
    for found, how in zip(both(table(), rows, steps=500), (Ranking, Draw), strict=True):
        assert_nothing(found, slice(None))
        assert graph(how, 3).taken == 1


# === Rows are on their own ===


@few
@given(tables(), st.data(), st.permutations(range(5)))
def test_a_row_does_not_depend_on_its_neighbours(nodes, data, order):
    """Alone, in a batch and in another order, whatever the others ask for."""
    draws = {"temperature": 1.5, "top_k": 3, "top_p": 0.9}
    rows = [data.draw(asked(seeds=(b, -b, 9), **draws if b % 2 else {})) for b in range(5)]
    order = list(order)
    together = both(nodes, rows, steps=STEPS)
    permuted = both(nodes, [rows[b] for b in order], steps=STEPS)
    for found, other in zip(together, permuted, strict=True):
        assert_same(rows_of(found, order), other)
    for b in (0, 3):
        for found, alone in zip(together, both(nodes, [rows[b]], steps=STEPS), strict=True):
            assert_same(rows_of(found, [b]), alone)


def test_rows_that_stop_early_wait_unchanged_for_those_that_run_on():
    nodes = table(8, end=1.0)
    early, late = Asked(0, 4, num_return=1), Asked(1, 5, min_length=5)
    alone = beam(nodes, [early], 3, steps=5)
    taken = graph(Ranking, 3).taken
    assert taken < 4
    found = beam(nodes, [late, early, late], 3, steps=5)
    assert graph(Ranking, 3).taken == 5
    assert_same(rows_of(found, [1]), alone)


# === Graphs ===


@pytest.mark.parametrize("how", [Ranking, Draw])
def test_one_trace_serves_all_batches_lengths_and_settings(how):
    run = Graph(how, 3)
    calls = [
        (table(), MIXED, ALLOWED),
        (table(1, size=5, source=7), [Asked(1, 2, seeds=(1, 2, 3))], None),
        (table(2, size=4, source=0), [Asked(seeds=(1, 2, 3))] * 4, None),
        (table(3), [], None),
        (table(4), MIXED[::-1], None),
        (table(5), MIXED[2:3], ALLOWED[:1]),
    ]
    for nodes, rows, allowed in calls:
        if nodes.alignments.shape[1] != 3:
            rows = [row._replace(source_mask=None) for row in rows]
        ranked = how is Ranking
        given = ranking_of(rows) if ranked else draw_of(rows, 3)
        found = run(*arguments(nodes, rows, given, allowed=allowed))
        assert len(found.lengths) == len(rows)
        for b, row in enumerate(rows if ranked else []):
            expected, _ = reference_beam(nodes, row, 3, allowed)
            assert_row(found, b, expected, nodes, row.first)
    assert len(run.traces) == 1


def compiled(*given, width):
    """Search as `Graph` does, compiled for the shapes of what is given."""
    *arrays, steps = tf.nest.flatten(given)

    @tf.function(jit_compile=True, autograph=False)
    def run(*arrays):
        return searched(given, [*arrays, steps], width)

    return SearchResult(*(x.numpy() for x in run(*map(tf.constant, arrays))))


@pytest.mark.parametrize("how", ["greedy", "beam", "sample"])
def test_compiled_graphs_find_the_same(how):
    nodes, width = table(3), 1 if how == "greedy" else 3
    # Some tokens are as probable as others at the same node.
    log_p = [reference.log_softmax(row) for row in np.round(nodes.log_p)]
    nodes = nodes.changed(log_p=log_p)
    rows = [row._replace(seeds=row.seeds[:width]) for row in MIXED]
    rows.append(Asked(2, 4, no_repeat=2, length_penalty=1.0, seeds=(4, 5, 6)[:width]))
    given = draw_of(rows, width) if how == "sample" else ranking_of(rows)
    found = compiled(*arguments(nodes, rows, given, allowed=ALLOWED), width=width)
    run = sample if how == "sample" else beam
    expected = run(nodes, rows, width, allowed=ALLOWED)
    assert (expected.lengths > 0).any(axis=1).sum() >= 5
    for name, array in found._asdict().items():
        desired = getattr(expected, name)
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, desired, rtol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(array, desired, name)


# === Its parts ===


@pytest.mark.parametrize("how", [Ranking, Draw])
def test_one_step_at_a_time_is_the_same_search(how):
    nodes, steps = table(6), 5
    rows = [row._replace(seeds=(7,)) for row in MIXED]
    given = ranking_of(rows) if how is Ranking else draw_of(rows, 1)
    _, first, settings, given, mask, _ = arguments(nodes, rows, given)
    settings = clamped(tf.nest.map_structure(tf.constant, settings), steps)
    given = type(given)(*map(tf.constant, given))
    choice = choice_of(given, 1, settings.max_length, tf.constant(mask))
    rules = rules_of(settings, steps, 1)

    def step(token_ids, state):
        now = nodes.following[state[0].numpy(), token_ids.numpy()]
        return (
            tf.constant(nodes.log_p[now]),
            tf.constant(nodes.alignments[now]),
            (tf.constant(now),),
        )

    walk = begin((tf.constant(first),), choice, rules, len(rows), 3, tf.float64)
    assert walk.slots.token.numpy().tolist() == [[BOS]] * 5
    tokens, alignments = [], []
    for t in range(steps):
        trace, walk = advance(step, choice, rules, tf.constant(t, tf.int64), walk)
        tokens.append(walk.slots.token.numpy())
        alignments.append(trace.alignments.numpy())
        np.testing.assert_array_equal(trace.token, walk.slots.token)
    found = beam(nodes, rows, 1) if how is Ranking else sample(nodes, rows, 1)
    np.testing.assert_array_equal(np.stack(tokens, axis=2), found.token_ids)
    np.testing.assert_array_equal(walk.slots.score, found.scores)
    np.testing.assert_array_equal(walk.slots.rank, found.penalised_scores)
    assert walk.slots.ended.numpy().all()
    real = (found.token_ids != PAD)[..., None]
    np.testing.assert_array_equal(np.stack(alignments, axis=2) * real, found.alignments)


def test_states_may_be_nested_and_of_any_rank_and_follow_their_hypotheses():
    nodes, rows = table(4), MIXED[:2]
    _, first, settings, given, mask, _ = arguments(nodes, rows, ranking_of(rows))

    def kept(now):
        """Return the node twice more, as arrays of several axes."""
        return tf.repeat(now[:, None, None], 4, axis=1), tf.cast(now, tf.float16)[:, None, None]

    @tf.function(autograph=False)
    def run(first):
        def step(token_ids, state):
            ((now,), (many, half)), nothing = state
            # Zero, if all of the state has come along.
            lost = tf.abs(many[:, -1, 0] - now) + tf.abs(tf.cast(half[:, 0, 0], now.dtype) - now)
            now = tf.gather_nd(tf.constant(nodes.following), tf.stack([now, token_ids], axis=1))
            log_p = tf.gather(tf.constant(nodes.log_p), now) - tf.cast(lost, tf.float64)[:, None]
            alignments = tf.gather(tf.constant(nodes.alignments), now)
            return log_p, alignments, (((now,), kept(now)), nothing)

        limits = clamped(settings, 5)
        ranking, seen = Ranking(*map(tf.constant, given)), tf.constant(mask)
        choice = choice_of(ranking, 3, limits.max_length, seen)
        state = (((first,), kept(first)), ())
        return search(step, state, choice, rules_of(limits, 5, 3), batch=2, steps=5)

    found = SearchResult(*(x.numpy() for x in run(tf.constant(first))))
    assert_same(found, beam(nodes, rows, 3))


class NoMultiple(Rule):
    """No target of which the ids of a beginning sum to a multiple of 3."""

    def begin(self, rows):
        return (tf.zeros([rows], tf.int64),)

    def restrict(self, t, allowed, state, log_p):
        sums = state[0][:, None] + tf.range(tf.shape(allowed, tf.int64)[1])
        return tf.where(sums % 3 != 0, allowed, tf.constant(-np.inf, allowed.dtype))

    def advance(self, t, token, state):
        return (state[0] + token,)


@pytest.mark.parametrize("seed", range(4))
def test_what_a_rule_carries_follows_its_hypothesis(seed):
    nodes, rows = table(seed), [Asked(first) for first in range(FIRSTS)]
    _, first, settings, given, mask, _ = arguments(nodes, rows, ranking_of(rows))

    @tf.function(autograph=False)
    def run(first):
        def step(token_ids, state):
            now = tf.gather_nd(nodes.following, tf.stack([state[0], token_ids], axis=1))
            return tf.gather(nodes.log_p, now), tf.gather(nodes.alignments, now), (now,)

        limits = clamped(settings, 5)
        choice = choice_of(
            Ranking(*map(tf.constant, given)), 60, limits.max_length, tf.constant(mask)
        )
        rules = (*rules_of(limits, 5, 60), NoMultiple())
        return search(step, (first,), choice, rules, batch=len(rows), steps=5)

    found = SearchResult(*(x.numpy() for x in run(tf.constant(first))))
    for b, row in enumerate(rows):
        expected = [one for one in best(nodes, row) if all(np.cumsum(one.token_ids) % 3 != 0)]
        assert 10 < len(expected) <= 60
        assert_row(found, b, expected, nodes, row.first)


def test_a_choice_has_to_say_how_it_begins_and_chooses():
    choice = Choice()
    assert choice.width == 1 and not choice.reorders
    with pytest.raises(NotImplementedError):
        choice.begin(1, 1, tf.float32)
    with pytest.raises(NotImplementedError):
        choice.choose(0, None, None, None, ())


def test_a_rule_carries_nothing_unless_it_says_so():
    assert Rule().begin(3) == () and Rule().advance(0, None, ()) == ()
    with pytest.raises(NotImplementedError):
        Rule().restrict(0, None, (), None)
