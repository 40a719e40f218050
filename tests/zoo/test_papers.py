"""The year entries against the papers: every whole model as a loop over one row without padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import small_models

from keras_attn import zoo

BOS, EOS = 1, 2
RECURRENT = ["luong2015_dot", "luong2015_general", "luong2015_concat", "luong2015_location"]
LOCAL = ["luong2015_local_m", "luong2015_local_p"]
LUONG = [*RECURRENT, *LOCAL]
YEARS = ["cho2014", "sutskever2014", "bahdanau2015", *LUONG]


# === Weights ===


def numbers(layer):
    """Return a layer's weights as arrays, in the order in which they were made."""
    return tuple(weight.numpy() for weight in layer.weights)


def tables(model):
    """Return E_x and E_y, the embeddings of source and target."""
    return model.source_embedding.embeddings.numpy(), model.target_embedding.embeddings.numpy()


def vocabulary(model):
    """Return the kernel and the bias of the vocabulary projection."""
    return model.projection.kernel.numpy(), model.projection.bias.numpy()


def first_state(model, summary):
    """Return s_0 = tanh(V' summary + b)."""
    ((V_prime, b),) = (numbers(projection) for projection in model.decoder.bridge.projections)
    return np.tanh(summary @ V_prime + b)


# === The papers, for one source x (S,) and one target y (T,), which starts with BOS ===
# States, embeddings and contexts are rows (1, ...). Each returns logits and alignments by step.


def cho2014(model, x, y):
    E_x, E_y = tables(model)
    G, b = vocabulary(model)
    (encoder,), (decoder,) = model.encoder.layers, model.decoder.recurrence.layers
    V = model.encoder.summary.projection.kernel.numpy()
    O_hyc = model.decoder.readout.combine.kernel.numpy()
    W, U, C, b_s = (
        getattr(decoder.cell, name).numpy()
        for name in ("kernel", "recurrent_kernel", "context_kernel", "bias")
    )

    h = np.zeros((1, len(V)))
    for token in x:
        h = reference.gru_before_step(E_x[[token]], h, *numbers(encoder))
    c = np.tanh(h @ V)

    s, logits = first_state(model, c), []
    for t, token in enumerate(y):
        e_y = E_y[[token]] if t else np.zeros((1, E_y.shape[1]))  # E y_0 = 0
        s = reference.cho_step(e_y, c, s, W, U, C, b_s)
        t_t = reference.features_maxout(s, e_y, c, O_hyc)
        logits.append((t_t @ G + b)[0])
    return logits, [[] for _ in y]


def read_backwards(model, x):
    """Read a source as Sutskever and Luong do: words from last to first, then EOS.

    Returns h (S, U) of the top layer, in the order of the source, and all final states.
    """
    E_x, _ = tables(model)
    order = [*reversed(range(len(x) - 1)), len(x) - 1]
    layers = [numbers(layer) for layer in model.encoder.layers]
    states = [reference.zero_states("lstm", 1, model.encoder.units) for _ in layers]
    h = np.zeros((len(x), model.encoder.units))
    for j in order:
        below = E_x[[x[j]]]
        for i, (kernel, recurrent, bias) in enumerate(layers):
            h_i, k_i = reference.lstm_step(below, *states[i], kernel, recurrent, bias)
            states[i], below = (h_i, k_i), h_i
        h[j] = below[0]
    return h, states


def sutskever2014(model, x, y):
    _, E_y = tables(model)
    W, b = vocabulary(model)
    layers = [numbers(layer) for layer in model.decoder.recurrence.layers]
    _, states = read_backwards(model, x)  # layer i starts layer i, h and cell alike

    logits = []
    for token in y:
        below = E_y[[token]]
        for i, (kernel, recurrent, bias) in enumerate(layers):
            s_i, m_i = reference.lstm_step(below, *states[i], kernel, recurrent, bias)
            states[i], below = (s_i, m_i), s_i
        logits.append((below @ W + b)[0])
    return logits, [[] for _ in y]


