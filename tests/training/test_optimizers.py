"""The optimizer that trained the zoo."""

from __future__ import annotations

import contextlib
import math

import keras
import numpy as np
import pytest
import small_models
import tensorflow as tf

from keras_attn import kernels, training


def papers(gradients, rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Return what Adam adds to a weight of zero, by the paper, with its sec. 2's other order."""
    weight, m, v = (np.zeros_like(gradients[0]) for _ in range(3))
    for t, gradient in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        alpha = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        weight = weight - alpha * m / (np.sqrt(v) + epsilon)
    return weight


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("plain", [False, True])
def test_adam_is_that_of_the_paper(dtype, plain):
    gradients = np.random.default_rng(0).normal(0, 1, (9, 4, 3)).astype(dtype)
    weight = keras.Variable(np.zeros((4, 3)), dtype=dtype)
    optimizer = training.Adam(0.1, beta_2=0.99)
    with kernels.plain() if plain else contextlib.nullcontext():
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient)], [weight])
    expected = papers(gradients.astype("float64"), 0.1, beta_2=0.99)
    # its rate is kept in float32
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5, atol=1e-6)
    stock = keras.optimizers.Adam()
    stock.build([weight])
    ours, theirs = ([v.path.partition("/")[2] for v in x.variables] for x in (optimizer, stock))
    assert ours == theirs


def test_gradients_of_an_id_are_summed_before_they_are_squared():
    """Keras squares those that an embedding gets several times each by itself."""
    table = keras.Variable(np.zeros((4, 2)))
    optimizer = training.Adam(0.1)
    gradients = []
    for ids in ([1, 1, 2], [3, 1, 3]):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(table.value, ids) * [[1.0, -2.0]])
        gradient = tape.gradient(loss, table.value)
        assert isinstance(gradient, tf.IndexedSlices)
        gradients.append(np.array(tf.convert_to_tensor(gradient)))
        optimizer.apply([gradient], [table])
    np.testing.assert_allclose(table.numpy(), papers(gradients, 0.1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("options", [{"amsgrad": True}, {"weight_decay": 0.1}, {"clipnorm": 0.1}])
def test_what_is_asked_of_keras_adam_is_done(options):
    gradients = np.random.default_rng(0).normal(0, 1, (5, 3)).astype("float32")
    weights = []
    for kind in (training.Adam, keras.optimizers.Adam):
        optimizer, weight = kind(0.1, **options), keras.Variable(np.ones(3))
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient)], [weight])
        weights.append(weight.numpy())
    np.testing.assert_allclose(*weights, rtol=1e-5)


def test_adam_is_saved_and_is_what_models_take_by_name(tmp_path):
    model = small_models.small("combined", **small_models.CHEAP)
    model.compile("adam")
    model.fit(small_models.FEW, small_models.FEW_SPOKEN, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is type(model.optimizer) is training.Adam
    for here, there in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(here.numpy(), there.numpy())


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
