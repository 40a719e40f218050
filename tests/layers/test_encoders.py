"""Encoders: values, summary and final states against the oracle; padding; dropout; errors."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import ops
from layer_samples import CELLS, MASK, close, config_of, normal, randomised, reborn

from keras_attn.layers import GatedSummary, RNNEncoder
from keras_attn.layers.encoders import encoders
from keras_attn.types import Encoded

DEPTH, UNITS = 2, 3
EMBEDDED = normal(4, 5, DEPTH)
EMBEDDED32 = EMBEDDED.astype("float32")
every_cell = pytest.mark.parametrize("cell", [*CELLS, "gru_before"])
both_ways = pytest.mark.parametrize("bidirectional", [False, True])


def built(cell="lstm", **options):
    encoder = RNNEncoder(cell, UNITS, **options)
    encoder.build((None, None, DEPTH))
    return randomised(encoder)


def weights_of(encoder):
    """Return a triple a layer, or, of bidirectional layers, a pair of triples."""
    layers = [tuple(layer.get_weights()) for layer in encoder.layers]
    return [(w[:3], w[3:]) if encoder.bidirectional else w for w in layers]


def oracle(encoder, embedded=EMBEDDED, mask=MASK):
    return reference.stacked(
        encoder.cell, embedded, mask, weights_of(encoder), residual=encoder.residual
    )


def same(found, expected):
    """Assert that two records of one encoder are equal, but for rounding."""
    for tensor, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(tensor, other, atol=1e-6)


# === Numbers ===


@pytest.mark.parametrize(
    "num_layers, residual, dtype",
    [(1, False, "float32"), (2, False, "float64"), (3, True, "float32")],
)
@both_ways
@every_cell
def test_values_and_states_are_those_of_the_papers(
    cell, bidirectional, num_layers, residual, dtype
):
    encoder = built(
        cell,
        bidirectional=bidirectional,
        num_layers=num_layers,
        residual=residual,
        dtype=dtype,
    )
    found = encoder(EMBEDDED, MASK)
    values, states = oracle(encoder)
    assert type(found) is Encoded
    close(found.values, values, dtype)
    close(found.summary, reference.summary_last(states), dtype)
    np.testing.assert_array_equal(found.mask, MASK)
    for layer, expected in zip(found.states, states, strict=True):
        for tensor, array in zip(layer, expected, strict=True):
            close(tensor, array, dtype)
    assert (np.array(found.values)[~MASK] == 0).all()


@both_ways
@every_cell
def test_widths_are_known_before_anything_is_built(cell, bidirectional):
    encoder = RNNEncoder(cell, UNITS, num_layers=2, bidirectional=bidirectional)
    widths = encoder.value_depth, encoder.summary_depth, encoder.state_depths
    found = encoder(EMBEDDED, MASK)
    states = tuple(tuple(state.shape[-1] for state in layer) for layer in found.states)
    assert widths == (found.values.shape[-1], found.summary.shape[-1], states)


@pytest.mark.parametrize("name", ["last", "mean", "max", "gated"])
def test_the_summary_is_made_of_the_top_layer(name):
    encoder = built("gru", num_layers=2, summary=name)
    values, states = oracle(encoder)
    expected = {
        "last": lambda: reference.summary_last(states),
        "mean": lambda: reference.summary_mean(values, MASK),
        "max": lambda: reference.summary_max(values, MASK),
        "gated": lambda: reference.summary_gated(values, MASK, *encoder.summary.get_weights()),
    }
    close(encoder(EMBEDDED, MASK).summary, expected[name]())


# === Padding ===


@both_ways
@every_cell
def test_padding_and_neighbours_change_nothing(cell, bidirectional):
    encoder = built(cell, bidirectional=bidirectional, num_layers=2, residual=True, summary="mean")
    together = encoder(EMBEDDED, MASK)
    garbage = np.where(MASK[:, :, None], EMBEDDED, 50.0)
    same(encoder(garbage, MASK), together)
    for row, length in enumerate(MASK.sum(axis=1)):
        alone = encoder(EMBEDDED[row : row + 1, :length], MASK[row : row + 1, :length])
        np.testing.assert_allclose(together.values[row, :length], alone.values[0], atol=1e-6)
        np.testing.assert_allclose(together.summary[row], alone.summary[0], atol=1e-6)
        for layer, other in zip(together.states, alone.states, strict=True):
            for state, expected in zip(layer, other, strict=True):
                np.testing.assert_allclose(state[row], expected[0], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@both_ways
def test_half_precision_keeps_its_dtype_and_comes_close(bidirectional, dtype):
    options = {"num_layers": 2, "bidirectional": bidirectional, "summary": "mean"}
    encoder = built(dtype=f"mixed_{dtype}", **options)
    found = encoder(EMBEDDED, MASK)
    tensors = [found.values, found.summary, *keras.tree.flatten(found.states)]
    assert {keras.backend.standardize_dtype(tensor.dtype) for tensor in tensors} == {dtype}
    np.testing.assert_allclose(ops.cast(found.values, "float32"), oracle(encoder)[0], atol=0.1)


def test_xla_changes_nothing():
    encoder = built("gru", num_layers=2, summary="gated")
    run = tf.function(lambda x: encoder(x, MASK), jit_compile=True)
    same(run(tf.constant(EMBEDDED32)), encoder(EMBEDDED32, MASK))


def test_an_encoder_works_in_a_functional_model():
    embedded, mask = keras.Input((None, DEPTH)), keras.Input((None,), dtype="bool")
    encoder = built("gru")
    found = encoder(embedded, mask)
    assert found.values.shape == (None, None, 2 * UNITS) and found.summary.shape == (
        None,
        2 * UNITS,
    )
    model = keras.Model([embedded, mask], [found.values, found.summary])
    expected = encoder(EMBEDDED32, MASK)
    same(tuple(model([EMBEDDED32, MASK])), (expected.values, expected.summary))


# === Reading backwards ===


def turned_oracle(encoder, embedded=EMBEDDED, mask=MASK):
    """Turn the tokens round, run, and turn the values back."""
    lengths = mask.sum(axis=1)
    turned = reference.reverse_by_length(embedded, lengths)
    values, states = oracle(encoder, turned, mask)
    return reference.reverse_by_length(values, lengths), states


@pytest.mark.parametrize("num_layers, dtype", [(1, "float64"), (2, "float32")])
@both_ways
@every_cell
def test_a_reversed_source_is_read_up_to_eos_and_its_values_stay_in_order(
    cell, bidirectional, num_layers, dtype
):
    options = {"num_layers": num_layers, "residual": num_layers > 1, "dtype": dtype}
    encoder = built(cell, bidirectional=bidirectional, reverse=True, **options)
    found = encoder(EMBEDDED, MASK)
    values, states = turned_oracle(encoder)
    close(found.values, values, dtype)
    close(found.summary, reference.summary_last(states), dtype)
    for layer, expected in zip(found.states, states, strict=True):
        for tensor, array in zip(layer, expected, strict=True):
            close(tensor, array, dtype)
    assert (np.array(found.values)[~MASK] == 0).all()


def test_reversing_reads_the_first_token_last_but_for_eos():
    encoder = built("simple_rnn", bidirectional=False, reverse=True)
    found = np.array(encoder(EMBEDDED, MASK).values)
    for token in range(5):
        other = EMBEDDED.copy()
        other[0, token] += 1
        changed = np.abs(encoder(other, MASK).values - found)[0].max(axis=-1) > 1e-6
        seen = [
            j for j in range(5) if token == j or (j <= token if token < 4 else j == 4) or j == 4
        ]
        assert np.flatnonzero(changed).tolist() == sorted(set(seen))


@pytest.mark.parametrize("name", ["mean", "max"])
def test_the_summary_of_a_reversed_source_is_made_of_its_values(name):
    encoder = built("gru", reverse=True, summary=name)
    values, _ = turned_oracle(encoder)
    close(encoder(EMBEDDED, MASK).summary, getattr(reference, f"summary_{name}")(values, MASK))


@both_ways
def test_padding_and_neighbours_change_nothing_in_a_reversed_source(bidirectional):
    encoder = built("gru", bidirectional=bidirectional, num_layers=2, residual=True, reverse=True)
    together = encoder(EMBEDDED, MASK)
    same(encoder(np.where(MASK[:, :, None], EMBEDDED, 50.0), MASK), together)
    for row, length in enumerate(MASK.sum(axis=1)):
        alone = encoder(EMBEDDED[row : row + 1, :length], MASK[row : row + 1, :length])
        np.testing.assert_allclose(together.values[row, :length], alone.values[0], atol=1e-6)
        np.testing.assert_allclose(together.summary[row], alone.summary[0], atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_reversed_source_has_gradients_in_a_graph(jit_compile):
    encoder = built("gru", reverse=True)

    def run(embedded):
        with tf.GradientTape() as tape:
            tape.watch(embedded)
            found = encoder(embedded, MASK)
            loss = tf.reduce_sum(found.values**2) + tf.reduce_sum(found.summary)
        return found.values, tape.gradient(loss, embedded)

    expected = run(tf.constant(EMBEDDED32))
    found = tf.function(run, jit_compile=jit_compile)(tf.constant(EMBEDDED32))
    for tensor, array in zip(found, expected, strict=True):
        np.testing.assert_allclose(tensor, array, atol=1e-5)
    assert (np.array(found[1])[~MASK] == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_reversed_source_in_half_precision_comes_close(dtype):
    encoder = built("gru", reverse=True, dtype=f"mixed_{dtype}")
    found = encoder(EMBEDDED, MASK).values
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    np.testing.assert_allclose(ops.cast(found, "float32"), turned_oracle(encoder)[0], atol=0.1)


# === Dropout ===


@pytest.mark.parametrize("option", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize(
    "cell, bidirectional", zip(CELLS, [True, False, True], strict=True), ids=CELLS
)
def test_only_training_drops_out(cell, bidirectional, option):
    options = {"num_layers": 2, "bidirectional": bidirectional}
    encoder, plain = built(cell, **options, **{option: 0.5}), built(cell, **options)
    expected = plain(EMBEDDED32, MASK)
    for _ in range(2):
        same(encoder(EMBEDDED32, MASK, training=False), expected)
    first, second = (encoder(EMBEDDED32, MASK, training=True).values for _ in range(2))
    assert np.abs(first - expected.values).max() > 1e-3 and np.abs(first - second).max() > 1e-3
    assert (np.array(first)[~MASK] == 0).all()


@both_ways
def test_recurrent_dropout_trains_in_one_graph_after_another(bidirectional):
    encoder = built("simple_rnn", bidirectional=bidirectional, recurrent_dropout=0.5)

    def train(embedded, mask):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(encoder(embedded, mask, training=True).values ** 2)
        return tape.gradient(loss, encoder.trainable_variables)

    for rows in (4, 2):
        for gradient in tf.function(train)(EMBEDDED32[:rows], MASK[:rows]):
            assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    eager = encoder(EMBEDDED32[:3], MASK[:3], training=True)
    assert eager.values.shape == (3, 5, encoder.value_depth)


# === Saving and errors ===


@pytest.mark.parametrize("by_name", [True, False])
@both_ways
def test_an_encoder_survives_saving(bidirectional, by_name):
    summary = "gated" if by_name else GatedSummary(name="gate")
    options = {"num_layers": 2, "residual": True, "dropout": 0.1, "recurrent_dropout": 0.2}
    options["reverse"] = by_name
    encoder = built("gru", bidirectional=bidirectional, summary=summary, **options)
    again = reborn(encoder)
    assert type(again) is RNNEncoder and config_of(again) == config_of(encoder)
    assert {key: again.get_config()[key] for key in options} == options
    again.set_weights(encoder.get_weights())
    same(again(EMBEDDED32, MASK), encoder(EMBEDDED32, MASK))


def test_an_encoder_has_a_name():
    assert type(encoders.get("rnn", units=2)) is RNNEncoder
    with pytest.raises(TypeError, match="encoder='rnn' takes no option 'unit'; .*'units'"):
        encoders.get("rnn", unit=2)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"cell": "lstmm"}, ValueError, "^cell: expected one of .*'lstmm'. Did you mean 'lstm'"),
        ({"units": -1}, ValueError, "^units: expected a positive int, got -1"),
        ({"num_layers": 0}, ValueError, "^num_layers: expected a positive int, got 0"),
        ({"dropout": 1.0}, ValueError, r"^dropout: expected a number in \[0, 1\), got 1.0"),
        ({"recurrent_dropout": 2}, ValueError, "^recurrent_dropout: expected a number in"),
        ({"reverse": 1}, ValueError, "^reverse: expected True or False, got 1"),
        ({"summary": "men"}, ValueError, "^summary: expected .*'men'. Did you mean 'mean'"),
        ({"summary": 3}, TypeError, "^summary: expected a name of .* or an object, got 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_outside_their_range_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        RNNEncoder(**options)
