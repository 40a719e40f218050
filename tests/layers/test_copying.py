"""Copying: slots, the mixture and its gate, against the oracle."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from layer_samples import TOLERANCE, close, config_of, few, normal, randomised, reborn

from keras_attn import zoo
from keras_attn.layers import Decoder, NoGate, PointerGate, Recurrence
from keras_attn.layers.copying import Gate, copy_slots, gates, log_mixture
from keras_attn.types import EOS, PAD, UNK, Memory, Output

SOURCE, TARGET = 9, 7  # ids of the two vocabularies
UNITS, CONTEXT, EMBEDDING = 4, 3, 2


def with_places(words):
    """Return ids of words, of which those from SOURCE on are unknown, by their first place."""
    return [word if word < SOURCE else SOURCE + words.index(word) for word in words]


# === Slots ===

targets = st.lists(st.sampled_from([UNK, 4, 5, 6]), min_size=SOURCE - 4, max_size=SOURCE - 4)


@few
@given(st.lists(st.lists(st.integers(0, SOURCE + 3), max_size=6), min_size=1, max_size=4), targets)
def test_slots_are_those_of_the_oracle(rows, known):
    to_target = np.array([0, 1, 2, 3, *known], np.int32)
    width = max(map(len, rows)) + 1
    ids = np.zeros((len(rows), width), np.int32)
    for row, words in zip(ids, rows, strict=True):
        row[: len(words)] = with_places(words)
    found = copy_slots(ids, to_target, TARGET)
    assert found.dtype == tf.int32
    for row, slots in zip(ids, np.array(found), strict=True):
        np.testing.assert_array_equal(slots, reference.copy_slots(row, to_target, SOURCE, TARGET))


def test_slots_by_example():
    to_target = np.array([0, 1, 2, 3, 6, UNK, 5, 4, UNK], np.int32)
    source = [[5, 4, SOURCE + 2, 5, SOURCE + 2, UNK, EOS, PAD]]
    found = copy_slots(np.array(source), to_target, TARGET)
    assert np.array(found).tolist() == [[7, 6, 9, 7, 9, UNK, EOS, PAD]]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_slots_of_any_batch_in_one_graph(jit_compile):
    to_target = np.array([0, 1, 2, 3, 4, 5, 6, UNK, UNK], np.int32)
    spec = tf.TensorSpec([None, None], tf.int32)

    @tf.function(input_signature=[spec], jit_compile=jit_compile)
    def run(ids):
        return copy_slots(ids, to_target, TARGET)

    for rows, length in [(2, 5), (1, 1), (3, 8)]:
        ids = np.random.default_rng(0).integers(0, SOURCE, (rows, length)).astype("int32")
        expected = [reference.copy_slots(row, to_target, SOURCE, TARGET) for row in ids]
        np.testing.assert_array_equal(run(tf.constant(ids)), expected)
    assert run(tf.zeros((0, 3), tf.int32)).shape == (0, 3)


# === The mixture ===


def mixture(rows=3, length=5, dtype="float32", seed=0, scale=2.0):
    """Return logits, gate, alignments and slots, of which some are the same."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (rows, TARGET)).astype(dtype)
    gate = rng.normal(0, scale, (rows, 1)).astype(dtype)
    alignments = rng.dirichlet(np.ones(length), rows).astype(dtype)
    slots = rng.integers(0, TARGET + length, (rows, length)).astype("int32")
    slots[:, -1] = slots[:, 0]
    return logits, gate, alignments, slots


def probabilities(logits, gate, alignments, slots):
    """Return what the oracle says, (N, V + S)."""
    return np.stack(
        [
            reference.pointer_generator(
                logits[n],
                float(reference.sigmoid(gate[n, 0])),
                alignments[n],
                slots[n],
                TARGET + slots.shape[1],
            )
            for n in range(len(logits))
        ]
    )