def bahdanau2015(model, x, y):
    E_x, E_y = tables(model)
    W_o, b = vocabulary(model)
    (both,), (decoder,) = model.encoder.layers, model.decoder.recurrence.layers
    forwards, backwards = numbers(both.forward_layer), numbers(both.backward_layer)
    scorer = model.decoder.context.attention.scorer
    W_a, U_a, v_a = (w.numpy() for w in (scorer.query_kernel, scorer.key_kernel, scorer.scale))
    U_V_C = model.decoder.readout.combine.kernel.numpy()
    units, S = len(W_a), len(x)

    ahead, back = np.zeros((S + 1, units)), np.zeros((S + 1, units))
    for j in range(S):  # ahead[j + 1] is ->h_j
        ahead[[j + 1]] = reference.gru_before_step(E_x[[x[j]]], ahead[[j]], *forwards)
    for j in reversed(range(S)):  # back[j] is <-h_j
        back[[j]] = reference.gru_before_step(E_x[[x[j]]], back[[j + 1]], *backwards)
    h = np.concatenate([ahead[1:], back[:-1]], axis=1)

    s, logits, alignments = first_state(model, back[[0]]), [], []
    for token in y:
        e_y = E_y[[token]]
        a = reference.softmax([reference.additive(s[0], h_j, W_a, U_a, v_a) for h_j in h])
        c = sum(a[j] * h[[j]] for j in range(S))
        s = reference.gru_before_step(np.concatenate([e_y, c], axis=1), s, *numbers(decoder))
        t_t = reference.features_maxout(s, e_y, c, U_V_C)
        logits.append((t_t @ W_o + b)[0])
        alignments.append(a)
    return logits, alignments


def luong_dot(attention, s, h, t):
    return reference.softmax([reference.dot(s, h_j) for h_j in h])


def luong_general(attention, s, h, t):
    W_a = attention.scorer.kernel.numpy()
    return reference.softmax([reference.general(s, h_j, W_a) for h_j in h])


def luong_concat(attention, s, h, t):
    W_a, v_a = attention.scorer.kernel.numpy(), attention.scorer.scale.numpy()
    return reference.softmax([reference.concat(s, h_j, W_a, v_a) for h_j in h])


def luong_location(attention, s, h, t):
    return reference.softmax((s @ attention.scorer.kernel.numpy())[: len(h)])


def luong_local_m(attention, s, h, t):
    W_a = attention.scorer.kernel.numpy()
    window = [j for j in range(len(h)) if abs(j - t) <= 10]
    a = np.zeros(len(h))
    a[window] = reference.softmax([reference.general(s, h[j], W_a) for j in window])
    return a


def luong_local_p(attention, s, h, t):
    W_a = attention.scorer.kernel.numpy()
    W_p, v_p = attention.window.kernel.numpy(), attention.window.scale.numpy()
    p = len(h) * reference.sigmoid(v_p @ np.tanh(s @ W_p))
    window = [j for j in range(len(h)) if abs(j - p) <= 10]
    a = np.zeros(len(h))
    a[window] = reference.softmax([reference.general(s, h[j], W_a) for j in window])
    for j in window:
        a[j] *= math.exp(-((j - p) ** 2) / (2 * 5.0**2))  # sigma = D / 2; not renormalised
    return a


ALIGN = dict(
    zip(
        LUONG,
        (luong_dot, luong_general, luong_concat, luong_location, luong_local_m, luong_local_p),
        strict=True,
    )
)


def luong2015(model, x, y):
    _, E_y = tables(model)
    W_s, b = vocabulary(model)
    layers = [numbers(layer) for layer in model.decoder.recurrence.layers]
    W_c = model.decoder.readout.combine.kernel.numpy()
    attention, align = model.decoder.context.attention, ALIGN[model.name]
    h, states = read_backwards(model, x)

    s_tilde, logits, alignments = np.zeros((1, W_c.shape[1])), [], []
    for t, token in enumerate(y):
        below = np.concatenate([E_y[[token]], s_tilde], axis=1)
        for i, (kernel, recurrent, bias) in enumerate(layers):
            s, m = reference.lstm_step(below, *states[i], kernel, recurrent, bias)
            states[i], below = (s, m), s
        a = align(attention, s[0], h, t)
        c = sum(a[j] * h[[j]] for j in range(len(h)))
        s_tilde = np.tanh(np.concatenate([c, s], axis=1) @ W_c)
        logits.append((s_tilde @ W_s + b)[0])
        alignments.append(a)
    return logits, alignments


