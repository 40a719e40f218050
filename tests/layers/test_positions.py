"""Positions: the waves, for any length and dtype; and what both of their encoders promise."""

import math

import keras
import numpy as np
import pytest
import reference_encoders
import tensorflow as tf
from keras import ops
from layer_samples import MASK, TOLERANCE, close, config_of, normal, randomised, reborn

from keras_attn.kernels import cudnn
from keras_attn.layers import Attention, AttentionContext, Decoder, GatedSummary, Recurrence
from keras_attn.layers.convolution import ConvEncoder
from keras_attn.layers.encoders import encoders
from keras_attn.layers.positions import at_last_token, sinusoids, with_positions
from keras_attn.layers.self_attention import SelfAttentionEncoder
from keras_attn.types import Encoded

DEPTH, UNITS = 3, 4
EMBEDDED = normal(4, 5, DEPTH, dtype="float32")
both_encoders = pytest.mark.parametrize("kind", [ConvEncoder, SelfAttentionEncoder])


def built(kind, **options):
    encoder = kind(UNITS, **{"num_layers": 2, **options})
    encoder.build((None, None, DEPTH))
    return randomised(encoder)


def same(found, expected):
    """Assert that two records of one encoder are equal, but for rounding."""
    for tensor, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(tensor, other, atol=1e-5)


# === Sinusoids ===


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("length, depth", [(7, 6), (5, 5), (4, 1), (1, 2), (0, 3)])
def test_sinusoids_are_those_of_the_paper(length, depth, dtype):
    close(sinusoids(length, depth, dtype), reference_encoders.sinusoids(length, depth), dtype)


def test_sinusoids_of_numbers_worked_out_by_hand():
    found = sinusoids(3, 4, "float64")
    expected = [[math.sin(p), math.cos(p), math.sin(p / 100), math.cos(p / 100)] for p in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-15)


