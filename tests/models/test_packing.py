"""Packed arguments come out of the graph as they went in."""

import numpy as np
import pytest
import tensorflow as tf

from keras_attn.models.packing import Packing


def spec(shape, dtype=tf.int32):
    return tf.TensorSpec(shape, dtype)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_arguments_come_out_as_they_went_in(rows):
    specs = (
        spec([None, None]),
        {"one": spec([None]), "none": spec([None, 0]), "two": spec([None, 2])},
        (spec([None], tf.float32), spec([None, 4], tf.float32)),
        spec([3]),
        (spec([5]), spec([None, 2], tf.int64)),
    )
    random = np.random.default_rng(0)

    def values(spec):
        shape = [
            size if size is not None else (rows if axis == 0 else 7)
            for axis, size in enumerate(spec.shape)
        ]
        return random.integers(-9, 9, shape).astype(spec.dtype.as_numpy_dtype)

    arguments = tf.nest.map_structure(values, specs)
    packing = Packing(specs)

    @tf.function(input_signature=packing.signature)
    def through(*packed):
        return packing.unpacked(packed)

    packed = packing.packed(arguments)
    assert len(packed) == 4 and [x.dtype for x in packed] == [
        np.int32,
        np.float32,
        np.int32,
        np.int64,
    ]
    found = through(*packed)
    tf.nest.assert_same_structure(found, arguments)
    for x, y in zip(tf.nest.flatten(found), tf.nest.flatten(arguments), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
