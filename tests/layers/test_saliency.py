"""Saliency: attention without a query, alone and as a summary, against the oracle."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_samples import MASK, TOLERANCE, close, config_of, few, normal, randomised, reborn

from keras_attn.layers import Gating, WinnerTakeAll
from keras_attn.layers.saliency import Saliency
from keras_attn.layers.summaries import summaries

LAYERS = {"max": WinnerTakeAll, "gated": Gating}
every = pytest.mark.parametrize("name", LAYERS)
VALUE = normal(4, 5, 3) - 3  # mostly negative: zeros at padding would win


def built(kind, depth=3, **options):
    layer = LAYERS[kind](**options)
    layer.build((None, None, depth))
    return randomised(layer)


def oracle(name, layer, value, mask):
    if name == "max":
        return reference.summary_max(value, mask)
    return reference.summary_gated(value, mask, *layer.get_weights())


@pytest.mark.parametrize("dtype", TOLERANCE)
@every
def test_it_is_that_of_the_formulas(name, dtype):
    layer = built(name, dtype=dtype)
    value = VALUE.astype(dtype)
    close(layer(value, mask=MASK), oracle(name, layer, VALUE, MASK), dtype)
    close(layer(value), oracle(name, layer, VALUE, None), dtype)


@every
@few
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(1, 3))
def test_padding_is_not_seen_and_nothing_gives_zeros(name, lengths, more):
    layer, size = built(name), max(lengths) + more
    mask = np.arange(size) < np.array(lengths)[:, None]
    value = normal(len(lengths), size, 3) - 3
    found = layer(value, mask=mask)
    close(found, oracle(name, layer, value, mask))
    assert (np.array(found)[np.array(lengths) == 0] == 0).all()
    garbage = np.where(mask[:, :, None], value, 99)
    np.testing.assert_array_equal(layer(garbage, mask=mask), found)


@every
def test_a_mask_may_have_holes(name):
    layer, mask = built(name), np.array([[False, True, False, True, False]] * 4)
    close(layer(VALUE, mask=mask), oracle(name, layer, VALUE, mask))
    numbers = mask.astype("int32")
    close(layer(VALUE, mask=numbers), oracle(name, layer, VALUE, mask))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@every
def test_what_stands_behind_the_mask_does_nothing(name, bad):
    layer = built(name)
    value = tf.constant(np.where(MASK[:, :, None], VALUE, bad).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(value)
        found = layer(value, mask=MASK)
        loss = tf.reduce_sum(found**2)
    close(found, oracle(name, layer, VALUE, MASK))
    for gradient in tape.gradient(loss, [value, *layer.trainable_variables]):
        assert np.isfinite(gradient).all()
    assert (np.array(tape_gradient(layer, value))[~MASK] == 0).all()


def tape_gradient(layer, value):
    with tf.GradientTape() as tape:
        tape.watch(value)
        loss = tf.reduce_sum(layer(value, mask=MASK) ** 2)
    return tape.gradient(loss, value)


@every
def test_gradients_are_those_of_finite_differences(name):
    layer, probe = built(name, dtype="float64"), normal(4, 3, seed=1)
    mask = MASK & (np.arange(4) < 3)[:, None]  # the last row has no positions

    def loss(value, *weights):
        if name == "max":
            return np.sum(reference.summary_max(value, mask) * probe)
        return np.sum(reference.summary_gated(value, mask, *weights) * probe)

    value = tf.constant(VALUE)
    with tf.GradientTape() as tape:
        tape.watch(value)
        total = tf.reduce_sum(layer(value, mask=mask) * probe)
    found = tape.gradient(total, [value, *(weight.value for weight in layer.weights)])
    expected = reference.finite_difference(loss, [VALUE, *layer.get_weights()])
    for gradient, difference in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, difference, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every
def test_half_precision_keeps_its_dtype_and_comes_close(name, dtype):
    layer = built(name, dtype=f"mixed_{dtype}")
    found = layer(VALUE, mask=MASK)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    expected = oracle(name, layer, VALUE, MASK)
    np.testing.assert_allclose(ops.cast(found, "float32"), expected, atol=0.05)


def test_the_mean_of_many_gated_values_fits_float16():
    layer = Gating(dtype="float16")
    layer.build((None, None, 2))
    layer.set_weights([np.zeros((2, 2)), np.full(2, 20.0)])  # all gates are open
    found = layer(ops.full((1, 3000, 2), 100, dtype="float16"))
    np.testing.assert_array_equal(found, [[100, 100]])


@every
def test_it_reads_the_mask_that_keras_carries(name):
    source = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(9, 3, mask_zero=True)
    layer = LAYERS[name]()
    pooled = layer(embedding(source))
    assert pooled.shape == (None, 3)
    model = keras.Model(source, keras.layers.Identity()(pooled))
    randomised(model)
    embedding.embeddings.assign(embedding.embeddings - 3)
    ids = np.array([[4, 5, 6, 7], [8, 4, 0, 0], [0, 0, 0, 0]])
    value = embedding.embeddings.numpy()[ids]
    close(model(ids), oracle(name, layer, value, ids != 0))
    close(layer(embedding(ids)), oracle(name, layer, value, ids != 0))


@every
def test_the_result_carries_no_mask(name):
    embedding = keras.layers.Embedding(9, 3, mask_zero=True)
    found = built(name)(embedding(np.array([[4, 0]])))
    assert getattr(found, "_keras_mask", None) is None


@every
def test_it_trains_and_survives_its_file_in_a_plain_keras_model(name, tmp_path):
    model = keras.Sequential(
        [keras.layers.Embedding(9, 4, mask_zero=True), LAYERS[name](), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    ids = np.array([[4, 5, 6], [7, 0, 0], [8, 5, 0]])
    losses = model.fit(ids, np.array([0.0, 1, 2]), epochs=10, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(ids), model(ids), atol=1e-6)


@every
def test_no_positions_at_all_give_zeros(name):
    np.testing.assert_array_equal(built(name)(np.zeros((2, 0, 3), "float32")), np.zeros((2, 3)))


@every
def test_xla_changes_nothing(name):
    layer, value = built(name), tf.constant(VALUE, tf.float32)
    run = tf.function(lambda x: layer(x, mask=MASK), jit_compile=True)
    np.testing.assert_allclose(run(value), layer(value, mask=MASK), atol=1e-6)


@every
def test_it_agrees_with_the_summary_of_that_name(name):
    layer, summary = built(name), summaries.get(name)
    summary.build((None, None, 3))
    summary.set_weights(layer.get_weights())
    values = np.where(MASK[:, :, None], VALUE, 0).astype("float32")
    found = summary(values, MASK, values[:, 0])
    np.testing.assert_array_equal(found, layer(values, mask=MASK))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
@every
def test_another_rank_is_refused(name, shape):
    message = r"value: expected a tensor of rank 3 \(batch, positions, depth\), got shape \(2, 3"
    with pytest.raises(ValueError, match=message):
        LAYERS[name]()(np.zeros(shape, "float32"))


@every
def test_it_survives_saving(name):
    layer = built(name, name="mine", dtype="mixed_bfloat16")
    again = reborn(layer)
    assert type(again) is LAYERS[name] and config_of(again) == config_of(layer)
    again.set_weights(layer.get_weights())
    expected = ops.cast(layer(VALUE), "float32")
    np.testing.assert_array_equal(ops.cast(again(VALUE), "float32"), expected)


def test_weights_have_the_documented_names_and_shapes():
    weights = {weight.name: tuple(weight.shape) for weight in built("gated").weights}
    assert weights == {"kernel": (3, 3), "bias": (3,)} and not built("max").weights


def test_the_base_has_no_formula():
    with pytest.raises(NotImplementedError):
        Saliency().summed_up(None, None)