@pytest.mark.parametrize("dtype, atol", [("float32", 2e-4), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_far_positions_are_as_exact_as_the_dtype_of_the_result(dtype, atol):
    found = sinusoids(3000, 8, dtype)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    expected = reference_encoders.sinusoids(3000, 8)
    np.testing.assert_allclose(ops.cast(found, "float32"), expected, atol=atol)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_length_may_be_known_to_the_graph_alone(jit_compile):
    signature = [tf.TensorSpec((None, None, 3))]
    run = tf.function(with_positions, input_signature=signature, jit_compile=jit_compile)
    for length in (2, 9):
        x = normal(2, length, 3, dtype="float32")
        close(run(tf.constant(x)), math.sqrt(3) * x + reference_encoders.sinusoids(length, 3))


# === The last token ===


def test_the_last_token_is_the_last_position_of_the_mask():
    values = normal(4, 3, 2, dtype="float32")
    mask = np.array([[True, True, True], [True, False, False], [True, False, True], [False] * 3])
    found = np.array(at_last_token(values, mask))
    np.testing.assert_array_equal(found[:3], [values[0, 2], values[1, 0], values[2, 2]])
    np.testing.assert_array_equal(found[3], 0)
    assert at_last_token(values[:0], mask[:0]).shape == (0, 2)


# === Both encoders: what they return ===


@both_encoders
def test_widths_are_known_before_anything_is_built_and_there_are_no_states(kind):
    encoder = kind(UNITS)
    widths = encoder.value_depth, encoder.summary_depth
    found = encoder(EMBEDDED, MASK)
    assert type(found) is Encoded and encoder.state_depths == found.states == ()
    assert widths == (found.values.shape[-1], found.summary.shape[-1])
    assert (np.array(found.values)[~MASK] == 0).all() and np.array(found.values)[MASK].all()
    np.testing.assert_array_equal(found.mask, MASK)


@pytest.mark.parametrize("name", ["mean", "last", "max", "gated", "projected"])
@both_encoders
def test_the_summary_is_made_of_the_values(kind, name):
    encoder = built(kind, summary=name)
    found = encoder(EMBEDDED, MASK)
    values = np.array(found.values)
    last = values[np.arange(4), MASK.sum(axis=1) - 1]
    if name == "last":
        np.testing.assert_array_equal(found.summary, last)
    np.testing.assert_allclose(found.summary, encoder.summary(values, MASK, last), atol=1e-6)


@both_encoders
def test_a_summary_of_two_directions_is_refused(kind):
    with pytest.raises(ValueError, match="^summary: BackwardSummary reads .* no directions"):
        kind(UNITS, summary="backward")


@both_encoders
def test_tokens_in_another_order_have_other_values(kind):
    encoder, mask = built(kind), np.ones((1, 5), bool)
    tokens = EMBEDDED[:1, [0, 0, 0, 0, 0]]
    values = np.array(encoder(tokens, mask).values[0])
    assert np.abs(values[1:] - values[:-1]).max(axis=1).min() > 1e-3


# === Both encoders: padding, dtypes, graphs ===


@both_encoders
def test_padding_and_neighbours_change_nothing(kind):
    encoder = built(kind)
    together = encoder(EMBEDDED, MASK)
    same(encoder(np.where(MASK[:, :, None], EMBEDDED, 50.0), MASK), together)
    for row, length in enumerate(MASK.sum(axis=1)):
        alone = encoder(EMBEDDED[row : row + 1, :length], MASK[row : row + 1, :length])
        np.testing.assert_allclose(together.values[row, :length], alone.values[0], atol=1e-5)
        np.testing.assert_allclose(together.summary[row], alone.summary[0], atol=1e-5)


@both_encoders
def test_no_sources_are_a_batch_too(kind):
    encoder = built(kind)
    for run in (encoder, tf.function(encoder)):
        found = run(EMBEDDED[:0], MASK[:0])
        assert found.values.shape == (0, 5, UNITS) and found.summary.shape == (0, UNITS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@both_encoders
def test_half_precision_comes_close_and_bears_long_sources(kind, dtype):
    encoder, exact = built(kind, dtype=f"mixed_{dtype}"), built(kind)
    embedded = normal(3, 2000, DEPTH, dtype="float32")
    mask = np.arange(2000) < np.array([[2000], [1], [700]])
    found, expected = encoder(embedded, mask), exact(embedded, mask)
    for tensor, other in ((found.values, expected.values), (found.summary, expected.summary)):
        assert keras.backend.standardize_dtype(tensor.dtype) == dtype
        assert np.isfinite(ops.cast(tensor, "float32")).all()
        difference = np.abs(ops.cast(tensor, "float32") - other)
        assert np.mean(difference) < 0.05 and np.max(difference) < 1


@both_encoders
def test_float64_stays(kind):
    found = built(kind, dtype="float64")(EMBEDDED, MASK)
    assert found.values.dtype == found.summary.dtype == "float64"


@both_encoders
def test_xla_changes_nothing_for_any_length(kind):
    encoder = built(kind, summary="gated")
    signature = [tf.TensorSpec((None, None, DEPTH)), tf.TensorSpec((None, None), tf.bool)]
    run = tf.function(lambda x, m: encoder(x, m), input_signature=signature, jit_compile=True)
    for length in (5, 3):
        x, mask = EMBEDDED[:, :length], MASK[:, :length]
        same(run(tf.constant(x), tf.constant(mask)), encoder(x, mask))


@both_encoders
def test_an_encoder_works_in_a_functional_model(kind):
    embedded, mask = keras.Input((None, DEPTH)), keras.Input((None,), dtype="bool")
    encoder = built(kind)
    found = encoder(embedded, mask)
    assert found.values.shape == (None, None, UNITS) and found.summary.shape == (None, UNITS)
    model = keras.Model([embedded, mask], [found.values, found.summary])
    expected = encoder(EMBEDDED, MASK)
    same(tuple(model([EMBEDDED, MASK])), (expected.values, expected.summary))


# === Both encoders: dropout, saving, errors ===


@both_encoders
def test_only_training_drops_out(kind):
    encoder, plain = built(kind, dropout=0.5), built(kind)
    expected = plain(EMBEDDED, MASK)
    for _ in range(2):
        same(encoder(EMBEDDED, MASK, training=False), expected)
    same(plain(EMBEDDED, MASK, training=True), expected)
    first, second = (encoder(EMBEDDED, MASK, training=True).values for _ in range(2))
    assert np.abs(first - expected.values).max() > 1e-3 and np.abs(first - second).max() > 1e-3
    assert (np.array(first)[~MASK] == 0).all()


@pytest.mark.parametrize("by_name", [True, False])
@both_encoders
def test_an_encoder_survives_saving(kind, by_name):
    summary = "gated" if by_name else GatedSummary(name="gate")
    encoder = built(kind, num_layers=3, dropout=0.1, summary=summary)
    again = reborn(encoder)
    assert type(again) is kind and config_of(again) == config_of(encoder)
    again.build((None, None, DEPTH))
    again.set_weights(encoder.get_weights())
    same(again(EMBEDDED, MASK), encoder(EMBEDDED, MASK))


@both_encoders
def test_a_model_with_an_encoder_survives_a_file(kind, tmp_path):
    embedded, mask = keras.Input((None, DEPTH)), keras.Input((None,), dtype="bool")
    encoder = built(kind, num_layers=3, summary="gated")
    model = keras.Model([embedded, mask], encoder(embedded, mask).summary)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    same(again([EMBEDDED, MASK]), model([EMBEDDED, MASK]))


@pytest.mark.parametrize("name, kind", [("conv", ConvEncoder), ("self-attention", None)])
def test_an_encoder_has_a_name(name, kind):
    assert type(encoders.get(name, units=4)) is (kind or SelfAttentionEncoder)
    with pytest.raises(TypeError, match=f"encoder='{name}' takes no option 'unit'; .*'units'"):
        encoders.get(name, unit=2)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"units": -1}, ValueError, "^units: expected a positive int, got -1"),
        ({"num_layers": 0}, ValueError, "^num_layers: expected a positive int, got 0"),
        ({"dropout": 1.0}, ValueError, r"^dropout: expected a number in \[0, 1\), got 1.0"),
        ({"summary": "men"}, ValueError, "^summary: expected .*'men'. Did you mean 'mean'"),
        ({"summary": 3}, TypeError, "^summary: expected a name of .* or an object, got 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@both_encoders
def test_arguments_outside_their_range_are_refused(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**options)


# === Both encoders: with a decoder ===


def decoder_of(bridge):
    attention = AttentionContext(Attention("general"))
    return Decoder(Recurrence("lstm", UNITS, num_layers=2), attention, bridge)


@pytest.mark.parametrize("bridge", ["summary", "zeros"])
@both_encoders
def test_a_decoder_reads_them_and_every_weight_learns(kind, bridge):
    encoder, decoder = built(kind), decoder_of(bridge)
    decoder.build_for(encoder, DEPTH)
    target = normal(4, 2, DEPTH, seed=1, dtype="float32")
    with (
        cudnn.without_cudnn([*encoder.layers, *decoder.recurrence.layers]),
        tf.GradientTape() as tape,
    ):
        memory, state = decoder.prepare(encoder(EMBEDDED, MASK, training=True))
        features = decoder(target, state, memory, training=True)[0]
        loss = tf.reduce_sum(features**2)
    assert features.shape[:2] == (4, 2)
    for gradient in tape.gradient(loss, encoder.trainable_variables):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@pytest.mark.parametrize("bridge", ["dense", "copy"])
@both_encoders
def test_a_decoder_that_wants_final_states_is_refused(kind, bridge):
    with pytest.raises(ValueError, match=f"^bridge='{bridge}'"):
        decoder_of(bridge).build_for(built(kind), DEPTH)
