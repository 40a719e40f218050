"""Search over every architecture, against all targets that there are."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import reference
import small_models

from keras_attn import zoo

every_name = pytest.mark.parametrize("name", small_models.SLOW)
SOURCES = np.array([[5, 6, 2], [4, 2, 0], [7, 5, 2], [2, 0, 0]], np.int32)
EMPTY = 3  # the row without tokens


@functools.cache
def tiny(name):
    """Return a random model of ids, with 4 tokens to choose from, and its longest target."""
    copies = name == "attention_copy"  # 3 more: one for each source token
    longest = 3 if copies else 4
    model = zoo.build(name, source=9, target=6, units=8, embedding_size=6, max_target=longest)
    return small_models.randomised(model, scale=0.8), longest


@functools.cache
def every_target(name):
    """Return all targets, ended or cut, int32 (n, T), with their scores (4, n) and coverage."""
    model, longest = tiny(name)
    size = model.codec.target_limit(SOURCES.shape[1])
    tokens = range(3, size)
    rows = [
        (*head, 2) for t in range(longest) for head in itertools.product(tokens, repeat=t)
    ] + list(itertools.product(tokens, repeat=longest))
    targets = np.array([row + (0,) * (longest - len(row)) for row in rows], np.int32)
    scores, covered = [], []
    for source in SOURCES:
        sources = np.tile(source, (len(rows), 1))
        unreachable = targets.max(axis=1) >= model.codec.target_limit((source != 0).sum())
        scores.append(np.where(unreachable, -np.inf, model.score(sources, targets)))
        target_in = np.concatenate([np.ones_like(targets[:, :1]), targets[:, :-1]], axis=1)
        alignments = np.array(model.alignments({"source": sources, "target_in": target_in}))
        total = np.where(targets[..., None] != 0, alignments, 0).sum(axis=1)
        real = (source != 0)[: total.shape[1]]
        covered.append(np.log(np.clip(total[:, real], 1e-9, 1)).sum(axis=1))
    return targets, np.array(scores), np.array(covered)


def ranks_of(name, alpha, beta):
    targets, scores, covered = every_target(name)
    lengths = (targets != 0).sum(axis=1)
    return scores / reference.length_penalty_of(lengths, alpha) + beta * covered


@every_name
@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (1.0, 0.0), (0.6, 0.4)])
def test_a_wide_beam_finds_the_best_of_all(name, alpha, beta):
    model, _ = tiny(name)
    beta *= model.attends
    targets, scores, _ = every_target(name)
    width = len(targets)
    found = model.search(
        SOURCES, beam_size=width, num_return=12, length_penalty=alpha, coverage_penalty=beta
    )
    ranks = ranks_of(name, alpha, beta)
    for row in range(EMPTY):
        best = np.argsort(-ranks[row], kind="stable")[:12]
        np.testing.assert_allclose(found.penalised_scores[row], ranks[row, best], atol=1e-4)
        for k in range(12):
            ids = found.token_ids[row, k]
            (at,) = np.flatnonzero(
                (targets[:, : len(ids)] == ids).all(1) & ~targets[:, len(ids) :].any(1)
            )
            assert abs(ranks[row, at] - ranks[row, best[k]]) < 1e-4  # a tie, at most
            assert abs(scores[row, at] - found.scores[row, k]) < 1e-4
            assert found.finished[row, k] == (2 in ids)
            assert found.lengths[row, k] == (ids != 0).sum()
    assert (
        found.token_ids[EMPTY, 0].tolist()[0] == 2
        and found.lengths[EMPTY].tolist() == [1] + [0] * 11
    )
    assert (found.scores[EMPTY, 1:] == -np.inf).all()


@every_name
def test_narrow_beams_are_no_better_and_greedy_is_the_narrowest(name):
    model, longest = tiny(name)
    best = ranks_of(name, 0.6, 0)[:EMPTY].max(axis=1)
    narrow = model.search(SOURCES, beam_size=3, length_penalty=0.6)
    assert (narrow.penalised_scores[:EMPTY, 0] <= best + 1e-5).all()
    assert (np.diff(narrow.penalised_scores[:EMPTY], axis=1) <= 0).all()
    one = model.search(SOURCES, beam_size=[1] * 3 + [3], length_penalty=0.6)
    greedy = model.search(SOURCES)
    np.testing.assert_array_equal(one.token_ids[:, 0], greedy.token_ids[:, 0])
    memory, state = model.encode(SOURCES)
    previous, ended = np.ones(4, np.int32), np.array([False] * 4)
    for t in range(greedy.token_ids.shape[2]):  # an independent loop
        logits, _, state = model.step(previous, state, memory)
        chosen = np.argmax(np.array(logits)[:, 2:], axis=1) + 2
        if t == 0:
            chosen[EMPTY] = 2
        np.testing.assert_array_equal(greedy.token_ids[:, 0, t], np.where(ended, 0, chosen))
        previous, ended = chosen, ended | (chosen == 2)
    np.testing.assert_allclose(
        greedy.scores[:, 0], model.score(SOURCES, greedy.token_ids[:, 0]), atol=1e-4
    )


@every_name
def test_a_source_is_searched_alike_in_any_company(name):
    model, _ = tiny(name)
    asked = {"beam_size": 3, "length_penalty": 0.6, "coverage_penalty": 0.2 * model.attends}
    together = model.search(SOURCES, **asked)
    order = [2, 0, 3, 1]
    wider = np.pad(SOURCES[order], ((0, 0), (0, 2)))
    again = model.search(wider, batch_size=3, **asked)
    alone = [model.search(SOURCES[i : i + 1], **asked) for i in range(4)]
    for place, i in enumerate(order):
        for other in (alone[i], type(again)(*(x[place : place + 1] for x in again))):
            steps = min(other.token_ids.shape[2], together.token_ids.shape[2])
            np.testing.assert_array_equal(
                other.token_ids[0, :, :steps], together.token_ids[i, :, :steps]
            )
            np.testing.assert_array_equal(other.lengths[0], together.lengths[i])
            np.testing.assert_allclose(other.scores[0], together.scores[i], atol=1e-5)


@every_name
def test_alignments_of_a_beam_are_those_of_its_targets(name):
    model, _ = tiny(name)
    found = model.search(SOURCES, beam_size=3)
    for row, k in itertools.product(range(EMPTY), range(3)):
        ids = found.token_ids[row, k][None]
        forced = model.search(SOURCES[row : row + 1], target=ids)
        length = found.lengths[row, k]
        assert forced.token_ids[0, 0].tolist() == ids[0, : forced.token_ids.shape[2]].tolist()
        np.testing.assert_allclose(forced.scores[0, 0], found.scores[row, k], atol=1e-4)
        np.testing.assert_allclose(
            forced.token_scores[0, 0, :length], found.token_scores[row, k, :length], atol=1e-4
        )
        size = forced.alignments.shape[-1]
        expected = found.alignments[row, k, :length, :size]
        np.testing.assert_allclose(forced.alignments[0, 0, :length], expected, atol=1e-5)
        assert (found.alignments[row, k, length:] == 0).all()


@every_name
def test_streams_are_what_is_generated(name):
    model = small_models.shared(name)
    for word in ("abc", "", "hello"):
        tokens = list(model.stream(word))
        assert " ".join(tokens) == model.generate(word)
