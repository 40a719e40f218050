"""The network against loops in NumPy written from the papers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import reference
import small_models

from keras_attn import text, zoo
from keras_attn.layers.base import inside
from keras_attn.models.network import vocabulary_size

SHAPES = {
    "context_every_step": {"context": "fixed", "order": "attend_update", "feedback": False},
    "context_as_init": {"context": "none"},
    "combined": {"context": "fixed", "order": "attend_update"},
    "attention": {"context": "attention"},
}
SCORES = {
    "attention_dot": lambda layer: reference.dot,
    "attention_scaled_dot": lambda layer: reference.scaled_dot,
    "attention_general": lambda layer: lambda q, k: reference.general(q, k, layer.kernel.numpy()),
    "attention_additive": lambda layer: (
        lambda q, k: reference.additive(
            q, k, layer.query_kernel.numpy(), layer.key_kernel.numpy(), layer.scale.numpy()
        )
    ),
}


def numbers(layer):
    return tuple(weight.numpy() for weight in layer.weights)


def expected(model, name, source, target_in):
    """Compute the logits and alignments of a model by the reference alone."""
    decoder, cell = model.decoder, model.encoder.cell
    embedded = model.source_embedding.embeddings.numpy()[source]
    (layer,) = model.encoder.layers
    directions = numbers(layer.forward_layer), numbers(layer.backward_layer)
    values, states = reference.bidirectional(cell, embedded, source != 0, *directions)
    encoded = reference.Encoded(values, source != 0, reference.summary_last((states,)), (states,))
    variant, attends = SHAPES.get(name, SHAPES["attention"]), name.startswith("attention")
    weights = reference.DecoderWeights(
        cells=[numbers(decoder.recurrence.layers[0])],
        output_kernel=model.projection.kernel.numpy(),
        output_bias=model.projection.bias.numpy(),
        readout_kernel=decoder.readout.combine.kernel.numpy() if attends else None,
        score=SCORES.get(name, SCORES["attention_general"])(decoder.context.attention.scorer)
        if attends
        else None,
    )
    if name == "context_every_step":
        initial = reference.bridge_zeros(cell, 1, len(source), decoder.recurrence.units)
        fed = np.zeros((*target_in.shape, 0))
    else:
        projections = [[numbers(projection) for projection in decoder.bridge.projections]]
        initial = reference.bridge_linear(encoded.states, projections)
        fed = model.target_embedding.embeddings.numpy()[target_in]
    options = {"cell": cell, "readout": "tanh" if attends else "linear", **variant}
    return reference.decode(reference.Variant(**options), fed, encoded, initial, weights)


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
@pytest.mark.parametrize("name", small_models.PLAIN)
def test_logits_and_alignments_are_the_papers(name, cell):
    model = small_models.randomised(
        zoo.build(name, source=11, target=9, units=6, embedding_size=5, cell=cell)
    )
    source, target_in = small_models.some_ids(model, rows=3, length=7, targets=4)
    logits, alignments = expected(model, name, source, target_in)
    inputs = {"source": source, "target_in": target_in}
    np.testing.assert_allclose(model(inputs), logits, atol=1e-5)
    np.testing.assert_allclose(model.alignments(inputs), alignments, atol=1e-5)
    assert np.ptp(logits) > 0.5


def test_ids_outside_the_vocabulary_are_unknown():
    np.testing.assert_array_equal(inside(np.array([-1, 0, 4, 5, 99]), 5), [3, 0, 4, 3, 3])
    model = small_models.shared("attention")
    memory, state = model.encode([[5, 999, 2]])
    known, same = model.encode([[5, 3, 2]])
    np.testing.assert_array_equal(memory.values, known.values)
    logits = [model.step([token], state, memory)[0] for token in (-7, 3)]
    np.testing.assert_array_equal(*logits)


def test_vocabulary_size():
    assert vocabulary_size("source", 7) == 7
    assert vocabulary_size("source", text.ByteTokenizer()) == 260
    with pytest.raises(TypeError, match="target: expected a tokeniser or a vocabulary size"):
        vocabulary_size("target", "abc")
    with pytest.raises(ValueError, match="source: expected a vocabulary size of 5 or more"):
        vocabulary_size("source", 4)


def test_shared_and_tied_tables_are_one():
    model = zoo.build(
        "attention", source=9, target=9, units=6, embedding_size=6, share_embeddings=True
    )
    assert model.source_embedding is model.target_embedding
    tied = zoo.build("attention", source=9, target=8, units=6, embedding_size=5, tie_readout=True)
    assert [w.path.split("/")[-1] for w in tied.projection.weights] == ["bias"]
    small_models.randomised(tied)
    source, target_in = small_models.some_ids(tied)
    before = np.array(tied({"source": source, "target_in": target_in}))
    tied.projection.bias.assign_add(np.arange(8.0))
    after = tied({"source": source, "target_in": target_in})
    np.testing.assert_allclose(
        after - before, np.broadcast_to(np.arange(8), before.shape), atol=1e-5
    )


def test_metrics_given_are_weighted():
    model = small_models.small("attention")
    model.compile(metrics=[keras.metrics.SparseCategoricalAccuracy(name="right")])
    source, target_in = small_models.some_ids(model, rows=2)
    target_out = np.zeros_like(target_in)
    target_out[0, 0] = 5
    model.projection.bias.assign_add(np.eye(model.target_size)[5] * 99)
    logs = model.evaluate(
        {"source": source, "target_in": target_in}, target_out, verbose=0, return_dict=True
    )
    assert logs["right"] == 1  # one real token, and it is right; padding does not count
