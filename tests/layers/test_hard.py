"""Hard attention: one position at inference, and the three ways to train it."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_samples import MASK, config_of, few, normal, reborn

from keras_attn.layers import Attention, Hard, Softmax

QUERY, VALUE = normal(4, 6, 4, dtype="float32"), normal(4, 5, 4, seed=1, dtype="float32")
NO_TOKENS = MASK & np.array([[True], [False], [True], [True]])
SCORES = normal(4, 3, 5, seed=2, dtype="float32")

every_training = pytest.mark.parametrize(
    "training", ["straight_through", "gumbel", "score_function"]
)


def soft_of(scores, mask):
    return Softmax().distribution(ops.convert_to_tensor(scores), mask)


def chosen(hard, scores, mask, training=False):
    """Return what `hard` makes of scores (B, Q, S), of which query t is step t."""
    steps = ops.reshape(ops.arange(scores.shape[1], dtype="float32"), (1, -1, 1))
    return hard.choose(soft_of(scores, mask), steps, training)


def one_hot(alignments):
    alignments = np.array(alignments)
    return ((alignments == 0) | (alignments == 1)).all() and (alignments.sum(-1) <= 1).all()


@pytest.fixture
def uniforms(monkeypatch):
    """Have Keras draw these numbers rather than new ones."""
    drawn = np.random.default_rng(0).uniform(0.01, 0.99, SCORES.shape).astype("float32")
    monkeypatch.setattr(keras.random, "uniform", lambda *_, **__: ops.convert_to_tensor(drawn))
    return drawn


# === Inference ===


@few
@given(st.data())
def test_the_largest_score_gets_everything_and_the_first_of_equals(data):
    shape = tuple(data.draw(st.integers(1, 5)) for _ in range(3))
    size = math.prod(shape)
    flags = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    scores = data.draw(st.lists(st.integers(-2, 2), min_size=size, max_size=size))
    mask, scores = np.reshape(flags, shape), np.reshape(scores, shape).astype("float64")
    found = Hard()(ops.convert_to_tensor(scores), mask)
    np.testing.assert_array_equal(found, reference.hardmax(scores, mask))


@pytest.mark.parametrize("choice", ["argmax", "sample"])
def test_alignments_are_exactly_one_hot_and_zeros_without_tokens(choice):
    attention = Attention("dot", Hard(choice))
    context, alignments = attention(QUERY, VALUE, value_mask=NO_TOKENS)
    assert one_hot(alignments)
    np.testing.assert_array_equal(np.sum(alignments, -1), NO_TOKENS.any(-1)[:, None].repeat(6, 1))
    assert (np.array(alignments)[~NO_TOKENS[:, None].repeat(6, 1)] == 0).all()
    assert (np.array(context)[1] == 0).all()
    places = np.argmax(alignments[0], -1)
    np.testing.assert_array_equal(context[0], VALUE[0][places])


@pytest.mark.parametrize("choice", ["argmax", "sample"])
def test_steps_equal_call(choice):
    attention = Attention("dot", Hard(choice, seed=5))
    expected = attention(QUERY, VALUE, value_mask=NO_TOKENS)
    memory = attention.prepare(VALUE, value_mask=NO_TOKENS)
    state = attention.initial_state(memory)
    for t in range(QUERY.shape[1]):
        context, alignments, state = attention.step(QUERY[:, t], memory, state)
        np.testing.assert_array_equal(alignments, expected[1][:, t])
        np.testing.assert_allclose(context, expected[0][:, t], atol=1e-6)


def test_steps_in_a_loop_draw_as_steps_without_one():
    """Coverage makes the attention carry something, so that `call` is a loop."""
    parallel = Attention("dot", Hard("sample", seed=5))
    looped = Attention("dot", Hard("sample", seed=5), coverage_loss=1.0)
    assert parallel.parallel and not looped.parallel
    np.testing.assert_array_equal(parallel(QUERY, VALUE)[1], looped(QUERY, VALUE)[1])


def test_the_same_seed_draws_the_same_and_another_another():
    query, value = np.zeros((2, 40, 4), "float32"), np.zeros((2, 5, 4), "float32")

    def drawn(seed):
        return np.argmax(Attention("dot", Hard("sample", seed=seed))(query, value)[1], -1)

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert (drawn(1) != drawn(2)).mean() > 0.5
    assert len(set(drawn(1)[0])) == 5  # and every step draws anew


@pytest.mark.parametrize("padded", [6, 9, 64])
def test_padding_does_not_change_what_is_drawn(padded):
    attention = Attention("dot", Hard("sample"))
    expected = attention(QUERY, VALUE, value_mask=MASK)[1]
    more = padded - 5
    value = np.pad(VALUE, ((0, 0), (0, more), (0, 0)))
    found = attention(QUERY, value, value_mask=np.pad(MASK, ((0, 0), (0, more))))[1]
    np.testing.assert_array_equal(found[..., :5], expected)


def test_neighbours_in_a_batch_change_nothing():
    attention = Attention("dot", Hard("sample"))
    together = attention(QUERY, VALUE, value_mask=MASK)[1]
    for row in range(4):
        rows = slice(row, row + 1)
        alone = attention(QUERY[rows], VALUE[rows], value_mask=MASK[rows])[1]
        np.testing.assert_array_equal(alone[0], together[row])


def test_draws_are_as_frequent_as_the_softmax_says():
    hard, scores = Hard("sample", seed=3), normal(1, 1, 5)
    draws = 1000
    found = chosen(hard, np.repeat(scores, draws, axis=1), np.ones((1, 1, 5), bool))[0]
    expected = draws * reference.softmax(scores)[0, 0]
    chi_squared = np.sum((np.sum(found, (0, 1)) - expected) ** 2 / expected)
    assert chi_squared < 23.5  # what four degrees of freedom exceed once in 10,000 times


def test_seeds_draw_as_the_softmax_says_at_the_first_step():
    scores, mask = normal(1, 1, 5), np.ones((1, 1, 5), bool)
    draws = 120
    found = sum(np.array(chosen(Hard("sample", seed=s), scores, mask)[0]) for s in range(draws))
    expected = draws * reference.softmax(scores)
    assert np.sum((found - expected) ** 2 / expected) < 23.5


def test_a_graph_and_xla_draw_the_same():
    attention = Attention("dot", Hard("sample"))
    attention.build(QUERY.shape, VALUE.shape)

    def run(query, value):
        return attention(query, value)[1]

    arguments = tf.constant(QUERY), tf.constant(VALUE)
    expected = run(*arguments)
    np.testing.assert_array_equal(tf.function(run)(*arguments), expected)
    np.testing.assert_array_equal(tf.function(run, jit_compile=True)(*arguments), expected)


# === Training ===


@pytest.mark.parametrize("choice", ["argmax", "sample"])
def test_straight_through_is_one_hot_forwards_and_soft_backwards(choice):
    hard, probe = Hard(choice), normal(4, 3, 5, seed=3, dtype="float32")
    scores = tf.constant(SCORES)
    gradients = []
    for normalise in (
        lambda: soft_of(scores, MASK[:, None]),
        lambda: chosen(hard, scores, MASK[:, None], training=True)[0],
    ):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            alignments = normalise()
            loss = tf.reduce_sum(alignments * probe)
        gradients.append(np.array(tape.gradient(loss, scores)))
    rounded = np.round(alignments)
    assert one_hot(rounded) and (rounded.sum(-1) == 1).all()
    np.testing.assert_allclose(alignments, rounded, atol=1e-6)
    if choice == "argmax":
        np.testing.assert_array_equal(rounded, reference.hardmax(SCORES, MASK[:, None]))
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-7)


def test_training_draws_anew_each_time():
    hard = Hard("sample")
    scores, mask = np.zeros((1, 50, 5), "float32"), np.ones((1, 1, 5), bool)
    first, second = (np.array(chosen(hard, scores, mask, training=True)[0]) for _ in range(2))
    assert np.abs(first - second).max() > 0.5


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_gumbel_is_that_of_the_paper(uniforms, temperature):
    hard = Hard(training="gumbel", temperature=temperature)
    mask = NO_TOKENS[:, None]
    found, chances = chosen(hard, SCORES, mask, training=True)
    noise = -np.log(-np.log(uniforms.astype("float64")))
    expected = reference.gumbel_softmax(SCORES, noise, temperature, mask)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(
        np.sum(found, -1), NO_TOKENS.any(-1)[:, None].repeat(3, 1), atol=1e-6
    )
    assert not np.any(chances)


def test_gumbel_is_sharper_the_lower_its_temperature(uniforms):
    mask = np.ones((1, 1, 5), bool)
    peaks = [
        np.max(chosen(Hard(training="gumbel", temperature=t), SCORES, mask, training=True)[0], -1)
        for t in (5.0, 1.0, 0.2, 0.01)
    ]
    assert (np.diff(peaks, axis=0) > -1e-6).all()
    assert peaks[0].max() < 0.5 and peaks[-1].mean() > 0.9


def test_the_temperature_follows_the_batches_of_training(uniforms):
    schedule = keras.optimizers.schedules.PolynomialDecay(2.0, 4, 0.5)
    attention = Attention("dot", Hard(training="gumbel", temperature=schedule))
    query, value = np.zeros((4, 3, 4), "float32"), np.zeros((4, 5, 4), "float32")
    noise = -np.log(-np.log(uniforms.astype("float64")))
    for batch in range(1, 7):
        attention(query, value)  # does not count
        found = attention(query, value, training=True)[1]
        assert int(attention.normaliser.batches) == batch
        expected = reference.gumbel_softmax(np.zeros((4, 3, 5)), noise, float(schedule(batch)))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_temperature_falls_by_default(uniforms):
    hard = Hard(training="gumbel")
    peaks = []
    for batches in (0, 1000, 2000, 9000):
        hard.batches.assign(batches)
        found, _ = chosen(hard, SCORES, np.ones((1, 1, 5), bool), training=True)
        peaks.append(np.max(found, -1).mean())
    assert peaks[0] < peaks[1] < peaks[2] == peaks[3]


@pytest.mark.parametrize("training", ["straight_through", "score_function"])
def test_batches_only_count_where_there_is_a_temperature(training):
    attention = Attention("dot", Hard(training=training))
    attention(QUERY, VALUE, training=True)
    assert int(attention.normaliser.batches) == 0


def test_score_function_tells_the_log_probability_of_what_it_drew():
    attention = Attention("dot", Hard(training="score_function"))
    attention.build(QUERY.shape, VALUE.shape)
    memory = attention.prepare(VALUE, value_mask=NO_TOKENS)
    _, heads, terms = attention.sequence(QUERY, memory, training=True)
    drawn = np.array(heads)[:, 0]
    assert one_hot(drawn) and terms.shape == (4, 6, 2)
    np.testing.assert_array_equal(drawn.sum(-1), NO_TOKENS.any(-1)[:, None].repeat(6, 1))
    soft = reference.softmax(QUERY @ np.swapaxes(VALUE, 1, 2), NO_TOKENS[:, None])
    expected = np.log(np.sum(drawn * soft, -1), where=drawn.any(-1), out=np.zeros((4, 6)))
    np.testing.assert_allclose(terms[..., 1], expected, atol=1e-5)
    assert not np.any(terms[..., 0]) and np.any(drawn != reference.hardmax(soft))
    state = attention.initial_state(memory)
    assert state.terms.shape == (4, 2) and not np.any(state.terms)
    _, alignments, state = attention.step(QUERY[:, 0], memory, state, training=True)
    chance = np.sum(alignments * soft[:, 0], -1)
    expected = np.log(chance, where=chance > 0, out=np.zeros(4))
    np.testing.assert_allclose(state.terms[:, 1], expected, atol=1e-5)
    _, _, terms = attention.sequence(QUERY, memory)
    assert terms.shape == (4, 6, 2) and not np.any(terms)


def test_the_gradient_of_score_function_is_that_of_the_log_probability():
    hard, scores = Hard(training="score_function"), tf.constant(SCORES)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        drawn, chances = chosen(hard, scores, NO_TOKENS[:, None], training=True)
        loss = tf.reduce_sum(chances) + tf.reduce_sum(drawn * SCORES)  # drawing has no gradient
    soft = reference.softmax(SCORES, NO_TOKENS[:, None])
    np.testing.assert_allclose(tape.gradient(loss, scores), drawn - soft, atol=1e-6)


def test_the_other_trainings_add_no_terms():
    for training in ("straight_through", "gumbel"):
        attention = Attention("dot", Hard(training=training))
        assert attention.terms_depth == 0
        attention.build(QUERY.shape, VALUE.shape)
        assert attention.initial_state(attention.prepare(VALUE)).terms.shape == (4, 0)


@every_training
def test_a_source_without_tokens_gives_zeros_and_no_gradient(training):
    attention = Attention("general", Hard(training=training))
    query, value = tf.constant(QUERY), tf.constant(VALUE)
    with tf.GradientTape() as tape:
        tape.watch([query, value])
        context, alignments = attention(query, value, value_mask=NO_TOKENS, training=True)
        loss = tf.reduce_sum(context**2)
    gradients = tape.gradient(loss, [query, value], unconnected_gradients="zero")
    assert (np.array(context)[1] == 0).all() and (np.array(alignments)[1] == 0).all()
    assert all(np.isfinite(g).all() and (np.array(g)[1] == 0).all() for g in gradients)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_training
def test_half_precision_of_a_long_source_is_finite(training, dtype):
    attention = Attention("general", Hard("sample", training), dtype=dtype)
    query, value = tf.constant(normal(2, 3, 4)), normal(2, 2000, 4, seed=1)
    for flag in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(query)
            context, alignments = attention(query, value, training=flag)
            loss = tf.reduce_sum(tf.cast(context, "float32") ** 2)
        gradient = tape.gradient(loss, query, unconnected_gradients="zero")
        assert alignments.dtype == "float32"
        np.testing.assert_allclose(np.sum(alignments, -1), 1, atol=1e-3)
        assert np.isfinite(ops.cast(context, "float32")).all() and np.isfinite(gradient).all()


def test_a_model_with_hard_attention_trains_and_keeps_its_count(tmp_path):
    query, value = keras.Input((None, 4)), keras.Input((None, 4))
    hard = Hard(training="gumbel")
    context, _ = Attention("general", hard)(query, value)
    model = keras.Model([query, value], context)
    model.compile("sgd", "mse")
    model.fit([QUERY, VALUE], QUERY, epochs=2, batch_size=2, verbose=0)
    assert int(hard.batches) == 4
    model.save(path := tmp_path / "model.keras")
    again = keras.saving.load_model(path)
    assert int(again.layers[-1].normaliser.batches) == 4
    np.testing.assert_array_equal(again([QUERY, VALUE]), model([QUERY, VALUE]))


# === Saving, errors ===


@pytest.mark.parametrize(
    "hard",
    [
        Hard(),
        Hard("sample", "score_function", seed=7),
        Hard(training="gumbel", temperature=0.3),
        Hard(
            training="gumbel",
            temperature=keras.optimizers.schedules.ExponentialDecay(2.0, 10, 0.5),
        ),
    ],
    ids=["default", "sample", "gumbel", "schedule"],
)
def test_hard_survives_saving(hard):
    again = reborn(hard)
    assert type(again) is Hard and config_of(again) == config_of(hard)
    assert (again.choice, again.training, again.seed) == (hard.choice, hard.training, hard.seed)
    if callable(hard.temperature):
        assert float(again.temperature(15)) == float(hard.temperature(15))
    within = reborn(Attention("dot", hard)).normaliser
    assert type(within) is Hard and config_of(within) == config_of(hard)


def test_hard_has_one_weight_that_is_not_trained():
    hard = Hard()
    assert [(w.name, w.shape, w.dtype) for w in hard.non_trainable_weights] == [
        ("batches", (), "int32")
    ]
    assert hard.trainable_weights == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"choice": "max"}, r"choice: expected one of \('argmax', 'sample'\), got 'max'"),
        ({"training": "reinforce"}, "training: expected one of .*, got 'reinforce'"),
        (
            {"training": "gumbel", "temperature": 0},
            "temperature: expected a positive number, got 0",
        ),
        (
            {"training": "gumbel", "temperature": "hot"},
            "temperature: expected a positive number, got 'hot'",
        ),
        ({"seed": 1.5}, "seed: expected an int, got 1.5"),
        ({"seed": None}, "seed: expected an int, got None"),
        ({"seed": True}, "seed: expected an int, got True"),
    ],
)
def test_arguments_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Hard(**options)


@pytest.mark.parametrize("window", ["global", "local_m", "local_p"])
def test_the_score_function_has_no_gradient_on_average(window):
    """E[grad log p(z)] = 0, or a baseline would bias the gradient."""
    keras.utils.set_random_seed(0)
    attention = Attention("dot", Hard(training="score_function"), window)
    draws, query = 6000, normal(1, 1, 4, dtype="float32")
    value = tf.constant(normal(1, 6, 4, seed=1, dtype="float32").repeat(draws, 0))
    attention(query, value[:1])
    if window != "global":
        attention.window.width = 2
    query = tf.constant(query)
    with tf.GradientTape() as tape:
        tape.watch(query)
        memory = attention.prepare(value)
        *_, terms = attention.sequence(tf.repeat(query, draws, 0), memory, training=True)
        mean = tf.reduce_mean(terms[..., 1])
    assert np.abs(tape.gradient(mean, query)).max() < 0.06


def test_what_has_no_effect_is_refused():
    with pytest.raises(ValueError, match="^temperature: has an effect with training='gumbel'"):
        Hard(temperature=0.5)
    assert Hard(seed=np.int64(3)).seed == 3
