"""Greedy search over a random table, against a NumPy loop for one source at a time."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attn.search import greedy
from keras_attn.types import BOS, EOS, PAD, SearchResult

VOCABULARY, STATES, SOURCE = 6, 5, 4
few = settings(max_examples=20, deadline=None, derandomize=True)


class Table:
    """A step function: the state gives logits and alignments, and with the token the next state.

    PAD and BOS are the most probable tokens everywhere.
    """

    def __init__(self, seed=0, dtype=np.float64, end=0.0):
        random = np.random.default_rng(seed)
        self.logits = random.normal(size=(STATES, VOCABULARY)) * 2
        self.logits[:, [PAD, BOS]] += 5
        self.logits[:, EOS] += end
        self.alignments = random.dirichlet(np.ones(SOURCE), size=STATES)
        self.following = random.integers(0, STATES, (STATES, VOCABULARY))
        self.logits, self.alignments = self.logits.astype(dtype), self.alignments.astype(dtype)

    def step(self, token_ids, state):
        """What `greedy` calls."""
        (now,) = state
        following = tf.gather_nd(tf.constant(self.following), tf.stack([now, token_ids], axis=1))
        return tf.gather(self.logits, now), tf.gather(self.alignments, now), (following,)

    def one_step(self, token_id, now):
        """What the reference calls."""
        return self.logits[now], self.following[now, token_id]

    def visited(self, first, token_ids):
        """The state at each of the tokens."""
        states = [first]
        for token_id in [BOS, *token_ids[:-1]]:
            states.append(self.following[states[-1], token_id])
        return states[:-1]


def search(table, first, max_length, forced_end=None, steps=None):
    """Search, in a graph, from the states `first` (B,)."""
    first, max_length = np.asarray(first, np.int64), np.asarray(max_length, np.int32)
    steps = max(max_length, default=3) if steps is None else steps
    forced_end = np.zeros(len(first), bool) if forced_end is None else np.asarray(forced_end, bool)

    @tf.function(autograph=False)
    def run(first, max_length, steps, forced_end):
        return greedy(
            table.step, (first,), max_length=max_length, steps=steps, forced_end=forced_end
        )

    found = run(*map(tf.constant, (first, max_length, steps, forced_end)))
    return SearchResult(*(array.numpy() for array in found))


def padded(row, width):
    return [*row, *[0] * (width - len(row))]


def same(table, found, first, max_length, forced_end, tolerance):
    """Hold a result to the reference, row by row."""
    rows, _, width = found.token_ids.shape
    assert rows == len(first)
    for b in range(rows):
        expected = reference.greedy(table.one_step, first[b], max_length[b], forced_end[b])
        length = len(expected.token_ids)
        assert found.token_ids[b, 0].tolist() == padded(expected.token_ids, width)
        assert found.lengths[b, 0] == length
        assert found.finished[b, 0] == expected.finished
        np.testing.assert_allclose(found.scores[b, 0], expected.score, rtol=tolerance)
        np.testing.assert_allclose(
            found.token_scores[b, 0], padded(expected.token_scores, width), rtol=tolerance
        )
        visited = table.visited(first[b], expected.token_ids)
        assert (found.alignments[b, 0, :length] == table.alignments[visited]).all()
        assert (found.alignments[b, 0, length:] == 0).all()
    assert (found.penalised_scores == found.scores).all()


rows = st.lists(
    st.tuples(st.integers(0, STATES - 1), st.integers(1, 7), st.booleans()), min_size=1, max_size=5
)


@few
@given(st.integers(0, 9999), rows, st.sampled_from([np.float32, np.float64]))
def test_it_equals_the_reference(seed, rows, dtype):
    first, max_length, forced_end = map(list, zip(*rows, strict=True))
    table = Table(seed, dtype)
    found = search(table, first, max_length, forced_end)
    same(table, found, first, max_length, forced_end, 1e-12 if dtype == np.float64 else 1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_and_dtypes(dtype):
    found = search(Table(0, dtype), [0, 1, 2], [5, 3, 1])
    assert {name: array.shape for name, array in found._asdict().items()} == {
        "token_ids": (3, 1, 5),
        "lengths": (3, 1),
        "scores": (3, 1),
        "penalised_scores": (3, 1),
        "token_scores": (3, 1, 5),
        "alignments": (3, 1, 5, SOURCE),
        "finished": (3, 1),
    }
    floats = ("scores", "penalised_scores", "token_scores", "alignments")
    assert {getattr(found, name).dtype for name in floats} == {np.dtype(dtype)}
    assert found.token_ids.dtype == np.int64 and found.finished.dtype == bool


def test_pad_and_bos_are_scored_but_never_chosen():
    table = Table(1)
    assert set(table.logits.argmax(axis=1)) <= {PAD, BOS}
    found = search(table, range(STATES), [6] * STATES)
    tokens = found.token_ids[found.token_scores != 0]
    assert len(tokens) and not set(tokens) & {PAD, BOS}
    # Were they left out of the distribution, the best of 4 would have a probability above 1 / 4.
    assert found.token_scores[:, :, 0].max() < np.log(1 / 4)


@pytest.mark.parametrize("logit", [-np.inf, np.nan])
def test_pad_and_bos_are_not_chosen_even_if_nothing_else_is_possible(logit):
    table = Table(1)
    table.logits[:, EOS:] = logit
    found = search(table, [0, 1], [3, 3])
    assert found.token_ids[:, 0, 0].tolist() == [EOS, EOS]
    assert not np.isfinite(found.scores).any()


def test_equals_go_to_the_smallest_id():
    table = Table(0)
    table.logits[:] = 0
    table.logits[:, EOS] = -1
    assert search(table, [0], [2]).token_ids.tolist() == [[[3, 3]]]


def test_forced_ends_come_first_whatever_the_scores():
    table = Table(2, end=-20.0)
    found = search(table, [0, 0], [4, 4], [True, False])
    assert found.token_ids[0, 0].tolist() == [EOS, PAD, PAD, PAD]
    assert EOS not in found.token_ids[1] and found.finished.tolist() == [[True], [False]]
    assert found.scores[0, 0] == pytest.approx(reference.log_softmax(table.logits[0])[EOS])


def test_every_row_has_its_own_maximum():
    found = search(Table(2, end=-20.0), [0] * 4, [1, 4, 2, 3])
    assert found.lengths.ravel().tolist() == [1, 4, 2, 3]
    assert not found.finished.any()
    longest = found.token_ids[1, 0]
    for row, length in zip(found.token_ids[:, 0], (1, 4, 2, 3), strict=True):
        assert row.tolist() == padded(longest[:length], 4)


def test_a_row_does_not_depend_on_its_neighbours():
    table, first, limits = Table(5), [0, 1, 2, 3, 4], [6, 2, 5, 1, 6]
    together = search(table, first, limits, steps=6)
    for b in range(5):
        alone = search(table, first[b : b + 1], limits[b : b + 1], steps=6)
        for name, array in together._asdict().items():
            np.testing.assert_array_equal(array[b : b + 1], getattr(alone, name), name)


def test_stopping_early_changes_nothing_but_the_time():
    table, runs = Table(3, end=6.0), tf.Variable(0)

    def step(token_ids, state):
        runs.assign_add(1)
        return Table.step(table, token_ids, state)

    short = search(table, [0, 1], [5, 4], steps=5)
    assert short.finished.all()
    table.step = step
    long = search(table, [0, 1], [500, 400], steps=500)
    assert int(runs) < 10
    assert long.token_ids.shape == (2, 1, 500)
    for name in ("token_ids", "token_scores", "alignments"):
        found, expected = getattr(long, name), getattr(short, name)
        assert (found[:, :, :5] == expected).all() and (found[:, :, 5:] == 0).all()
    for name in ("lengths", "scores", "penalised_scores", "finished"):
        assert (getattr(long, name) == getattr(short, name)).all()


def test_no_rows_give_no_rows():
    found = search(Table(0), [], [], steps=4)
    assert [len(array) for array in found] == [0] * 7
    assert found.token_ids.shape == (0, 1, 4) and found.alignments.shape == (0, 1, 4, SOURCE)


def test_no_attention_gives_alignments_of_width_0():
    table = Table(0)
    table.alignments = table.alignments[:, :0]
    assert search(table, [0, 1], [3, 3]).alignments.shape == (2, 1, 3, 0)


def test_it_is_traced_once_for_all_batches_and_lengths():
    table, traces = Table(0), []
    vector, scalar = tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int32)

    @tf.function(input_signature=[vector, vector, scalar], autograph=False)
    def run(first, max_length, steps):
        traces.append(1)
        never = tf.zeros_like(first, tf.bool)
        return greedy(table.step, (first,), max_length=max_length, steps=steps, forced_end=never)

    for batch, limit in ((1, 3), (4, 7), (2, 1), (0, 2)):
        first, max_length = np.arange(batch), np.full(batch, limit)
        found = run(first, max_length, limit)
        found = SearchResult(*(array.numpy() for array in found))
        assert found.token_ids.shape == (batch, 1, limit)
        same(table, found, first, max_length, [False] * batch, 1e-12)
    assert len(traces) == 1


def test_states_may_be_nested_tuples():
    table = Table(4)

    def step(token_ids, state):
        ((now,), (count,)), nothing = state
        logits, alignments, (following,) = table.step(token_ids, (now,))
        return logits, alignments, (((following,), (count + 1,)), nothing)

    @tf.function(autograph=False)
    def run(first):
        state = (((first,), (tf.zeros_like(first),)), ())
        never = tf.zeros_like(first, tf.bool)
        return greedy(step, state, max_length=first * 0 + 5, steps=5, forced_end=never)

    expected = search(table, [1, 3], [5, 5])
    for name, array in run(tf.constant([1, 3], tf.int64))._asdict().items():
        np.testing.assert_array_equal(array, getattr(expected, name), name)