@few
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 99), st.floats(0.1, 8))
def test_the_mixture_is_that_of_the_paper(rows, length, seed, scale):
    arrays = mixture(rows, length, seed=seed, scale=scale)
    found, expected = log_mixture(*arrays), probabilities(*arrays)
    assert found.shape == (rows, TARGET + length)
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-6)
    likely = expected > 1e-12
    np.testing.assert_allclose(np.array(found)[likely], np.log(expected[likely]), atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_logarithms_have_the_dtype_of_the_logits(dtype):
    arrays = mixture(dtype=dtype)
    found, expected = log_mixture(*arrays), probabilities(*arrays)
    likely = expected > 0
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    error = np.abs(np.array(found)[likely] - np.log(expected[likely])).max()
    assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("gate", [-1e4, -200.0, 200.0, 1e4])
def test_logarithms_and_gradients_are_finite_where_the_probability_is_zero(gate):
    logits, _, alignments, slots = mixture()
    logits[0] = [-1e4, 1e4, 0, 0, 300, -300, 0]
    alignments[1] = [0, 0, 1, 0, 0]
    tensors = [tf.constant(x) for x in (logits, np.full((3, 1), gate, "float32"), alignments)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        found = log_mixture(*tensors, slots)
        loss = tf.reduce_sum(found)
    assert np.isfinite(found).all() and np.min(found) >= -69.1
    for gradient in tape.gradient(loss, tensors):
        assert np.isfinite(gradient).all()


def test_a_row_that_looks_nowhere_can_only_generate():
    logits, gate, alignments, slots = mixture()
    found = np.exp(log_mixture(logits, gate, alignments * 0, slots))
    certain = np.full_like(gate, 50)  # to generate
    expected = probabilities(logits, certain, alignments * 0, slots)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found[:, TARGET:] < 1e-20).all()


def test_alignments_that_do_not_sum_to_one_are_brought_there():
    logits, gate, alignments, slots = mixture()
    found = log_mixture(logits, gate, alignments / 3, slots)
    np.testing.assert_allclose(found, log_mixture(logits, gate, alignments, slots), atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    logits, gate, alignments, slots = mixture(dtype="float64")
    reachable = probabilities(logits, gate, alignments, slots) > 0
    probe = normal(3, TARGET + 5, seed=1) * reachable

    def loss(logits, gate, alignments):
        alignments = alignments / alignments.sum(axis=-1, keepdims=True)
        found = probabilities(logits, gate, alignments, slots)
        return np.sum(np.log(np.where(reachable, found, 1)) * probe)

    tensors = [tf.constant(x) for x in (logits, gate, alignments)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = tf.reduce_sum(log_mixture(*tensors, slots) * probe)
    expected = reference.finite_difference(loss, [logits, gate, alignments])
    for gradient, difference in zip(tape.gradient(total, tensors), expected, strict=True):
        np.testing.assert_allclose(gradient, difference, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_gate_in_half_precision_comes_close(dtype):
    logits, gate, alignments, slots = mixture()
    found = log_mixture(logits, ops.cast(gate, dtype), ops.cast(alignments, dtype), slots)
    assert found.dtype == tf.float32
    expected = probabilities(logits, gate, alignments, slots)
    np.testing.assert_allclose(np.exp(found), expected, atol=0.02)


# === The gates ===


def pointer(dtype="float32", **options):
    gate = PointerGate(dtype=dtype, **options)
    gate.build(UNITS, CONTEXT, EMBEDDING)
    return randomised(gate)


def shown(gate, alignments):
    """Return an output of which the gate reads its own parts alone."""
    return Output(None, gate, alignments, None)


def remembered(slots):
    return Memory(None, None, None, None, None, slots)


@pytest.mark.parametrize("leading", [(3,), (3, 2)], ids=["step", "sequence"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_logit_is_linear_in_state_context_and_input(dtype, leading):
    gate, widths = pointer(dtype), (UNITS, CONTEXT, EMBEDDING)
    parts = [normal(*leading, width, seed=seed) for seed, width in enumerate(widths)]
    kernel, bias = gate.get_weights()
    close(
        gate.logit(*(part.astype(dtype) for part in parts)),
        np.concatenate(parts, axis=-1) @ kernel.astype("float64") + bias,
        dtype,
    )
    assert [tuple(weight.shape) for weight in gate.weights] == [(sum(widths), 1), (1,)]


def test_mixing_one_step_is_the_mixture():
    logits, gate, alignments, slots = mixture()
    found = pointer().mix(logits, shown(gate, alignments), remembered(slots))
    np.testing.assert_allclose(found, log_mixture(logits, gate, alignments, slots), atol=1e-6)


def test_mixing_a_whole_target_is_mixing_each_step():
    steps = [mixture(seed=seed)[:3] for seed in range(4)]
    slots = mixture()[3]
    logits, gate, alignments = (np.stack(parts, axis=1) for parts in zip(*steps, strict=True))
    found = pointer().mix(logits, shown(gate, alignments), remembered(slots))
    assert found.shape == (3, 4, TARGET + 5)
    for t, step in enumerate(steps):
        np.testing.assert_allclose(found[:, t], log_mixture(*step, slots), atol=1e-6)


def test_beams_copy_from_their_source():
    logits, gate, alignments, _ = mixture(rows=6)
    slots = mixture(rows=3, seed=1)[3]
    found = pointer().mix(logits, shown(gate, alignments), remembered(slots))
    expected = log_mixture(logits, gate, alignments, np.repeat(slots, 2, axis=0))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("steps", [0, 3])
def test_one_graph_mixes_any_batch_and_length(steps, jit_compile):
    gate = pointer()
    time = [None] if steps else []
    specs = [tf.TensorSpec([None, *time, width]) for width in (TARGET, 1, None)]
    specs.append(tf.TensorSpec([None, None], tf.int32))

    @tf.function(input_signature=specs, jit_compile=jit_compile)
    def run(logits, logit, alignments, slots):
        return gate.mix(logits, shown(logit, alignments), remembered(slots))

    for rows, length in [(2, 3), (1, 1), (3, 5)]:
        *flat, slots = mixture(rows, length)
        parts = [np.stack([x] * steps, axis=1) if steps else x for x in flat]
        found = run(*map(tf.constant, parts), tf.constant(slots))
        expected = log_mixture(*flat, slots)
        for step in np.moveaxis(np.array(found), 1, 0) if steps else [found]:
            np.testing.assert_allclose(step, expected, atol=1e-5)


def test_without_a_gate_logits_stay_as_they_are():
    gate, state = gates.get("none"), normal(3, 2, UNITS)
    gate.build(UNITS, CONTEXT, EMBEDDING)
    logits = tf.constant(normal(3, TARGET))
    assert type(gate) is NoGate and not gate.copies and not gate.weights
    assert gate.mix(logits, None, None) is logits
    assert gate.logit(state, None, None).shape == (3, 2, 0)
    assert gate.logit(state[:, 0], None, None).shape == (3, 0)


@pytest.mark.parametrize("gate", [NoGate(name="n"), PointerGate(dtype="mixed_bfloat16")])
def test_a_gate_survives_saving(gate):
    gate.build(UNITS, CONTEXT, EMBEDDING)
    again = reborn(randomised(gate))
    assert type(again) is type(gate) and config_of(again) == config_of(gate)


def test_the_base_copies_nothing():
    assert not Gate().copies


# === The decoder ===


@pytest.mark.parametrize("context", ["none", "fixed"])
@pytest.mark.parametrize("copy", ["pointer", PointerGate()], ids=["name", "object"])
def test_copying_needs_attention(copy, context):
    with pytest.raises(ValueError, match="^copy: .* it needs context='attention'"):
        Decoder(Recurrence("gru", UNITS), context=context, copy=copy)


@pytest.mark.parametrize("name", ["context_every_step", "context_as_init", "combined"])
def test_the_zoo_refuses_copying_without_attention(name):
    with pytest.raises(ValueError, match="^copy='pointer' has no effect here: context="):
        zoo.build(name, source=SOURCE, target=TARGET, copy="pointer")


def test_a_decoder_survives_saving_with_its_gate():
    decoder = Decoder(Recurrence("gru", UNITS), copy="pointer")
    again = reborn(decoder)
    assert type(again.gate) is PointerGate and config_of(again) == config_of(decoder)


def test_an_unknown_gate_is_told_the_names():
    message = r"^copy: expected one of \['none', 'pointer'\], got 'pointr'. Did you mean 'pointer'"
    with pytest.raises(ValueError, match=message):
        Decoder(Recurrence("gru", UNITS), copy="pointr")
