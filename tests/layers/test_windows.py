"""Windows: local and monotonic attention against the papers, at their edges, steps and saving."""

from __future__ import annotations

import functools

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
    Attention,
    GlobalWindow,
    LocalMonotonicWindow,
    LocalPredictedWindow,
    MonotonicWindow,
    Sparsemax,
)

QUERY, VALUE = normal(4, 7, 4), normal(4, 5, 4, seed=1)
NO_TOKENS = MASK & np.array([[True], [False], [True], [True]])

WINDOWS = {
    "local_m": functools.partial(LocalMonotonicWindow, 1),
    "local_p": functools.partial(LocalPredictedWindow, 2),
    "monotonic": functools.partial(MonotonicWindow, offset=0.3, noise=0.0),
}
every_window = pytest.mark.parametrize("window", WINDOWS)
local_windows = pytest.mark.parametrize("window", ["local_m", "local_p"])


def built(window, query=QUERY, value=VALUE, dtype="float32", normaliser="softmax", **options):
    made = WINDOWS[window](dtype=dtype) if isinstance(window, str) else window
    attention = Attention("general", normaliser, made, dtype=dtype, **options)
    attention.build(query.shape, value.shape)
    return randomised(attention)


def expected(window, query, value, mask, kernel, *weights, training=False):
    """Return contexts and alignments of the general score, one query after the other."""
    alignments = np.zeros((*query.shape[:2], value.shape[1]))
    for b in range(len(query)):
        previous = np.eye(value.shape[1])[0]
        for t, q in enumerate(query[b]):
            scores = np.array([reference.general(q, k, kernel) for k in value[b]])
            if window == "local_m":
                row = reference.local_m(scores, t, 1, mask[b])
            elif window == "local_p":
                place = reference.predicted_position(q, *weights, mask[b].sum())
                row = reference.local_p(scores, place, 2, mask[b])
            else:
                chances = np.where(mask[b], reference.sigmoid(scores + weights[0]), 0)
                stops = reference.monotonic_expected if training else reference.monotonic_hard
                row = previous = stops(chances, previous)
            alignments[b, t] = row
    return np.einsum("bqs,bsd->bqd", alignments, value), alignments


# === Numbers ===


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("training", [False, True])
@every_window
def test_alignments_are_those_of_the_paper(window, training, dtype):
    attention = built(window, dtype=dtype)
    weights = attention.get_weights()
    found = attention(QUERY, VALUE, value_mask=NO_TOKENS, training=training)
    slow = expected(window, QUERY, VALUE, NO_TOKENS, *weights, training=training)
    for tensor, array in zip(found, slow, strict=True):
        close(tensor, array, dtype)
    np.testing.assert_array_equal(np.array(found[1]) == 0, slow[1] == 0)
    assert slow[1].sum() > 3


@pytest.mark.parametrize("beams", [1, 3])
@every_window
def test_steps_equal_call(window, beams):
    attention = built(window)
    steps = normal(4 * beams, 7, 4, seed=8, dtype="float32")  # row n belongs to source n // beams
    whole = attention(steps, np.repeat(VALUE, beams, 0), value_mask=np.repeat(NO_TOKENS, beams, 0))
    memory = attention.prepare(VALUE, value_mask=NO_TOKENS)
    state = attention.initial_state(memory)
    state = keras.tree.map_structure(lambda x: ops.repeat(x, beams, axis=0), state)
    for t in range(7):
        context, alignments, state = attention.step(steps[:, t], memory, state)
        np.testing.assert_allclose(context, whole[0][:, t], atol=1e-5)
        np.testing.assert_allclose(alignments, whole[1][:, t], atol=1e-5)


def test_only_what_is_read_is_carried():
    widths = {}
    for window in WINDOWS:
        attention = built(window)
        state = attention.initial_state(attention.prepare(VALUE))
        widths[window] = ([part.shape[-1] for part in state], attention.parallel)
    assert widths == {
        "local_m": ([1, 0, 0, 0], True),
        "local_p": ([0, 0, 0, 0], True),
        "monotonic": ([0, 5, 0, 0], False),
    }


