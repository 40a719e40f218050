"""Cells: Keras' own by name, and Cho's, against the oracle."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import ops
from layer_samples import MASK, TOLERANCE, close, config_of, normal, randomised, reborn

from keras_attn.layers import ChoCell, Recurrence, RNNEncoder
from keras_attn.layers.cells import CELLS, rnn_layer

BATCH, LENGTH, EMBEDDING, CONTEXT, UNITS = 3, 4, 2, 3, 5
INPUTS = normal(BATCH, LENGTH, EMBEDDING + CONTEXT)
STATE = normal(BATCH, UNITS, seed=1)


def built(cell="cho", num_layers=1, context=CONTEXT, **options):
    recurrence = Recurrence(cell, UNITS, num_layers, **options)
    recurrence.build((None, None, EMBEDDING + CONTEXT), context)
    return randomised(recurrence)


def cho(inputs, h, weights, context=CONTEXT):
    """Return the outputs (B, T, U) of a layer of Cho's cells."""
    outputs, depth = [], inputs.shape[-1] - context
    for t in range(inputs.shape[1]):
        h = reference.cho_step(inputs[:, t, :depth], inputs[:, t, depth:], h, *weights)
        outputs.append(h)
    return np.stack(outputs, axis=1)


# === Cho's cell ===


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("context", [0, CONTEXT])
def test_a_sequence_is_that_of_the_paper(context, dtype):
    recurrence = built(context=context, dtype=dtype)
    found = recurrence.sequence(INPUTS.astype(dtype), ((STATE.astype(dtype),),))
    close(found, cho(INPUTS, STATE, recurrence.get_weights(), context), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_steps_are_those_of_the_paper(dtype):
    recurrence, states = built(dtype=dtype), ((STATE.astype(dtype),),)
    expected = cho(INPUTS, STATE, recurrence.get_weights())
    for t in range(LENGTH):
        output, states = recurrence.step(INPUTS[:, t].astype(dtype), states)
        close(output, expected[:, t], dtype)
    close(states[0][0], expected[:, -1], dtype)


def test_layers_above_the_first_read_no_context():
    recurrence = built(num_layers=2)
    lower, upper = (layer.get_weights() for layer in recurrence.layers)
    assert [weight.shape[0] for weight in upper] == [UNITS, UNITS, 0, 3 * UNITS]
    other = normal(BATCH, UNITS, seed=2)
    expected = cho(cho(INPUTS, STATE, lower), other, upper, context=0)
    states = (STATE.astype("float32"),), (other.astype("float32"),)
    close(recurrence.sequence(INPUTS, states), expected)
    for t in range(LENGTH):
        output, states = recurrence.step(INPUTS[:, t], states)
        close(output, expected[:, t])


@pytest.mark.parametrize("by_steps", [False, True])
def test_gradients_are_those_of_finite_differences(by_steps):
    recurrence, probe = built(dtype="float64"), normal(BATCH, LENGTH, UNITS, seed=3)

    def loss(inputs, state, *weights):
        return np.sum(cho(inputs, state, weights) * probe)

    inputs, state = tf.constant(INPUTS), tf.constant(STATE)
    with tf.GradientTape() as tape:
        tape.watch([inputs, state])
        if by_steps:
            outputs, states = [], ((state,),)
            for t in range(LENGTH):
                output, states = recurrence.step(inputs[:, t], states)
                outputs.append(output)
            output = tf.stack(outputs, axis=1)
        else:
            output = recurrence.sequence(inputs, ((state,),))
        total = tf.reduce_sum(output * probe)
    variables = [weight.value for weight in recurrence.weights]
    found = tape.gradient(total, [inputs, state, *variables])
    expected = reference.finite_difference(loss, [INPUTS, STATE, *recurrence.get_weights()])
    for gradient, difference in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, difference, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_its_dtype_and_comes_close(dtype):
    recurrence = built(dtype=f"mixed_{dtype}")
    states = ((ops.cast(STATE, dtype),),)
    whole = recurrence.sequence(ops.cast(INPUTS, dtype), states)
    output, ((state,),) = recurrence.step(ops.cast(INPUTS[:, 0], dtype), states)
    for tensor in (whole, output, state):
        assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    expected = cho(INPUTS, STATE, recurrence.get_weights())
    np.testing.assert_allclose(ops.cast(whole, "float32"), expected, atol=0.05)
    np.testing.assert_allclose(ops.cast(output, "float32"), expected[:, 0], atol=0.05)


def test_xla_changes_nothing():
    recurrence, states = built(), ((STATE.astype("float32"),),)
    inputs = tf.constant(INPUTS, tf.float32)
    run = tf.function(lambda x: recurrence.sequence(x, states), jit_compile=True)
    np.testing.assert_allclose(run(inputs), recurrence.sequence(inputs, states), atol=1e-6)


def test_weights_have_the_documented_names_and_shapes():
    cell = built().layers[0].cell
    assert {weight.name: tuple(weight.shape) for weight in cell.weights} == {
        "kernel": (EMBEDDING, 3 * UNITS),
        "recurrent_kernel": (UNITS, 3 * UNITS),
        "context_kernel": (CONTEXT, 3 * UNITS),
        "bias": (3 * UNITS,),
    }
    fresh = Recurrence("cho", UNITS)
    fresh.build((None, None, 4), 2)
    assert (fresh.layers[0].cell.bias.numpy() == 0).all()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_encoder_of_it_reads_tokens_alone(bidirectional):
    encoder = RNNEncoder("cho", UNITS, bidirectional=bidirectional)
    embedded = normal(4, 5, EMBEDDING)
    encoder.build((None, None, EMBEDDING))
    weights = randomised(encoder).layers[0].get_weights()
    found = encoder(embedded, MASK)
    assert encoder.state_depths == ((found.states[0][0].shape[-1],),)
    for row, length in enumerate(MASK.sum(axis=1)):
        tokens, zero = embedded[row : row + 1, :length], np.zeros((1, UNITS))
        outputs = [cho(tokens, zero, weights[:4], 0)]
        if bidirectional:
            outputs.append(cho(tokens[:, ::-1], zero, weights[4:], 0)[:, ::-1])
        expected = np.concatenate(outputs, axis=-1)[0]
        np.testing.assert_allclose(found.values[row, :length], expected, atol=1e-5)
        last = np.concatenate([expected[-1, :UNITS], expected[0, UNITS:]])
        np.testing.assert_allclose(found.states[0][0][row], last, atol=1e-5)
    assert (np.array(found.values)[~MASK] == 0).all()


def test_recurrent_dropout_is_refused():
    with pytest.raises(ValueError, match="^recurrent_dropout: cell='cho' has none, got 0.5"):
        Recurrence("cho", UNITS, recurrent_dropout=0.5)
    with pytest.raises(ValueError, match="^recurrent_dropout: cell='cho' has none, got 0.5"):
        RNNEncoder("cho", UNITS, recurrent_dropout=0.5)


@pytest.mark.parametrize("units", [0, -1, 2.0])
def test_units_have_to_be_positive(units):
    with pytest.raises(ValueError, match="^units: expected a positive int, got"):
        ChoCell(units)


def test_a_loop_of_training_steps_is_a_sequence():
    recurrence, states = built(dropout=0.0), ((STATE.astype("float32"),),)
    expected = recurrence.sequence(INPUTS, states, training=True)
    with recurrence.one_sequence(states):
        for t in range(LENGTH):
            output, states = recurrence.step(INPUTS[:, t], states, training=True)
            np.testing.assert_allclose(output, expected[:, t], atol=1e-6)


# === The GRU of the papers ===


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_gru_before_is_that_of_the_papers(num_layers, dtype):
    recurrence = built("gru_before", num_layers, dtype=dtype)
    states = tuple((normal(BATCH, UNITS, seed=seed, dtype=dtype),) for seed in range(num_layers))
    weights = [layer.get_weights() for layer in recurrence.layers]
    outputs, expected = recurrence.sequence(INPUTS.astype(dtype), states), states
    for t in range(LENGTH):
        step, states = recurrence.step(INPUTS[:, t].astype(dtype), states)
        top, expected = reference.recurrent_stack_step(
            "gru_before", INPUTS[:, t], expected, weights
        )
        close(outputs[:, t], top, dtype)
        close(step, top, dtype)
    for (found,), (state,) in zip(states, expected, strict=True):
        close(found, state, dtype)


def test_gru_and_gru_before_differ():
    before, after = (built(cell).layers[0] for cell in ("gru_before", "gru"))
    assert [layer.reset_after for layer in (before, after)] == [False, True]


def test_only_training_drops_what_is_recurrent():
    dropping, plain = built("gru_before", recurrent_dropout=0.5), built("gru_before")
    states = ((STATE.astype("float32"),),)
    expected = plain.sequence(INPUTS, states)
    np.testing.assert_allclose(dropping.sequence(INPUTS, states), expected, atol=1e-6)
    assert np.abs(dropping.sequence(INPUTS, states, training=True) - expected).max() > 1e-3


# === Names and saving ===


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_has_the_states_that_it_says(name):
    recurrence = Recurrence(name, UNITS, 2)
    recurrence.build((None, None, 4))
    states = tuple(
        tuple(np.zeros((BATCH, u), "float32") for u in layer) for layer in recurrence.state_depths
    )
    output, following = recurrence.step(np.zeros((BATCH, 4), "float32"), states)
    assert output.shape == (BATCH, UNITS)
    keras.tree.assert_same_structure(states, following)


def test_a_cell_may_be_written_with_a_hyphen():
    assert type(rnn_layer("simple-rnn", 2)) is keras.layers.SimpleRNN
    layer = rnn_layer("gru-before", 2)
    assert type(layer) is keras.layers.GRU and not layer.reset_after


def test_an_unknown_cell_is_told_the_names():
    with pytest.raises(ValueError) as caught:
        rnn_layer("gru_befor", 2)
    assert str(caught.value) == (
        "cell: expected one of ['cho', 'gru', 'gru_before', 'lstm', 'simple_rnn'], got "
        "'gru_befor'. Did you mean 'gru_before'?"
    )


def test_a_cell_survives_saving():
    cell = ChoCell(UNITS, CONTEXT, name="mine", dtype="mixed_bfloat16")
    again = reborn(cell)
    assert type(again) is ChoCell and config_of(again) == config_of(cell)


@pytest.mark.parametrize("name", ["cho", "gru_before", "gru-before"])
def test_a_recurrence_survives_saving(name):
    recurrence = built(name)
    again = reborn(recurrence)
    assert config_of(again) == config_of(recurrence)
    again.set_weights(recurrence.get_weights())
    states = ((STATE.astype("float32"),),)
    expected = recurrence.sequence(INPUTS, states)
    np.testing.assert_array_equal(again.sequence(INPUTS, states), expected)


def test_a_plain_keras_model_of_it_survives_its_file(tmp_path):
    inputs = keras.Input((None, EMBEDDING + CONTEXT))
    outputs = keras.layers.RNN(ChoCell(UNITS, CONTEXT), return_sequences=True)(inputs)
    model = keras.Model(inputs, outputs)
    randomised(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    found = again(INPUTS.astype("float32"))
    np.testing.assert_array_equal(found, model(INPUTS.astype("float32")))
    close(found, cho(INPUTS, np.zeros((BATCH, UNITS)), model.get_weights()))
