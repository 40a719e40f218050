"""Normalisers: masked softmax against the oracle, and at its edges."""

import math

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_samples import MASK, close, few, normal, reborn

from keras_attn.layers import Attention, Normaliser, Softmax, Sparsemax
from keras_attn.layers.choices import Plain
from keras_attn.layers.normalisers import Function, normaliser_of

QUERY, VALUE = normal(4, 3, 4, dtype="float32"), normal(4, 5, 4, seed=1, dtype="float32")


@few
@given(st.data())
def test_softmax_is_that_of_the_allowed_positions(data):
    shape = tuple(data.draw(st.integers(1, 4)) for _ in range(3))
    size = math.prod(shape)
    flat = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    temperature = data.draw(st.sampled_from([0.3, 1, 2.5]))
    mask = np.reshape(flat, shape)
    scores = 3 * normal(*shape)
    found = Softmax(temperature)(ops.convert_to_tensor(scores), mask)
    close(found, reference.softmax(scores / temperature, mask), "float64")
    assert (np.array(found)[~mask] == 0).all()


def test_a_mask_of_the_sources_holds_for_every_query():
    scores = normal(4, 3, 5)
    found = Softmax()(ops.convert_to_tensor(scores, "float32"), MASK[:, None, :])
    close(found, reference.softmax(scores, MASK[:, None, :]), "float32")
    np.testing.assert_allclose(np.sum(found, -1), 1, atol=1e-6)


def test_nothing_allowed_gives_zeros_and_no_gradient():
    mask = np.array([[[False, False, False]], [[True, False, True]]])
    scores = tf.constant(normal(2, 1, 3))
    with tf.GradientTape() as tape:
        tape.watch(scores)
        alignments = Softmax()(scores, mask)
        loss = tf.reduce_sum(alignments * normal(2, 1, 3, seed=1))
    gradient = np.array(tape.gradient(loss, scores))
    assert (np.array(alignments)[0] == 0).all() and np.sum(alignments[1]) == pytest.approx(1)
    assert (gradient[0] == 0).all()
    assert gradient[1, 0, 1] == 0 and (gradient[1, 0, [0, 2]] != 0).all()


@pytest.mark.filterwarnings("error")
def test_a_single_position_gets_everything_without_a_warning():
    found = Softmax()(tf.constant([[[-7.0], [0.0]]]), np.array([[[True], [False]]]))
    np.testing.assert_array_equal(found, [[[1], [0]]])


def test_scores_far_from_zero_stay_finite():
    scores = ops.convert_to_tensor([[[1e6, 1e6 - 1, -1e8], [-1e8, -1e8, -1e6]]], "float32")
    found = Softmax()(scores, np.array([[[True, True, True], [True, True, False]]]))
    e = np.exp(-1)
    np.testing.assert_allclose(found, [[[1 / (1 + e), e / (1 + e), 0], [0.5, 0.5, 0]]], atol=1e-6)


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "warm", None])
def test_a_temperature_has_to_be_positive(wrong):
    with pytest.raises(
        ValueError, match=f"^temperature: expected a positive number, got {wrong!r}"
    ):
        Softmax(wrong)


def test_softmax_survives_saving():
    again = reborn(Softmax(0.25))
    assert type(again) is Softmax and again.get_config() == {"temperature": 0.25}
    assert keras.saving.get_registered_name(Softmax) == "keras_attn>Softmax"


@pytest.mark.parametrize("temperature", [True, float("inf"), float("nan"), "1", 0, -1])
def test_temperatures_are_positive_numbers(temperature):
    with pytest.raises(ValueError, match="temperature: expected a positive number"):
        Softmax(temperature)


# === Sparsemax ===


@few
@given(st.data())
def test_sparsemax_is_that_of_the_allowed_positions(data):
    shape = tuple(data.draw(st.integers(1, 6)) for _ in range(3))
    size = math.prod(shape)
    flat = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    scale = data.draw(st.sampled_from([0.1, 1, 30]))
    mask, scores = np.reshape(flat, shape), scale * normal(*shape)
    for dtype in ("float32", "float64"):
        found = Sparsemax()(ops.convert_to_tensor(scores, dtype), mask)
        close(found, reference.sparsemax(scores, mask), dtype)
        assert (np.array(found)[~mask] == 0).all()
        np.testing.assert_allclose(np.sum(found, -1), mask.any(-1), atol=1e-5)


def test_equal_scores_get_equal_parts():
    scores = np.array([[[1, 1, 1, 1], [2, 2, 0, 0], [1, 0, 0, 0], [7, 7, 7, -1e8]]])
    found = Sparsemax()(ops.convert_to_tensor(scores, "float32"), np.ones((1, 1, 4), bool))
    third = 1 / 3
    expected = [[0.25] * 4, [0.5, 0.5, 0, 0], [1, 0, 0, 0], [third, third, third, 0]]
    np.testing.assert_allclose(found, [expected], atol=1e-6)


def test_low_scores_get_exactly_zero():
    scores = ops.convert_to_tensor(3 * normal(2, 3, 50), "float32")
    found = np.array(Sparsemax()(scores, np.ones((2, 3, 50), bool)))
    assert (found == 0).mean() > 0.9 and (found >= 0).all()
    np.testing.assert_array_equal(found > 0, reference.sparsemax(np.array(scores)) > 0)


def test_sparsemax_of_nothing_gives_zeros_and_no_gradient():
    mask = np.array([[[False, False, False]], [[True, False, True]]])
    scores = tf.constant(0.1 * normal(2, 1, 3))
    with tf.GradientTape() as tape:
        tape.watch(scores)
        alignments = Sparsemax()(scores, mask)
        loss = tf.reduce_sum(alignments * normal(2, 1, 3, seed=1))
    gradient = np.array(tape.gradient(loss, scores))
    assert (np.array(alignments)[0] == 0).all() and np.sum(alignments[1]) == pytest.approx(1)
    assert (gradient[0] == 0).all()
    assert gradient[1, 0, 1] == 0 and (gradient[1, 0, [0, 2]] != 0).all()


