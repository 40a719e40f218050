"""Arrays, round trips and oracles that the tests of the layers share."""

from __future__ import annotations

import functools
import json

import keras
import numpy as np
import reference
from hypothesis import settings

few = settings(max_examples=12, deadline=None, derandomize=True)

# Those that compare a query with a key and need nothing else, and options that keep them small.
SCORERS = ["additive", "concat", "dot", "general", "low_rank", "scaled_dot"]
SMALL = {"additive": {"units": 3}, "concat": {"units": 3}, "low_rank": {"rank": 3}}
CELLS = ["gru", "lstm", "simple_rnn"]

# Float dtype of a layer -> how close its numbers come to those of the oracle, which is in float64.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}

# Rows of unequal length, right-padded: 5, 3, 1 and 4 tokens.
LENGTHS = np.array([5, 3, 1, 4])
MASK = np.arange(5) < LENGTHS[:, None]


def normal(*shape, seed=0, dtype="float64"):
    """Return random numbers of `shape`."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def randomised(layer, seed=0, scale=0.5):
    """Give every weight random values, so that nothing is zero or symmetric by its initialiser."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(0, scale, weight.shape) for weight in layer.weights])
    return layer


def reborn(thing):
    """Return what a saved file would make of `thing`, which has to fit JSON; without weights."""
    config = keras.saving.serialize_keras_object(thing)
    return keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))


def config_of(layer):
    """Return the constructor's arguments of `layer` as JSON, in which tuples are lists."""
    return json.dumps(layer.get_config(), sort_keys=True)


def close(found, expected, dtype="float32"):
    """Assert that tensors of `dtype` are as close to the oracle as that dtype allows."""
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype])


def score_of(name, weights):
    """Return the oracle's score of a query and a key, given the weights of a scorer."""
    if name in ("dot", "scaled_dot"):
        return getattr(reference, name)
    return functools.partial(_weighted_score, getattr(reference, name), tuple(weights))


def _weighted_score(score, weights, query, key):
    return score(query, key, *weights)


def named_weights(layer):
    """Return the weights of `layer` by name, as float64."""
    arrays = zip(layer.weights, layer.get_weights(), strict=True)
    return {weight.name: array.astype("float64") for weight, array in arrays}


def numbers(tensors):
    """Return tensors, or nested tuples of them, as NumPy arrays."""
    return keras.tree.map_structure(np.array, tensors)
