"""The decoder: every meaningful combination against the oracle, in steps, beams and training."""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras import ops
from layer_samples import (
    CELLS,
    MASK,
    SCORERS,
    close,
    config_of,
    normal,
    randomised,
    reborn,
    score_of,
)

from keras_attn.layers import (
    Attention,
    AttentionContext,
    Decoder,
    LinearReadout,
    MaxoutReadout,
    Recurrence,
    SummaryStart,
    TanhReadout,
)
from keras_attn.types import DecoderState, Encoded

EMBEDDING, UNITS, SUMMARY, FEATURES = 2, 4, 5, 3
READOUTS = {"linear": LinearReadout, "tanh": TanhReadout, "maxout": MaxoutReadout}


class Case(NamedTuple):
    """A decoder as a point on all axes; the first five make the grid of the tests."""

    context: str
    order: str = "update_attend"
    readout_state: str = "current"
    readout: str = "tanh"
    input_feeding: bool = False
    # The others vary along, so that each value meets many of the grid.
    cell: str = "lstm"
    scorer: str = "general"
    bridge: str = "dense"
    feedback: bool = True
    num_layers: int = 1

    def __str__(self):
        return "-".join(str(part) for part in self)

    @property
    def value_depth(self):
        """The width of the values; dot products need that of the query."""
        return UNITS if "dot" in self.scorer else 6

    @property
    def embedding(self):
        """The width of the embedded tokens."""
        return EMBEDDING if self.feedback else 0


def grid():
    """Return every meaningful combination of the first five axes, the others varied at random."""
    orders = [("update_attend", "current")]
    orders += [("attend_update", "current"), ("attend_update", "previous")]
    contexts, feeding = ["none", "fixed", "attention"], [False, True]
    pick = random.Random(0).choice
    for context, order, readout, fed in itertools.product(contexts, orders, READOUTS, feeding):
        yield Case(
            context,
            *order,
            readout,
            fed,
            cell=pick(CELLS),
            scorer=pick(SCORERS),
            bridge=pick(["zeros", "copy", "dense", "summary"]),
            feedback=pick([True, True, False]),
            num_layers=pick([1, 2]),
        )


CASES = list(grid())
every_case = pytest.mark.parametrize("case", CASES, ids=str)
LOOP = Case("attention", "attend_update", "previous", "maxout", True, "gru", "additive", "copy")
PARALLEL = Case("attention", "update_attend", "current", "tanh", False, "lstm", "general")
both_forms = pytest.mark.parametrize("case", [PARALLEL, LOOP], ids=["parallel", "loop"])


class Widths(NamedTuple):
    """What a decoder asks of an encoder when it is built."""

    value_depth: int
    summary_depth: int
    state_depths: tuple


def made(case, dtype="float32", dropout=0.0, recurrent_dropout=0.0, **options):
    """Return a decoder that is not built."""
    recurrence = Recurrence(
        case.cell,
        UNITS,
        case.num_layers,
        dropout=dropout,
        recurrent_dropout=recurrent_dropout,
        residual=options.pop("residual", False),
        dtype=dtype,
    )
    context: Any = case.context
    if context == "attention":
        context = AttentionContext(Attention(case.scorer, dtype=dtype), dtype=dtype)
    width = {} if case.readout == "linear" else {"units": FEATURES}
    return Decoder(
        recurrence,
        context,
        case.bridge,
        READOUTS[case.readout](**width, dtype=dtype),
        case.order,
        feedback=case.feedback,
        input_feeding=case.input_feeding,
        readout_state=case.readout_state,
        dropout=dropout,
        dtype=dtype,
        **options,
    )


def final_depths(case, decoder):
    """Return the widths of an encoder's final states: those of the decoder only for a copy."""
    width = UNITS if case.bridge == "copy" else 7
    return tuple(tuple(width for _ in layer) for layer in decoder.recurrence.state_depths)


def built(case, dtype="float32", **options):
    """Return a decoder with random weights."""
    decoder = made(case, dtype, **options)
    encoder = Widths(case.value_depth, SUMMARY, final_depths(case, decoder))
    decoder.build_for(encoder, case.embedding)
    return randomised(decoder)


