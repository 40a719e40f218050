"""Orders: which state attends, what the recurrence reads, and when no loop is needed."""

import numpy as np
import pytest
import reference
from layer_samples import MASK, close, normal, randomised, reborn, score_of

from keras_attn.layers import (
    AttendUpdate,
    Attention,
    AttentionContext,
    FixedContext,
    NoContext,
    Recurrence,
    UpdateAttend,
)
from keras_attn.layers.orders import Order
from keras_attn.types import AttentionState, DecoderState, Encoded

ORDERS = [UpdateAttend(), AttendUpdate()]
EMBEDDING, UNITS, VALUES, SUMMARY, FED = 2, 4, 6, 5, 3
ENCODED = Encoded(
    normal(4, 5, VALUES, seed=1, dtype="float32"),
    MASK,
    normal(4, SUMMARY, seed=2, dtype="float32"),
    (),
)
EMBEDDED = normal(4, 3, EMBEDDING, seed=3, dtype="float32")
every_order = pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)


def parts(order, context, fed=FED, num_layers=2):
    """Return a recurrence that fits, memory and state, all random."""
    context.build((None, None, UNITS), (None, None, VALUES))
    randomised(context)
    recurrence = Recurrence("lstm", UNITS, num_layers)
    width = order.input_depth(EMBEDDING, context.depth(VALUES, SUMMARY), fed)
    recurrence.build((None, None, width))
    randomised(recurrence, seed=1)
    recurrent = tuple(
        tuple(normal(4, u, seed=7 + 2 * i + j, dtype="float32") for j, u in enumerate(layer))
        for i, layer in enumerate(recurrence.state_depths)
    )
    memory = context.prepare(ENCODED)
    fed = normal(4, fed, seed=11, dtype="float32")
    return recurrence, memory, DecoderState(recurrent, context.initial_state(memory), fed)


def stack(recurrence, x, states):
    weights = [tuple(layer.get_weights()) for layer in recurrence.layers]
    return reference.recurrent_stack_step("lstm", x, states, weights)


def attended(context, query):
    score = score_of("general", context.attention.scorer.get_weights())
    found, alignments = reference.attend(score, query[:, None], ENCODED.values, mask=MASK)
    return found[:, 0], alignments[:, 0]


def test_update_then_attend_attends_with_the_new_state():
    order, context = UpdateAttend(), AttentionContext(Attention("general"))
    recurrence, memory, state = parts(order, context)
    x = EMBEDDED[:, 0]
    output, states = stack(recurrence, np.concatenate([x, state.fed], axis=1), state.recurrent)
    expected = output, *attended(context, output)
    found = order.step(recurrence, context, x, state, memory, False)
    close(found[0], expected[0])
    close(found[2], expected[1])
    close(found[3], expected[2])
    close(found[1][1][1], states[1][1])
    assert type(found[4]) is AttentionState


def test_attend_then_update_attends_with_the_old_state_of_the_top_layer():
    order, context = AttendUpdate(), AttentionContext(Attention("general"))
    recurrence, memory, state = parts(order, context)
    x = EMBEDDED[:, 0]
    read, alignments = attended(context, state.recurrent[1][0])
    inputs = np.concatenate([x, read, state.fed], axis=1)
    output, states = stack(recurrence, inputs, state.recurrent)
    found = order.step(recurrence, context, x, state, memory, False)
    close(found[0], output)
    close(found[2], read)
    close(found[3], alignments)
    close(found[1][1][1], states[1][1])
    assert type(found[4]) is AttentionState


@pytest.mark.parametrize(
    "order, context",
    [
        (UpdateAttend(), NoContext()),
        (UpdateAttend(), FixedContext()),
        (UpdateAttend(), AttentionContext()),
        (AttendUpdate(), NoContext()),
        (AttendUpdate(), FixedContext()),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_sequence_equals_its_steps_where_no_loop_is_needed(order, context):
    assert order.parallel(context)
    recurrence, memory, state = parts(order, context, fed=0)
    whole = order.sequence(recurrence, context, EMBEDDED, state, memory, False)
    for t in range(3):
        output, recurrent, found, alignments, _ = order.step(
            recurrence, context, EMBEDDED[:, t], state, memory, False
        )
        state = state._replace(recurrent=recurrent)
        for tensor, expected in zip((output, found, alignments), whole, strict=False):
            close(tensor, expected[:, t])


def test_attention_before_the_update_needs_a_loop():
    assert not AttendUpdate().parallel(AttentionContext())


@pytest.mark.parametrize("order, width", [(ORDERS[0], 10 + 3), (ORDERS[1], 10 + 20 + 3)])
def test_the_context_enters_the_recurrence_only_where_it_comes_first(order, width):
    assert order.input_depth(10, 20, 3) == width


@every_order
def test_an_order_survives_saving(order):
    assert type(reborn(order)) is type(order)


def test_the_base_has_no_formula():
    order = Order()
    for call, count in [(order.input_depth, 3), (order.parallel, 1), (order.step, 6)]:
        with pytest.raises(NotImplementedError):
            call(*[None] * count)
    with pytest.raises(NotImplementedError):
        order.sequence(*[None] * 6)
