"""Contexts: nothing, the summary, or attention; in steps and over whole targets."""

import keras
import numpy as np
import pytest
import reference
from keras import ops
from layer_samples import (
    MASK,
    close,
    config_of,
    normal,
    randomised,
    reborn,
    score_of,
)

from keras_attn.layers import Attention, AttentionContext, FixedContext, NoContext, Softmax
from keras_attn.layers.contexts import Context, contexts
from keras_attn.types import Encoded

UNITS, VALUES, SUMMARY, LENGTH = 4, 6, 7, 3
NAMES = ["attention", "fixed", "none"]
QUERIES = normal(4, LENGTH, UNITS, seed=4, dtype="float32")
ENCODED = Encoded(
    normal(4, 5, VALUES, seed=1, dtype="float32"),
    MASK,
    normal(4, SUMMARY, seed=2, dtype="float32"),
    (),
)
every_name = pytest.mark.parametrize("name", NAMES)


def built(name, attention=None):
    context = AttentionContext(attention) if attention else contexts.get(name)
    context.build((None, None, UNITS), (None, None, VALUES))
    return randomised(context)


def oracle(name, context, queries=QUERIES):
    """Return contexts (B, T, D) and alignments (B, T, S) for queries (B, T, U)."""
    batch, length, _ = queries.shape
    if name == "attention":
        scorer = context.attention.scorer
        score = score_of("additive", scorer.get_weights())
        return reference.attend(score, queries, ENCODED.values, mask=MASK)
    nothing = np.zeros((batch, length, 0))
    repeated = np.repeat(ENCODED.summary[:, None], length, axis=1)
    return (repeated if name == "fixed" else nothing), nothing


@every_name
def test_a_sequence_is_that_of_the_formula(name):
    context = built(name)
    for found, expected in zip(
        context.sequence(QUERIES, context.prepare(ENCODED))[:2], oracle(name, context), strict=True
    ):
        close(found, expected)
        assert found.shape == expected.shape


@pytest.mark.parametrize("beams", [1, 2])
@every_name
def test_a_step_is_that_of_the_formula_for_every_beam(name, beams):
    context = built(name)
    memory = context.prepare(ENCODED)
    state = context.initial_state(memory)
    queries = normal(4 * beams, UNITS, seed=5, dtype="float32")
    *found, state = context.step(queries, memory, state)
    assert all(part.shape[-1] == 0 for part in state)  # nothing is carried
    assert context.terms(state, 4 * beams).shape == (4 * beams, 0)
    for tensor, expected in zip(
        found, oracle(name, context, queries.reshape(4, beams, UNITS)), strict=True
    ):
        close(tensor, expected.reshape(4 * beams, -1))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_name
def test_alignments_are_float32_in_half_precision_too(name, dtype):
    context = contexts.get(name, dtype=f"mixed_{dtype}")
    context.build((None, None, UNITS), (None, None, VALUES))
    encoded = ENCODED._replace(summary=ops.cast(ENCODED.summary, dtype))
    memory, queries = context.prepare(encoded), ops.cast(QUERIES, dtype)
    step = context.step(queries[:, 0], memory, context.initial_state(memory))[:2]
    for found, alignments in (step, context.sequence(queries, memory)[:2]):
        assert keras.backend.standardize_dtype(found.dtype) == dtype
        assert alignments.dtype == "float32"


@every_name
def test_depths_are_those_of_the_contexts(name):
    context = built(name)
    found, alignments, terms = context.sequence(QUERIES, context.prepare(ENCODED))
    assert terms.shape == (4, QUERIES.shape[1], 0) and context.terms_depth == 0
    assert context.depth(VALUES, SUMMARY) == found.shape[-1]
    assert context.attends == (alignments.shape[-1] > 0)
    assert context.uses_query == (name == "attention")


@every_name
def test_memory_holds_no_more_than_is_read(name):
    memory = built(name).prepare(ENCODED)
    widths = {field: getattr(memory, field).shape[-1] for field in ("keys", "values", "summary")}
    expected = {"keys": 0, "values": 0, "summary": 0}
    if name == "attention":
        expected |= {"keys": UNITS, "values": VALUES}
    if name == "fixed":
        expected["summary"] = SUMMARY
    assert widths == expected and memory.start.shape == (4, 0)
    np.testing.assert_array_equal(memory.mask, MASK)


@pytest.mark.parametrize(
    "context",
    [
        NoContext(name="mine"),
        FixedContext(dtype="mixed_bfloat16"),
        AttentionContext(),
        AttentionContext(Attention("additive", Softmax(0.5), units=3), name="mine"),
        AttentionContext(Attention("general")),
    ],
    ids=lambda context: context.name,
)
def test_a_context_survives_saving(context):
    context.build((None, None, UNITS), (None, None, VALUES))
    again = reborn(randomised(context))
    assert type(again) is type(context) and config_of(again) == config_of(context)
    again.set_weights(context.get_weights())
    for found, expected in zip(
        again.sequence(QUERIES, again.prepare(ENCODED)),
        context.sequence(QUERIES, context.prepare(ENCODED)),
        strict=True,
    ):
        assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_the_default_attention_has_the_dtype_of_the_context():
    context = AttentionContext(dtype="mixed_float16")
    assert context.attention.compute_dtype == context.attention.scorer.compute_dtype == "float16"


def test_attention_checks_depths_when_it_is_built():
    with pytest.raises(ValueError, match="query depth 4 and key depth 6"):
        built("attention", Attention("dot"))


def test_the_base_has_no_formula():
    context = Context()
    for call in (context.depth, context.sequence):
        with pytest.raises(NotImplementedError):
            call(None, None)
    with pytest.raises(NotImplementedError):
        context.step(None, None, ())
