"""What exported graphs make of ids, against a loop that says the same in Python."""

from __future__ import annotations

import numpy as np
import pytest
import small_models
import tensorflow as tf

from keras_attn.serving import signatures
from keras_attn.types import EOS, UNK


def by_hand(ids, length, size, most):
    """What a row of ids means, see `rows_of_ids`."""
    row = []
    for token in ids[: max(length, 0)]:
        if token == EOS or len(row) == most - 1:
            break
        row.append(token)
    return [*(token if 0 < token < size(len(row)) else UNK for token in row), EOS]


@pytest.mark.parametrize("name", ["combined", "attention_copy"])
def test_any_numbers_are_rows(name):
    model = small_models.shared(name)
    size, random = model.codec.source_limit, np.random.default_rng(0)
    for rows, width in ((0, 0), (0, 3), (3, 0), (40, 1), (60, 9), (60, 30)):
        low, high = -3, model.codec.source_size + 9
        ids = random.integers(low, high, (rows, width)).astype(np.int32)
        ids[random.random(ids.shape) < 0.1] = EOS
        ids[random.random(ids.shape) < 0.05] = np.iinfo(np.int32).max
        lengths = random.integers(-2, width + 3, rows).astype(np.int32)
        found = signatures.rows_of_ids(model, tf.constant(ids), tf.constant(lengths))
        expected = [
            by_hand(*given, size, model.max_source) for given in zip(ids, lengths, strict=True)
        ]
        longest = max((len(row) for row in expected), default=1)
        assert found.shape == (rows, longest) and found.dtype == tf.int32
        padded = [row + [0] * (longest - len(row)) for row in expected]
        assert found.numpy().tolist() == padded


def test_tensors_are_named_by_their_place():
    model = small_models.shared("attention")
    memory, state = model.encode(np.array([[5, 6, EOS]], np.int32))
    names = [name for name, _ in signatures.named((memory, state), "x")]
    assert names[:3] == ["x_0_keys", "x_0_values", "x_0_mask"]
    assert names[-1] == "x_1_fed" and "x_1_recurrent_0_1" in names


def test_there_is_one_graph_of_each_search(monkeypatch):
    calls = []

    def search(model, ids, width=1, **given):
        calls.append(width)
        return small_models_search(model, ids, width, **given)

    from keras_attn.models.runner import served as small_models_search

    made = signatures.signatures(small_models.shared("combined"), search, 3)
    for function in made.values():
        function.get_concrete_function()
    assert sorted(calls) == [1, 1, 3, 3]  # greedy, draws; beams, options
    assert "attend" not in made


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_what_is_left_out_of_a_step_is_as_long_as_the_source(heads):
    """Scores by location read no keys, but count them."""
    model = small_models.small("luong2015_location", num_heads=heads)
    steps, ids = signatures.Steps(model), np.array([[5, 6, 7, 2], [8, 2, 0, 0]], np.int32)
    given = steps.encode(tf.constant(ids))
    assert "memory_keys" not in given
    memory, state = model.encode(ids)
    logits, alignments, _ = model.step(tf.constant([1, 1]), state, memory)
    found = steps.step(tf.constant([1, 1]), **given)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-6)
    np.testing.assert_allclose(found["alignments"], alignments, atol=1e-6)