@pytest.mark.parametrize("scale", [0.1, 1, 3])
def test_gradients_of_sparsemax_are_those_of_finite_differences(scale):
    scores, probe = scale * normal(3, 2, 6), normal(3, 2, 6, seed=1)
    mask = normal(3, 2, 6, seed=2) > -0.5
    tensor = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = tf.reduce_sum(Sparsemax()(tensor, mask) * probe)
    (slow,) = reference.finite_difference(
        lambda scores: np.sum(reference.sparsemax(scores, mask) * probe), [scores]
    )
    np.testing.assert_allclose(tape.gradient(loss, tensor), slow, atol=1e-8)
    assert np.abs(slow).max() > 0.1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
def test_sparsemax_of_a_long_source_in_half_precision(dtype):
    attention = Attention("dot", "sparsemax", dtype=dtype)
    query, value = normal(2, 3, 4), normal(2, 2000, 4, seed=1)
    mask = np.arange(2000) < [[2000], [1990]]
    query = tf.constant(query, "float32")
    with tf.GradientTape() as tape:
        tape.watch(query)
        context, alignments = attention(query, value, value_mask=mask)
        loss = tf.reduce_sum(tf.cast(context, "float32") ** 2)
    assert alignments.dtype == "float32"
    np.testing.assert_allclose(np.sum(alignments, -1), 1, atol=1e-4)
    for found in (context, tape.gradient(loss, query)):
        assert np.isfinite(ops.cast(found, "float32")).all()


@pytest.mark.parametrize("spread", [1e-4, 1, 100])
def test_sparsemax_of_many_scores_is_exact_enough(spread):
    scores = spread * normal(1, 2, 2000)
    found = Sparsemax()(ops.convert_to_tensor(scores, "float32"), np.ones((1, 1, 2000), bool))
    rounded = scores.astype("float32").astype("float64")
    np.testing.assert_allclose(found, reference.sparsemax(rounded), atol=1e-5)


def test_sparsemax_survives_saving():
    assert type(reborn(Sparsemax())) is Sparsemax
    assert keras.saving.get_registered_name(Sparsemax) == "keras_attn>Sparsemax"


# === A user's own ===


def plain(scores, mask):
    positive = ops.cast(mask, scores.dtype) * ops.relu(scores)
    return positive / (1e-9 + ops.sum(positive, axis=-1, keepdims=True))


@keras.saving.register_keras_serializable("tests")
def registered(scores, mask):
    return plain(scores, mask)


class Uniform(Normaliser):
    """Equal parts for all: the least that a normaliser has to be."""

    def distribution(self, scores, mask):
        allowed = ops.cast(mask, scores.dtype) * ops.ones_like(scores)
        return allowed / ops.maximum(ops.sum(allowed, axis=-1, keepdims=True), 1)


@keras.saving.register_keras_serializable("tests")
class Power(Normaliser, Plain):
    """A normaliser with an option."""

    def __init__(self, exponent=2):
        self.exponent = exponent

    def distribution(self, scores, mask):
        return plain(scores, mask) ** self.exponent

    def get_config(self):
        return {"exponent": self.exponent}


def test_a_function_is_a_normaliser():
    attention = Attention("dot", plain)
    found = attention(QUERY, VALUE, value_mask=MASK)[1]
    scores = ops.convert_to_tensor(QUERY @ np.swapaxes(VALUE, 1, 2))
    np.testing.assert_allclose(found, plain(scores, MASK[:, None]), atol=1e-5)
    assert isinstance(attention.normaliser, Function) and attention.parallel
    context, _ = Attention("dot", lambda scores, mask: plain(scores, mask))(QUERY, VALUE)
    assert context.shape == (4, 3, 4)


def test_a_registered_function_survives_saving(tmp_path):
    attention = Attention("dot", registered)
    again = reborn(attention)
    assert again.normaliser.function is registered
    query, value = keras.Input((None, 4)), keras.Input((None, 4))
    model = keras.Model([query, value], attention(query, value))
    model.save(path := tmp_path / "model.keras")
    for found, expected in zip(
        keras.saving.load_model(path)([QUERY, VALUE]), model([QUERY, VALUE]), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_subclass_is_a_normaliser():
    attention = Attention("dot", Uniform())
    expected = MASK / MASK.sum(-1, keepdims=True)
    found = attention(QUERY, VALUE, value_mask=MASK)[1]
    np.testing.assert_allclose(found, np.repeat(expected[:, None], 3, 1), atol=1e-6)
    memory = attention.prepare(VALUE, value_mask=MASK)
    state = attention.initial_state(memory)
    np.testing.assert_allclose(attention.step(QUERY[:, 0], memory, state)[1], expected, atol=1e-6)


def test_a_registered_subclass_survives_saving():
    again = reborn(Attention("dot", Power(3)))
    assert type(again.normaliser) is Power and again.normaliser.exponent == 3


def test_a_normaliser_is_given_by_name_or_as_an_object():
    assert type(normaliser_of("sparsemax")) is Sparsemax
    mine = Uniform()
    assert normaliser_of(mine) is mine
    with pytest.raises(ValueError, match="^normaliser: expected .*Did you mean 'sparsemax'"):
        normaliser_of("sparsmax")
    for wrong in (3, None, Softmax):
        with pytest.raises(TypeError, match="^normaliser: expected a name of"):
            normaliser_of(wrong)


def test_the_base_has_no_formula():
    with pytest.raises(NotImplementedError):
        Normaliser()(None, None)
