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

from keras_attn.layers import Softmax


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