@pytest.mark.parametrize("training", [False, True])
@every_window
def test_padding_changes_nothing(window, training):
    attention = built(window)
    found = attention(QUERY, VALUE, value_mask=MASK, training=training)
    wider = np.pad(VALUE, ((0, 0), (0, 3), (0, 0)), constant_values=9.0)
    mask = np.pad(MASK, ((0, 0), (0, 3)))
    context, alignments = attention(QUERY, wider, value_mask=mask, training=training)
    np.testing.assert_allclose(context, found[0], atol=1e-6)
    np.testing.assert_allclose(alignments[..., :5], found[1], atol=1e-6)
    assert not np.any(alignments[..., 5:])


@pytest.mark.parametrize("training", [False, True])
@every_window
def test_padding_may_hold_anything(window, training):
    attention = built(window)
    value = np.where(MASK[..., None], VALUE, np.nan)
    found = attention(QUERY, value, value_mask=MASK, training=training)
    whole = attention(QUERY, VALUE, value_mask=MASK, training=training)
    for tensor, array in zip(found, whole, strict=True):
        np.testing.assert_allclose(tensor, array, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
@every_window
def test_a_source_without_tokens_gives_zeros_and_no_gradient(window, training):
    attention = built(window)
    query, value = tf.constant(QUERY, "float32"), tf.constant(VALUE, "float32")
    with tf.GradientTape() as tape:
        tape.watch([query, value])
        context, alignments = attention(query, value, value_mask=NO_TOKENS, training=training)
        loss = tf.reduce_sum(context**2)
    gradients = tape.gradient(loss, [query, value, *attention.trainable_variables])
    assert not np.any(context[1]) and not np.any(alignments[1])
    assert all(g is None or not np.any(g[1]) for g in gradients[:2])
    assert all(g is None or np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("window", ["local_p", "monotonic"])
def test_gradients_are_those_of_finite_differences(window):
    arrays = [normal(2, 3, 2), normal(2, 5, 2, seed=1)]
    attention = built(window, *arrays, dtype="float64")
    mask = np.array([[True] * 5, [True] * 3 + [False] * 2])
    probes = normal(2, 3, 2, seed=3), normal(2, 3, 5, seed=4)

    def loss(query, value, *weights):
        found = expected(window, query, value, mask, *weights, training=True)
        return sum(np.sum(array * probe) for array, probe in zip(found, probes, strict=True))

    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        found = attention(*tensors, value_mask=mask, training=True)
        total = sum(tf.reduce_sum(x * probe) for x, probe in zip(found, probes, strict=True))
    slow = reference.finite_difference(loss, [*arrays, *attention.get_weights()])
    gradients = tape.gradient(total, [*tensors, *attention.trainable_variables])
    for gradient, array in zip(gradients, slow, strict=True):
        np.testing.assert_allclose(gradient, array, atol=1e-7)
        assert np.abs(array).max() > 1e-3


@pytest.mark.parametrize("window", ["local_p", "monotonic"])
def test_xla_changes_no_step(window):
    attention = built(window)
    arguments = tf.constant(QUERY[:, 0], "float32"), tf.constant(VALUE, "float32")

    def run(query, value):
        with tf.GradientTape() as tape:
            memory = attention.prepare(value, value_mask=tf.constant(MASK))
            state = attention.initial_state(memory)
            context, alignments, _ = attention.step(query, memory, state, training=True)
            loss = tf.reduce_sum(context**2)
        return context, alignments, *tape.gradient(loss, attention.trainable_variables)

    compiled = tf.function(run, jit_compile=True)(*arguments)
    for found, array in zip(compiled, run(*arguments), strict=True):
        np.testing.assert_allclose(found, array, atol=1e-5)


# === Local ===


@local_windows
def test_nothing_is_seen_outside_the_window(window):
    attention = built(window)
    alignments = np.array(attention(QUERY, VALUE)[1])
    if window == "local_m":
        centre = np.broadcast_to(np.arange(7), (4, 7))
        seen = [min(t + 2, 5) - max(t - 1, 0) if t < 6 else 0 for t in range(7)]
        np.testing.assert_array_equal((alignments > 0).sum(-1), [seen] * 4)
    else:
        kernel, scale = attention.window.get_weights()
        centre = 5 * reference.sigmoid(np.tanh(QUERY @ kernel) @ scale)
    away = np.abs(np.arange(5) - centre[..., None])
    np.testing.assert_array_equal(alignments > 0, away <= (1 if window == "local_m" else 2))


def test_predicted_positions_are_favoured_and_not_normalised_again():
    attention = built("local_p")
    for weight in attention.scorer.weights:  # equal scores
        weight.assign(0 * weight)
    kernel, scale = attention.window.get_weights()
    centre = 5 * reference.sigmoid(np.tanh(QUERY @ kernel) @ scale)[..., None]
    away = np.arange(5) - centre
    near = np.abs(away) <= 2
    favoured = near / near.sum(-1, keepdims=True) * np.exp(-(away**2) / 2)  # sigma is 1
    alignments = attention(QUERY, VALUE)[1]
    np.testing.assert_allclose(alignments, favoured, atol=1e-5)
    assert np.sum(alignments, -1).max() < 0.99


def test_the_position_is_predicted_among_the_tokens():
    attention = built("local_p")
    attention.window.scale.assign(np.zeros(4))  # sigmoid(0): the middle of the tokens
    alignments = np.array(attention(QUERY, VALUE, value_mask=MASK)[1])
    for row, length in enumerate(MASK.sum(-1)):
        near = np.abs(np.arange(5) - length / 2) <= 2
        np.testing.assert_array_equal(alignments[row] > 0, [near & MASK[row]] * 7)


def middle_of(length):
    """Return a window of that width on either side of the middle of the source."""
    window = LocalPredictedWindow(length)
    window.build((None, None, 4))
    window.scale.assign(np.zeros(4))
    return window


def test_what_a_query_may_see_does_not_move_the_predicted_position():
    window = middle_of(2)
    seen = np.ones((4, 7, 5), bool)
    seen[:, 3:, 4] = False
    whole = Attention("general", window=window)
    whole.build(QUERY.shape, VALUE.shape)
    whole.scorer.kernel.assign(np.zeros((4, 4)))  # equal scores
    favour = np.exp(-((np.arange(5) - 2.5) ** 2) / 2) * (np.abs(np.arange(5) - 2.5) <= 2)
    alignments = np.array(whole(QUERY, VALUE, attention_mask=seen)[1])
    np.testing.assert_allclose(alignments[:, :3], np.tile(favour / 4, (4, 3, 1)), atol=1e-6)
    favour[4] = 0
    np.testing.assert_allclose(alignments[:, 3:], np.tile(favour / 3, (4, 4, 1)), atol=1e-6)


def test_positions_that_a_location_cannot_score_are_tokens_all_the_same():
    attention = Attention("location", window=middle_of(2), length=3)
    attention.build(QUERY.shape, VALUE.shape)
    attention.scorer.kernel.assign(np.zeros((4, 3)))
    favour = np.array([0, np.exp(-(1.5**2) / 2) / 2, np.exp(-(0.5**2) / 2) / 2, 0, 0])
    np.testing.assert_allclose(attention(QUERY, VALUE)[1], np.tile(favour, (4, 7, 1)), atol=1e-6)


@local_windows
def test_local_windows_go_with_sparsemax(window):
    attention = built(window, normaliser="sparsemax")
    alignments = np.array(attention(QUERY, VALUE, value_mask=NO_TOKENS)[1])
    kernel, *weights = attention.get_weights()
    for b, t in np.ndindex(4, 7):
        scores = np.array([reference.general(QUERY[b, t], key, kernel) for key in VALUE[b]])
        centre, width, favour = t, 1, 1.0
        if window == "local_p":
            width, length = 2, NO_TOKENS[b].sum()
            centre = reference.predicted_position(QUERY[b, t], *weights, length)
            favour = np.exp(-((np.arange(5) - centre) ** 2) / 2)
        near = NO_TOKENS[b] & (np.abs(np.arange(5) - centre) <= width)
        row = reference.sparsemax(scores, near) * favour
        np.testing.assert_allclose(alignments[b, t], row, atol=1e-5)


@local_windows
def test_local_windows_go_with_hard_attention(window):
    attention, chosen = built(window), built(window, normaliser="hard")
    for variable, same in zip(chosen.trainable_variables, attention.get_weights(), strict=True):
        variable.assign(same)
    soft = np.array(attention(QUERY, VALUE, value_mask=MASK)[1])
    alignments = chosen(QUERY, VALUE, value_mask=MASK)[1]
    np.testing.assert_array_equal(alignments, reference.hardmax(soft, soft > 0))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("training", [False, True])
@every_window
def test_half_precision_of_a_long_source_is_finite(window, training, dtype):
    length = 500 if window == "monotonic" else 2000
    query, value = normal(2, 3, 4), normal(2, length, 4, seed=1)
    attention = built(window, query, value, dtype=dtype)
    attention.scorer.kernel.assign(30 * np.eye(4))  # scores of 100 and more
    mask = np.arange(length) < [[length], [length - 10]]
    with tf.GradientTape() as tape:
        context, alignments = attention(query, value, value_mask=mask, training=training)
        loss = tf.reduce_sum(tf.cast(context, "float32") ** 2)
    gradients = tape.gradient(loss, attention.trainable_variables)
    assert alignments.dtype == "float32" and np.sum(alignments, -1).max() < 1.01
    for found in (context, alignments, *(g for g in gradients if g is not None)):
        assert np.isfinite(ops.cast(found, "float32")).all()


# === Monotonic ===


@few
@given(st.data())
def test_reading_never_goes_back(data):
    batch, steps, sources = data.draw(st.integers(1, 3)), 6, data.draw(st.integers(1, 8))
    scores = normal(batch, steps, sources, seed=data.draw(st.integers(0, 99)))
    flags = data.draw(st.lists(st.booleans(), min_size=24, max_size=24))
    mask = np.resize(flags, (batch, sources))
    window = MonotonicWindow(offset=data.draw(st.sampled_from([-1.0, 0.0, 1.0])))
    attention = Attention("dot", window=window)
    value = np.broadcast_to(np.eye(sources), (batch, sources, sources))  # the query is its scores
    alignments = np.array(attention(scores, value, value_mask=mask)[1])
    assert ((alignments == 0) | (alignments == 1)).all()
    for row, tokens in zip(alignments, mask, strict=True):
        assert not row[:, ~tokens].any()
        stopped = row.any(-1)
        assert not stopped[np.argmin(stopped) :].any() or stopped.all()  # off the end for good
        assert (np.diff(row[stopped].argmax(-1)) >= 0).all()


def test_reading_off_the_end_yields_zeros_from_then_on():
    scores = np.array([[[-1, 2, -1], [-1, -2, -3], [5, 5, 5], [5, 5, 5]]], "float32")
    value = np.eye(3, dtype="float32")[None]
    attention = Attention("dot", window="monotonic")
    context, alignments = attention(scores, value)
    np.testing.assert_array_equal(alignments[0], [[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(context, alignments)


def test_reading_may_stay_where_it_is():
    attention = Attention("dot", window="monotonic")
    alignments = attention(np.ones((1, 3, 4), "float32"), np.ones((1, 5, 4), "float32"))[1]
    np.testing.assert_array_equal(alignments[0], [[1, 0, 0, 0, 0]] * 3)


def test_expectations_are_a_part_of_those_before():
    attention = built("monotonic")
    alignments = np.array(attention(QUERY, VALUE, value_mask=MASK, training=True)[1])
    total = alignments.sum(-1)
    assert (alignments >= 0).all() and (total <= 1 + 1e-5).all()
    assert (np.diff(total, axis=1) <= 1e-5).all() and total[:, 0].min() > 0.05


@pytest.mark.parametrize("scale", [1, 10, 100])
def test_expectations_of_large_scores_and_long_sources_are_exact_enough(scale):
    scores = scale * np.random.default_rng(0).uniform(-1, 1, (1, 2, 100))
    value = np.eye(100)[None]
    attention = Attention("dot", window=MonotonicWindow(noise=0.0))
    alignments = np.array(attention(scores, value, training=True)[1])
    previous = np.eye(100)[0]
    for t in range(2):
        previous = reference.monotonic_expected(reference.sigmoid(scores[0, t]), previous)
        np.testing.assert_allclose(alignments[0, t], previous, atol=1e-4)


def test_noise_is_for_training_alone_and_new_each_time():
    attention = Attention("dot", window=MonotonicWindow(noise=1.0))
    runs = [np.array(attention(QUERY, VALUE, training=True)[1]) for _ in range(2)]
    assert np.abs(runs[0] - runs[1]).max() > 1e-3
    np.testing.assert_array_equal(attention(QUERY, VALUE)[1], attention(QUERY, VALUE)[1])
    still = Attention("dot", window=MonotonicWindow(noise=0.0))
    runs = [np.array(still(QUERY, VALUE, training=True)[1]) for _ in range(2)]
    np.testing.assert_array_equal(*runs)


def test_training_has_gradients_and_inference_has_none():
    attention = built("monotonic")
    for training in (True, False):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(attention(QUERY, VALUE, training=training)[0] ** 2)
        gradients = tape.gradient(loss, attention.trainable_variables)
        assert all((g is not None and bool(np.any(g))) == training for g in gradients)


def test_another_normaliser_is_refused_beside_monotonic():
    for normaliser in ("sparsemax", "hard", Sparsemax(), lambda scores, mask: scores):
        expected = "^normaliser: MonotonicWindow makes alignments of scores itself"
        with pytest.raises(ValueError, match=expected):
            Attention("dot", normaliser, "monotonic")


# === Weights, saving, errors ===


@pytest.mark.parametrize(
    "window, names",
    [
        ("global", {}),
        ("local_m", {}),
        ("local_p", {"kernel": (4, 4), "scale": (4,)}),
        ("monotonic", {"offset": ()}),
    ],
)
def test_weights_have_the_documented_names_and_shapes(window, names):
    attention = Attention("dot", window=window)
    attention.build(QUERY.shape, VALUE.shape)
    assert {w.name: tuple(w.shape) for w in attention.window.weights} == names


def test_the_offset_starts_as_told():
    attention = Attention("dot", window=MonotonicWindow(-2.5))
    attention.build(QUERY.shape, VALUE.shape)
    assert float(attention.window.offset) == -2.5


@pytest.mark.parametrize(
    "window, options",
    [
        (GlobalWindow(), {}),
        (LocalMonotonicWindow(3), {"width": 3}),
        (LocalPredictedWindow(4, dtype="float64"), {"width": 4}),
        (MonotonicWindow(-1, 0.5), {"offset": -1.0, "noise": 0.5}),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_a_window_survives_saving(window, options):
    again = reborn(window)
    assert type(again) is type(window) and config_of(again) == config_of(window)
    assert options.items() <= again.get_config().items()
    attention = Attention("general", window=window)
    attention.build(QUERY.shape, VALUE.shape)
    copy = reborn(randomised(attention))
    assert config_of(copy) == config_of(attention)
    copy.set_weights(attention.get_weights())
    np.testing.assert_array_equal(copy(QUERY, VALUE)[1], attention(QUERY, VALUE)[1])


@every_window
def test_a_reloaded_model_is_equal(window, tmp_path):
    query, value = keras.Input((None, 4)), keras.Input((None, 4))
    attention = Attention("general", window=WINDOWS[window]())
    model = randomised(keras.Model([query, value], attention(query, value)))
    model.save(path := tmp_path / "model.keras")
    arrays = [QUERY.astype("float32"), VALUE.astype("float32")]
    for found, array in zip(keras.saving.load_model(path)(arrays), model(arrays), strict=True):
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "3", None, True])
def test_widths_have_to_be_positive(wrong):
    for kind in (LocalMonotonicWindow, LocalPredictedWindow):
        with pytest.raises(ValueError, match=f"^width: expected a positive int, got {wrong!r}"):
            kind(wrong)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"noise": -0.1}, "noise: expected a number >= 0, got -0.1"),
        ({"noise": float("nan")}, "noise: expected a number >= 0, got nan"),
        ({"noise": "loud"}, "noise: expected a number >= 0, got 'loud'"),
        ({"offset": None}, "offset: expected a number, got None"),
        ({"offset": True}, "offset: expected a number, got True"),
    ],
)
def test_offset_and_noise_are_numbers(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        MonotonicWindow(**options)


def test_unknown_windows_are_refused():
    with pytest.raises(ValueError, match="^window: expected .*Did you mean 'monotonic'"):
        Attention(window="monotonous")