def sources(case, decoder, dtype="float32"):
    """Return four encoded sources of unequal lengths."""
    states = tuple(
        tuple(normal(4, u, seed=30 + 2 * i + j, dtype=dtype) for j, u in enumerate(layer))
        for i, layer in enumerate(final_depths(case, decoder))
    )
    values = normal(4, 5, case.value_depth, seed=1, dtype=dtype) * MASK[:, :, None]
    return Encoded(values.astype(dtype), MASK, normal(4, SUMMARY, seed=2, dtype=dtype), states)


class Sample(NamedTuple):
    """A decoder, what it decodes, and what came out: features (B, T, F) and alignments."""

    decoder: Decoder
    encoded: Encoded
    embedded: np.ndarray
    memory: Any
    state: DecoderState
    features: Any
    alignments: Any


@functools.cache
def sample(case, dtype="float32"):
    decoder = built(case, dtype)
    encoded = sources(case, decoder, dtype)
    embedded = normal(4, 3, case.embedding, seed=3, dtype=dtype)
    memory, state = decoder.prepare(encoded)
    shown = whole(decoder, embedded, state, memory)
    return Sample(decoder, encoded, embedded, memory, state, *shown)


def whole(decoder, *arguments, **options):
    """Return features and alignments of a whole target."""
    output = decoder(*arguments, **options)
    return output.features, output.alignments


def one_step(decoder, *arguments, **options):
    """Return features, alignments and the next state of a step."""
    output, state = decoder.step(*arguments, **options)
    return output.features, output.alignments, state


# === The oracle ===


def variant(case):
    return reference.Variant(
        case.cell,
        case.context,
        case.order,
        case.feedback,
        case.input_feeding,
        case.readout,
        case.readout_state,
    )


def paper_weights(case, features, cells, readout, scorer):
    """Return the oracle's weights; its logits are the features, as its projection does nothing."""
    score = score_of(case.scorer, scorer) if case.context == "attention" else None
    return reference.DecoderWeights(
        tuple(cells), np.eye(features), np.zeros(features), *(readout or [None]), score
    )


def weights_of(case, decoder):
    cells = [tuple(layer.get_weights()) for layer in decoder.recurrence.layers]
    scorer = decoder.context.get_weights()
    return paper_weights(case, decoder.features_depth, cells, decoder.readout.get_weights(), scorer)


def first_states(case, decoder, encoded):
    depths = decoder.recurrence.state_depths
    if case.bridge == "zeros":
        return reference.bridge_zeros(case.cell, case.num_layers, 4, UNITS)
    if case.bridge == "copy":
        return reference.bridge_copy(encoded.states)
    weights = iter(decoder.bridge.get_weights())
    pairs = [[(next(weights), next(weights)) for _ in layer] for layer in depths]
    if case.bridge == "dense":
        return reference.bridge_dense(encoded.states, pairs)
    return reference.bridge_summary(encoded.summary, pairs)


# === Numbers ===


@pytest.mark.parametrize(
    "case, dtype",
    [*[(case, "float32") for case in CASES], *[(case, "float64") for case in CASES[::5]]],
    ids=str,
)
def test_a_whole_target_is_that_of_the_papers(case, dtype):
    decoder, encoded, embedded, _, _, features, alignments = sample(case, dtype)
    initial = first_states(case, decoder, encoded)
    expected = reference.decode(
        variant(case), embedded, encoded, initial, weights_of(case, decoder)
    )
    close(features, expected[0], dtype)
    close(alignments, expected[1], dtype)
    assert alignments.shape == (4, 3, 5 if case.context == "attention" else 0)
    assert np.ptp(features) > 0.1


@every_case
def test_steps_equal_the_whole_target(case):
    decoder, _, embedded, memory, state, features, alignments = sample(case)
    for t in range(3):
        found, weights, state = one_step(decoder, embedded[:, t], state, memory)
        close(found, features[:, t])
        close(weights, alignments[:, t])


