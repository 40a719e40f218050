"""The optimizer that trained the zoo."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

from keras_attn import training


def test_the_rate_rises_and_falls():
    optimizer = training.adam(1000, learning_rate=0.5, warmup=0.1, final=0.02)
    rates = []
    for step in (0, 50, 100, 550, 1000, 5000):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    start = 0.5 / 100
    middle = 0.5 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi / 2)))
    expected = [start, start + 0.5 * (0.5 - start), 0.5, middle, 0.01, 0.01]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_without_warm_up_it_starts_at_the_peak():
    assert float(training.adam(10, learning_rate=0.5, warmup=0).learning_rate) == 0.5


def test_gradients_are_clipped_together():
    assert training.adam(10, clip=0.25).global_clipnorm == 0.25


@pytest.mark.parametrize(("average", "momentum"), [(0.08, 1 - 1 / 80), (0.5, 1 - 1 / 500)])
def test_the_average_reaches_back_a_fraction_of_the_run(average, momentum):
    optimizer = training.adam(1000, average=average)
    assert optimizer.use_ema and optimizer.ema_momentum == pytest.approx(momentum)


@pytest.mark.parametrize("average", [0, 0.0001])
def test_no_average(average):
    assert not training.adam(1000, average=average).use_ema


def test_averaged_weights_are_the_moving_average_and_go_again():
    weight = keras.Variable([1.0, 2.0])
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False)])
    model.build((None, 2))
    optimizer = training.adam(100, learning_rate=0.1, warmup=0, average=0.05)
    model.compile(optimizer, "mse")
    kernel, history = model.trainable_variables[0], []
    for _ in range(6):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(weight[None]) ** 2)
        optimizer.apply([tape.gradient(loss, kernel.value)], [kernel])
        history.append(np.array(kernel))
    mean = history[0]
    for value in history[1:]:
        mean = 0.8 * mean + 0.2 * value
    with training.averaged(model):
        np.testing.assert_allclose(kernel, mean, rtol=1e-5)
    np.testing.assert_array_equal(kernel, history[-1])
    with pytest.raises(RuntimeError), training.averaged(model):
        raise RuntimeError
    np.testing.assert_array_equal(kernel, history[-1])


def test_without_an_average_nothing_changes():
    model = small_models.small("combined")
    model.compile("adam")
    before = model.get_weights()
    with training.averaged(model):
        assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("steps", 0),
        ("steps", 1.5),
        ("steps", True),
        ("learning_rate", 0),
        ("learning_rate", "fast"),
        ("clip", -1),
        ("warmup", 1),
        ("final", -0.1),
        ("average", 1.0),
    ],
)
def test_arguments_are_checked(argument, value):
    arguments = {"steps": 10, argument: value}
    with pytest.raises(ValueError, match=f"{argument}: expected"):
        training.adam(**arguments)
