"""Small things that every layer needs: checks of arguments, dtypes, rows of a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_samples import few, normal

from keras_attn.layers.base import (
    Component,
    at_least_float32,
    build_once,
    flag,
    fraction,
    positive,
    rows,
)


def test_build_once_keeps_the_weights_of_a_built_layer():
    layer = keras.layers.Dense(2)
    build_once(layer, (None, 3))
    kernel = layer.kernel
    build_once(layer, (None, 3))
    assert layer.kernel is kernel and kernel.shape == (3, 2)


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", None, True])
def test_positive_refuses_what_is_no_positive_int(value):
    with pytest.raises(ValueError, match=f"^units: expected a positive int, got {value!r}.$"):
        positive("units", value)


def test_positive_returns_an_int_that_fits_json():
    found = [positive("units", value) for value in (1, 7, np.int64(3))]
    assert found == [1, 7, 3] and {type(value) for value in found} == {int}


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, "0.2", None, False, float("nan")])
def test_fraction_refuses_what_is_not_in_its_range(value):
    with pytest.raises(
        ValueError, match=rf"^dropout: expected a number in \[0, 1\), got {value!r}."
    ):
        fraction("dropout", value)


def test_fraction_returns_a_float():
    found = [fraction("dropout", value) for value in (0, 0.25, np.float32(0.5))]
    assert found == [0.0, 0.25, 0.5] and {type(value) for value in found} == {float}


@pytest.mark.parametrize(
    "dtype, expected",
    [
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
def test_only_half_precision_is_cast(dtype, expected):
    x = ops.cast([1.5, -2.0], dtype)
    found = at_least_float32(x)
    assert keras.backend.standardize_dtype(found.dtype) == expected
    np.testing.assert_array_equal(found, [1.5, -2.0])


@few
@given(
    st.integers(0, 3),
    st.integers(1, 3),
    st.lists(st.integers(0, 3), min_size=1, max_size=2),
    st.booleans(),
)
def test_row_n_is_that_of_source_n_over_k(batch, beams, shape, in_graph):
    x = normal(batch, *shape)
    repeat = rows
    if in_graph:  # where no shape but the last is known
        specs = [
            tf.TensorSpec([None] * len(shape) + [shape[-1]], "float64"),
            tf.TensorSpec([None], "int32"),
        ]
        repeat = tf.function(rows, input_signature=specs)
    found = repeat(tf.constant(x), tf.zeros([batch * beams], "int32"))
    np.testing.assert_array_equal(found, np.repeat(x, beams, axis=0))


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_bfloat16", "mixed_float16"])
def test_a_component_reads_weights_in_its_compute_dtype_anywhere(dtype):
    component = Component(dtype=dtype)
    weight = component.add_weight(shape=(2,), initializer="ones")
    expected = dtype.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(component.weight(weight).dtype) == expected
    zeros = component.zeros(2, 0, 3)
    assert zeros.shape == (2, 0, 3)
    assert keras.backend.standardize_dtype(zeros.dtype) == expected


def test_a_component_is_saved_by_its_arguments():
    config = Component(name="mine", dtype="mixed_bfloat16", trainable=False).get_config()
    assert (config["name"], config["trainable"]) == ("mine", False)
    assert config["dtype"]["config"] == {"name": "mixed_bfloat16"}


@pytest.mark.parametrize("value", ["no", 1, None, 0.0])
def test_flags_are_true_or_false(value):
    with pytest.raises(ValueError, match="feedback: expected True or False"):
        flag("feedback", value)


def test_flags_of_numpy_are_flags():
    assert flag("feedback", np.True_) is True