PAPERS = {
    "cho2014": cho2014,
    "sutskever2014": sutskever2014,
    "bahdanau2015": bahdanau2015,
    **dict.fromkeys(LUONG, luong2015),
}


# === Models and batches ===


def small(name, **options):
    """Return a small model with random weights, biases among them."""
    options = {"units": 6, "embedding_size": 5, "max_source": 12, **options}
    return small_models.randomised(zoo.build(name, source=11, target=9, **options))


def some_rows(lengths=(9, 4, 6, 1, 2), steps=5, seed=0):
    """Return source ids, rows of these many tokens with EOS, and target_in ids."""
    rng = np.random.default_rng(seed)
    source = np.zeros((len(lengths), max(lengths)), np.int32)
    for row, length in zip(source, lengths, strict=True):
        row[:length] = [*rng.integers(3, 11, length - 1), EOS]
    target_in = rng.integers(3, 9, (len(lengths), steps)).astype(np.int32)
    target_in[:, 0] = BOS
    return source, target_in


def logits_of(model, source, target_in):
    """Return the logits (B, T, V) that the model predicts."""
    return np.array(model({"source": source, "target_in": target_in}))


def alignments_of(model, source, target_in):
    """Return the alignments (B, T, S) of the model."""
    return np.array(model.alignments({"source": source, "target_in": target_in}))


def check(model, source, target_in, atol=1e-5):
    """Hold every row of the model to its paper, which reads the row without the padding."""
    logits = logits_of(model, source, target_in)
    alignments = alignments_of(model, source, target_in)
    assert np.isfinite(logits).all() and np.ptp(logits) > 0.5
    for b in range(len(source)):
        x = source[b, : np.count_nonzero(source[b])]
        expected, weights = map(np.array, PAPERS[model.name](model, x, target_in[b]))
        np.testing.assert_allclose(logits[b], expected, atol=atol)
        if not weights.size:
            assert alignments[b].size == 0
            continue
        np.testing.assert_allclose(alignments[b, :, : len(x)], weights, atol=atol)
        assert not alignments[b, :, len(x) :].any()


# === Whole models ===


@pytest.mark.parametrize("name", YEARS)
def test_logits_and_alignments_are_the_papers(name):
    check(small(name), *some_rows())


@pytest.mark.parametrize("name", YEARS)
def test_nothing_but_rounding_stands_between_model_and_paper(name):
    model = small_models.randomised(small(name, dtype="float64"), scale=1.0)
    check(model, *some_rows(), atol=1e-10)


def test_every_year_entry_is_held_to_its_paper():
    assert zoo.names("*201?*") == sorted(PAPERS)
    assert [name for name in zoo.names() if zoo.card(name).paper_size] == sorted(PAPERS)


@pytest.mark.parametrize("name", LOCAL)
def test_local_windows_slide_over_long_sources(name):
    model = small(name, max_source=30)
    source, target_in = some_rows((27, 14, 3, 1), steps=15)
    check(model, source, target_in)
    alignments = alignments_of(model, source, target_in)
    assert (alignments[0] == 0).any()  # the window has left something out


