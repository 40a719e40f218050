"""Starts: what the first step reads in place of a previous token."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from layer_samples import MASK, TOLERANCE, close, config_of, normal, randomised, reborn

from keras_attn.layers import SummaryStart, TokenStart, ZeroStart
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
    empty = nothing[:, 0]
    memory = Memory(nothing, nothing, MASK, summary=empty, start=empty, slots=empty)
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


@pytest.mark.parametrize("dtype", [*TOLERANCE, "float16", "bfloat16"])
def test_a_zero_start_puts_zeros_in_the_place_of_bos(dtype):
    start = built("zeros", dtype)
    memory, _ = prepared(start)
    assert memory.start.shape == (4, 0) and not start.weights and not start.uses_summary
    embedded = normal(4, 2, EMBEDDING)
    target_in = np.array([[BOS, 5], [BOS, 2], [7, 8], [BOS, 0]])
    expected = np.where(target_in[:, :, None] == BOS, 0, embedded).astype("float32")
    given = ops.cast(embedded, dtype)
    for found, exact in [
        (start.embed(given, target_in, memory), expected),
        (start.embed(given[:, 0], target_in[:, 0], memory), expected[:, 0]),
        (start.embed(given[:, 1], target_in[:, 1], memory), expected[:, 1]),
    ]:
        assert keras.backend.standardize_dtype(found.dtype) == dtype
        np.testing.assert_allclose(ops.cast(found, "float32"), exact, atol=0.02)
        assert (np.array(ops.cast(found, "float32"))[exact == 0] == 0).all()


def test_the_start_token_learns_nothing_from_a_zero_start():
    start, embedded = built("zeros"), tf.constant(normal(2, 2, EMBEDDING))
    with tf.GradientTape() as tape:
        tape.watch(embedded)
        loss = tf.reduce_sum(start.embed(embedded, np.array([[BOS, 5], [7, BOS]]), None))
    expected = [[[0] * EMBEDDING, [1] * EMBEDDING], [[1] * EMBEDDING, [0] * EMBEDDING]]
    np.testing.assert_array_equal(tape.gradient(loss, embedded), expected)


def test_a_zero_start_serves_beams():
    embedded, memory = normal(12, EMBEDDING), prepared(built("zeros"))[0]
    found = built("zeros").embed(embedded, np.array([BOS, 5] * 6), memory)
    np.testing.assert_array_equal(found, np.where(np.arange(12)[:, None] % 2, embedded, 0))


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


@pytest.mark.parametrize(
    "start", [TokenStart(name="t"), SummaryStart(dtype="mixed_bfloat16"), ZeroStart(name="z")]
)
def test_a_start_survives_saving(start):
    start.build(SUMMARY, EMBEDDING)
    again = reborn(randomised(start))
    assert type(again) is type(start) and config_of(again) == config_of(start)
    again.set_weights(start.get_weights())
    for found, expected in zip(again.get_weights(), start.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    found, expected = prepared(again)[0].start, prepared(start)[0].start
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
