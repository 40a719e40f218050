"""Decoding steps read from tables, and searches over them beside those of the reference."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import reference
import tensorflow as tf
from hypothesis import settings
from hypothesis import strategies as st

from keras_attn.search import (
    NO_TRIE,
    Draw,
    Ranking,
    Settings,
    Trie,
    choice_of,
    clamped,
    rules_of,
    search,
    trie_of,
)
from keras_attn.types import BOS, EOS, PAD, SearchResult

few = settings(max_examples=20, deadline=None, derandomize=True)

WIDE = 400  # more than the hypotheses of 5 tokens out of 4, which are 364
FIRSTS = 4  # places at which a walk may begin, as so many sources
STEPS = 5


class Table(NamedTuple):
    """A step: a token leads from a node to the next, which has log p and alignments.

    Attributes:
        log_p: Float (M, V).
        alignments: Float (M, S).
        following: Int (M, V), the node behind node and token.
    """

    log_p: np.ndarray
    alignments: np.ndarray
    following: np.ndarray

    def one_step(self, token_id, node):
        """Take the step of the reference."""
        node = self.following[node, token_id]
        return self.log_p[node], self.alignments[node], node

    def visited(self, first, token_ids):
        """Return the node at which each of the tokens is chosen."""
        nodes = []
        for token_id in [BOS, *token_ids][: len(token_ids)]:
            first = self.following[first, token_id]
            nodes.append(first)
        return nodes

    def changed(self, **arrays):
        """Return a copy with other arrays; log p is taken as it is."""
        return self._replace(**{name: np.array(array) for name, array in arrays.items()})


def table(seed=0, size=6, source=3, steps=STEPS, kind="layers", end=0.0, sharp=2.0):
    """Return a random table, in which PAD and BOS are likely.

    Args:
        seed: Int.
        size: Int V.
        source: Int S.
        steps: Int, the tokens before nodes come again.
        kind: "layers", where several ways meet at each node, or "history", where none do. In both
            no node is met twice, since hypotheses that differ in nothing but the order of their
            steps would be of equal probability.
        end: Float, added to the logit of EOS.
        sharp: Float, deviation of the logits.
    """
    random = np.random.default_rng([seed, size, source, steps])
    nodes, following = [], []
    if kind == "layers":
        for level in range(steps + 1):
            nodes += range(FIRSTS * level, FIRSTS * (level + 1))
            behind = FIRSTS * min(level + 1, steps)
            following += [behind + random.integers(0, FIRSTS, size) for _ in range(FIRSTS)]
    else:
        level, nodes = list(range(FIRSTS)), list(range(FIRSTS))
        for depth in range(steps):
            above, level = level, []
            for _ in above:
                row = np.zeros(size, np.int64)
                for token in range(size) if depth == 0 else range(EOS + 1, size):
                    if depth > 0 or token == BOS:
                        row[token] = len(nodes)
                        level.append(len(nodes))
                        nodes.append(len(nodes))
                following.append(row)
        following += [np.zeros(size, np.int64)] * len(level)
    logits = random.normal(size=(len(nodes), size)) * sharp
    logits[:, [PAD, BOS]] += 1
    logits[:, EOS] += end
    log_p = np.array([reference.log_softmax(row) for row in logits])
    alignments = random.dirichlet(np.full(source, 0.3), len(nodes)) if source else logits[:, :0]
    return Table(log_p, alignments, np.array(following))


class Asked(NamedTuple):
    """What is asked of one source; of a beam, of draws, or of both."""

    first: int = 0
    max_length: int = STEPS
    min_length: int = 0
    prefix: tuple = ()
    banned: tuple = ()
    no_repeat: int = 0
    beam_size: int = WIDE
    num_return: int = WIDE
    length_penalty: float = 0.0
    coverage_penalty: float = 0.0
    source_mask: tuple | None = None
    seeds: tuple = (0,)
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def rules(self, allowed=None):
        """Return the options that `reference.choices` takes."""
        return {
            "min_length": min(self.min_length, self.max_length),
            "prefix": self.prefix,
            "banned": self.banned,
            "no_repeat": self.no_repeat,
            "allowed": allowed,
        }

    def penalties(self):
        """Return the options of a ranking in the reference, as exact as the float32 given."""
        return {
            "length_penalty": float(np.float32(self.length_penalty)),
            "coverage_penalty": float(np.float32(self.coverage_penalty)),
            "source_mask": self.source_mask,
        }


def _wide(rows, at_least=0):
    """Return rows of unequal length as one array, PAD behind them."""
    width = max([at_least, *map(len, rows)])
    array = np.full((len(rows), width), PAD, np.int32)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array


def settings_of(rows, allowed=None) -> Settings:
    """Return the settings of `Asked`, absent rules of width 0."""
    no_repeat = np.array([row.no_repeat for row in rows], np.int32).reshape(-1, 1)
    return Settings(
        max_length=np.array([row.max_length for row in rows], np.int32),
        min_length=np.array([row.min_length for row in rows], np.int32),
        prefix=_wide([row.prefix for row in rows]),
        banned=_wide([row.banned for row in rows]),
        no_repeat=no_repeat if no_repeat.any() else no_repeat[:, :0],
        trie=NO_TRIE if allowed is None else trie_of(allowed),
    )


def ranking_of(rows) -> Ranking:
    """Return the ranking of `Asked`; without a coverage penalty of width 0."""
    coverage = np.array([row.coverage_penalty for row in rows], np.float32).reshape(-1, 1)
    return Ranking(
        beam_size=np.array([row.beam_size for row in rows], np.int32),
        num_return=np.array([row.num_return for row in rows], np.int32),
        length_penalty=np.array([row.length_penalty for row in rows], np.float32),
        coverage_penalty=coverage if np.any(coverage != 0) else coverage[:, :0],
    )


def draw_of(rows, width) -> Draw:
    """Return the draws of `Asked`."""
    return Draw(
        seed=np.array([row.seeds for row in rows], np.int64).reshape(len(rows), width),
        temperature=np.array([row.temperature for row in rows], np.float32),
        top_k=np.array([row.top_k for row in rows], np.int32),
        top_p=np.array([row.top_p for row in rows], np.float32),
    )


IDS, ROWS = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
FLOATS, MATRIX = tf.TensorSpec([None], tf.float32), tf.TensorSpec([None, None], tf.float32)
SETTINGS = Settings(ROWS, ROWS, IDS, IDS, IDS, Trie(ROWS, ROWS, ROWS))
HOW = {
    Ranking: Ranking(ROWS, ROWS, FLOATS, MATRIX),
    Draw: Draw(tf.TensorSpec([None, None], tf.int64), FLOATS, ROWS, FLOATS),
}


class Graph:
    """A search over any table, batch and settings, traced once.

    Args:
        how: `Ranking` or `Draw`.
        width: Int K.
        dtype: Of log p.

    Attributes:
        traces: List with an entry a trace.
        taken: Int, steps of the last run.
    """

    def __init__(self, how: Any, width: int, dtype: str = "float64"):
        self.dtype, self.traces, self.taken = dtype, [], 0
        self.calls = tf.Variable(0)
        floats = tf.TensorSpec([None, None], dtype)
        nodes = Table(floats, floats, tf.TensorSpec([None, None], tf.int64))
        first, mask = tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None], tf.bool)
        self.signature = (nodes, first, SETTINGS, HOW[how], mask, tf.TensorSpec([], tf.int32))

        @tf.function(input_signature=tf.nest.flatten(self.signature), autograph=False)
        def run(*arrays):
            self.traces.append(1)
            return searched(self.signature, arrays, width, calls=self.calls)

        self.run = run

    def __call__(self, *arguments):
        """Return a `SearchResult` of arrays."""
        specs = tf.nest.flatten(self.signature)
        arrays = tf.nest.flatten(arguments)
        self.calls.assign(0)
        given = [tf.constant(a, s.dtype) for a, s in zip(arrays, specs, strict=True)]
        found = SearchResult(*(x.numpy() for x in self.run(*given)))
        self.taken = int(self.calls) - 1  # one is for the dtypes alone
        return found


def searched(signature, arrays, width, calls=None) -> SearchResult:
    """Search in a graph, as the models do it."""
    nodes, first, given, how, mask, steps = tf.nest.pack_sequence_as(signature, arrays)

    def step(token_ids, state):
        if calls is not None:
            calls.assign_add(1)
        (now,) = state
        now = tf.gather_nd(nodes.following, tf.stack([now, token_ids], axis=1))
        return tf.gather(nodes.log_p, now), tf.gather(nodes.alignments, now), (now,)

    given = clamped(given, steps)
    choice = choice_of(how, width, given.max_length, mask)
    rules = rules_of(given, steps, width)
    return search(step, (first,), choice, rules, batch=tf.shape(first)[0], steps=steps)


_graphs = functools.cache(Graph)


def graph(how, width, dtype="float64") -> Graph:
    """Return the search of that kind and width, traced once for all tests."""
    return _graphs(how, width, dtype)


def arguments(nodes, rows, how, steps=None, allowed=None):
    """Return what a `Graph` takes, as nested arrays."""
    if steps is None:
        steps = max([1, *(row.max_length for row in rows)])
    source = nodes.alignments.shape[1]
    mask = [[True] * source if row.source_mask is None else row.source_mask for row in rows]
    mask = np.array(mask, bool).reshape(len(rows), source)
    first = np.array([row.first for row in rows], np.int64)
    return nodes, first, settings_of(rows, allowed), how, mask, steps


def beam(nodes, rows, width, steps=None, allowed=None, dtype="float64") -> SearchResult:
    """Search a batch of `Asked` with a beam."""
    given = arguments(nodes, rows, ranking_of(rows), steps, allowed)
    return graph(Ranking, width, dtype)(*given)


def sample(nodes, rows, width=1, steps=None, allowed=None, dtype="float64") -> SearchResult:
    """Draw for a batch of `Asked`."""
    given = arguments(nodes, rows, draw_of(rows, width), steps, allowed)
    return graph(Draw, width, dtype)(*given)


# === Comparison ===


def assert_row(found, b, expected, nodes, first, tolerance=1e-11):
    """Assert that row `b` of a result is these hypotheses, and nothing behind them.

    Ids, lengths and ends are compared as they are, numbers to a relative `tolerance`; alignments
    with those of walking along the ids.
    """
    number, width = found.token_ids.shape[1:]
    assert ids_of(found, b) == [one.token_ids for one in expected] + [()] * (number - len(expected))

    def close(actual, numbers):
        np.testing.assert_allclose(actual, numbers, rtol=tolerance, atol=tolerance)

    close(found.scores[b, : len(expected)], [one.score for one in expected])
    close(found.penalised_scores[b, : len(expected)], [one.penalised_score for one in expected])
    for k, one in enumerate(expected):
        length = len(one.token_ids)
        assert found.finished[b, k] == one.finished
        assert not found.token_ids[b, k, length:].any()
        close(found.token_scores[b, k], [*one.token_scores, *[0.0] * (width - length)])
        visited = nodes.visited(first, one.token_ids)
        np.testing.assert_allclose(
            found.alignments[b, k, :length], nodes.alignments[visited], rtol=1e-6
        )
        assert not found.alignments[b, k, length:].any()
    assert_nothing(found, b, slice(len(expected), None))


def assert_nothing(found, b, k=slice(None)):
    """Assert that there is no hypothesis there: score -inf, length 0, all PAD."""
    assert (found.scores[b, k] == -np.inf).all()
    assert (found.penalised_scores[b, k] == -np.inf).all()
    for array in (found.lengths, found.token_ids, found.token_scores, found.alignments):
        assert not array[b, k].any()
    assert not found.finished[b, k].any()


def ids_of(found, b):
    """Return the ids of every slot of a row, without padding."""
    pairs = zip(found.token_ids[b].tolist(), found.lengths[b], strict=True)
    return [tuple(ids[:length]) for ids, length in pairs]


def assert_same(found, expected):
    """Assert that two results are equal; penalised scores, but for the last bits of a power."""
    for name, array in found._asdict().items():
        desired = getattr(expected, name)
        if name == "penalised_scores":
            np.testing.assert_allclose(array, desired, rtol=1e-14, err_msg=name)
        else:
            np.testing.assert_array_equal(array, desired, name)


def rows_of(found, b):
    """Return some rows of a result, in that order."""
    return SearchResult(*(array[b] for array in found))


def narrowed(found, number):
    """Return the first hypotheses of each row."""
    return SearchResult(*(array[:, :number] for array in found))


def reference_beam(nodes, row, width, allowed=None):
    """Return what the reference finds for `Asked` with a beam, and the number of its steps."""
    width = min(max(row.beam_size, 1), width)
    number = min(max(row.num_return, 1), width)
    options = row.penalties() | row.rules(allowed)
    return reference.beam(nodes.one_step, row.first, row.max_length, width, number, **options)


def best(nodes, row, allowed=None):
    """Return all hypotheses of the reference for `Asked`, best first."""
    options = row.penalties() | row.rules(allowed)
    return reference.brute_force_best(nodes.one_step, row.first, row.max_length, **options)


def reference_draws(nodes, row, allowed=None):
    """Return what the reference draws for each seed of `Asked`, None where it comes to nothing."""
    return [_drawn(nodes, row, seed, allowed) for seed in row.seeds]


def _drawn(nodes, row, seed, allowed):
    node, ids, scores = row.first, [], []
    while len(ids) < row.max_length and ids[-1:] != [EOS]:
        log_p, _, node = nodes.one_step(ids[-1] if ids else BOS, node)
        p = reference.sampling_probabilities(
            log_p,
            temperature=float(np.float32(row.temperature)),
            top_k=row.top_k,
            top_p=float(np.float32(row.top_p)),
            may_be=reference.choices(len(log_p), ids, **row.rules(allowed)),
        )
        number = reference.uniform(reference.fold(seed, len(ids)))
        token_id = reference.draw(p, number)
        if token_id is None:
            return None
        ids.append(token_id)
        scores.append(log_p[token_id])
    return reference.Hypothesis(tuple(ids), sum(scores), sum(scores), tuple(scores), ids[-1] == EOS)


# === Strategies ===

targets = st.lists(
    st.lists(st.integers(3, 5), min_size=1, max_size=4).map(lambda row: (*row, EOS)),
    min_size=3,
    max_size=9,
)


def tables(sizes=(4, 5, 6)):
    """Return random tables."""
    return st.builds(
        table,
        seed=st.integers(0, 9999),
        size=st.sampled_from(sizes),
        kind=st.sampled_from(["layers", "history"]),
        end=st.sampled_from([-2.0, 0.0, 2.0]),
        sharp=st.sampled_from([0.5, 2.0]),
    )


# What shows little, such as a prefix that is a whole target, is drawn seldom.
LENGTHS = [5, 5, 5, 4, 3, 2, 1]
PREFIXES = [(), (), (), (), (3,), (3, 3), (2,), (3, 2, 3)]
BANNED = [(), (), (3,), (4,), (2,), (5, 9), (4, 4, 0)]


@st.composite
def asked(draw, rules=True, penalties=True, source=3, **fixed):
    """What may be asked of one row; what is not drawn is left as it is by default."""
    given = {
        "first": draw(st.integers(0, FIRSTS - 1)),
        "max_length": draw(st.sampled_from(LENGTHS)),
    }
    if penalties:
        given["length_penalty"] = draw(st.sampled_from([0.6, 1.0, 4.0, 0.0]))
        given["coverage_penalty"] = draw(st.sampled_from([0.2, 1.5, 0.0]))
        mask = draw(st.lists(st.booleans(), min_size=source, max_size=source))
        given["source_mask"] = tuple(mask)
    if rules:
        given["min_length"] = draw(st.sampled_from([0, 0, 2, 3, 4, 6]))
        given["banned"] = draw(st.sampled_from(BANNED))
        given["no_repeat"] = draw(st.sampled_from([0, 2, 1, 3]))
        given["prefix"] = draw(st.sampled_from(PREFIXES))
    return Asked(**given | fixed)


def batches(least=4, most=6, **options):
    """Return lists of what may be asked."""
    return st.lists(asked(**options), min_size=least, max_size=most)
