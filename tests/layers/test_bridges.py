"""Bridges: the decoder's first states against the oracle, and what does not fit."""

import numpy as np
import pytest
import reference
from layer_samples import MASK, TOLERANCE, close, config_of, normal, randomised, reborn

from keras_attn.layers import CopyBridge, DenseBridge, LinearBridge, SummaryBridge, ZeroBridge
from keras_attn.layers.bridges import bridges
from keras_attn.types import Encoded

NAMES = ["copy", "dense", "linear", "summary", "zeros"]
LSTM, GRU = ((4, 4), (4, 4)), ((4,), (4,))  # two layers each
SUMMARY = 5


def finals(depths, dtype="float32"):
    """Return random final states of these widths."""
    return tuple(
        tuple(normal(4, u, seed=10 * i + j, dtype=dtype) for j, u in enumerate(layer))
        for i, layer in enumerate(depths)
    )


def encoded(depths, dtype="float32"):
    summary = normal(4, SUMMARY, seed=9, dtype=dtype)
    return Encoded(normal(4, 5, 3, dtype=dtype), MASK, summary, finals(depths, dtype))


def wide(depths):
    """Return widths of an encoder that differ from layer to layer and state to state."""
    return tuple(
        tuple(6 + 2 * i + j for j, _ in enumerate(layer)) for i, layer in enumerate(depths)
    )


def built(name, states, dtype="float32"):
    bridge = bridges.get(name, dtype=dtype, name="bridge")
    bridge.build(states, states if name == "copy" else wide(states), SUMMARY)
    return randomised(bridge)


def oracle(name, bridge, source, states):
    weights = iter(bridge.get_weights())
    pairs = [
        [(next(weights), next(weights)) for _ in layer] for layer in states if name[0] in "dls"
    ]
    if name == "zeros":
        kind = "lstm" if len(states[0]) == 2 else "gru"
        return reference.bridge_zeros(kind, len(states), 4, 4)
    if name == "copy":
        return reference.bridge_copy(source.states)
    if name == "dense":
        return reference.bridge_dense(source.states, pairs)
    if name == "linear":
        return reference.bridge_linear(source.states, pairs)
    return reference.bridge_summary(source.summary, pairs)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("states", [LSTM, GRU], ids=["lstm", "gru"])
@pytest.mark.parametrize("name", NAMES)
def test_first_states_are_those_of_the_paper(name, states, dtype):
    bridge = built(name, states, dtype)
    source = encoded(states if name == "copy" else wide(states), dtype)
    found = bridge.start(source)
    expected = oracle(name, bridge, source, states)
    assert isinstance(found, tuple) and all(isinstance(layer, tuple) for layer in found)
    assert [len(layer) for layer in found] == [len(layer) for layer in states]
    for layer, expected_layer in zip(found, expected, strict=True):
        for tensor, expected_tensor in zip(layer, expected_layer, strict=True):
            close(tensor, expected_tensor, dtype)


@pytest.mark.parametrize("name", ["dense", "linear", "summary"])
def test_every_projection_has_its_own_named_weights(name):
    bridge = built(name, LSTM)
    expected = [
        f"bridge/state_{i}_{j}/{w}" for i in (0, 1) for j in (0, 1) for w in ("kernel", "bias")
    ]
    assert [weight.path for weight in bridge.weights] == expected
    inputs = [SUMMARY] * 4 if name == "summary" else [6, 7, 8, 9]
    shapes = [shape for depth in inputs for shape in ((depth, 4), (4,))]
    assert [tuple(weight.shape) for weight in bridge.weights] == shapes


@pytest.mark.parametrize("name", ["dense", "linear", "summary"])
def test_projections_lie_in_one_flat_list_because_keras_3_14_saves_no_nested_ones(name):
    names = [projection.name for projection in built(name, LSTM).projections]
    assert names == ["state_0_0", "state_0_1", "state_1_0", "state_1_1"]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_summary_bridge_reads_the_summary(name):
    assert bridges.get(name).uses_summary == (name == "summary")


@pytest.mark.parametrize(
    "final",
    [((5, 5), (4, 4)), ((4, 4),), ((4,), (4,)), ((8, 8), (8, 8))],
    ids=["width", "layers", "states", "bidirectional"],
)
def test_copy_refuses_states_that_do_not_fit(final):
    with pytest.raises(ValueError) as caught:
        CopyBridge().build(LSTM, final, SUMMARY)
    message = str(caught.value)
    assert message.startswith("bridge='copy': the encoder's final states must fit the decoder's")
    assert f"got widths {final} for {LSTM}. Use bridge='dense'" in message


@pytest.mark.parametrize("name", ["dense", "linear"])
@pytest.mark.parametrize("final", [((4, 4),), ((4,), (4,))], ids=["layers", "states"])
def test_dense_and_linear_refuse_other_numbers_of_layers_or_states(final, name):
    bridge = {"dense": DenseBridge, "linear": LinearBridge}[name]()
    with pytest.raises(ValueError) as caught:
        bridge.build(LSTM, final, SUMMARY)
    message = str(caught.value)
    assert message.startswith(
        f"bridge={name!r}: encoder and decoder need as many layers and states"
    )
    assert message.endswith(f"got widths {final} for {LSTM}. Use bridge='summary'.")


@pytest.mark.parametrize("cls", [ZeroBridge, SummaryBridge])
def test_others_take_any_number_of_layers(cls):
    bridge = cls()
    bridge.build(LSTM, ((9,),), SUMMARY)
    found = bridge.start(encoded(((9,),)))
    assert [[tensor.shape for tensor in layer] for layer in found] == [[(4, 4)] * 2] * 2


@pytest.mark.parametrize("states", [LSTM, GRU], ids=["lstm", "gru"])
@pytest.mark.parametrize("name", NAMES)
def test_a_bridge_survives_saving(name, states):
    bridge = built(name, states)
    again = reborn(bridge)
    assert type(again) is type(bridge) and config_of(again) == config_of(bridge)
    assert again.built
    again.set_weights(bridge.get_weights())
    source = encoded(states if name == "copy" else wide(states))
    for layer, expected_layer in zip(again.start(source), bridge.start(source), strict=True):
        for tensor, expected_tensor in zip(layer, expected_layer, strict=True):
            np.testing.assert_array_equal(tensor, expected_tensor)
