"""Recurrence: whole sequences and single steps against the oracle; dropout and its masks."""

import itertools

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import ops
from layer_samples import CELLS, TOLERANCE, close, config_of, normal, randomised, reborn

from keras_attn.layers import Recurrence
from keras_attn.layers.recurrence import rnn_layer

BATCH, LENGTH, DEPTH, UNITS = 3, 4, 2, 5
INPUTS = normal(BATCH, LENGTH, DEPTH)
every_cell = pytest.mark.parametrize("cell", CELLS)


def built(cell, num_layers=2, depth=DEPTH, units=UNITS, **options):
    recurrence = Recurrence(cell, units, num_layers, **options)
    recurrence.build((None, None, depth))
    return randomised(recurrence)


def weights_of(recurrence):
    return [tuple(layer.get_weights()) for layer in recurrence.layers]


def states_of(recurrence, rows=BATCH, dtype="float32"):
    """Return random states for so many rows."""
    seeds = itertools.count(20)
    return tuple(
        tuple(normal(rows, u, seed=next(seeds), dtype=dtype) for u in layer)
        for layer in recurrence.state_depths
    )


def oracle(recurrence, inputs, states):
    """Return the outputs (B, T, U) and the last states of a stack without residual sums."""
    outputs = []
    for t in range(inputs.shape[1]):
        output, states = reference.recurrent_stack_step(
            recurrence.cell, inputs[:, t], states, weights_of(recurrence)
        )
        outputs.append(output)
    return np.stack(outputs, axis=1), states


