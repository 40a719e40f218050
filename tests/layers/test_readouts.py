"""Readouts: features from state, context and input, against the oracle."""

import keras
import numpy as np
import pytest
import reference
from keras import ops
from layer_samples import TOLERANCE, close, config_of, normal, randomised, reborn

from keras_attn.layers import LinearReadout, MaxoutReadout, TanhReadout
from keras_attn.layers.readouts import Readout, readouts

NAMES = ["linear", "maxout", "tanh"]
UNITS, CONTEXT, EMBEDDING = 4, 3, 2
every_readout = pytest.mark.parametrize("name", NAMES)


def built(kind, context=CONTEXT, embedding=EMBEDDING, **options):
    readout = readouts.get(kind, **options)
    readout.build(UNITS, context, embedding)
    return randomised(readout)


def parts(*rows, context=CONTEXT, embedding=EMBEDDING, dtype="float32"):
    widths = (UNITS, context, embedding)
    return [normal(*rows, width, seed=i, dtype=dtype) for i, width in enumerate(widths)]


def oracle(name, readout, state, context, embedded):
    return reference.readout(name, state, context, embedded, *readout.get_weights())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("context, embedding", [(3, 2), (0, 2), (3, 0), (0, 0)])
@every_readout
def test_features_are_those_of_the_paper(name, context, embedding, dtype):
    readout = built(name, context, embedding, dtype=dtype)
    arrays = parts(5, context=context, embedding=embedding, dtype=dtype)
    found = readout.features(*arrays)
    close(found, oracle(name, readout, *arrays), dtype)
    assert found.shape == (5, readout.depth(UNITS, context, embedding))


@every_readout
def test_a_time_axis_changes_nothing(name):
    readout = built(name)
    arrays = parts(5, 3)
    found = readout.features(*arrays)
    for t in range(3):
        close(found[:, t], oracle(name, readout, *[array[:, t] for array in arrays]))


@pytest.mark.parametrize("name", ["maxout", "tanh"])
def test_units_are_the_width_of_the_features(name):
    readout = built(name, units=7)
    assert readout.depth(UNITS, CONTEXT, EMBEDDING) == 7
    arrays = parts(5)
    close(readout.features(*arrays), oracle(name, readout, *arrays))
    assert readouts.get(name).depth(UNITS, CONTEXT, EMBEDDING) == UNITS


def test_weights_have_names_and_shapes():
    weights = {name: built(name, name="readout").weights for name in NAMES}
    assert weights["linear"] == []
    assert [weight.path for weight in weights["tanh"]] == ["readout/combine/kernel"]
    assert tuple(weights["tanh"][0].shape) == (CONTEXT + UNITS, UNITS)
    assert [weight.path for weight in weights["maxout"]] == ["readout/combine/kernel"]
    assert tuple(weights["maxout"][0].shape) == (UNITS + EMBEDDING + CONTEXT, 2 * UNITS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_readout
def test_half_precision_comes_close(name, dtype):
    readout = built(name, dtype=f"mixed_{dtype}")
    arrays = parts(5)
    found = readout.features(*[ops.cast(array, dtype) for array in arrays])
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    exact = oracle(name, readout, *arrays)
    np.testing.assert_allclose(ops.cast(found, "float32"), exact, atol=0.05)


@pytest.mark.parametrize("units", [0, -1, 2.0])
@pytest.mark.parametrize("cls", [TanhReadout, MaxoutReadout])
def test_units_have_to_be_positive(cls, units):
    with pytest.raises(ValueError, match=f"^units: expected a positive int, got {units!r}"):
        cls(units)


@pytest.mark.parametrize(
    "readout",
    [LinearReadout(name="mine"), TanhReadout(), TanhReadout(7), MaxoutReadout(3, dtype="float64")],
    ids=lambda readout: type(readout).__name__,
)
def test_a_readout_survives_saving(readout):
    readout.build(UNITS, CONTEXT, EMBEDDING)
    again = reborn(randomised(readout))
    assert type(again) is type(readout) and config_of(again) == config_of(readout)
    again.set_weights(readout.get_weights())
    np.testing.assert_array_equal(again.features(*parts(5)), readout.features(*parts(5)))


def test_the_base_has_no_formula():
    with pytest.raises(NotImplementedError):
        Readout().features(None, None, None)
    with pytest.raises(NotImplementedError):
        Readout().depth(1, 1, 1)