@every_case
def test_beams_are_rows_that_share_a_source(case):
    decoder, _, _, memory, state, _, _ = sample(case)
    beams = 3
    rows = keras.tree.map_structure(
        lambda part: normal(4 * beams, part.shape[-1], seed=50, dtype="float32"), state
    )
    embedded = normal(4 * beams, case.embedding, seed=51, dtype="float32")
    together = one_step(decoder, embedded, rows, memory)
    for k in range(beams):  # row n belongs to source n // 3, so these rows have one beam each
        mine = keras.tree.map_structure(lambda part, k=k: part[k::beams], rows)
        alone = one_step(decoder, embedded[k::beams], mine, memory)
        flat = keras.tree.flatten(together), keras.tree.flatten(alone)
        for found, expected in zip(*flat, strict=True):
            np.testing.assert_allclose(found[k::beams], expected, atol=1e-6)


EXTRA = {
    "residual": (Case("attention", num_layers=3), {"residual": True}),
    "residual loop": (LOOP._replace(num_layers=3), {"residual": True}),
    "previous after the update": (Case("attention", readout_state="previous"), {}),
    "summary start": (Case("fixed", feedback=True), {"start": "summary"}),
}


@pytest.mark.parametrize("case, options", EXTRA.values(), ids=EXTRA)
def test_steps_equal_the_whole_target_beyond_the_grid_too(case, options):
    decoder = built(case, **options)
    memory, state = decoder.prepare(sources(case, decoder))
    embedded = normal(4, 3, EMBEDDING, seed=3, dtype="float32")
    features, alignments = whole(decoder, embedded, state, memory)
    for t in range(3):
        found, weights, state = one_step(decoder, embedded[:, t], state, memory)
        close(found, features[:, t])
        close(weights, alignments[:, t])


@both_forms
def test_padding_and_neighbours_change_nothing(case):
    decoder, encoded, embedded, _, _, features, alignments = sample(case)
    for row, length in enumerate(MASK.sum(axis=1)):
        alone = keras.tree.map_structure(lambda part, row=row: part[row : row + 1], encoded)
        alone = alone._replace(values=alone.values[:, :length], mask=alone.mask[:, :length])
        memory, state = decoder.prepare(alone)
        found, weights = whole(decoder, embedded[row : row + 1], state, memory)
        np.testing.assert_allclose(found[0], features[row], atol=1e-6)
        np.testing.assert_allclose(weights[0], alignments[row, :, :length], atol=1e-6)


@both_forms
def test_a_target_of_one_token_is_one_step(case):
    decoder, _, embedded, memory, state, features, _ = sample(case)
    found, _ = whole(decoder, embedded[:, :1], state, memory)
    np.testing.assert_allclose(found, features[:, :1], atol=1e-6)


# === Gradients ===

GRADIENTS = [
    Case("attention", "update_attend", "current", "tanh", True, "lstm", "general"),
    Case("attention", "attend_update", "previous", "maxout", False, "gru", "additive"),
    Case("attention", "attend_update", "current", "linear", True, "simple_rnn", "dot"),
    Case("attention", "update_attend", "current", "linear", False, "gru", "scaled_dot"),
    Case("fixed", "attend_update", "current", "maxout", False, "lstm", num_layers=2),
]