# === Numbers ===


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num_layers", [1, 2])
@every_cell
def test_a_sequence_is_that_of_the_papers(cell, num_layers, dtype):
    recurrence = built(cell, num_layers, dtype=dtype)
    states = states_of(recurrence, dtype=dtype)
    found = recurrence.sequence(INPUTS.astype(dtype), states)
    close(found, oracle(recurrence, INPUTS, states)[0], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num_layers", [1, 2])
@every_cell
def test_steps_are_those_of_the_papers(cell, num_layers, dtype):
    recurrence = built(cell, num_layers, dtype=dtype)
    states = states_of(recurrence, dtype=dtype)
    expected, last = oracle(recurrence, INPUTS, states)
    for t in range(LENGTH):
        output, states = recurrence.step(INPUTS[:, t].astype(dtype), states)
        close(output, expected[:, t], dtype)
    assert isinstance(states, tuple) and all(isinstance(layer, tuple) for layer in states)
    for layer, expected_layer in zip(states, last, strict=True):
        for state, expected_state in zip(layer, expected_layer, strict=True):
            close(state, expected_state, dtype)


@every_cell
def test_residual_layers_add_their_input_to_their_output_but_not_to_their_state(cell):
    recurrence = built(cell, 3, residual=True)
    zeros = tuple(tuple(np.zeros((BATCH, u)) for u in layer) for layer in recurrence.state_depths)
    expected, last = reference.stacked(cell, INPUTS, None, weights_of(recurrence), residual=True)
    close(recurrence.sequence(INPUTS, zeros), expected)
    states = zeros
    for t in range(LENGTH):
        output, states = recurrence.step(INPUTS[:, t], states)
        close(output, expected[:, t])
    for found, state in zip(keras.tree.flatten(states), keras.tree.flatten(last), strict=True):
        close(found, state)


@every_cell
def test_an_input_of_width_zero_leaves_the_state_alone_to_work_on(cell):
    recurrence = built(cell, 1, depth=0)
    states, nothing = states_of(recurrence), np.zeros((BATCH, LENGTH, 0))
    close(recurrence.sequence(nothing, states), oracle(recurrence, nothing, states)[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_cell
def test_half_precision_keeps_its_dtype_and_comes_close(cell, dtype):
    recurrence = built(cell, dtype=f"mixed_{dtype}")
    exact = states_of(recurrence)
    states = keras.tree.map_structure(lambda state: ops.cast(state, dtype), exact)
    output, following = recurrence.step(ops.cast(INPUTS[:, 0], dtype), states)
    whole = recurrence.sequence(ops.cast(INPUTS, dtype), states)
    for tensor in [output, whole, *keras.tree.flatten(following)]:
        assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    expected = oracle(recurrence, INPUTS, exact)[0]
    np.testing.assert_allclose(ops.cast(whole, "float32"), expected, atol=0.1)
    np.testing.assert_allclose(ops.cast(output, "float32"), expected[:, 0], atol=0.1)


@pytest.mark.parametrize("cell, states", [("lstm", 2), ("gru", 1), ("simple_rnn", 1)])
def test_state_depths_tell_layers_and_states(cell, states):
    assert Recurrence(cell, 5, 3).state_depths == ((5,) * states,) * 3


# === Dropout ===

DROPPING = [{"dropout": 0.5}, {"recurrent_dropout": 0.5}]
every_dropout = pytest.mark.parametrize(
    "options", DROPPING, ids=lambda options: next(iter(options))
)


@every_dropout
@every_cell
def test_only_training_drops_out(cell, options):
    recurrence, plain = built(cell, **options), built(cell)
    states = states_of(recurrence)
    x = INPUTS[:, 0]
    expected = plain.sequence(INPUTS, states), plain.step(x, states)[0]
    for _ in range(2):
        found = recurrence.sequence(INPUTS, states), recurrence.step(x, states)[0]
        for tensor, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(tensor, other, atol=1e-6)
    sequences = [recurrence.sequence(INPUTS, states, training=True) for _ in range(2)]
    steps = [recurrence.step(x, states, training=True)[0] for _ in range(2)]
    for (first, second), other in zip([sequences, steps], expected, strict=True):
        assert np.abs(first - other).max() > 1e-3 and np.abs(second - first).max() > 1e-3


def test_the_input_of_the_first_layer_is_not_dropped():
    states = states_of(single := built("gru", 1, dropout=0.9))
    trained = single.sequence(INPUTS, states, training=True)
    np.testing.assert_allclose(trained, single.sequence(INPUTS, states), atol=1e-6)


def test_what_a_residual_layer_adds_is_not_dropped():
    recurrence = built("gru", 2, dropout=0.9, residual=True)
    first, second = recurrence.layers
    second.set_weights([np.zeros(weight.shape) for weight in second.weights])
    states = tuple((np.zeros((BATCH, UNITS), "float32"),) for _ in range(2))
    expected = first(INPUTS, initial_state=list(states[0]))
    trained = recurrence.sequence(INPUTS, states, training=True)
    np.testing.assert_allclose(trained, expected, atol=1e-6)


def counting(units=64):
    """Return a recurrence that shows its masks: where a mask is 0, the state is 0 for good."""
    recurrence = Recurrence("simple_rnn", units, recurrent_dropout=0.5)
    recurrence.build((None, None, 1))
    recurrence.set_weights([np.zeros((1, units)), np.eye(units), np.zeros(units)])
    return recurrence, ((np.ones((BATCH, units), "float32"),),)


def by_steps(recurrence, states):
    """Return the outputs of a training loop over steps."""
    outputs, nothing = [], np.zeros((BATCH, 1), "float32")
    with recurrence.one_sequence(states):
        for _ in range(8):
            output, states = recurrence.step(nothing, states, training=True)
            outputs.append(output)
    return np.stack(outputs, axis=1)


def in_parallel(recurrence, states):
    return np.array(recurrence.sequence(np.zeros((BATCH, 8, 1)), states, training=True))


@pytest.mark.parametrize("run", [by_steps, in_parallel])
def test_a_recurrent_mask_holds_for_one_sequence(run):
    recurrence, states = counting()
    alive = run(recurrence, states) > 0
    assert (alive == alive[:, :1]).all()  # the same units at every step
    assert 0.3 < alive.mean() < 0.7 and (alive[0, 0] != alive[1, 0]).any()
    again = run(recurrence, states) > 0
    assert (again != alive).any()  # and others in the next sequence


def test_a_step_outside_of_a_sequence_draws_a_mask_of_its_own():
    recurrence, states = counting()
    nothing = np.zeros((BATCH, 1), "float32")
    by_steps(recurrence, states)
    first, second = (recurrence.step(nothing, states, training=True)[0] for _ in range(2))
    assert ((np.array(first) > 0) != (np.array(second) > 0)).any()


@pytest.mark.parametrize("training", [False, True])
@every_cell
def test_no_mask_of_another_graph_or_batch_is_left_behind(cell, training):
    recurrence = built(cell, recurrent_dropout=0.5)

    def step(rows):
        return recurrence.step(
            np.ones((rows, DEPTH), "float32"), states_of(recurrence, rows), training
        )

    tf.function(lambda: step(3))()
    for rows in (2, 4):
        assert step(rows)[0].shape == (rows, UNITS)
    tf.function(lambda: step(3))()
    trained = recurrence.sequence(INPUTS[:2], states_of(recurrence, 2), training=True)
    assert trained.shape == (2, LENGTH, UNITS)


def test_masks_are_forgotten_when_a_loop_fails():
    recurrence = built("lstm", recurrent_dropout=0.5)
    with pytest.raises(ZeroDivisionError), recurrence.one_sequence(states_of(recurrence)):
        raise ZeroDivisionError
    output, _ = recurrence.step(INPUTS[:2, 0], states_of(recurrence, 2), training=True)
    assert output.shape == (2, UNITS)
    first, second = (by_steps(*counting_pair) for counting_pair in [counting()] * 2)
    assert ((first > 0) != (second > 0)).any()


# === Saving and errors ===


@every_cell
def test_a_recurrence_survives_saving(cell):
    recurrence = built(cell, residual=True, dropout=0.1, recurrent_dropout=0.2, name="mine")
    again = reborn(recurrence)
    assert type(again) is Recurrence and config_of(again) == config_of(recurrence)
    again.set_weights(recurrence.get_weights())
    states = states_of(recurrence)
    found, expected = again.sequence(INPUTS, states), recurrence.sequence(INPUTS, states)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [drop.rate for drop in again.drops] == [0.1]
    assert [layer.recurrent_dropout for layer in again.layers] == [0.2, 0.2]


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"cell": "gruu"},
            r"^cell: expected one of \['cho', 'gru', .*'gruu'. Did you mean 'gru'\?",
        ),
        ({"units": 0}, "^units: expected a positive int, got 0"),
        ({"num_layers": 1.0}, "^num_layers: expected a positive int, got 1.0"),
        ({"dropout": 1}, r"^dropout: expected a number in \[0, 1\), got 1"),
        (
            {"recurrent_dropout": -0.1},
            r"^recurrent_dropout: expected a number in \[0, 1\), got -0.1",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Recurrence(**options)


def test_a_cell_may_be_written_with_a_hyphen():
    assert type(rnn_layer("simple-rnn", 2)) is keras.layers.SimpleRNN
