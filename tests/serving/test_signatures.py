"""What exported graphs make of ids, against a loop that says the same in Python."""

from __future__ import annotations

import json

import numpy as np
import pytest
import small_models
import tensorflow as tf

from keras_attn.serving import signatures
from keras_attn.serving.session import Session
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


def test_no_rows_are_of_no_width():
    """However wide they say that they are, which costs nobody anything to say."""
    found = signatures.rows_of_ids(
        small_models.shared("combined"), tf.zeros([0, 2**31 - 1], tf.int32), tf.zeros([0], tf.int32)
    )
    assert found.shape == (0, 1)


CONTRACT = {  # of an export of a model with attention; B rows, S and N positions
    "serving_default": ("source string B", "target string B, score float32 B"),
    "attend": (
        "source string B",
        "target string B, score float32 B, source_tokens string B 12, target_tokens string B 9, "
        "alignments float32 B 9 12, target_lengths int32 B",
    ),
    "beam": ("source string B", "target string B 3, score float32 B 3"),
    "options": (
        "source string B, beam_size int32 B, max_length int32 B, length_penalty float32 B",
        "target string B, score float32 B",
    ),
    "score": ("source string B, target string B", "score float32 B"),
    "sample": (
        "source string B, seed int64 B, temperature float32 B, top_k int32 B, top_p float32 B, "
        "max_length int32 B",
        "target string B, score float32 B",
    ),
    "ids": (
        "source_ids int32 B S, source_lengths int32 B",
        "target_ids int32 B 9, target_lengths int32 B, score float32 B, alignments float32 B 9 12",
    ),
    "ids_beam": (
        "source_ids int32 B S, source_lengths int32 B",
        "target_ids int32 B 3 9, target_lengths int32 B 3, score float32 B 3",
    ),
    "encode": (
        "source_ids int32 B S, source_lengths int32 B",
        "memory_keys float32 B N 8, memory_values float32 B N 16, memory_lengths int32 B, "
        "state_recurrent_0_0 float32 B 8, state_recurrent_0_1 float32 B 8",
    ),
    "step": (
        "token int32 B, memory_keys float32 B N 8, memory_values float32 B N 16, "
        "memory_lengths int32 B, state_recurrent_0_0 float32 B 8, state_recurrent_0_1 float32 B 8",
        "logits float32 B 34, alignments float32 B N, "
        "state_recurrent_0_0 float32 B 8, state_recurrent_0_1 float32 B 8",
    ),
}


def tensors(told):
    """Return dtypes and shapes by name, of lines such as those above."""
    split = (line.split() for line in told.split(","))
    return {
        name: (dtype, tuple(-1 if axis.isalpha() else int(axis) for axis in axes))
        for name, dtype, *axes in split
    }


def test_names_dtypes_and_shapes_are_those_of_the_contract():
    model = small_models.shared("attention")
    size = model.target.vocabulary_size
    path = small_models.exported("attention")
    beam = json.loads((path / "assets.extra" / "keras_attn.json").read_text())["beam_size"]
    with Session(path) as session:
        assert set(session.signatures) == set(CONTRACT)
        for name, sides in CONTRACT.items():
            for side, told in zip(("inputs", "outputs"), sides, strict=True):
                infos = getattr(session.signatures[name], side)
                found = {key: (info.dtype, tuple(info.shape)) for key, info in infos.items()}
                assert found == tensors(told), (name, side)
    assert (beam, model.max_source, model.max_target, size) == (3, 12, 9, 34)


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


@pytest.mark.parametrize("heads", [1, 2])
def test_a_memory_has_as_many_keys_as_values(heads):
    """Else one would be repeated for the other."""
    steps = signatures.Steps(small_models.small("attention", num_heads=heads))
    given = steps.encode(tf.constant([[5, 6, 2]]))
    given["memory_keys"] = given["memory_keys"][:, :1]
    with pytest.raises(tf.errors.InvalidArgumentError, match="as many positions"):
        steps.step(tf.constant([1]), **given)
