"""The reference against numbers worked out by hand, stock Keras layers and its own properties."""

import ast
import functools
import itertools
import math
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import reference
from reference import DecoderWeights, Encoded, Variant

# Logarithms that make every number below exact:
LN2, LN3 = math.log(2), math.log(3)
# sigmoid(ln 3) = 3/(3+1) = .75      sigmoid(-ln 3) = .25      sigmoid(0) = .5
# tanh(ln 2) = (4-1)/(4+1) = .6      tanh(ln 3) = (9-1)/(9+1) = .8      tanh(ln 3 / 2) = .5

KINDS = sorted(reference.NUM_STATES)
KERAS_LAYERS = {
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "gru_before": functools.partial(keras.layers.GRU, reset_after=False),
    "simple_rnn": keras.layers.SimpleRNN,
}
# Right-padded, gaps at either end and inside, a single token.
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [1, 0, 0, 0, 0]], bool)


def random(*shape, seed=0):
    """Numbers in (-1, 1) that depend on the shape and the seed alone."""
    return np.random.default_rng([seed, *shape]).uniform(-1, 1, shape)


def cell_weights(kind, inputs, units, seed=0):
    """A random triple of weights, in the shapes that Keras gives them."""
    gates = {"lstm": 4, "gru": 3, "gru_before": 3, "simple_rnn": 1}[kind]
    bias = (2, gates * units) if kind == "gru" else (gates * units,)
    return (
        random(inputs, gates * units, seed=seed + 1),
        random(units, gates * units, seed=seed + 2),
        random(*bias, seed=seed + 3),
    )


def keras_layer(kind, inputs, weights, **options):
    """A stock Keras layer that holds the triple of weights."""
    if kind != "simple_rnn":
        options["use_cudnn"] = False  # it refuses gaps in a mask
    options |= {"return_sequences": True, "return_state": True, "dtype": "float64"}
    layer = KERAS_LAYERS[kind](weights[1].shape[0], **options)
    layer.build((None, None, inputs))
    layer.set_weights(weights)
    return layer


def run_keras(layer, *args, **kwargs):
    """The outputs and the list of states of a Keras layer, as arrays."""
    outputs, *states = layer(*args, **kwargs)
    return np.asarray(outputs), [np.asarray(state) for state in states]


def assert_close(actual, expected, tolerance=1e-12):
    expected = np.asarray(expected)
    assert np.shape(actual) == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# === Independence ===