@pytest.mark.parametrize("steps", [1, 2], ids=["step", "whole"])
@pytest.mark.parametrize("case", GRADIENTS, ids=str)
def test_gradients_are_those_of_finite_differences(case, steps):
    decoder = built(case, "float64")
    recurrence, depth = decoder.recurrence, decoder.features_depth
    states = [normal(2, u, seed=i) for i, u in enumerate(sum(recurrence.state_depths, ()))]
    arrays = [
        normal(2, steps, EMBEDDING, seed=3),
        normal(2, 3, case.value_depth, seed=4),
        normal(2, SUMMARY, seed=5),
        normal(2, decoder.fed_depth, seed=6),
        *states,
    ]
    mask = np.array([[True, True, True], [True, True, False]])
    probe = normal(2, steps, depth, seed=7)
    parts = [recurrence, decoder.readout, decoder.context]
    weights = [weight for part in parts for weight in part.get_weights()]

    def layered(flat):
        """Return states as a tuple over layers, from a flat list."""
        sizes = [len(layer) for layer in recurrence.state_depths]
        flat = iter(flat)
        return tuple(tuple(next(flat) for _ in range(size)) for size in sizes)

    def loss(embedded, values, summary, fed, *rest):
        states, rest = layered(rest[: len(arrays) - 4]), rest[len(arrays) - 4 :]
        cells = [rest[3 * i : 3 * i + 3] for i in range(case.num_layers)]
        rest = rest[3 * case.num_layers :]
        readout, scorer = (rest[:0], rest) if case.readout == "linear" else (rest[:1], rest[1:])
        paper = paper_weights(case, depth, cells, readout, scorer)
        encoded, total = Encoded(values, mask, summary, ()), 0.0
        for t in range(steps):
            features, _, states, fed = reference.decode_step(
                variant(case), embedded[:, t], states, fed, encoded, paper
            )
            total += np.sum(features * probe[:, t])
        return total

    tensors = [tf.constant(array) for array in arrays]
    variables = [weight for part in parts for weight in part.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        embedded, values, summary, fed, *flat = tensors
        memory = decoder.context.prepare(Encoded(values, mask, summary, ()))
        state = DecoderState(layered(flat), decoder.context.initial_state(memory), fed)
        if steps == 1:
            features = one_step(decoder, embedded[:, 0], state, memory)[0][:, None]
        else:
            features, _ = whole(decoder, embedded, state, memory)
        total = tf.reduce_sum(features * probe)
    found = tape.gradient(total, [*tensors, *variables])
    expected = reference.finite_difference(loss, [*arrays, *weights])
    for gradient, slow in zip(found, expected, strict=True):
        np.testing.assert_allclose(0 if gradient is None else gradient, slow, atol=1e-7)
    weight_gradients = expected[len(arrays) :]
    if case.readout_state == "current" or steps > 1:  # a previous state saw nothing of the step
        assert all(np.abs(slow).max() > 1e-3 for slow in weight_gradients)


# === Dtypes, XLA ===


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@both_forms
def test_half_precision_keeps_its_dtype_and_comes_close(case, dtype):
    exact = sample(case)
    decoder = built(case, f"mixed_{dtype}", dropout=0.1)
    decoder.set_weights(exact.decoder.get_weights())
    encoded = keras.tree.map_structure(
        lambda part: part if part.dtype == bool else ops.cast(part, dtype), exact.encoded
    )
    memory, state = decoder.prepare(encoded)
    features, alignments = whole(decoder, ops.cast(exact.embedded, dtype), state, memory)
    step, weights, following = one_step(
        decoder, ops.cast(exact.embedded[:, 0], dtype), state, memory
    )
    assert alignments.dtype == weights.dtype == "float32"
    carried = [part for part in keras.tree.flatten([state, following]) if part.shape[-1]]
    for tensor in [features, step, *carried]:
        assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    np.testing.assert_allclose(ops.cast(features, "float32"), exact.features, atol=0.1)
    np.testing.assert_allclose(alignments, exact.alignments, atol=0.05)
    np.testing.assert_allclose(np.sum(alignments, axis=-1), 1, atol=1e-5)


@both_forms
def test_xla_changes_nothing(case):
    decoder, encoded, embedded, _, _, features, _ = sample(case)

    def run(embedded):
        with tf.GradientTape() as tape:
            memory, state = decoder.prepare(encoded)
            found, _ = whole(decoder, embedded, state, memory)
            loss = tf.reduce_sum(found**2)
        return found, tape.gradient(loss, decoder.trainable_variables)

    found, gradients = tf.function(run, jit_compile=True)(tf.constant(embedded))
    np.testing.assert_allclose(found, features, atol=1e-5)
    for gradient, expected in zip(gradients, run(tf.constant(embedded))[1], strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-4)


# === Dropout ===

DROPPING = {"dropout": 0.5, "recurrent_dropout": 0.5}
ALL_LOOPS = [
    LOOP._replace(cell=cell, num_layers=2, readout_state=state)
    for cell, state in zip(CELLS, ["current", "previous", "current"], strict=True)
]
FED = Case("attention", "update_attend", "current", "tanh", True, "lstm", "general", num_layers=2)


@pytest.mark.parametrize("option", DROPPING)
@pytest.mark.parametrize("case", [PARALLEL, *ALL_LOOPS, FED], ids=str)
def test_only_training_drops_out(case, option):
    _, _, embedded, memory, state, expected, _ = sample(case)
    decoder = built(case, **{option: DROPPING[option]})
    decoder.set_weights(sample(case).decoder.get_weights())
    for _ in range(2):
        found, _ = whole(decoder, embedded, state, memory, training=False)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    step, _, following = one_step(decoder, embedded[:, 0], state, memory)
    np.testing.assert_allclose(step, expected[:, 0], atol=1e-6)
    first, second = (whole(decoder, embedded, state, memory, training=True)[0] for _ in range(2))
    assert np.abs(first - expected).max() > 1e-3 and np.abs(first - second).max() > 1e-3
    dropped, _, other = one_step(decoder, embedded[:, 0], state, memory, training=True)
    tops = other.recurrent[-1][0] - following.recurrent[-1][0]
    assert max(np.abs(dropped - step).max(), np.abs(tops).max()) > 1e-3


def test_dropout_of_features_does_not_reach_what_is_fed():
    case = FED._replace(num_layers=1)
    _, _, embedded, memory, state, expected, _ = sample(case)
    decoder = built(case, dropout=0.5)
    decoder.set_weights(sample(case).decoder.get_weights())
    features, _, following = one_step(decoder, embedded[:, 0], state, memory, training=True)
    features = np.array(features)
    np.testing.assert_allclose(following.fed, expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(features[features != 0], 2 * following.fed[features != 0], rtol=1e-6)
    assert (features == 0).any()


@pytest.mark.parametrize("cell", ["lstm", "simple_rnn"])
def test_recurrent_dropout_trains_in_one_graph_after_another(cell):
    decoder = built(LOOP._replace(cell=cell), **DROPPING)
    encoded, embedded = sources(LOOP, decoder), normal(4, 3, EMBEDDING, dtype="float32")

    def train(rows):
        source = keras.tree.map_structure(lambda part: part[:rows], encoded)
        with tf.GradientTape() as tape:
            memory, state = decoder.prepare(source)
            features, _ = whole(decoder, embedded[:rows], state, memory, training=True)
            loss = tf.reduce_sum(features**2)
        return tape.gradient(loss, decoder.trainable_variables)

    compiled = tf.function(train)
    for rows in (4, 4, 2):  # the second runs the first graph again, the third makes its own
        gradients = compiled(rows)
        assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert len(train(3)) == len(decoder.trainable_variables)  # nothing of a graph is left


def test_a_loop_holds_one_recurrent_mask_for_a_sequence():
    case = Case("none", input_feeding=True, readout="linear", cell="simple_rnn", bridge="copy")
    decoder = built(case, recurrent_dropout=0.5)
    kernel, _, bias = decoder.recurrence.get_weights()
    decoder.recurrence.set_weights([0 * kernel, np.eye(UNITS), 0 * bias])
    encoded = sources(case, decoder)._replace(states=((np.ones((4, UNITS), "float32"),),))
    memory, state = decoder.prepare(encoded)
    embedded = np.zeros((4, 6, EMBEDDING), "float32")
    alive = np.array(whole(decoder, embedded, state, memory, training=True)[0]) > 0
    assert (alive == alive[:, :1]).all() and 0 < alive.mean() < 1
    assert not decoder.parallel


def test_inference_draws_no_random_numbers():
    decoder = built(LOOP, **DROPPING)
    memory, state = decoder.prepare(sources(LOOP, decoder))
    counters = [v for v in decoder.non_trainable_variables if "seed_generator" in v.path]
    before = [counter.numpy() for counter in counters]
    whole(decoder, normal(4, 3, EMBEDDING, dtype="float32"), state, memory)
    one_step(decoder, normal(4, EMBEDDING, dtype="float32"), state, memory)
    assert counters
    for counter, value in zip(counters, before, strict=True):
        np.testing.assert_array_equal(counter, value)


# === What is known of a decoder ===


@pytest.mark.parametrize(
    "case, parallel",
    [
        (Case("attention"), True),
        (Case("attention", "attend_update"), False),
        (Case("fixed", "attend_update"), True),
        (Case("none", "attend_update"), True),
        (Case("attention", input_feeding=True), False),
        (Case("fixed", "attend_update", "previous"), False),
    ],
    ids=str,
)
def test_a_loop_is_needed_only_where_a_step_feeds_the_next(case, parallel):
    assert made(case).parallel is parallel


@pytest.mark.parametrize(
    "context, bridge, start, reads",
    [
        ("none", "dense", "token", False),
        ("attention", "copy", "token", False),
        ("fixed", "zeros", "token", True),
        ("none", "summary", "token", True),
        ("attention", "zeros", "summary", True),
    ],
)
def test_it_is_known_whether_the_summary_is_read(context, bridge, start, reads):
    decoder = made(Case(context, bridge=bridge), start=start)
    assert decoder.reads_summary is reads
    assert decoder.attends is (context == "attention")


def test_a_summary_start_is_prepared():
    case = Case("none")
    decoder = built(case, start=SummaryStart())
    encoded = sources(case, decoder)
    kernel, bias = decoder.start.get_weights()
    memory, _ = decoder.prepare(encoded)
    close(memory.start, encoded.summary @ kernel + bias)
    assert kernel.shape == (SUMMARY, EMBEDDING)


@every_case
def test_weights_have_the_widths_of_what_is_read(case):
    decoder = sample(case).decoder
    context = {"none": 0, "fixed": SUMMARY, "attention": case.value_depth}[case.context]
    features = UNITS + context if case.readout == "linear" else FEATURES
    fed = features if case.input_feeding else 0
    read = case.embedding + fed + (context if case.order == "attend_update" else 0)
    assert decoder.features_depth == features and decoder.fed_depth == fed
    assert decoder.recurrence.layers[0].cell.kernel.shape[0] == read
    assert decoder.recurrence.layers[-1].cell.kernel.shape[0] == (
        read if case.num_layers == 1 else UNITS
    )


# === Saving and errors ===


@pytest.mark.parametrize("case", [*CASES[::7], LOOP], ids=str)
def test_a_decoder_survives_saving(case):
    options = {"dropout": 0.1, "recurrent_dropout": 0.2, "start": "summary"}
    options = options if case.feedback else {}
    decoder = built(case, **options)
    again = reborn(decoder)
    assert type(again) is Decoder and config_of(again) == config_of(decoder)
    for name in ("feedback", "input_feeding", "readout_state", "dropout"):
        assert getattr(again, name) == getattr(decoder, name)
    assert again.drop.rate == decoder.drop.rate == options.get("dropout", 0)
    again.build_for(Widths(case.value_depth, SUMMARY, final_depths(case, decoder)), case.embedding)
    again.set_weights(decoder.get_weights())
    embedded = normal(4, 3, case.embedding, seed=3, dtype="float32")
    outputs = []
    for one in (again, decoder):
        memory, state = one.prepare(sources(case, decoder))
        outputs.append((memory.start, *whole(one, embedded, state, memory)))
    for found, expected in zip(*outputs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"context": "atention"}, ValueError, "^context: .*'atention'. Did you mean 'attention'"),
        ({"bridge": "dens"}, ValueError, "^bridge: .*'dens'. Did you mean 'dense'"),
        ({"readout": "maxot"}, ValueError, "^readout: .*'maxot'. Did you mean 'maxout'"),
        ({"order": "attend_updat"}, ValueError, "^order: .* Did you mean 'attend_update'"),
        ({"start": "tokens"}, ValueError, "^start: .*'tokens'. Did you mean 'token'"),
        ({"readout_state": "next"}, ValueError, "^readout_state: expected 'current' or 'previous'"),
        ({"start": "summary", "feedback": False}, ValueError, "^start='summary' needs feedback"),
        ({"dropout": 1.5}, ValueError, r"^dropout: expected a number in \[0, 1\), got 1.5"),
        ({"context": TanhReadout}, TypeError, "^context: expected a name of .* or an object"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_outside_their_range_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Decoder(Recurrence("gru", UNITS), **options)


@pytest.mark.parametrize(
    "case, encoder, message",
    [
        (Case("none", bridge="copy"), Widths(8, 8, ((8, 8),)), "^bridge='copy': .* Use bridge='d"),
        (Case("none"), Widths(8, 8, ((8, 8), (8, 8))), "^bridge='dense': .* Use bridge='summary'"),
        (Case("attention", scorer="dot"), Widths(8, 8, ((8, 8),)), "query depth 4 and key depth 8"),
    ],
    ids=["copy", "dense", "dot"],
)
def test_widths_that_do_not_fit_are_refused(case, encoder, message):
    with pytest.raises(ValueError, match=message):
        made(case).build_for(encoder, EMBEDDING)
