"""Summaries: one vector a source, against the oracle."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_samples import MASK, TOLERANCE, close, config_of, few, normal, randomised, reborn

from keras_attn.layers import (
    BackwardSummary,
    ConcatSummary,
    GatedSummary,
    LastSummary,
    MaxSummary,
    MeanSummary,
    ProjectedSummary,
    RNNEncoder,
)
from keras_attn.layers.summaries import Summary, summaries

NAMES = ["concat", "gated", "last", "max", "mean"]


def built(name, depth=3, **options):
    options = {"length": 6, **options} if name == "concat" else options
    summary = summaries.get(name, **options)
    summary.build((None, None, depth))
    return randomised(summary)


def expected_summary(name, summary, values, mask, last):
    if name == "last":
        return reference.summary_last(((last,),))
    if name == "mean":
        return reference.summary_mean(values, mask)
    if name == "max":
        return reference.summary_max(values, mask)
    if name == "gated":
        return reference.summary_gated(values, mask, *summary.get_weights())
    return reference.summary_concat(values, mask, summary.length)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", NAMES)
def test_summaries_are_those_of_the_formulas(name, dtype):
    summary = built(name, dtype=dtype)
    values, last = normal(4, 5, 3), normal(4, 7, seed=1)
    found = summary(values, MASK, last)
    close(found, expected_summary(name, summary, values, MASK, last), dtype)
    assert found.shape == (4, summary.depth(3, 7))


@pytest.mark.parametrize("name", NAMES)
@few
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 3))
def test_padding_is_not_seen(name, lengths, more):
    summary = built(name)
    size = max(lengths)
    mask = np.arange(size + more) < np.array(lengths)[:, None]
    values, last = normal(len(lengths), size + more, 3) - 5, normal(len(lengths), 2, seed=1)
    found = summary(values, mask, last)
    trimmed = summary(values[:, :size], mask[:, :size], last)
    close(found, trimmed)
    close(found, expected_summary(name, summary, values, mask, last))


@pytest.mark.parametrize("name", NAMES)
def test_padding_gets_no_gradient(name):
    summary = built(name)
    values = tf.constant(normal(4, 5, 3, dtype="float32"))
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = tf.reduce_sum(summary(values, MASK, values[:, 0]) ** 2)
    gradient = np.array(tape.gradient(loss, values))
    assert (gradient[~MASK] == 0).all() and np.abs(gradient[:, 0]).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_mean_of_a_long_source_fits_half_precision(dtype):
    values = ops.full((1, 2000, 2), 100, dtype=dtype)
    mask = np.arange(2000) < [[1999]]
    mean = MeanSummary(dtype=dtype)(values, mask, values[:, 0])
    assert keras.backend.standardize_dtype(mean.dtype) == dtype
    np.testing.assert_array_equal(ops.cast(mean, "float32"), [[100, 100]])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_comes_close(name, dtype):
    summary = built(name, dtype=f"mixed_{dtype}")
    values, last = normal(4, 5, 3), normal(4, 3, seed=1)
    found = summary(values, MASK, last)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    exact = expected_summary(name, summary, values, MASK, last)
    np.testing.assert_allclose(ops.cast(found, "float32"), exact, atol=0.05)


@pytest.mark.parametrize("in_graph", [False, True])
def test_concat_refuses_tokens_behind_its_length_but_not_padding(in_graph):
    summary = built("concat", length=3)
    values = normal(4, 5, 3, dtype="float32")
    run = tf.function(summary, reduce_retracing=True) if in_graph else summary
    fitting = MASK & (np.arange(5) < 3)
    found = run(values, tf.constant(fitting), values[:, 0])
    close(found, reference.summary_concat(values, fitting, 3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="sources of at most 3 tokens"):
        run(values, tf.constant(MASK & (np.arange(5) < 4)), values[:, 0])


def test_weights_have_the_documented_names_and_shapes():
    weights = {weight.name: tuple(weight.shape) for weight in built("gated").weights}
    assert weights == {"kernel": (3, 3), "bias": (3,)}
    assert all(not built(name).weights for name in NAMES if name != "gated")


def test_the_gate_starts_without_a_bias():
    gate = GatedSummary()
    gate.build((None, None, 3))
    kernel, bias = gate.get_weights()
    assert (bias == 0).all() and (kernel != 0).all()


@pytest.mark.parametrize("length", [0, 2.5, "4"])
def test_a_length_has_to_be_positive(length):
    with pytest.raises(ValueError, match=f"^length: expected a positive int, got {length!r}"):
        ConcatSummary(length)


@pytest.mark.parametrize(
    "summary",
    [
        LastSummary(name="l"),
        MeanSummary(dtype="mixed_bfloat16"),
        MaxSummary(),
        GatedSummary(),
        ConcatSummary(5),
        ProjectedSummary(name="p"),
        BackwardSummary(),
    ],
    ids=lambda summary: type(summary).__name__,
)
def test_a_summary_survives_saving(summary):
    values, last = normal(4, 5, 4, dtype="float32"), normal(4, 4, seed=1, dtype="float32")
    summary.build(values.shape)
    again = reborn(randomised(summary))
    assert type(again) is type(summary) and config_of(again) == config_of(summary)
    again.set_weights(summary.get_weights())
    found, expected = again(values, MASK, last), summary(values, MASK, last)
    np.testing.assert_array_equal(ops.cast(found, "float32"), ops.cast(expected, "float32"))


def test_the_base_has_no_formula():
    with pytest.raises(NotImplementedError):
        Summary().call(None, None, None)


# === The papers' own ===


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_projected_is_the_projected_final_state(dtype):
    summary, values, last = built("projected", dtype=dtype), normal(4, 5, 3), normal(4, 3, seed=1)
    (kernel,) = summary.get_weights()
    found = summary(values.astype(dtype), MASK, last.astype(dtype))
    close(found, np.tanh(last @ kernel), dtype)
    assert found.shape == (4, summary.depth(3, 3)) and not summary.directional
    (weight,) = summary.weights
    assert (weight.path.split("/", 1)[1], tuple(weight.shape)) == ("projection/kernel", (3, 3))


def test_the_projection_has_a_gradient():
    arrays = normal(4, 5, 3), normal(4, 3, seed=1)
    summary, probe = built("projected", dtype="float64"), normal(4, 3, seed=2)
    last = tf.constant(arrays[1])
    with tf.GradientTape() as tape:
        tape.watch(last)
        total = tf.reduce_sum(summary(arrays[0], MASK, last) * probe)
    found = tape.gradient(total, [last, summary.weights[0].value])
    expected = reference.finite_difference(
        lambda last, kernel: np.sum(np.tanh(last @ kernel) * probe),
        [arrays[1], *summary.get_weights()],
    )
    for gradient, difference in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, difference, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_projected_in_half_precision_comes_close(dtype):
    summary, last = built("projected", dtype=f"mixed_{dtype}"), normal(4, 3, seed=1)
    found = summary(ops.cast(normal(4, 5, 3), dtype), MASK, ops.cast(last, dtype))
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    exact = np.tanh(last @ summary.get_weights()[0])
    np.testing.assert_allclose(ops.cast(found, "float32"), exact, atol=0.05)


EMBEDDED, UNITS = normal(4, 5, 2), 3


def encoder_of(summary, **options):
    encoder = RNNEncoder("gru", UNITS, summary=summary, **options)
    encoder.build((None, None, 2))
    return randomised(encoder)


@pytest.mark.parametrize("summary", ["backward", BackwardSummary()], ids=["name", "object"])
def test_backward_is_the_backward_state_at_the_first_token(summary):
    encoder = encoder_of(summary)
    weights = encoder.layers[0].get_weights()
    values, (state,) = reference.bidirectional("gru", EMBEDDED, MASK, weights[:3], weights[3:])
    found = encoder(EMBEDDED, MASK).summary
    close(found, values[:, 0, UNITS:])
    close(found, state[:, UNITS:])
    assert encoder.summary_depth == found.shape[-1] == UNITS


def test_backward_has_read_the_whole_of_a_reversed_source_too():
    encoder, lengths = encoder_of("backward", reverse=True), MASK.sum(axis=1)
    weights = encoder.layers[0].get_weights()
    turned = reference.reverse_by_length(EMBEDDED, lengths)
    _, (state,) = reference.bidirectional("gru", turned, MASK, weights[:3], weights[3:])
    close(encoder(EMBEDDED, MASK).summary, state[:, UNITS:])


def test_backward_does_not_see_padding():
    encoder = encoder_of("backward", num_layers=2, residual=True)
    found = encoder(EMBEDDED, MASK).summary
    garbage = np.where(MASK[:, :, None], EMBEDDED, 50.0)
    np.testing.assert_allclose(encoder(garbage, MASK).summary, found, atol=1e-6)
    for row, length in enumerate(MASK.sum(axis=1)):
        alone = encoder(EMBEDDED[row : row + 1, :length], MASK[row : row + 1, :length])
        np.testing.assert_allclose(found[row], alone.summary[0], atol=1e-6)


@pytest.mark.parametrize("summary", ["backward", BackwardSummary()], ids=["name", "object"])
def test_backward_needs_two_directions(summary):
    message = "^summary: BackwardSummary reads the backward half .*, got bidirectional=False"
    with pytest.raises(ValueError, match=message):
        RNNEncoder("gru", UNITS, bidirectional=False, summary=summary)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_projected_is_made_of_the_encoders_last_state(bidirectional):
    encoder = encoder_of("projected", bidirectional=bidirectional, num_layers=2)
    found = encoder(EMBEDDED, MASK)
    expected = np.tanh(np.array(found.states[-1][0]) @ encoder.summary.get_weights()[0])
    close(found.summary, expected)
    assert encoder.summary_depth == found.summary.shape[-1]