def test_a_source_longer_than_the_location_scorer_is_not_attended_to_behind_it():
    model = small("luong2015_location", max_source=4)
    source, target_in = some_rows((9, 4))
    alignments = alignments_of(model, source, target_in)
    assert not alignments[0, :, 4:].any()
    np.testing.assert_allclose(alignments.sum(-1), 1, atol=1e-6)
    x = source[1, :4]
    expected, _ = luong2015(model, x, target_in[1])
    np.testing.assert_allclose(logits_of(model, source, target_in)[1], expected, atol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("name", ["sutskever2014", "luong2015_general"])
def test_stacks_of_other_heights(name, num_layers):
    model = small(name, num_layers=num_layers)
    assert len(model.encoder.layers) == len(model.decoder.recurrence.layers) == num_layers
    check(model, *some_rows())


def test_a_stack_attends_with_its_top():
    model = small("bahdanau2015", num_layers=2)
    E_x, E_y = tables(model)
    decoder, scorer = model.decoder, model.decoder.context.attention.scorer
    pairs = [
        (numbers(two.forward_layer), numbers(two.backward_layer)) for two in model.encoder.layers
    ]
    W_a, U_a, v_a = numbers(scorer)
    weights = reference.DecoderWeights(
        cells=[numbers(layer) for layer in decoder.recurrence.layers],
        output_kernel=vocabulary(model)[0],
        output_bias=vocabulary(model)[1],
        readout_kernel=decoder.readout.combine.kernel.numpy(),
        score=lambda s, h_j: reference.additive(s, h_j, W_a, U_a, v_a),
    )
    variant = reference.Variant(cell="gru_before", order="attend_update", readout="maxout")
    source, target_in = some_rows()
    h, _ = reference.stacked("gru_before", E_x[source], source > 0, pairs)
    first = h[:, 0, 6:]
    initial = reference.bridge_summary(first, [[numbers(w)] for w in decoder.bridge.projections])
    encoded = reference.Encoded(h, source > 0, first, None)
    expected, a = reference.decode(variant, E_y[target_in], encoded, initial, weights)
    np.testing.assert_allclose(logits_of(model, source, target_in), expected, atol=1e-5)
    np.testing.assert_allclose(alignments_of(model, source, target_in), a, atol=1e-5)


# === Sutskever ===


@pytest.mark.parametrize("name", ["sutskever2014", "luong2015_dot"])
def test_every_state_is_handed_over_layer_by_layer(name):
    model = small(name)
    source, _ = some_rows()
    _, state = model.encode(source)
    assert [len(layer) for layer in state.recurrent] == [2, 2]
    for b in range(len(source)):
        x = source[b, : np.count_nonzero(source[b])]
        _, states = read_backwards(model, x)
        for layer, expected in zip(state.recurrent, states, strict=True):
            for tensor, number in zip(layer, expected, strict=True):
                np.testing.assert_allclose(tensor[b], number[0], atol=1e-6)


def test_the_source_is_read_backwards_and_eos_last():
    model = small("sutskever2014")
    backwards, _ = some_rows((6, 4, 1))
    forwards = reference.reverse_by_length(backwards, (backwards > 0).sum(axis=1))
    assert (forwards[:, 0] != backwards[:, 0]).any() and forwards[0, 5] == EOS
    _, state = model.encode(backwards)
    model.encoder.reverse = False
    _, same = model.encode(forwards)
    for layer, other in zip(state.recurrent, same.recurrent, strict=True):
        np.testing.assert_allclose(layer, other, atol=1e-6)


def test_the_target_is_not_reversed():
    model = small("sutskever2014")
    source, target_in = some_rows()
    changed = target_in.copy()
    changed[:, -1] = 3 + (changed[:, -1] - 2) % 6
    before, after = logits_of(model, source, target_in), logits_of(model, source, changed)
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
    assert (np.abs(before[:, -1] - after[:, -1]).max(axis=-1) > 1e-3).all()


# === Cho ===


def gates(model, **values):
    """Set the biases of gates of Cho's decoder, so that they are open or closed."""
    bias = model.decoder.recurrence.layers[0].cell.bias
    number, units = bias.numpy(), bias.shape[0] // 3
    for gate, value in values.items():
        number["zrh".index(gate) * units :][:units] = value
    bias.assign(number)


def test_the_reset_gate_closes_on_the_context_too():
    model = small("cho2014")
    combine = model.decoder.readout.combine.kernel
    combine.assign(np.concatenate([combine[:-6], np.zeros((6, combine.shape[1]))]))  # O_c = 0
    source, target_in = some_rows((5, 7, 3, 8))
    target_in[:] = target_in[0]
    gates(model, z=-99, r=-99)  # s_t = tanh(W E y_{t-1} + b)
    logits = logits_of(model, source, target_in)
    np.testing.assert_allclose(logits, np.broadcast_to(logits[:1], logits.shape), atol=1e-6)
    gates(model, r=99)  # s_t = tanh(W E y_{t-1} + U s_{t-1} + C c + b)
    logits = logits_of(model, source, target_in)
    assert (np.ptp(logits, axis=0).max(axis=-1) > 1e-2).all()  # at every step


def test_the_context_enters_gates_candidate_readout_and_first_state():
    """With all of them but one cut, the source still shows in the logits."""
    source, target_in = some_rows((5, 7, 3, 8))
    target_in[:] = target_in[0]

    def seen(kept):
        model = small("cho2014")
        cell, combine = model.decoder.recurrence.layers[0].cell, model.decoder.readout.combine
        C, O_hyc = cell.context_kernel.numpy(), combine.kernel.numpy()
        for i, part in enumerate(("z", "r", "h")):
            C[:, 6 * i : 6 * (i + 1)] *= part == kept
        O_hyc[-6:] *= kept == "readout"
        cell.context_kernel.assign(C), combine.kernel.assign(O_hyc)
        (projection,) = model.decoder.bridge.projections
        if kept != "start":
            projection.kernel.assign(0 * projection.kernel)
        return np.ptp(logits_of(model, source, target_in), axis=0).max()

    assert seen("nothing") < 1e-6
    for part in ("z", "r", "h", "readout", "start"):
        assert seen(part) > 1e-3, part


def test_y_0_embeds_to_zeros():
    model = small("cho2014")
    source, target_in = some_rows()
    before = logits_of(model, source, target_in)
    table = model.target_embedding.embeddings
    table.assign(table + 9 * np.eye(9)[:, [BOS]])
    np.testing.assert_array_equal(logits_of(model, source, target_in), before)


# === Bahdanau ===


def test_attention_comes_before_the_update():
    model = small("bahdanau2015")
    source, target_in = some_rows()
    changed = target_in.copy()
    changed[:, 1] = 3 + (changed[:, 1] - 2) % 6
    before, after = (logits_of(model, source, y) for y in (target_in, changed))
    looked, looks = (alignments_of(model, source, y) for y in (target_in, changed))
    np.testing.assert_array_equal(looked[:, :2], looks[:, :2])  # a_t knows y_1, ..., y_{t-2} alone
    assert np.abs(looked - looks)[0, 2].max() > 1e-4
    assert np.abs(before - after)[0, 1].max() > 1e-3
    s, h = model.encode(source)[1].recurrent[0][0][0].numpy(), model.encode(source)[0].values[0]
    scorer = model.decoder.context.attention.scorer
    scores = (
        np.tanh(s @ scorer.query_kernel.numpy() + h.numpy() @ scorer.key_kernel.numpy())
        @ scorer.scale.numpy()
    )
    np.testing.assert_allclose(looked[0, 0], reference.softmax(scores), atol=1e-5)  # with s_0


def test_the_first_state_is_made_of_the_backward_state_at_the_first_word():
    model = small("bahdanau2015")
    source, _ = some_rows()
    memory, state = model.encode(source)
    ((s_0,),) = state.recurrent
    backward_at_first_word = memory.values[:, 0, 6:].numpy()
    np.testing.assert_allclose(s_0, first_state(model, backward_at_first_word), atol=1e-6)
    one_word = np.count_nonzero(source, axis=1) == 1
    assert one_word.any() and not one_word.all()
    last = memory.values.numpy()[np.arange(5), np.count_nonzero(source, axis=1) - 1]
    for wrong in (last[:, :6], last[:, 6:], memory.values[:, 0, :6].numpy()):
        assert np.abs(s_0 - first_state(model, wrong)).max() > 1e-2


def test_the_readout_sees_the_new_state_unless_told_otherwise():
    source, target_in = some_rows()
    current, previous = small("bahdanau2015"), small("bahdanau2015", readout_state="previous")
    seen = [alignments_of(model, source, target_in) for model in (current, previous)]
    np.testing.assert_array_equal(*seen)  # the chain of states is the same
    before, after = (logits_of(model, source, target_in) for model in (current, previous))
    assert np.abs(before - after).max() > 1e-2
    changed = target_in.copy()
    changed[:, -1] = 3 + (changed[:, -1] - 2) % 6
    combine = previous.decoder.readout.combine.kernel
    combine.assign(combine * np.repeat([1, 0, 1], [6, 5, 12])[:, None])  # V_o = 0
    same = [logits_of(previous, source, y) for y in (target_in, changed)]
    np.testing.assert_array_equal(*same)  # s_{t-1} does not know y_{t-1}


# === Luong ===


def fed_rows(model):
    """Return the rows of the first layer's kernel that read s~."""
    kernel = model.decoder.recurrence.layers[0].cell.kernel
    assert kernel.shape[0] == 5 + 6  # [E y; s~]
    return kernel, np.repeat([0.0, 1.0], [5, 6])[:, None]


@pytest.mark.parametrize("name", ["luong2015_dot", "luong2015_local_p"])
def test_the_next_input_is_the_attentional_state(name):
    model = small(name)
    source, target_in = some_rows()
    kernel, fed = fed_rows(model)
    before = logits_of(model, source, target_in)
    number = kernel.numpy()
    kernel.assign(number + fed)
    after = logits_of(model, source, target_in)
    np.testing.assert_array_equal(before[:, 0], after[:, 0])  # s~_0 = 0
    assert np.abs(before - after)[:, 1].max() > 1e-3
    # Without W_c there is no s~, though there is a context: nothing is fed.
    combine = model.decoder.readout.combine.kernel
    combine.assign(0 * combine)
    unfed = alignments_of(model, source, target_in)
    kernel.assign(number * (1 - fed))
    np.testing.assert_array_equal(alignments_of(model, source, target_in), unfed)


@pytest.mark.parametrize("name", RECURRENT)
def test_attention_comes_after_the_update(name):
    model = small_models.randomised(small(name), scale=1.0)
    source, target_in = some_rows()
    changed = target_in.copy()
    changed[:, 1] = 3 + (changed[:, 1] - 2) % 6
    looked, looks = (alignments_of(model, source, y) for y in (target_in, changed))
    np.testing.assert_array_equal(looked[:, 0], looks[:, 0])
    assert np.abs(looked - looks)[0, 1].max() > 1e-3


def test_the_attentional_state_has_no_bias_and_the_context_first():
    model = small("luong2015_dot")
    (W_c,) = numbers(model.decoder.readout.combine)
    assert W_c.shape == (12, 6)
    source, target_in = some_rows((4, 4))
    source[1] = source[0]
    _, state = model.encode(source)
    s, _ = state.recurrent[-1]
    features = model.decoder.readout.features(s, 0 * s, s)
    np.testing.assert_allclose(features, np.tanh(s @ W_c[6:]), atol=1e-6)


def test_local_p_is_not_renormalised():
    model = small("luong2015_local_p")
    source, target_in = some_rows((9, 4, 6, 2))
    alignments = alignments_of(model, source, target_in)
    sums = alignments.sum(axis=-1)
    assert (sums > 0).all() and (sums < 1 - 1e-3).any() and (sums <= 1 + 1e-6).all()
    # With equal scores the softmax is 1 / S, and the Gaussian is all that remains of it.
    kernel = model.decoder.context.attention.scorer.kernel
    kernel.assign(0 * kernel)
    window = model.decoder.context.attention.window
    window.scale.assign(0 * window.scale)  # p = S / 2
    alignments = alignments_of(model, source, target_in)
    for row, length in zip(alignments, (9, 4, 6, 2), strict=True):
        gaussian = [math.exp(-((j - length / 2) ** 2) / 50) / length for j in range(length)]
        np.testing.assert_allclose(row[:, :length], np.tile(gaussian, (5, 1)), atol=1e-6)


def test_local_m_stands_at_its_own_step():
    model = small("luong2015_local_m", max_source=30)
    source, target_in = some_rows((27, 12, 2), steps=15)
    alignments = alignments_of(model, source, target_in)
    for row, length in zip(alignments, (27, 12, 2), strict=True):
        for t, seen in enumerate(row > 0):
            window = range(max(t - 10, 0), min(t + 11, length))
            np.testing.assert_array_equal(np.flatnonzero(seen), list(window))
            assert row[t].sum() == pytest.approx(1 if len(window) else 0, abs=1e-5)


# === The papers' sizes ===

SIZES = {
    "cho2014": {"units": 1000, "embedding_size": 100, "readout_units": 500, "num_layers": 1},
    "sutskever2014": {"units": 1000, "embedding_size": 1000, "num_layers": 4},
    "bahdanau2015": {
        "units": 1000,
        "embedding_size": 620,
        "readout_units": 500,
        "num_layers": 1,
        "max_source": 51,  # 50 words and EOS
        "max_target": 51,
    },
    **dict.fromkeys(
        LUONG,
        {
            "units": 1000,
            "embedding_size": 1000,
            "num_layers": 4,
            "max_source": 51,  # 50 words and EOS
            "max_target": 51,
        },
    ),
}


@pytest.mark.parametrize("name", YEARS)
def test_paper_sizes(name):
    config = zoo.config(name, size="paper")
    assert {key: config[key] for key in SIZES[name]} == SIZES[name]
    assert config["dropout"] == (0.2 if name in LUONG else 0)
    default = zoo.config(name)
    assert {key: default[key] for key in ("units", "num_layers")} == {
        "units": 256,
        "num_layers": min(SIZES[name]["num_layers"], 2),
    }
    sizes = {"units", "embedding_size", "size", *SIZES[name], "dropout"}
    assert all(config[key] == default[key] for key in config if key not in sizes)


@pytest.mark.parametrize("name", ["cho2014", "sutskever2014", "bahdanau2015", "luong2015_dot"])
def test_a_paper_size_may_be_overridden_and_keeps_the_rest(name):
    model = small(name, size="paper")
    layers = SIZES[name]["num_layers"]
    assert len(model.encoder.layers) == len(model.decoder.recurrence.layers) == layers
    assert model.projection.kernel.shape == (SIZES[name].get("readout_units", 6), 9)
    check(model, *some_rows((4, 3, 1, 2)))


def test_bahdanaus_own_size():
    model = zoo.build("bahdanau2015", source=50, target=50, size="paper")
    (both,), (decoder,) = model.encoder.layers, model.decoder.recurrence.layers
    shapes = [weight.shape for weight in both.forward_layer.weights]
    assert shapes == [(620, 3000), (1000, 3000), (3000,)]
    shapes = [weight.shape for weight in decoder.weights]
    assert shapes == [(620 + 2000, 3000), (1000, 3000), (3000,)]
    scorer = model.decoder.context.attention.scorer
    assert scorer.query_kernel.shape == (1000, 1000)  # W_a: n' = 1000
    assert scorer.key_kernel.shape == (2000, 1000)  # U_a
    (bridge,) = model.decoder.bridge.projections
    assert bridge.kernel.shape == (1000, 1000)  # W_s
    assert model.decoder.readout.combine.kernel.shape == (1000 + 620 + 2000, 2 * 500)
    assert model.projection.kernel.shape == (500, 50)
    assert model.source_embedding.embeddings.shape == (50, 620)


@pytest.mark.parametrize("name", sorted(set(zoo.names()) - set(YEARS)))
def test_the_papers_size_is_refused_where_there_is_none(name):
    with pytest.raises(ValueError, match="size: expected one of .*, got 'paper'"):
        zoo.config(name, size="paper")
    with pytest.raises(ValueError, match="size: expected one of .*, got 'paper'"):
        zoo.build(name, source=9, target=9, size="paper")
