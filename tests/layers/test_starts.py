"""Starts: what the first step reads in place of a previous token."""

import numpy as np
import pytest
from layer_samples import MASK, TOLERANCE, close, config_of, normal, randomised, reborn

from keras_attn.layers import SummaryStart, TokenStart
from keras_attn.layers.starts import starts
from keras_attn.types import BOS, Encoded, Memory

SUMMARY, EMBEDDING = 5, 3


def built(name, dtype="float32"):
    start = starts.get(name, dtype=dtype, name="start")
    start.build(SUMMARY, EMBEDDING)
    return randomised(start)


def prepared(start, dtype="float32"):
    """Return the memory of four sources with the summary (4, 5), and that summary."""
    summary = normal(4, SUMMARY, seed=1, dtype=dtype)
    nothing = np.zeros((4, 5, 0), dtype)
    memory = Memory(nothing, nothing, MASK, summary=nothing[:, 0], start=nothing[:, 0])
    return start.prepare(Encoded(nothing, MASK, summary, ()), memory), summary


def test_a_token_start_leaves_everything_as_it_is():
    start = built("token")
    memory, _ = prepared(start)
    embedded = normal(4, EMBEDDING)
    assert start.embed(embedded, np.full(4, BOS), memory) is embedded
    assert memory.start.shape == (4, 0) and not start.weights and not start.uses_summary


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_summary_start_puts_the_projected_summary_in_the_place_of_bos(dtype):
    start = built("summary", dtype)
    memory, summary = prepared(start, dtype)
    kernel, bias = start.get_weights()
    projected = summary @ kernel + bias
    close(memory.start, projected, dtype)
    embedded = normal(4, 2, EMBEDDING, dtype=dtype)
    target_in = np.array([[BOS, 5], [BOS, 2], [7, 8], [BOS, 0]])
    expected = embedded.copy()
    for row in (0, 1, 3):
        expected[row, 0] = projected[row]
    close(start.embed(embedded, target_in, memory), expected, dtype)
    for t in range(2):
        step = start.embed(embedded[:, t], target_in[:, t], memory)
        close(step, expected[:, t], dtype)


def test_the_rest_of_the_memory_stays():
    start = built("summary")
    memory, _ = prepared(start)
    assert memory.mask is MASK and memory.summary.shape == (4, 0)
    assert start.uses_summary


def test_beams_read_the_summary_of_their_source():
    start = built("summary")
    memory, _ = prepared(start)
    found = start.embed(normal(12, EMBEDDING, dtype="float32"), np.full(12, BOS), memory)
    np.testing.assert_array_equal(found, np.repeat(memory.start, 3, axis=0))


def test_weights_have_names_and_shapes():
    weights = {weight.path: tuple(weight.shape) for weight in built("summary").weights}
    assert weights == {
        "start/projection/kernel": (SUMMARY, EMBEDDING),
        "start/projection/bias": (EMBEDDING,),
    }


@pytest.mark.parametrize("start", [TokenStart(name="t"), SummaryStart(dtype="mixed_bfloat16")])
def test_a_start_survives_saving(start):
    start.build(SUMMARY, EMBEDDING)
    again = reborn(randomised(start))
    assert type(again) is type(start) and config_of(again) == config_of(start)
    again.set_weights(start.get_weights())
    for found, expected in zip(again.get_weights(), start.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    found, expected = prepared(again)[0].start, prepared(start)[0].start
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