def test_the_reference_imports_numpy_and_the_standard_library_alone():
    tree = ast.parse(pathlib.Path(reference.__file__).read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy"}


# === Functions of one array ===


def test_sigmoid():
    assert_close(reference.sigmoid([0.0, LN3, -LN3]), [0.5, 0.75, 0.25])
    with np.errstate(over="raise"):
        assert_close(reference.sigmoid([-1000.0, 1000.0]), [0.0, 1.0])


def test_softmax():
    # exp: 1, 3, 4 of sum 8; without the middle 1/5, 4/5.
    scores = [0.0, LN3, math.log(4)]
    assert_close(reference.softmax(scores), [1 / 8, 3 / 8, 4 / 8])
    assert_close(reference.softmax(scores, [True, False, True]), [1 / 5, 0, 4 / 5])
    assert_close(reference.softmax(scores, [False] * 3), [0, 0, 0])
    assert_close(reference.softmax([1000.0, 1000.0, -1000.0]), [0.5, 0.5, 0])


def test_softmax_never_reads_masked_scores():
    assert_close(reference.softmax([np.nan, 0.0, np.inf, 0.0], [0, 1, 0, 1]), [0, 0.5, 0, 0.5])


def test_softmax_of_a_batch_goes_row_by_row():
    scores, mask = random(2, 4, 5), random(2, 1, 5, seed=1) > -0.5
    result = reference.softmax(scores, mask)
    for b in range(2):
        for q in range(4):
            assert_close(result[b, q], reference.softmax(scores[b, q], mask[b, 0]))
    assert_close(result.sum(axis=-1), np.ones((2, 4)))


def test_a_score_of_minus_infinity_is_as_good_as_masked():
    scores = [-np.inf, 0.5, -np.inf, 1.0]
    for function in (reference.softmax, reference.sparsemax, reference.hardmax):
        assert_close(function(scores), function([7.0, 0.5, 7.0, 1.0], [0, 1, 0, 1]), 0)
        assert_close(function([-np.inf, 2.0], [1, 0]), [0.0, 0.0])
    noise = random(4)
    assert_close(
        reference.gumbel_softmax(scores, noise, 0.5),
        reference.gumbel_softmax([7.0, 0.5, 7.0, 1.0], noise, 0.5, [0, 1, 0, 1]),
        0,
    )


def test_log_softmax():
    logits = [5.0, 5.0 + LN3, 5.0 + math.log(4)]
    assert_close(reference.log_softmax(logits), np.log([1 / 8, 3 / 8, 4 / 8]))
    assert_close(reference.log_softmax([0.0, -np.inf]), [0.0, -np.inf])


def test_sparsemax_by_hand():
    # [1, .5, -5]: 1 + 1 > 1; 1 + 2 * .5 > 1.5; 1 - 3 * 5 < -3.5: k = 2, tau = (1.5 - 1) / 2 = .25.
    assert_close(reference.sparsemax([1.0, 0.5, -5.0]), [0.75, 0.25, 0.0])
    # [2, 0, 1]: 1 + 2 > 2; 1 + 2 * 1 = 3 is not above 3: k = 1, tau = 1.
    assert_close(reference.sparsemax([2.0, 0.0, 1.0]), [1.0, 0.0, 0.0])
    assert_close(reference.sparsemax([0.0, 0.0]), [0.5, 0.5])
    assert_close(reference.sparsemax([1000.0, 999.5]), [0.75, 0.25])
    assert_close(reference.sparsemax([9.0, 1.0, np.nan, 0.5], [0, 1, 0, 1]), [0, 0.75, 0, 0.25])
    assert_close(reference.sparsemax([1.0, 2.0], [False, False]), [0.0, 0.0])


def test_sparsemax_of_two_scores_is_a_ramp():
    # Between differences of -1 and 1 it is linear: p = (1 + difference) / 2.
    for difference in (-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0):
        first = min(max((1 + difference) / 2, 0), 1)
        assert_close(reference.sparsemax([difference, 0.0]), [first, 1 - first])


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    # On the face of each set of positions the nearest point is the scores less a common number; of
    # the faces that hold theirs, the nearest wins.
    scores = 2 * random(6, 5)
    result = reference.sparsemax(scores)
    for b in range(6):
        best = None
        for size in range(1, 6):
            for face in map(list, itertools.combinations(range(5), size)):
                point = np.zeros(5)
                point[face] = scores[b, face] - (scores[b, face].sum() - 1) / size
                distance = np.sum((point - scores[b]) ** 2)
                if np.all(point >= 0) and (best is None or distance < best[0]):
                    best = distance, point
        assert_close(result[b], best[1])
    assert np.any(result == 0) and np.any((result > 0).sum(axis=1) > 1)
    assert_close(result.sum(axis=1), np.ones(6))
    assert_close(reference.sparsemax(result), result)  # a point of the simplex stays
    assert_close(reference.sparsemax(scores + 3.0), result)


def test_hardmax_by_hand():
    assert_close(reference.hardmax([1.0, 3.0, 2.0]), [0.0, 1.0, 0.0])
    assert_close(reference.hardmax([1.0, 3.0, 3.0]), [0.0, 1.0, 0.0])  # the first of equals
    assert_close(reference.hardmax([9.0, -3.0, np.nan, -2.0], [0, 1, 0, 1]), [0, 0, 0, 1])
    assert_close(reference.hardmax([1.0, 2.0], [False, False]), [0.0, 0.0])


def test_gumbel_softmax_by_hand():
    scores = [0.0, LN3]
    assert_close(reference.gumbel_softmax(scores, [0.0, 0.0], 1.0), [0.25, 0.75])
    assert_close(reference.gumbel_softmax(scores, [LN3, 0.0], 1.0), [0.5, 0.5])
    assert_close(reference.gumbel_softmax(scores, [0.0, 0.0], 0.5), [0.1, 0.9])  # 1 : 3^2
    assert_close(
        reference.gumbel_softmax([np.nan, *scores], [np.nan, 0.0, 0.0], 0.5, [0, 1, 1]),
        [0.0, 0.1, 0.9],
    )
    assert_close(reference.gumbel_softmax(scores, [0.0, 0.0], 1.0, [False, False]), [0.0, 0.0])


def test_gumbel_softmax_needs_no_normalised_scores():
    # log pi is the scores less a number of the row, and a softmax forgets that.
    scores, noise, mask = random(3, 2, 5), random(3, 2, 5, seed=1), random(3, 1, 5) > -0.5
    assert_close(
        reference.gumbel_softmax(scores, noise, 0.3, mask),
        reference.softmax((scores + noise) / 0.3, mask),
    )


def test_normalisers_of_a_batch_go_row_by_row():
    scores, mask = 2 * random(3, 4, 5), random(3, 1, 5, seed=1) > -0.5
    for function in (
        reference.sparsemax,
        reference.hardmax,
        lambda scores, mask: reference.gumbel_softmax(scores, np.zeros(scores.shape), 0.5, mask),
    ):
        result = function(scores, mask)
        for b in range(3):
            for q in range(4):
                assert_close(result[b, q], function(scores[b, q], mask[b, 0]))
        assert_close(result.sum(axis=-1), np.ones((3, 4)))


def test_cold_gumbel_softmax_draws_as_often_as_the_softmax_says():
    # The coldest relaxed sample is the one-hot of the largest perturbed score.
    scores = np.array([0.0, LN3, math.log(4)])
    noise = np.random.default_rng(0).gumbel(size=(4000, 3))
    perturbed = np.broadcast_to(scores, noise.shape)
    draws = reference.gumbel_softmax(perturbed, noise, 1e-6)
    assert_close(draws, reference.hardmax(perturbed + noise), 1e-9)
    assert_close(draws.mean(axis=0), [1 / 8, 3 / 8, 4 / 8], 0.03)  # 3 deviations are .024


# === Recurrent cells ===


def test_lstm_step_by_hand():
    # x = 1, h = 2; sums i = ln3, f = 2*0 + 0, g = ln2, o = 1 - 2*1 + (1 - ln3) = -ln3.
    # i = .75, f = .5, g = .6, o = .25; c = 2 ln2 - .9, so c' = .5 c + .75 * .6 = ln2 - .45 + .45
    # = ln2, and h' = .25 tanh(ln2) = .25 * .6 = .15.
    kernel = [[LN3, 0.0, LN2, 1.0]]
    recurrent_kernel = [[0.0, 0.0, 0.0, -1.0]]
    bias = [0.0, 0.0, 0.0, 1.0 - LN3]
    h, c = reference.lstm_step([[1.0]], [[2.0]], [[2 * LN2 - 0.9]], kernel, recurrent_kernel, bias)
    assert_close(h, [[0.15]])
    assert_close(c, [[LN2]])


def test_gru_step_by_hand():
    # x = 1, h = 2; z = sigmoid(ln3) = .75, r = sigmoid(0) = .5;
    # candidate = tanh(x 1 - 1 + .5 (2 * ln2/2 + ln2)) = tanh(ln2) = .6 (b' is inside the reset);
    # h' = .75 * 2 + .25 * .6 = 1.65.
    kernel = [[LN3, 0.0, 1.0]]
    recurrent_kernel = [[0.0, 0.0, LN2 / 2]]
    bias = [[0.0, 0.0, -1.0], [0.0, 0.0, LN2]]
    assert_close(reference.gru_step([[1.0]], [[2.0]], kernel, recurrent_kernel, bias), [[1.65]])


def test_gru_before_step_by_hand():
    # x = 1, h = [2, 4]; z = sigmoid(ln3) = .75 in both, r = [sigmoid(0), sigmoid(-ln3)] = [.5,
    # .25], so r h = [1, 1]: candidates tanh(1 * ln2 + 1 * 1 - 1) = .6 and tanh(1 * ln3) = .8.
    # h' = [.75 * 2 + .25 * .6, .75 * 4 + .25 * .8] = [1.65, 3.2].
    kernel = [[LN3, LN3, 0.0, -LN3, 0.0, 0.0]]
    recurrent_kernel = np.zeros((2, 6))
    recurrent_kernel[:, 4] = [LN2, 1.0]
    recurrent_kernel[:, 5] = [0.0, LN3]
    bias = [0.0, 0.0, 0.0, 0.0, -1.0, 0.0]
    h = reference.gru_before_step([[1.0]], [[2.0, 4.0]], kernel, recurrent_kernel, bias)
    assert_close(h, [[1.65, 3.2]])


def test_the_order_of_reset_and_product_shows_with_two_units_alone():
    def both(units):
        kernel, recurrent_kernel, bias = cell_weights("gru_before", 3, units)
        x, h = random(2, 3), random(2, units)
        before = reference.gru_before_step(x, h, kernel, recurrent_kernel, bias)
        after = reference.gru_step(x, h, kernel, recurrent_kernel, [bias, np.zeros(3 * units)])
        return before, after

    assert_close(*both(1))
    before, after = both(2)
    assert not np.isclose(before, after).any()


def test_cho_step_by_hand():
    # x = 1, c = 3, h = 2; z = sigmoid(3 * ln3 / 3) = .75, r = sigmoid(-3 * ln3 / 3) = .25;
    # candidate = tanh(1 * 1 - 1 + .25 (2 * ln2 + 3 * 2 ln2 / 3)) = tanh(ln2) = .6;
    # h' = .75 * 2 + .25 * .6 = 1.65.
    h = reference.cho_step(
        [[1.0]],
        [[3.0]],
        [[2.0]],
        [[0.0, 0.0, 1.0]],
        [[0.0, 0.0, LN2]],
        [[LN3 / 3, -LN3 / 3, 2 * LN2 / 3]],
        [0.0, 0.0, -1.0],
    )
    assert_close(h, [[1.65]])


def test_cho_step_is_a_gru_whose_recurrent_bias_is_the_projected_context():
    kernel, recurrent_kernel, bias = cell_weights("gru_before", 3, 4)
    x, context, h, context_kernel = random(2, 3), random(2, 5), random(2, 4), random(5, 12)
    weights = kernel, recurrent_kernel
    result = reference.cho_step(x, context, h, *weights, context_kernel, bias)
    for b in range(2):
        row = slice(b, b + 1)
        biases = [bias, context[b] @ context_kernel]
        assert_close(result[row], reference.gru_step(x[row], h[row], *weights, biases))
    without = reference.cho_step(x, context, h, *weights, np.zeros((5, 12)), bias)
    assert_close(without, reference.gru_step(x, h, *weights, [bias, np.zeros(12)]))


def test_simple_rnn_step_by_hand():
    # tanh(1 * ln3 + 2 * ln2 - 2 ln2) = .8
    assert_close(reference.simple_rnn_step([[1.0]], [[2.0]], [[LN3]], [[LN2]], [-2 * LN2]), [[0.8]])


@pytest.mark.parametrize("kind", KINDS)
def test_cell_step_agrees_with_keras(kind):
    weights = cell_weights(kind, 3, 4)
    x = random(2, 3)
    states = tuple(random(2, 4, seed=9 + n) for n in range(reference.NUM_STATES[kind]))
    output, new_states = reference.cell_step(kind, x, states, weights)
    layer = keras_layer(kind, 3, weights)
    expected, expected_states = run_keras(layer, x[:, np.newaxis], initial_state=list(states))
    assert_close(output, expected[:, 0])
    assert len(new_states) == len(expected_states)
    for actual, state in zip(new_states, expected_states, strict=True):
        assert_close(actual, state)


def test_single_precision_is_raised_to_double():
    weights = [array.astype("float32") for array in cell_weights("gru", 3, 4)]
    x, h = random(2, 3).astype("float32"), random(2, 4).astype("float32")
    output, _ = reference.cell_step("gru", x, (h,), weights)
    assert output.dtype == np.float64
    exact, _ = reference.cell_step(
        "gru", x.astype(float), (h.astype(float),), [array.astype(float) for array in weights]
    )
    assert np.array_equal(output, exact)


def test_unknown_cell():
    with pytest.raises(ValueError, match="Received: 'elman'"):
        reference.cell_step("elman", [[1.0]], ([[1.0]],), (0, 0, 0))


# === Recurrence over a sequence ===


def test_run_rnn_by_hand():
    # h' = tanh(x + h) on [ln2, pad, ln3]: forwards .6 and tanh(ln3 + .6), backwards .8 and
    # tanh(ln2 + .8).
    inputs, mask, weights = [[[LN2], [99.0], [LN3]]], [[1, 0, 1]], ([[1.0]], [[1.0]], [0.0])
    outputs, (final,) = reference.run_rnn("simple_rnn", inputs, mask, weights)
    assert_close(outputs, [[[0.6], [0.0], [math.tanh(LN3 + 0.6)]]])
    assert_close(final, [[math.tanh(LN3 + 0.6)]])
    outputs, (final,) = reference.run_rnn("simple_rnn", inputs, mask, weights, backwards=True)
    assert_close(outputs, [[[math.tanh(LN2 + 0.8)], [0.0], [0.8]]])
    assert_close(final, [[math.tanh(LN2 + 0.8)]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backwards", [False, True])
def test_run_rnn_agrees_with_keras(kind, backwards):
    inputs, weights = random(4, 5, 3), cell_weights(kind, 3, 4)
    initial = tuple(random(4, 4, seed=9 + n) for n in range(reference.NUM_STATES[kind]))
    outputs, states = reference.run_rnn(kind, inputs, MASK, weights, initial, backwards)
    layer = keras_layer(kind, 3, weights, go_backwards=backwards, zero_output_for_mask=True)
    expected, expected_states = run_keras(layer, inputs, initial_state=list(initial), mask=MASK)
    if backwards:  # Keras leaves these in the order in which they were made
        expected = expected[:, ::-1]
    assert_close(outputs, expected)
    for state, expected_state in zip(states, expected_states, strict=True):
        assert_close(state, expected_state)


def test_a_row_without_tokens_keeps_its_initial_state():
    initial = (random(1, 4), random(1, 4, seed=1))
    outputs, states = reference.run_rnn(
        "lstm", random(1, 3, 3), np.zeros((1, 3)), cell_weights("lstm", 3, 4), initial
    )
    assert_close(outputs, np.zeros((1, 3, 4)))
    assert_close(states, initial)


@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional_agrees_with_keras(kind):
    inputs = random(4, 5, 3)
    ahead, back = cell_weights(kind, 3, 4), cell_weights(kind, 3, 4, seed=50)
    values, states = reference.bidirectional(kind, inputs, MASK, ahead, back)
    layer = keras.layers.Bidirectional(keras_layer(kind, 3, ahead), dtype="float64")
    layer.build((None, None, 3))
    layer.set_weights([*ahead, *back])
    expected, flat = run_keras(layer, inputs, mask=MASK)
    assert_close(values, expected)
    half = len(flat) // 2  # Keras: all forward states, then all backward states
    assert len(states) == half
    for n in range(half):
        assert_close(states[n], np.concatenate([flat[n], flat[half + n]], axis=1))


def test_padding_and_neighbours_change_nothing():
    layers = [
        (cell_weights("gru", 3, 2), cell_weights("gru", 3, 2, seed=10)),
        (cell_weights("gru", 4, 2, seed=20), cell_weights("gru", 4, 2, seed=30)),
    ]
    inputs = random(2, 5, 3)
    mask = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    values, states = reference.stacked("gru", inputs, mask, layers, residual=True)
    alone, alone_states = reference.stacked("gru", inputs[:1, :3], None, layers, residual=True)
    assert_close(values[:1, :3], alone, 0)
    assert_close(values[0, 3:], np.zeros((2, 4)))
    for layer, alone_layer in zip(states, alone_states, strict=True):
        assert_close(layer[0][:1], alone_layer[0], 0)


def test_stacked_residual_by_hand():
    # Layers tanh(2x), tanh(x), tanh(x) without memory. The first is not residual although its
    # widths agree.
    twice, once = ([[2.0]], [[0.0]], [0.0]), ([[1.0]], [[0.0]], [0.0])
    first = 0.6  # tanh(2 * ln2 / 2)
    second = math.tanh(first)
    sum_2 = second + first
    third = math.tanh(sum_2)
    values, states = reference.stacked(
        "simple_rnn", [[[LN2 / 2]]], None, [twice, once, once], residual=True
    )
    assert_close(values, [[[third + sum_2]]])
    assert_close(states, [[[[first]]], [[[second]]], [[[third]]]])
    values, _ = reference.stacked("simple_rnn", [[[LN2 / 2]]], None, [twice, once, once])
    assert_close(values, [[[math.tanh(math.tanh(first))]]])


def test_stacked_skips_the_residual_where_the_width_changes():
    layers = [cell_weights("gru", 3, 4), cell_weights("gru", 4, 2)]
    plain, _ = reference.stacked("gru", random(2, 3, 3), None, layers)
    residual, _ = reference.stacked("gru", random(2, 3, 3), None, layers, residual=True)
    assert_close(plain, residual, 0)


def test_stacked_backwards_is_the_stack_on_the_reversed_source():
    inputs, layers = random(2, 4, 3), [cell_weights("lstm", 3, 4), cell_weights("lstm", 4, 4)]
    values, states = reference.stacked("lstm", inputs, None, layers, backwards=True)
    reversed_values, reversed_states = reference.stacked("lstm", inputs[:, ::-1], None, layers)
    assert_close(values, reversed_values[:, ::-1], 0)
    assert_close(states, reversed_states, 0)


def test_reverse_by_length_by_hand():
    rows = [[5, 6, 7, 2, 0], [5, 6, 2, 0, 0], [5, 2, 0, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    lengths = [4, 3, 2, 1, 0]
    result = reference.reverse_by_length(rows, lengths)
    expected = [[7, 6, 5, 2, 0], [6, 5, 2, 0, 0], *rows[2:]]
    assert np.array_equal(result, expected) and np.issubdtype(result.dtype, np.integer)
    assert np.array_equal(reference.reverse_by_length(result, lengths), rows)


def test_reverse_by_length_of_vectors():
    rows = random(2, 4, 3)
    result = reference.reverse_by_length(rows, [4, 2])
    assert_close(result[0], rows[0, [2, 1, 0, 3]], 0)
    assert_close(result[1], rows[1], 0)


def test_a_layer_reads_the_words_backwards_either_way():
    # Without EOS a reversed source read forwards is the source read backwards.
    inputs, weights = random(2, 4, 3), cell_weights("gru", 3, 4)
    words = [[1, 1, 1, 0], [1, 0, 0, 0]]  # EOS at 3 and at 1 is masked out
    turned = reference.reverse_by_length(inputs, [4, 2])
    outputs, states = reference.run_rnn("gru", turned, words, weights)
    expected, final = reference.run_rnn("gru", inputs, words, weights, backwards=True)
    assert_close(states, final, 0)
    assert_close(reference.reverse_by_length(outputs, [4, 2]), expected, 0)


# === Scores ===


def test_scores_by_hand():
    query, key = [1.0, 2.0], [3.0, 4.0]
    assert reference.dot(query, key) == 11.0
    assert_close(reference.scaled_dot(query, key), 11.0 / math.sqrt(2))
    # kernel (U, C) = (2, 3): q^T K = [1 + 2*0, 0 + 2*1, 2 + 2*0] = [1, 2, 2]; . [3, 4, 5] = 21
    assert reference.general(query, [3.0, 4.0, 5.0], [[1, 0, 2], [0, 1, 0]]) == 21.0
    # tanh(q Wq + k Wk) = tanh([1*ln2 + 0, 1*0 + ln3]) = [.6, .8]; scale [10, 5]: 6 + 4 = 10
    assert_close(
        reference.additive([1.0, 2.0], [1.0], [[LN2, 0.0], [0.0, 0.0]], [[0.0, LN3]], [10.0, 5.0]),
        10.0,
    )
    with pytest.raises(ValueError, match="equal widths"):
        reference.dot([1.0], [1.0, 2.0])


def test_general_with_an_identity_is_dot():
    query, key = random(4), random(4, seed=1)
    assert_close(reference.general(query, key, np.eye(4)), reference.dot(query, key))


def test_low_rank_by_hand():
    # q Wq = [1 + 2 * 3, 2 * 1] = [7, 2], k Wk = [2 * 1, 2 * -1] = [2, -2]: 14 - 4 = 10
    query_kernel, key_kernel = [[1.0, 0.0], [3.0, 1.0]], [[1.0, -1.0]]
    assert reference.low_rank([1.0, 2.0], [2.0], query_kernel, key_kernel) == 10.0


def test_low_rank_is_general_with_a_kernel_of_low_rank():
    query, key, query_kernel, key_kernel = random(4), random(3), random(4, 2), random(3, 2)
    assert_close(
        reference.low_rank(query, key, query_kernel, key_kernel),
        reference.general(query, key, query_kernel @ key_kernel.T),
    )


def test_concat_by_hand():
    # [q; k] = [1, 2, 3]: tanh([1 * ln2, 3 * ln3 - 2 * ln3]) = [.6, .8]; scale [10, 5]: 10
    kernel = [[LN2, 0.0], [0.0, -LN3], [0.0, LN3]]
    assert_close(reference.concat([1.0, 2.0], [3.0], kernel, [10.0, 5.0]), 10.0)


def test_concat_is_additive_with_its_kernels_one_below_the_other():
    query, key, query_kernel, key_kernel, scale = (
        random(4),
        random(3),
        random(4, 5),
        random(3, 5),
        random(5),
    )
    assert_close(
        reference.concat(query, key, np.concatenate([query_kernel, key_kernel]), scale),
        reference.additive(query, key, query_kernel, key_kernel, scale),
    )


def test_location_by_hand():
    # q @ kernel = [1, 2, 3]; a source of two takes the first two, one of four lacks a score.
    query, kernel = [1.0, 2.0], [[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]]
    assert_close(reference.location(query, kernel, 2), [1.0, 2.0])
    scores = reference.location(query, kernel, 4)
    assert_close(scores, [1.0, 2.0, 3.0, -np.inf])
    assert reference.softmax(scores)[3] == 0
    assert_close(reference.softmax(scores), [*reference.softmax([1.0, 2.0, 3.0]), 0.0])


def test_location_features_by_hand():
    # Taps 1, 2, 3: .2 * 2 + .3 * 3 = 1.3; .2 + .3 * 2 + .5 * 3 = 2.3; .3 + .5 * 2 = 1.3. Taps 1, 0,
    # 0 read the neighbour on the left.
    filters = [[[1.0, 1.0]], [[2.0, 0.0]], [[3.0, 0.0]]]
    features = reference.location_features([0.2, 0.3, 0.5], filters)
    assert_close(features, [[1.3, 0.0], [2.3, 0.2], [1.3, 0.3]])
    with pytest.raises(ValueError, match="Received: 2"):
        reference.location_features([0.2, 0.3, 0.5], filters[:2])


@pytest.mark.parametrize("width", [1, 3, 9])
def test_location_features_agree_with_keras(width):
    previous, filters = random(2, 5), random(width, 1, 4)
    layer = keras.layers.Conv1D(4, width, padding="same", use_bias=False, dtype="float64")
    layer.build((None, None, 1))
    layer.set_weights([filters])
    expected = np.asarray(layer(previous[:, :, np.newaxis]))
    for b in range(2):
        assert_close(reference.location_features(previous[b], filters), expected[b])


def test_location_sensitive_by_hand():
    # q = 1, k = 2, f = 3: tanh([ln2 + 3 * 1 - 3, 2 * ln3 + 3 * -1 + 3 - ln3]) = [.6, .8].
    kernels = [[LN2, 0.0]], [[0.0, LN3]], [[1.0, -1.0]]
    score = reference.location_sensitive(
        [1.0], [2.0], [3.0], *kernels, [-3.0, 3.0 - LN3], [10.0, 5.0]
    )
    assert_close(score, 10.0)


def test_coverage_by_hand():
    # The same numbers, 3 the amount covered.
    kernels = [[LN2, 0.0]], [[0.0, LN3]], [[1.0, -1.0]]
    score = reference.coverage([1.0], [2.0], 3.0, *kernels, [-3.0, 3.0 - LN3], [10.0, 5.0])
    assert_close(score, 10.0)


def test_scores_that_read_the_past_are_additive_where_that_is_nothing():
    query, key, scale, zeros = random(4), random(3), random(5), np.zeros(5)
    kernels = random(4, 5), random(3, 5)
    expected = reference.additive(query, key, *kernels, scale)
    coverage_kernel, feature_kernel = random(1, 5), random(2, 5)
    assert_close(
        reference.coverage(query, key, 0.0, *kernels, coverage_kernel, zeros, scale), expected
    )
    assert_close(
        reference.location_sensitive(
            query, key, [0.0, 0.0], *kernels, feature_kernel, zeros, scale
        ),
        expected,
    )
    # The covered amount is a feature of width 1.
    bias = random(5, seed=1)
    assert_close(
        reference.coverage(query, key, 0.7, *kernels, coverage_kernel, bias, scale),
        reference.location_sensitive(query, key, [0.7], *kernels, coverage_kernel, bias, scale),
    )


def test_fertility_by_hand():
    # 2 sigmoid(1 * ln3 + 2 * 0) = 2 * .75
    assert_close(reference.fertility([1.0, 2.0], [[LN3], [0.0]], 2.0), 1.5)
    assert_close(reference.fertility([1.0, 2.0], [[0.0], [0.0]], 2.0), 1.0)


# === Attention ===


def test_attend_by_hand():
    # Scores of q = 1 and keys 0, ln3, (masked): alignments 1/4, 3/4; values 4, 8: context 7.
    contexts, alignments = reference.attend(
        reference.dot,
        [[[1.0]]],
        [[[4.0], [8.0], [np.nan]]],
        keys=[[[0.0], [LN3], [9.0]]],
        mask=[[1, 1, 0]],
    )
    assert_close(alignments, [[[0.25, 0.75, 0.0]]])
    assert_close(contexts, [[[7.0]]])


def test_attend_combines_its_masks():
    queries, values = random(4, 3, 2), random(4, 5, 2, seed=1)
    attention_mask = random(4, 3, 5, seed=2) > 0
    attention_mask[0, 0] = False
    contexts, alignments = reference.attend(
        reference.dot, queries, values, mask=MASK, attention_mask=attention_mask
    )
    visible = attention_mask & MASK[:, np.newaxis]
    assert np.all(alignments[~visible] == 0)
    assert np.all(alignments[visible] > 0)
    assert_close(alignments.sum(axis=2), visible.any(axis=2).astype(float))
    assert_close(contexts, np.einsum("bqs,bsd->bqd", alignments, values))
    assert not visible.any(axis=2).all() and np.all(contexts[~visible.any(axis=2)] == 0)


def test_attend_agrees_with_keras():
    queries, values, keys = random(4, 3, 2), random(4, 5, 3), random(4, 5, 2)
    contexts, alignments = reference.attend(reference.dot, queries, values, keys, MASK)
    layer = keras.layers.Attention(dtype="float64")
    expected, weights = layer(
        [queries, values, keys], mask=[None, MASK], return_attention_scores=True
    )
    assert_close(contexts, expected)
    assert_close(alignments, weights)


def test_additive_attention_agrees_with_keras_after_the_projections_that_keras_lacks():
    queries, values = random(4, 3, 2), random(4, 5, 3)
    query_kernel, key_kernel, scale = random(2, 6), random(3, 6), random(6)
    contexts, alignments = reference.attend(
        lambda query, key: reference.additive(query, key, query_kernel, key_kernel, scale),
        queries,
        values,
        mask=MASK,
    )
    layer = keras.layers.AdditiveAttention(dtype="float64")
    inputs = [queries @ query_kernel, values, values @ key_kernel]
    layer.build([array.shape for array in inputs])
    layer.set_weights([scale])
    expected, weights = layer(inputs, mask=[None, MASK], return_attention_scores=True)
    assert_close(contexts, expected)
    assert_close(alignments, weights)


def test_a_score_of_zero_everywhere_gives_the_mean():
    values = random(4, 5, 3)
    contexts, _ = reference.attend(lambda query, key: 0.0, random(4, 1, 2), values, mask=MASK)
    assert_close(contexts[:, 0], reference.summary_mean(values, MASK))


def test_multi_head_by_hand():
    # Two heads of width 1. Head 0: scores 0, ln3, so 1/4, 3/4 of values 4, 0: 1. Head 1: scores
    # ln3, 0, so 3/4, 1/4 of values 8, 16: 10. The output kernel exchanges the two.
    exchange = [[0.0, 1.0], [1.0, 0.0]]
    contexts, alignments = reference.multi_head(
        reference.dot,
        [[[1.0, 1.0]]],
        [[[0.0, LN3], [LN3, 0.0], [9.0, 9.0]]],
        [[[4.0, 8.0], [0.0, 16.0], [7.0, 7.0]]],
        np.eye(2),
        np.eye(2),
        np.eye(2),
        exchange,
        heads=2,
        mask=[[1, 1, 0]],
    )
    assert_close(alignments, [[[[0.25, 0.75, 0.0]], [[0.75, 0.25, 0.0]]]])
    assert_close(contexts, [[[10.0, 1.0]]])


def test_one_head_between_identities_is_attend():
    queries, keys, values = random(4, 3, 2), random(4, 5, 2), random(4, 5, 3)
    contexts, alignments = reference.multi_head(
        reference.dot, queries, keys, values, np.eye(2), np.eye(2), np.eye(3), np.eye(3), 1, MASK
    )
    expected, weights = reference.attend(reference.dot, queries, values, keys, MASK)
    assert_close(contexts, expected)
    assert_close(alignments, weights[:, np.newaxis])


def test_multi_head_agrees_with_keras():
    queries, keys, values = random(4, 3, 2), random(4, 5, 7), random(4, 5, 3)
    kernels = random(2, 8), random(7, 8), random(3, 6), random(6, 5)
    contexts, alignments = reference.multi_head(
        reference.scaled_dot, queries, keys, values, *kernels, heads=2, mask=MASK
    )
    layer = keras.layers.MultiHeadAttention(
        2, 4, value_dim=3, output_shape=5, use_bias=False, flash_attention=False, dtype="float64"
    )
    layer.build(queries.shape, values.shape, keys.shape)
    shapes = [(2, 2, 4), (7, 2, 4), (3, 2, 3), (2, 3, 5)]  # heads apart from their widths
    layer.set_weights(
        [kernel.reshape(shape) for kernel, shape in zip(kernels, shapes, strict=True)]
    )
    expected, weights = layer(
        queries, values, keys, attention_mask=MASK[:, np.newaxis], return_attention_scores=True
    )
    assert_close(contexts, expected)
    assert_close(alignments, weights)


def test_multi_head_refuses_widths_that_it_cannot_share_out():
    with pytest.raises(ValueError, match="2 divides. Received: 3 and 4"):
        reference.multi_head(
            reference.dot,
            random(1, 1, 3),
            random(1, 2, 3),
            random(1, 2, 4),
            *(np.eye(3), np.eye(3), np.eye(4), np.eye(4)),
            heads=2,
        )


# === Windows ===


def test_local_m_by_hand():
    scores = [0.0, LN3, 0.0, 99.0]
    assert_close(reference.local_m(scores, 0, 1), [0.25, 0.75, 0.0, 0.0])
    assert_close(reference.local_m(scores, 1, 1), [0.2, 0.6, 0.2, 0.0])
    assert_close(reference.local_m(scores, 1, 1, [1, 0, 1, 1]), [0.5, 0.0, 0.5, 0.0])
    assert_close(reference.local_m(scores, 2, 0), [0.0, 0.0, 1.0, 0.0])
    assert_close(reference.local_m(scores, 4, 1), [0.0, 0.0, 0.0, 1.0])
    assert_close(reference.local_m(scores, 5, 1), np.zeros(4))  # behind the source
    assert_close(reference.local_m(scores, 3, 1, [1, 1, 0, 0]), np.zeros(4))


def test_a_window_over_everything_is_a_softmax():
    scores, mask = random(5), MASK[2]
    assert_close(reference.local_m(scores, 2, 9, mask), reference.softmax(scores, mask), 0)
    # So is the wide Gaussian.
    assert_close(reference.local_p(scores, 1.7, 1e9, mask), reference.softmax(scores, mask))


def test_predicted_position_by_hand():
    # tanh([ln2, ln3]) = [.6, .8]; . [ln3 / 1.2, ln3 / 1.6] = ln3; 8 * .75 = 6
    scale = [LN3 / 1.2, LN3 / 1.6]
    assert_close(reference.predicted_position([1.0], [[LN2, LN3]], scale, 8), 6.0)
    assert_close(reference.predicted_position([1.0], [[LN2, LN3]], [0.0, 0.0], 8), 4.0)


def test_local_p_by_hand():
    # D = 2, sigma = 1: a fifth each, times exp(-2), exp(-1/2), 1, exp(-1/2), exp(-2).
    gaussian = [math.exp(-2), math.exp(-0.5), 1, math.exp(-0.5), math.exp(-2)]
    assert_close(reference.local_p(np.zeros(5), 2.0, 2), np.array(gaussian) / 5)
    # D = 1, sigma = 1/2, between two positions: exp(-.25 / .5) of 1/4 and 3/4.
    share = math.exp(-0.5)
    assert_close(reference.local_p([9.0, 0.0, LN3, 9.0], 1.5, 1), [0, share / 4, 3 * share / 4, 0])
    # The mask takes one of them; position 4.5 of 4 has an empty window.
    masked = reference.local_p([9.0, 0.0, LN3, 9.0], 1.5, 1, [1, 1, 0, 1])
    assert_close(masked, [0, share, 0, 0])
    assert_close(reference.local_p(np.zeros(4), 4.5, 1), np.zeros(4))


@pytest.mark.parametrize("position", [0.0, 1.0, 2.3, 4.0, 4.9])
def test_local_p_without_its_gaussian_is_the_softmax_of_its_window(position):
    scores, width = 3 * random(5), 2
    result = reference.local_p(scores, position, width)
    distances = np.arange(5) - position
    gaussian = np.exp(-(distances**2) / (2 * (width / 2) ** 2))
    inside = np.abs(distances) <= width
    assert_close(result / gaussian, reference.softmax(scores, inside))
    assert np.all(result[inside] > 0) and result.sum() <= 1
    assert_close(result / gaussian, reference.local_m(scores, position, width))


# === Monotonic attention ===


def test_monotonic_expected_by_hand():
    # From 0: stop at 0 with 1/2; else at 1 with 1/4; else at 2.
    chances = [0.5, 0.25, 1.0]
    assert_close(reference.monotonic_expected(chances, [1.0, 0.0, 0.0]), [0.5, 0.125, 0.375])
    # From 0 or 1: .5 * .5; .25 (.5 * .5 + .5); .5 * .5 * .75 + .5 * .75.
    assert_close(reference.monotonic_expected(chances, [0.5, 0.5, 0.0]), [0.25, 0.1875, 0.5625])
    # The last chance below 1: the reader may pass the end, and then does not come back.
    assert_close(reference.monotonic_expected([0.5, 0.5], [1.0, 0.0]), [0.5, 0.25])
    assert_close(reference.monotonic_expected([0.5, 0.5], [0.0, 0.0]), [0.0, 0.0])


def test_monotonic_expected_obeys_its_recurrence():
    # Raffel 2017, eqs. 13 and 14: q_j = (1 - p_{j-1}) q_{j-1} + previous_j, alpha_j = p_j q_j.
    chances, previous = (1 + random(7)) / 2, reference.softmax(random(7, seed=1))
    q, p, expected = 0.0, 0.0, []
    for chance, before in zip(chances, previous, strict=True):
        q = (1 - p) * q + before
        p = chance
        expected.append(p * q)
    result = reference.monotonic_expected(chances, previous)
    assert_close(result, expected)
    assert np.all(result >= 0)
    # What is missing has passed the end: from k on with the product of all 1 - p_l, l >= k.
    past = sum(previous[k] * np.prod(1 - chances[k:]) for k in range(7))
    assert_close(result.sum(), 1 - past)


def test_monotonic_hard_by_hand():
    chances = [0.9, 0.5, 0.6, 0.7, 0.1]
    assert_close(reference.monotonic_hard(chances, [1, 0, 0, 0, 0]), [1, 0, 0, 0, 0])  # stays
    assert_close(reference.monotonic_hard(chances, [0, 1, 0, 0, 0]), [0, 0, 1, 0, 0])  # .5 is not
    assert_close(reference.monotonic_hard(chances, [0, 0, 0, 0, 1]), np.zeros(5))
    assert_close(reference.monotonic_hard(chances, np.zeros(5)), np.zeros(5))


def test_certain_chances_make_the_expectation_hard():
    for chances in itertools.product([0.0, 1.0], repeat=4):
        for previous in [*np.eye(4), np.zeros(4)]:
            assert_close(
                reference.monotonic_expected(chances, previous),
                reference.monotonic_hard(chances, previous),
                0,
            )


def test_monotonic_expected_is_the_mean_of_the_process():
    # Readers that draw at each position whether to stop, for three queries one after the other.
    generator, readers = np.random.default_rng(0), 4000
    chances = np.array([[0.3, 0.6, 0.2, 0.5], [0.7, 0.1, 0.4, 0.5], [0.2, 0.5, 0.8, 0.3]])
    counts = np.zeros((3, 4))
    for _ in range(readers):
        position = 0
        for i in range(3):
            while position < 4 and generator.uniform() >= chances[i, position]:
                position += 1
            if position == 4:
                break  # past the end for good
            counts[i, position] += 1
    alignments = np.eye(4)[0]
    for i in range(3):
        alignments = reference.monotonic_expected(chances[i], alignments)
        assert alignments.sum() <= 1
        assert_close(counts[i] / readers, alignments, 0.03)  # 3 deviations are at most .024


# === Coverage ===


def test_coverage_penalty_by_hand():
    # t = 1: min(.25, .5) + min(.75, .5); t = 2, of the sums [.75, 1.25]: .75 + 0.
    alignments = [[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]
    assert_close(reference.coverage_penalty(alignments), [0.0, 0.75, 0.75])


def test_coverage_penalty_is_nothing_on_new_ground_and_one_on_old():
    assert_close(reference.coverage_penalty(np.eye(4)), np.zeros(4))
    same = np.tile(reference.softmax(random(5)), (4, 1))
    assert_close(reference.coverage_penalty(same), [0.0, 1.0, 1.0, 1.0])
    penalties = reference.coverage_penalty(reference.softmax(random(6, 5)))
    assert np.all(penalties >= 0) and np.all(penalties <= 1 + 1e-12)


# === Summaries ===

VALUES = np.array([[[1.0, -2.0], [3.0, -6.0], [100.0, 100.0]]])
TWO_TOKENS = [[1, 1, 0]]


def test_summaries_by_hand():
    assert_close(reference.summary_mean(VALUES, TWO_TOKENS), [[2.0, -4.0]])
    assert_close(reference.summary_max(VALUES, TWO_TOKENS), [[3.0, -2.0]])
    # A kernel of 0 and the bias [ln3, 0] make every gate [.75, .5].
    assert_close(
        reference.summary_gated(VALUES, TWO_TOKENS, np.zeros((2, 2)), [LN3, 0.0]),
        [[0.75 * 2.0, 0.5 * -4.0]],
    )
    assert_close(
        reference.summary_concat(VALUES, TWO_TOKENS, 3), [[1.0, -2.0, 3.0, -6.0, 0.0, 0.0]]
    )
    assert_close(reference.summary_concat(VALUES, TWO_TOKENS, 2), [[1.0, -2.0, 3.0, -6.0]])


def test_the_gate_reads_the_kernel_as_inputs_by_outputs():
    # h = [1, 2], h @ kernel = [0, ln3]: gates [.5, .75], summary [.5 * 1, .75 * 2].
    kernel = [[0.0, LN3], [0.0, 0.0]]
    assert_close(reference.summary_gated([[[1.0, 2.0]]], None, kernel, [0.0, 0.0]), [[0.5, 1.5]])


def test_summary_last_is_the_final_state_of_the_top_layer():
    layers = [
        (cell_weights("lstm", 3, 2), cell_weights("lstm", 3, 2, seed=10)),
        (cell_weights("lstm", 4, 2, seed=20), cell_weights("lstm", 4, 2, seed=30)),
    ]
    values, states = reference.stacked("lstm", random(4, 5, 3), MASK, layers)
    summary = reference.summary_last(states)
    for b in range(4):  # forward half at the last token, backward half at the first
        tokens = np.flatnonzero(MASK[b])
        assert_close(summary[b, :2], values[b, tokens[-1], :2], 0)
        assert_close(summary[b, 2:], values[b, tokens[0], 2:], 0)


def test_summary_concat_refuses_tokens_behind_its_length():
    with pytest.raises(ValueError, match="a token at 1"):
        reference.summary_concat(VALUES, TWO_TOKENS, 1)


def test_summaries_of_a_row_without_tokens_are_zero():
    nothing = [[0, 0, 0]]
    assert_close(reference.summary_mean(VALUES, nothing), [[0.0, 0.0]])
    assert_close(reference.summary_max(VALUES, nothing), [[0.0, 0.0]])
    assert_close(reference.summary_gated(VALUES, nothing, np.eye(2), [0.0, 0.0]), [[0.0, 0.0]])


# === Bridges ===


def test_bridges_by_hand():
    h, c = [[LN2, 0.0]], [[0.0, LN3]]
    assert_close(reference.bridge_zeros("lstm", 2, 1, 3), np.zeros((2, 2, 1, 3)))
    assert_close(reference.bridge_copy(((h, c),)), [[h, c]])
    # Two values to one unit: tanh(ln2 * 1) = .6 for h; tanh(ln3 * 2 - ln3) = .8 for c.
    weights = ((([[1.0], [7.0]], [0.0]), ([[7.0], [2.0]], [-LN3])),)
    assert_close(reference.bridge_dense(((h, c),), weights), [[[[0.6]], [[0.8]]]])
    # Both states from the summary [ln2, 0]: tanh(ln2) = .6 and tanh(7 ln2 - ln3).
    assert_close(reference.bridge_summary(h, weights), [[[[0.6]], [[math.tanh(7 * LN2 - LN3)]]]])


# === Readouts ===


def test_readouts_by_hand():
    state, context, embedded = [[1.0]], [[3.0, 4.0]], [[2.0]]
    assert_close(reference.features_linear(state, context), [[1.0, 3.0, 4.0]])
    # [c; s] = [3, 4, 1]: 3 * 0 + 4 * 0 + 1 * ln2, and 3 ln3 + 4 * 0 - 2 ln3.
    kernel = [[0.0, LN3], [0.0, 0.0], [LN2, -2 * LN3]]
    assert_close(reference.features_tanh(state, context, kernel), [[0.6, 0.8]])
    # [s; y; c] = [1, 2, 3, 4]: t = [s, -c_2, y, c_1] = [1, -4, 2, 3], so [1, 3].
    kernel = [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, -1, 0, 0]]
    assert_close(reference.features_maxout(state, embedded, context, kernel), [[1.0, 3.0]])
    # [2, 4] @ [[1, 0, 1], [0, 1, 1]] + [0, 0, 10] = [2, 4, 16]
    logits = reference.output_logits([[2.0, 4.0]], [[1, 0, 1], [0, 1, 1]], [0, 0, 10])
    assert_close(logits, [[2.0, 4.0, 16.0]])


# === Copying ===


def test_copy_slots_by_hand():
    # Source 4 is target 8, 6 is 5, 5 is unknown to the target. 9 = 7 + 2 is the unknown token first
    # seen at 2. Unknown ones go to 10 + their first position.
    source_to_target = [0, 1, 2, 3, 8, 3, 5]
    slots = reference.copy_slots([4, 5, 9, 5, 9, 3, 6, 2, 0], source_to_target, 7, 10)
    assert np.array_equal(slots, [8, 11, 12, 11, 12, 3, 5, 2, 0])
    assert np.issubdtype(slots.dtype, np.integer)


def test_copy_slots_of_a_shared_vocabulary_are_the_ids():
    ids = [4, 6, 7 + 2, 5, 7 + 2, 2, 0]
    assert np.array_equal(reference.copy_slots(ids, np.arange(7), 7, 7), ids)


def test_special_tokens_go_to_themselves_whatever_the_map_says():
    slots = reference.copy_slots([0, 1, 2, 3], [9, 9, 9, 9, 9], 5, 10)
    assert np.array_equal(slots, [0, 1, 2, 3])


def test_pointer_generator_by_hand():
    # Half of [1/4, 3/4]; half of 1/2 to id 1; half of 1/4 + 1/4 to id 2, beyond the vocabulary.
    p = reference.pointer_generator([0.0, LN3], 0.5, [0.5, 0.25, 0.25], [1, 2, 2], 4)
    assert_close(p, [0.125, 0.625, 0.25, 0.0])


def test_pointer_generator_between_generating_and_copying():
    logits, alignments = random(6), reference.softmax(random(4))
    slots = reference.copy_slots([4, 5, 6 + 2, 4], [0, 1, 2, 3, 5, 3], 6, 6)
    for gate in (0.0, 0.3, 1.0):
        p = reference.pointer_generator(logits, gate, alignments, slots, 10)
        copied = np.eye(10)[slots].T @ alignments
        generated = np.concatenate([reference.softmax(logits), np.zeros(4)])
        assert_close(p, gate * generated + (1 - gate) * copied)
        assert_close(p.sum(), 1.0)


# === Decoder ===


def identity_readout(width):
    """Weights that make the logits equal to the features."""
    return {"output_kernel": np.eye(width), "output_bias": np.zeros(width)}


def test_update_then_attend_by_hand():
    # s_1 = tanh(ln2) = .6. Keys 1 and 3, general kernel ln3 / 1.2: the scores differ by
    # .6 * 2 * ln3 / 1.2 = ln3, so alignments 1/4, 3/4, context 1/4 + 9/4 = 2.5. Linear features
    # [s; c] = [.6, 2.5]. s_2 = tanh(0) = 0: uniform, context 2. The initial .9 is never a query.
    variant = Variant(cell="simple_rnn", readout="linear")
    weights = DecoderWeights(
        cells=(([[1.0]], [[0.0]], [0.0]),),
        score=lambda query, key: reference.general(query, key, [[LN3 / 1.2]]),
        **identity_readout(2),
    )
    encoded = Encoded([[[1.0], [3.0], [50.0]]], [[1, 1, 0]], None, None)
    logits, alignments = reference.decode(
        variant, [[[LN2], [0.0]]], encoded, (([[0.9]],),), weights
    )
    assert_close(logits, [[[0.6, 2.5], [0.0, 2.0]]])
    assert_close(alignments, [[[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]]])


@pytest.mark.parametrize(
    ("readout_state", "states"), [("current", [0.8, 0.8]), ("previous", [0.6, 0.8])]
)
def test_attend_then_update_by_hand(readout_state, states):
    # s_0 = .6 gives context 2.5, as above; the token is 0, s_1 = tanh(context * ln3 / 2.5) = .8.
    # Then the scores differ by .8 * 2 * ln3 / 1.2 = 4/3 ln3: odds 3^(4/3), context 1 + 2 p; the
    # token, 1 at the second step, adds what takes s_2 to .8 again.
    odds = 3 ** (4 / 3)
    p = odds / (1 + odds)
    second = 1 + 2 * p
    correction = LN3 - second * LN3 / 2.5
    variant = Variant(
        cell="simple_rnn", order="attend_update", readout="linear", readout_state=readout_state
    )
    weights = DecoderWeights(
        cells=(([[correction], [LN3 / 2.5]], [[0.0]], [0.0]),),  # rows: [embedded; context]
        score=lambda query, key: reference.general(query, key, [[LN3 / 1.2]]),
        **identity_readout(2),
    )
    encoded = Encoded([[[1.0], [3.0]]], None, None, None)
    logits, alignments = reference.decode(
        variant, [[[0.0], [1.0]]], encoded, (([[0.6]],),), weights
    )
    assert_close(alignments, [[[0.25, 0.75], [1 - p, p]]])
    assert_close(logits, [[[states[0], 2.5], [states[1], second]]])


@pytest.mark.parametrize(("order", "state"), [("update_attend", 0.6), ("attend_update", 0.8)])
def test_the_query_is_the_state_of_the_top_layer(order, state):
    # The query of context 2.5 is .6, as above: the upper layer's new state, tanh(ln2) whatever it
    # reads, or its initial state, .6 too. The lower layer has other values.
    variant = Variant(cell="simple_rnn", order=order, readout="linear")
    inputs = 1 if order == "update_attend" else 2
    weights = DecoderWeights(
        cells=(
            (np.ones((inputs, 1)), [[0.0]], [0.0]),
            ([[0.0]], [[0.0]], [LN2 if order == "update_attend" else LN3]),
        ),
        score=lambda query, key: reference.general(query, key, [[LN3 / 1.2]]),
        **identity_readout(2),
    )
    encoded = Encoded([[[1.0], [3.0]]], None, None, None)
    initial = (([[0.1]],), ([[0.6]],))
    logits, _ = reference.decode(variant, [[[0.3]]], encoded, initial, weights)
    assert_close(logits, [[[state, 2.5]]])


def test_input_feeding_by_hand():
    # No context; tanh readout of [s] with kernel 1: features f_t = tanh(s_t), f_0 = 0.
    # s_1 = tanh(ln2 + 10 * 0) = .6, f_1 = tanh(.6); s_2 = tanh(0 + 10 f_1).
    variant = Variant(cell="simple_rnn", context="none", input_feeding=True)
    weights = DecoderWeights(
        cells=(([[1.0], [10.0]], [[0.0]], [0.0]),),  # rows: [embedded; fed]
        readout_kernel=[[1.0]],
        **identity_readout(1),
    )
    logits, _ = reference.decode(variant, [[[LN2], [0.0]]], None, (([[0.0]],),), weights)
    first = math.tanh(0.6)
    assert_close(logits, [[[first], [math.tanh(math.tanh(10 * first))]]])


def test_input_feeding_stands_behind_embedding_and_context():
    # [embedded; context; fed] = [1; 2; 0], then [1; 2; f_1], kernel rows 0, ln2 / 2, -5: s_1 = .6.
    variant = Variant(
        cell="simple_rnn",
        context="fixed",
        order="attend_update",
        input_feeding=True,
        readout="tanh",
    )
    weights = DecoderWeights(
        cells=(([[0.0], [LN2 / 2], [-5.0]], [[0.0]], [0.0]),),
        readout_kernel=[[0.0], [1.0]],  # rows: [context; state]
        **identity_readout(1),
    )
    encoded = Encoded(None, None, [[2.0]], None)
    logits, _ = reference.decode(variant, [[[1.0], [1.0]]], encoded, (([[0.0]],),), weights)
    first = math.tanh(0.6)
    assert_close(logits, [[[first], [math.tanh(math.tanh(LN2 - 5 * first))]]])


def test_without_feedback_the_tokens_change_nothing():
    variant = Variant(
        cell="gru", context="fixed", order="attend_update", feedback=False, readout="maxout"
    )
    weights = (
        DecoderWeights(  # the recurrence reads the context (3), maxout [state (4); context (3)]
            cells=(cell_weights("gru", 3, 4),),
            readout_kernel=random(7, 10),
            output_kernel=random(5, 6),
            output_bias=random(6),
        )
    )
    encoded = Encoded(None, None, random(2, 3), None)
    initial = reference.bridge_zeros("gru", 1, 2, 4)
    one, alignments = reference.decode(variant, random(2, 3, 9), encoded, initial, weights)
    other, _ = reference.decode(variant, random(2, 3, 9, seed=1), encoded, initial, weights)
    assert_close(one, other, 0)
    assert one.shape == (2, 3, 6) and alignments.shape == (2, 3, 0)
    assert not np.allclose(one[:, 0], one[:, 1])  # the state moves nevertheless


def test_a_decoder_without_context_is_a_stack_of_keras_layers():
    lower, upper = cell_weights("lstm", 3, 4), cell_weights("lstm", 4, 5, seed=40)
    initial = (
        (random(2, 4), random(2, 4, seed=1)),
        (random(2, 5), random(2, 5, seed=1)),
    )
    embedded = random(2, 6, 3)
    weights = DecoderWeights((lower, upper), random(5, 7), random(7))
    variant = Variant(cell="lstm", context="none", readout="linear")
    logits, alignments = reference.decode(variant, embedded, None, initial, weights)
    hidden, _ = run_keras(keras_layer("lstm", 3, lower), embedded, initial_state=list(initial[0]))
    top, _ = run_keras(keras_layer("lstm", 4, upper), hidden, initial_state=list(initial[1]))
    assert_close(logits, top @ weights.output_kernel + weights.output_bias)
    assert alignments.shape == (2, 6, 0)


def test_a_decoder_with_the_fixed_context_is_keras_on_the_repeated_context():
    embedded, summary = random(2, 6, 3), random(2, 2)
    triple, initial = cell_weights("gru", 5, 4), ((random(2, 4),),)
    weights = DecoderWeights((triple,), random(6, 7), random(7))
    variant = Variant(cell="gru", context="fixed", order="attend_update", readout="linear")
    encoded = Encoded(None, None, summary, None)
    logits, _ = reference.decode(variant, embedded, encoded, initial, weights)
    repeated = np.repeat(summary[:, np.newaxis], 6, axis=1)
    inputs = np.concatenate([embedded, repeated], axis=2)
    states, _ = run_keras(keras_layer("gru", 5, triple), inputs, initial_state=list(initial[0]))
    features = np.concatenate([states, repeated], axis=2)
    assert_close(logits, features @ weights.output_kernel + weights.output_bias)


def test_luong_without_input_feeding_is_keras_attention_over_a_keras_lstm():
    embedded, values = random(4, 6, 3), random(4, 5, 4)
    triple, initial = cell_weights("lstm", 3, 4), ((random(4, 4), random(4, 4, seed=1)),)
    weights = DecoderWeights(
        (triple,), random(5, 7), random(7), readout_kernel=random(8, 5), score=reference.dot
    )
    encoded = Encoded(values, MASK, None, None)
    logits, alignments = reference.decode(Variant(), embedded, encoded, initial, weights)
    states, _ = run_keras(keras_layer("lstm", 3, triple), embedded, initial_state=list(initial[0]))
    contexts, expected = keras.layers.Attention(dtype="float64")(
        [states, values], mask=[None, MASK], return_attention_scores=True
    )
    features = np.tanh(np.concatenate([contexts, states], axis=2) @ weights.readout_kernel)
    assert_close(alignments, expected)
    assert_close(logits, features @ weights.output_kernel + weights.output_bias)


def tiny_decoder(order="update_attend", num_ids=5):
    """A random decoder of every part, with two layers: variant, encoded, initial, weights."""
    variant = Variant(cell="lstm", order=order, input_feeding=True, readout="maxout")
    fed, embedded, context = 4, 3, 2
    inputs = embedded + fed + (context if order == "attend_update" else 0)
    weights = DecoderWeights(
        cells=(cell_weights("lstm", inputs, 4), cell_weights("lstm", 4, 4, seed=60)),
        output_kernel=4 * random(4, num_ids),
        output_bias=random(num_ids),
        readout_kernel=random(4 + embedded + context, 8),
        score=lambda query, key: reference.additive(
            query, key, random(4, 6), random(2, 6), random(6)
        ),
    )
    encoded = Encoded(random(2, 5, 2), MASK[:2], None, None)
    initial = reference.bridge_summary(
        random(2, 3), [[(random(3, 4, seed=n), random(4, seed=n)) for n in range(2)]] * 2
    )
    return variant, encoded, initial, weights


@pytest.mark.parametrize("order", ["update_attend", "attend_update"])
def test_decode_is_causal_and_aligns_to_tokens_alone(order):
    variant, encoded, initial, weights = tiny_decoder(order)
    embedded = random(2, 4, 3)
    logits, alignments = reference.decode(variant, embedded, encoded, initial, weights)
    assert_close(alignments.sum(axis=2), np.ones((2, 4)))
    assert np.all(alignments[1, :, 3:] == 0) and np.all(alignments[0] > 0)
    edited = embedded.copy()
    edited[:, 2] += 1.0
    edited_logits, edited_alignments = reference.decode(variant, edited, encoded, initial, weights)
    assert_close(logits[:, :2], edited_logits[:, :2], 0)
    assert not np.isclose(logits[:, 2:], edited_logits[:, 2:]).all(axis=2).any()
    first = 2 if order == "update_attend" else 3  # the first alignment that the edit reaches
    assert_close(alignments[:, :first], edited_alignments[:, :first], 0)
    assert not np.isclose(alignments[:, first:], edited_alignments[:, first:]).all(axis=2).any()


def test_a_previous_readout_needs_attention_first():
    _, encoded, initial, weights = tiny_decoder()
    with pytest.raises(ValueError, match="attend_update"):
        reference.decode(
            Variant(readout_state="previous"), random(2, 1, 3), encoded, initial, weights
        )


@pytest.mark.parametrize("option", ["cell", "context", "order", "readout"])
def test_unknown_options_are_refused(option):
    variant, encoded, initial, weights = tiny_decoder()
    with pytest.raises(ValueError, match="Received: 'nonsense'"):
        reference.decode(
            variant._replace(**{option: "nonsense"}), random(2, 1, 3), encoded, initial, weights
        )


# === Probabilities and gradients ===


def test_log_probability_by_hand():
    # p = [1, 3, 4] / 8 at each step. Targets [1, 2]: 3/8 * 4/8; [2, PAD]: 4/8; [PAD, PAD]: 1.
    logits = np.tile([0.0, LN3, math.log(4)], (3, 2, 1))
    result = reference.log_probability(logits, [[1, 2], [2, 0], [0, 0]])
    assert_close(result, [math.log(3 / 16), math.log(1 / 2), 0.0])


def test_log_probability_sums_to_one_over_all_targets_of_one_token():
    logits = np.repeat(random(1, 1, 5), 5, axis=0)
    result = reference.log_probability(logits, np.arange(5)[:, np.newaxis], pad=-1)
    assert_close(np.exp(result).sum(), 1.0)


def test_finite_difference_of_a_polynomial():
    # f = x^2 y: df/dx = 2 x y = 12, df/dy = x^2 = 4 at x = 2, y = 3.
    kept = np.array([2.0])
    gradients = reference.finite_difference(lambda x, y: x[0] ** 2 * y[0, 0], [kept, [[3.0]]])
    assert_close(gradients[0], [12.0], 1e-8)
    assert_close(gradients[1], [[4.0]], 1e-8)
    assert kept[0] == 2.0


def test_finite_difference_of_log_probability():
    # d log p / d logits = one_hot - softmax at tokens, 0 at padding.
    logits, target = random(2, 3, 4), np.array([[3, 1, 2], [2, 0, 0]])
    (gradient,) = reference.finite_difference(
        lambda array: reference.log_probability(array, target).sum(), [logits]
    )
    expected = np.eye(4)[target] - reference.softmax(logits)
    expected[target == 0] = 0.0
    assert_close(gradient, expected, 1e-8)


def test_finite_difference_of_additive_attention():
    # y = g.c; dy/de_j = alpha_j (g . h_j - g . c) = w_j; e_j = v . t_j, t_j = tanh(q Wq + k_j Wk).
    # dy/dv = sum_j w_j t_j; dy/dWk = sum_j w_j k_j (v (1 - t_j^2))^T; dy/dWq = sum_j w_j q (..)^T.
    query, values, g = random(2), random(5, 3), random(3, seed=1)
    query_kernel, key_kernel, scale = random(2, 4), random(3, 4), random(4)
    mask = MASK[2]

    def weighted(query_kernel, key_kernel, scale):
        contexts, _ = reference.attend(
            lambda q, k: reference.additive(q, k, query_kernel, key_kernel, scale),
            query[np.newaxis, np.newaxis],
            values[np.newaxis],
            mask=mask[np.newaxis],
        )
        return reference.dot(g, contexts[0, 0])

    actual = reference.finite_difference(weighted, [query_kernel, key_kernel, scale])
    t = np.tanh(query @ query_kernel + values @ key_kernel)  # (S, A)
    alignments = reference.softmax(t @ scale, mask)
    w = alignments * (values @ g - g @ (alignments @ values))  # (S,)
    slope = w[:, np.newaxis] * scale * (1 - t**2)  # (S, A)
    assert_close(actual[0], np.outer(query, slope.sum(axis=0)), 1e-8)
    assert_close(actual[1], values.T @ slope, 1e-8)
    assert_close(actual[2], w @ t, 1e-8)


# === Search ===


def table_step(token_id, state):
    """Five ids by hand: p depends on the previous token alone; the state counts steps."""
    table = {
        reference.BOS: [0.30, 0.20, 0.10, 0.25, 0.15],  # PAD is likeliest, but forbidden: 3
        3: [0.10, 0.20, 0.30, 0.05, 0.35],  # then 4, just before EOS
        4: [0.10, 0.10, 0.70, 0.05, 0.05],  # then EOS
    }
    return np.log(table[token_id]) + 3.0, state + 1  # logits need no normalising


def test_greedy_by_hand():
    # BOS -> 3 (.25) -> 4 (.35) -> EOS (.7): PAD and BOS are barred but keep their share.
    best = reference.greedy(table_step, 0, max_length=9)
    assert best.token_ids == (3, 4, reference.EOS) and best.finished
    assert_close(best.token_scores, np.log([0.25, 0.35, 0.7]))
    assert_close(best.score, math.log(0.25 * 0.35 * 0.7))
    assert reference.greedy(table_step, 0, max_length=3) == best  # EOS still fits
    cut = reference.greedy(table_step, 0, max_length=2)
    assert cut.token_ids == (3, 4) and not cut.finished
    assert_close(cut.score, math.log(0.25 * 0.35))


def test_greedy_takes_the_smallest_of_equal_ids():
    best = reference.greedy(lambda token_id, state: (np.zeros(5), state), 0, max_length=3)
    assert best.token_ids == (reference.EOS,)
    assert_close(best.score, math.log(1 / 5))


def test_greedy_of_an_empty_source_ends_at_once():
    best = reference.greedy(table_step, 0, max_length=9, empty_source=True)
    assert best.token_ids == (reference.EOS,) and best.finished
    assert_close(best.score, math.log(0.10))


def test_brute_force_by_hand():
    # All of at most two tokens: EOS .1; 3 EOS .25 * .3; 4 EOS .15 * .7; cut: 33 .25 * .05, 34
    # .25 * .35, 43 and 44 .15 * .05 (smaller ids first). Best is 4 EOS; greedy finds 34.
    found = reference.brute_force_best(table_step, 0, max_length=2)
    expected = [
        ((4, 2), 0.105, True),
        ((2,), 0.1, True),
        ((3, 4), 0.0875, False),
        ((3, 2), 0.075, True),
        ((3, 3), 0.0125, False),
        ((4, 3), 0.0075, False),
        ((4, 4), 0.0075, False),
    ]
    assert [(one.token_ids, one.finished) for one in found] == [
        (ids, finished) for ids, _, finished in expected
    ]
    assert_close([one.score for one in found], np.log([p for _, p, _ in expected]))
    assert [one.penalised_score for one in found] == [one.score for one in found]
    (only,) = reference.brute_force_best(table_step, 0, max_length=2, empty_source=True)
    assert only == reference.greedy(table_step, 0, max_length=2, empty_source=True)


def as_probabilities(found):
    """Ids of hypotheses, with their probability to 12 digits."""
    return [(one.token_ids, round(math.exp(one.score), 12)) for one in found]


def test_the_rules_of_a_brute_force_by_hand():
    # Of the seven sequences above; what stays keeps its probability.
    def found(max_length=2, **rules):
        return as_probabilities(
            reference.brute_force_best(table_step, 0, max_length=max_length, **rules)
        )

    assert found(min_length=2) == [pair for pair in found() if pair[0] != (2,)]
    assert found(banned=[4]) == [((2,), 0.1), ((3, 2), 0.075), ((3, 3), 0.0125)]
    assert found(no_repeat=1) == [pair for pair in found() if pair[0] not in ((3, 3), (4, 4))]
    assert found(no_repeat=2) == found()
    assert found(allowed=[(3, 2), (4, 4, 2)]) == [((3, 2), 0.075), ((4, 4), 0.0075)]
    assert found(allowed=[]) == []
    assert found(prefix=(4,)) == [((4, 2), 0.105), ((4, 3), 0.0075), ((4, 4), 0.0075)]
    assert found(prefix=(3, 2, 4)) == [((3, 2), 0.075)]  # an end in a prefix is an end
    assert found(prefix=(3, 4, 4)) == [((3, 4), 0.0875)]  # and it can be cut
    assert found(prefix=(2,), banned=[2], min_length=2, allowed=[(3, 2)]) == [((2,), 0.1)]
    assert found(prefix=(4,), allowed=[(3, 2), (4, 3, 2)]) == [((4, 3), 0.0075)]
    assert found(prefix=(4,), allowed=[(3, 2)]) == []
    greedy = reference.greedy(table_step, 0, max_length=3, banned=[4])
    assert as_probabilities([greedy]) == [((3, 2), 0.075)]
    nothing = reference.greedy(table_step, 0, max_length=3, prefix=(4,), allowed=[(3, 2)])
    assert nothing == ((), -math.inf, -math.inf, (), False)


def test_choices_by_hand():
    assert reference.choices(6, ()) == [2, 3, 4, 5]
    assert reference.choices(6, (), banned=[3, 5]) == [2, 4]
    # A target of 3 tokens at least: the end is the third or later.
    assert reference.choices(6, (3,), min_length=3) == [3, 4, 5]
    assert reference.choices(6, (3, 3), min_length=3) == [2, 3, 4, 5]
    # (4, 5) was there, so that no 5 comes after the next 4; nor a 3 after two overlapping ones.
    assert reference.choices(6, (4, 5, 4), no_repeat=2) == [2, 3, 4]
    assert reference.choices(6, (3, 3), no_repeat=2) == [2, 4, 5]
    assert reference.choices(6, (3, 3), no_repeat=1) == [2, 4, 5]
    assert reference.choices(6, (3, 4, 3), no_repeat=3) == [2, 3, 4, 5]
    assert reference.choices(6, (3, 3, 3), no_repeat=3) == [2, 4, 5]
    targets = [(4, 2), (4, 5, 2), (5, 5, 2)]
    assert reference.choices(6, (), allowed=targets) == [4, 5]
    assert reference.choices(6, (4,), allowed=targets) == [2, 5]
    assert reference.choices(6, (5,), allowed=targets, min_length=9, banned=[5]) == []
    assert reference.choices(6, (3,), allowed=targets) == []
    assert reference.choices(6, (3,), prefix=(3, 4), banned=[4], no_repeat=1) == [4]
    assert reference.choices(6, (3, 4), prefix=(3, 4), banned=[4], no_repeat=1) == [2, 5]
    assert reference.choices(6, (), empty_source=True, banned=[2], prefix=(3, 4)) == [2]
    assert reference.choices(6, (3,), empty_source=True) == [2, 3, 4, 5]


def test_the_coverage_penalty_by_hand():
    # Sums .75, 1 and 0; what is attended more than once counts as once, and padding not at all.
    alignments = [[0.5, 0.5, 0.0], [0.25, 0.5, 0.0]]
    assert_close(
        reference.coverage_penalty_of(alignments, 2.0, [True, True, False]), 2 * math.log(0.75)
    )
    assert_close(reference.coverage_penalty_of(alignments, 1.0), math.log(0.75) + math.log(1e-9))
    assert reference.coverage_penalty_of([[1.0, 0.5], [1.0, 0.5]], 3.0) == 0.0
    assert reference.coverage_penalty_of(alignments, 0.0) == 0.0
    assert reference.coverage_penalty_of(np.zeros((2, 0)), 1.0) == 0.0


def test_the_coverage_penalty_of_a_brute_force_by_hand():
    # The first step looks at the first position, and a second at the other only after a 3. Half
    # covered costs .01 ln 1e-9 = -.2072, a factor of .8128: 4 EOS .0853, EOS .0813.
    def step(token_id, state):
        logits, state = table_step(token_id, state)
        return logits, [0.0, 1.0] if token_id == 3 else [1.0, 0.0], state

    found = reference.brute_force_best(step, 0, max_length=2, coverage_penalty=0.01)
    assert [one.token_ids for one in found[:4]] == [(3, 4), (4, 2), (2,), (3, 2)]
    assert_close(found[1].score, math.log(0.105))
    assert_close(found[1].penalised_score, math.log(0.105) + 0.01 * math.log(1e-9))
    assert found[0].penalised_score == found[0].score
    (masked, *_) = reference.brute_force_best(
        step, 0, max_length=2, coverage_penalty=0.01, source_mask=[True, False]
    )
    assert masked.token_ids == (4, 2) and masked.penalised_score == masked.score
    # Both penalties: coverage is added to what the length has divided.
    found = reference.brute_force_best(
        step, 0, max_length=2, coverage_penalty=0.01, length_penalty=6.0
    )
    assert found[0].token_ids == (3, 4)
    (half,) = [one for one in found if one.token_ids == (4, 2)]
    assert_close(half.penalised_score, math.log(0.105) / (7 / 6) ** 6 + 0.01 * math.log(1e-9))


def test_beam_by_hand():
    # Width 2: 3 (.25), 4 (.15); then 4 EOS (.105), 34 (.0875); then 4 EOS, 34 EOS (.06125). The
    # third best of all, 3 EOS (.075), is never among three.
    found, steps = reference.beam(table_step, 0, max_length=9, width=2)
    assert as_probabilities(found) == [((4, 2), 0.105), ((3, 4, 2), 0.06125)] and steps == 3
    found, _ = reference.beam(table_step, 0, max_length=9, width=3)
    assert as_probabilities(found) == [((4, 2), 0.105), ((2,), 0.1), ((3, 4, 2), 0.06125)]
    found, steps = reference.beam(table_step, 0, max_length=2, width=2)
    assert as_probabilities(found) == [((4, 2), 0.105), ((3, 4), 0.0875)] and steps == 2
    assert [one.finished for one in found] == [True, False]
    found, _ = reference.beam(table_step, 0, max_length=3, width=2, prefix=(3,))
    assert as_probabilities(found) == [((3, 2), 0.075), ((3, 4, 2), 0.06125)]


def test_beam_stops_when_the_rest_cannot_get_among_the_best():
    # After two steps 34 is under way, with less than the best; but over lp(3) = (8/6)^6 = 5.62,
    # ln .0875 = -2.44 makes -.43, while 4 EOS has ln .105 / (7/6)^6 = -.89.
    found, steps = reference.beam(table_step, 0, max_length=9, width=2, num_return=1)
    assert as_probabilities(found) == [((4, 2), 0.105)] and steps == 2
    found, steps = reference.beam(
        table_step, 0, max_length=3, width=2, num_return=1, length_penalty=6.0
    )
    assert as_probabilities(found) == [((3, 4, 2), 0.06125)] and steps == 3
    assert_close(found[0].penalised_score, math.log(0.06125) / (8 / 6) ** 6)


def test_beam_prefers_the_better_slot_and_then_the_smaller_id():
    table = {
        reference.BOS: [0.125, 0, 0.125, 0.25, 0.5],
        3: [0, 0, 0.25, 0.5, 0.25],
        4: [0.25, 0, 0.25, 0.25, 0.25],
    }

    def step(token_id, state):
        with np.errstate(divide="ignore"):
            return np.log(table[token_id]), state

    # 4 EOS, 43, 44 and 33 have 1/8 each, as has EOS before them, which then is the third slot.
    found, _ = reference.beam(step, 0, max_length=2, width=5)
    ids = [one.token_ids for one in found]
    assert ids == [(4, 2), (4, 3), (4, 4), (3, 3), (2,)]
    assert [one.token_ids for one in reference.beam(step, 0, 2, 2)[0]] == ids[:2]
    found, _ = reference.beam(lambda token_id, state: (np.zeros(5), state), 0, 2, 3)
    assert [one.token_ids for one in found] == [(2,), (3, 2), (3, 3)]


@pytest.mark.parametrize("impossible", [-np.inf, np.nan])
def test_impossible_tokens_make_no_hypothesis(impossible):
    def step(token_id, state):
        return [0.0, 0.0, 0.0, impossible if state else 0.0, 0.0], state + 1

    # A NaN among the logits makes all log p NaN; -inf bars one id alone.
    expected = {(2,)} if np.isnan(impossible) else {(2,), (3, 2), (3, 4), (4, 2), (4, 4)}
    assert {one.token_ids for one in reference.brute_force_best(step, 0, 2)} == expected
    assert {one.token_ids for one in reference.beam(step, 0, 2, 9)[0]} == expected
    found, steps = reference.beam(step, 1, 3, 2, min_length=2, banned=[4])
    assert found == [] and steps == 1
    nothing = reference.greedy(step, 1, 3, min_length=2, banned=[4])
    assert nothing == ((), -math.inf, -math.inf, (), False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"length_penalty": 1.3},
        {"coverage_penalty": 0.7, "source_mask": [True, True, False]},
        {"length_penalty": 0.6, "coverage_penalty": 0.2, "min_length": 3, "no_repeat": 1},
        {"banned": [4], "prefix": (5, 4)},
        {"allowed": [(3, 2), (3, 4, 5, 2), (5, 5, 5, 2)], "empty_source": False},
    ],
)
def test_a_beam_of_unlimited_width_is_the_brute_force_and_one_of_width_1_is_greedy(options):
    def step(token_id, state):
        state = (*state, token_id)
        drawn = random(9, seed=int("".join(map(str, state))))
        return 2 * drawn[:6], reference.softmax(drawn[6:]), state

    expected = reference.brute_force_best(step, (), 4, **options)
    found, _ = reference.beam(step, (), 4, 999, **options)
    assert found == expected
    for num_return in (1, 3):
        fewer, steps = reference.beam(step, (), 4, 999, num_return, **options)
        assert fewer == expected[:num_return] and steps <= 4
    for width in (2, 3):
        narrow, _ = reference.beam(step, (), 4, width, **options)
        assert set(narrow) <= set(expected)
    penalties = ("length_penalty", "coverage_penalty", "source_mask")
    rules = {name: value for name, value in options.items() if name not in penalties}
    ((only,), _) = reference.beam(step, (), 4, 1, **options)
    greedy = reference.greedy(step, (), 4, **rules)
    assert (only.token_ids, only.score) == (greedy.token_ids, greedy.score)


def test_the_length_penalty_by_hand():
    # lp(7) with alpha 2: (12/6)^2 = 4. With alpha 6, lp(1) = 1 and lp(2) = (7/6)^6 = 2.52: even the
    # worst of two tokens, log .0075 / 2.52 = -1.94, outranks EOS alone, log .1 = -2.30.
    assert reference.length_penalty_of(7, 2.0) == 4.0
    assert reference.length_penalty_of(1, 0.6) == 1.0
    found = reference.brute_force_best(table_step, 0, max_length=2, length_penalty=6.0)
    assert found[-1].token_ids == (reference.EOS,)
    assert_close(found[0].penalised_score, math.log(0.105) / (7 / 6) ** 6)
    assert_close(found[0].score, math.log(0.105))


@pytest.mark.parametrize("order", ["update_attend", "attend_update"])
def test_scores_of_a_search_are_log_probabilities_of_teacher_forcing(order):
    variant, encoded, initial, weights = tiny_decoder(order)
    embeddings, row, max_length = random(5, 3), 1, 4
    alone = Encoded(encoded.values[row : row + 1], encoded.mask[row : row + 1], None, None)
    first = tuple(tuple(tensor[row : row + 1] for tensor in layer) for layer in initial)

    def step(token_id, state):
        logits, _, states, fed = reference.decode_step(
            variant, embeddings[[token_id]], *state, alone, weights
        )
        return logits[0], (states, fed)

    state = (first, reference.first_fed(variant, 1, weights))
    found = reference.brute_force_best(step, state, max_length)
    assert len(found) == 1 + 2 + 4 + 8 + 16
    assert found == sorted(found, key=lambda one: -one.score)
    greedy = reference.greedy(step, state, max_length)
    assert greedy in found
    for one in [*found[:3], found[-1], greedy]:
        target_in = [reference.BOS, *one.token_ids[:-1]]
        logits, _ = reference.decode(variant, embeddings[[target_in]], alone, first, weights)
        assert_close(reference.log_probability(logits, [one.token_ids]), [one.score])
        assert_close(math.fsum(one.token_scores), one.score)


def test_all_sequences_together_are_certain_where_nothing_is_barred():
    # With PAD and BOS of probability zero, finished and cut sequences share all the probability.
    def step(token_id, state):
        logits = 3 * random(5, seed=token_id + 10 * state)
        logits[[reference.PAD, reference.BOS]] = -np.inf
        return logits, state + 1

    found = reference.brute_force_best(step, 0, max_length=4)
    assert_close(sum(math.exp(one.score) for one in found), 1.0)


# === Sampling ===


def test_sampling_probabilities_by_hand():
    # PAD .1 and BOS .1 are left out; of EOS .1, 3 .2, 4 .5 each is divided by .8.
    log_p = np.log([0.1, 0.1, 0.1, 0.2, 0.5])

    def probabilities(**filters):
        return reference.sampling_probabilities(log_p, **filters)

    assert_close(probabilities(), [0, 0, 1 / 8, 2 / 8, 5 / 8])
    assert_close(probabilities(may_be=[2, 3]), [0, 0, 1 / 3, 2 / 3, 0])
    assert_close(probabilities(temperature=0.5), [0, 0, 1 / 30, 4 / 30, 25 / 30])  # squares
    roots = np.sqrt([0, 0, 1, 2, 5])
    assert_close(probabilities(temperature=2.0), roots / roots.sum())
    assert_close(probabilities(top_k=2), [0, 0, 0, 2 / 7, 5 / 7])
    assert_close(probabilities(top_k=1), [0, 0, 0, 0, 1])
    assert_close(probabilities(top_k=9), probabilities())
    assert_close(probabilities(top_p=0.62), [0, 0, 0, 0, 1])  # 5/8 = .625 reaches it
    assert_close(probabilities(top_p=0.63), [0, 0, 0, 2 / 7, 5 / 7])
    assert_close(probabilities(top_p=1e-9), [0, 0, 0, 0, 1])
    # In this order: after top_k = 2, 5/7 = .714 reaches .7; of all, 5/8 does not.
    assert_close(probabilities(top_k=2, top_p=0.7), [0, 0, 0, 0, 1])
    assert_close(probabilities(top_p=0.7), [0, 0, 0, 2 / 7, 5 / 7])
    # And squared, 25/30 = .833 reaches .8; without, 7/8 does.
    assert_close(probabilities(temperature=0.5, top_p=0.8), [0, 0, 0, 0, 1])
    assert_close(probabilities(top_p=0.8), [0, 0, 0, 2 / 7, 5 / 7])


def test_sampling_prefers_the_smaller_of_equal_ids_and_never_the_impossible():
    equal = np.log(np.full(6, 1 / 6))
    assert_close(reference.sampling_probabilities(equal, top_k=2), [0, 0, 0.5, 0.5, 0, 0])
    assert_close(reference.sampling_probabilities(equal, top_p=0.3), [0, 0, 0.5, 0.5, 0, 0])
    log_p = [0.0, 0.0, -np.inf, -3.0, np.nan, -3.0]
    assert_close(reference.sampling_probabilities(log_p), [0, 0, 0, 0.5, 0, 0.5])
    assert_close(reference.sampling_probabilities(log_p, top_k=1), [0, 0, 0, 1, 0, 0])
    assert_close(reference.sampling_probabilities(log_p, may_be=[0, 2, 4]), [1, 0, 0, 0, 0, 0])
    assert_close(reference.sampling_probabilities(log_p, may_be=[2, 4]), np.zeros(6))


def test_draw_by_hand():
    # 3 has [0, 1/2), 1 has [1/2, 3/4), 2 has [3/4, 1).
    p = [0.0, 0.25, 0.25, 0.5]
    numbers = [0.0, 0.49, 0.5, 0.74, 0.75, 0.99]
    assert [reference.draw(p, number) for number in numbers] == [3, 3, 1, 1, 2, 2]
    assert reference.draw([0.0, 0.0], 0.5) is None


def test_mix_makes_the_published_outputs_of_splitmix64():
    # The outputs of the seed 1234567, and the first of the seed 0.
    golden = 0x9E3779B97F4A7C15
    assert [reference.mix(1234567 + i * golden) for i in range(1, 6)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert reference.mix(golden) == 0xE220A8397B1DCDAF
    assert reference.mix(0) == 0
    assert reference.mix(2**64 + 5) == reference.mix(5) and reference.mix(-1) < 2**64


def test_fold_by_hand():
    # mix(seed + G) is 1234567 for this seed, whose parts are therefore the outputs above; the
    # third, as signed, is 9817491932198370423 - 2^64.
    seed = -6540207399321867890
    parts = [reference.fold(seed, i) for i in range(3)]
    assert parts == [6457827717110365317, 3203168211198807973, 9817491932198370423 - 2**64]
    assert reference.fold(seed + 2**64, 0) == parts[0]
    assert len({reference.fold(i, j) for i in range(-9, 9) for j in range(18)}) == 18 * 18
    assert all(-(2**63) <= reference.fold(i, 0) < 2**63 for i in (-(2**63), -1, 0, 2**63 - 1))


def test_uniform_by_hand():
    assert reference.uniform(0) == 0.0 and reference.uniform(2**11 - 1) == 0.0
    assert reference.uniform(2**62) == 0.25 and reference.uniform(-(2**63)) == 0.5
    assert reference.uniform(2**11) == 2.0**-53
    assert reference.uniform(-1) == 1 - 2.0**-53


def test_uniform_numbers_of_parts_of_a_seed_spread_evenly():
    drawn = [reference.uniform(reference.fold(7, i)) for i in range(8000)]
    counts = np.bincount([int(8 * one) for one in drawn], minlength=8)
    assert np.sum((counts - 1000) ** 2 / 1000) < 24.3  # chi-squared of 7 degrees, p = .001
