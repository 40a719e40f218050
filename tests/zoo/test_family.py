"""The attention family against its equations: every whole model as a loop over one row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import reference_encoders
import small_models

from keras_attn import layers, zoo

BOS, EOS, UNK = 1, 2, 3


# === Weights ===


def numbers(layer):
    """Return a layer's weights as arrays, in the order in which they were made."""
    return tuple(weight.numpy() for weight in layer.weights)


def arrays(layer, names):
    """Return the weights of these names as arrays."""
    return tuple(getattr(layer, name).numpy() for name in names.split())


# === Encoders, of one source x (S,): h (S, D), and the first (s, m), of an LSTM ===


def bidirectional(model, x):
    """Return h_j = [->h_j; <-h_j], and s_0 = W_b h_S + b_b, of the cell's state likewise."""
    E_x = model.source_embedding.embeddings.numpy()
    (both,) = model.encoder.layers
    units, S = model.encoder.units, len(x)
    ahead, back = (np.zeros((S + 1, 2, units)) for _ in range(2))  # h and the cell's state
    for j in range(S):
        ahead[j + 1] = step(both.forward_layer, E_x[x[j]], ahead[j])
    for j in reversed(range(S)):
        back[j] = step(both.backward_layer, E_x[x[j]], back[j + 1])
    h = np.concatenate([ahead[1:, 0], back[:-1, 0]], axis=1)
    h_S, k_S = np.concatenate([ahead[S], back[0]], axis=1)  # what each direction ends with
    (W_b, b_b), (W_k, b_k) = (
        numbers(projection) for projection in model.decoder.bridge.projections
    )
    return h, np.stack([h_S @ W_b + b_b, k_S @ W_k + b_k])


def step(layer, x, state):
    """Return the next (h, k) of an LSTM, as (2, U)."""
    h, k = (part[None] for part in state)
    return np.concatenate(reference.lstm_step(x[None], h, k, *numbers(layer)))


def convolutional(model, x):
    embedded = model.source_embedding.embeddings.numpy()[x]
    encoder = model.encoder
    blocks = [numbers(convolution) for convolution in encoder.convolutions]
    assert len(blocks) == 2
    h = reference_encoders.conv_encoder(embedded, numbers(encoder.projection), blocks)
    return h, from_mean(model, h)


def self_attentive(model, x):
    embedded = model.source_embedding.embeddings.numpy()[x]
    encoder = model.encoder
    (W_x,) = numbers(encoder.projection)
    blocks = [
        (
            numbers(block.attention_norm),
            [getattr(block.attention, f"{part}_dense").kernel for part in ("query", "key", "value")]
            + [block.attention.output_dense.kernel],
            numbers(block.feed_forward_norm),
            (*numbers(block.hidden), *numbers(block.output_layer)),
        )
        for block in encoder.blocks
    ]
    assert len(blocks) == 2
    h = reference_encoders.self_attention_encoder(embedded, W_x, blocks, numbers(encoder.norm))
    return h, from_mean(model, h)


def from_mean(model, h):
    """Return s_0 = tanh(V mean_j h_j + b), of the cell's state likewise."""
    mean = sum(h_j for h_j in h) / len(h)
    return np.tanh([mean @ V + b for V, b in map(numbers, model.decoder.bridge.projections)])


# === Alignments: a_t (S,), given s_t, all h and the alignments of the steps before ===


def softmax_of(score):
    """Return a_tj = exp(e_tj) / sum_k exp(e_tk) as a function, given e_tj as one."""

    def align(attention, s, h, past):
        return reference.softmax([score(attention.scorer, s, h_j) for h_j in h])

    return align


def general(scorer, s, h_j):
    return reference.general(s, h_j, scorer.kernel.numpy())


def low_rank(scorer, s, h_j):
    P, K = arrays(scorer, "query_kernel key_kernel")
    assert P.shape[1] == K.shape[1] == 32
    return reference.dot(s @ P, h_j @ K)


def hard(attention, s, h, past):
    p = softmax_of(general)(attention, s, h, past)
    return np.eye(len(h))[np.argmax(p)]


def local(attention, s, h, past):
    W_p, v_p = arrays(attention.window, "kernel scale")
    e = [general(attention.scorer, s, h_j) for h_j in h]
    p = reference.predicted_position(s, W_p, v_p, len(h))
    return reference.local_p(e, p, 10)


def chances(attention, s, h):
    """Return p_tj = sigmoid(v^T tanh(W_a s_t + U_a h_j) + r)."""
    W_a, U_a, v = arrays(attention.scorer, "query_kernel key_kernel scale")
    r = attention.window.offset.numpy()
    return [reference.sigmoid(reference.additive(s, h_j, W_a, U_a, v) + r) for h_j in h]


def before(past, h):
    """Return the last step's alignments, which at first are all at the first token."""
    return past[-1] if past else np.eye(len(h))[0]


def monotonic(attention, s, h, past):
    return reference.monotonic_hard(chances(attention, s, h), before(past, h))


def monotonic_in_training(attention, s, h, past):
    return reference.monotonic_expected(chances(attention, s, h), before(past, h))


def coverage(attention, s, h, past):
    names = "query_kernel key_kernel coverage_kernel bias scale"
    W_a, U_a, w_c, b, v = arrays(attention.scorer, names)
    covered = sum(past, np.zeros(len(h)))
    return reference.softmax(
        [
            reference.coverage(s, h_j, c_j, W_a, U_a, w_c, b, v)
            for h_j, c_j in zip(h, covered, strict=True)
        ]
    )


def weighted(align):
    """Return c_t = sum_j a_tj h_j as a function, given a_t as one."""

    def attend(attention, s, h, past):
        a = align(attention, s, h, past)
        return sum(a_j * h_j for a_j, h_j in zip(a, h, strict=True)), a

    return attend


def multi_head(attention, s, h, past):
    W_q, W_k, W_v, W_o = arrays(
        attention.heads, "query_kernel key_kernel value_kernel output_kernel"
    )
    H, U, D = 4, W_q.shape[1], W_v.shape[1]
    found, alignments = [], []
    for i in range(H):
        narrow = slice(i * U // H, (i + 1) * U // H)
        deep = slice(i * D // H, (i + 1) * D // H)
        e = [(s @ W_q)[narrow] @ (h_j @ W_k)[narrow] / math.sqrt(U / 4) for h_j in h]
        a = reference.softmax(e)
        found.append(sum(a_j * (h_j @ W_v)[deep] for a_j, h_j in zip(a, h, strict=True)))
        alignments.append(a)
    return np.concatenate(found) @ W_o, sum(alignments) / H  # of heads, the mean is shown


def key_value(attention, s, h, past):
    W_k, W_v = arrays(attention.heads, "key_kernel value_kernel")
    a = reference.softmax([general(attention.scorer, s, h_j @ W_k) for h_j in h])
    return sum(a_j * (h_j @ W_v) for a_j, h_j in zip(a, h, strict=True)), a


BIDIRECTIONAL = {
    "attention_low_rank": weighted(softmax_of(low_rank)),
    "attention_hard": weighted(hard),
    "attention_local": weighted(local),
    "attention_monotonic": weighted(monotonic),
    "attention_multi_head": multi_head,
    "attention_coverage": weighted(coverage),
    "attention_copy": weighted(softmax_of(general)),
    "attention_key_value": key_value,
}
FAMILY = {name: (bidirectional, attend) for name, attend in BIDIRECTIONAL.items()} | {
    "conv_attention": (convolutional, weighted(softmax_of(general))),
    "transformer_attention": (self_attentive, weighted(softmax_of(general))),
}


# === The decoder, for one source x (S,) and one target y (T,), which starts with BOS ===


def family(model, x, y, attend):
    """Return logits, or with copying log-probabilities, and alignments, by step."""
    E_y = model.target_embedding.embeddings.numpy()
    W, b = numbers(model.projection)
    (W_c,) = numbers(model.decoder.readout.combine)
    (decoder,) = model.decoder.recurrence.layers
    h, state = FAMILY[model.name][0](model, np.where(x < model.source_size, x, UNK))

    predictions, past = [], []
    for token in y:
        e_y = E_y[token if token < model.target_size else UNK]
        state = step(decoder, e_y, state)
        s = state[0]
        c, a = attend(model.decoder.context.attention, s, h, past)
        s_tilde = np.tanh(np.concatenate([c, s]) @ W_c)
        logits = s_tilde @ W + b
        predictions.append(
            copied(model, x, logits, a, s, c, e_y) if model.decoder.gate.copies else logits
        )
        past.append(a)
    return np.array(predictions), np.array(past)


def copied(model, x, logits, a, s, c, e_y):
    """Return log p(w) of w in [0, V + S), V + j for the token at j if the target has none."""
    V, source, target = model.target_size, model.source.vocabulary, model.target.vocabulary
    w, b_g = numbers(model.decoder.gate.project)
    w_s, w_c, w_x = np.split(w[:, 0], [len(s), len(s) + len(c)])
    g = reference.sigmoid(w_c @ c + w_s @ s + w_x @ e_y + b_g[0])
    p = np.concatenate([g * reference.softmax(logits), np.zeros(len(x))])
    for j, token in enumerate(x):
        name = source[token] if token < len(source) else None
        if token == UNK or name in target:
            p[UNK if token == UNK else target.index(name)] += (1 - g) * a[j]
        else:
            p[V + list(x).index(token)] += (1 - g) * a[j]
    return np.log(np.maximum(p, 1e-30))


# === Models and batches ===


def small(name, **options):
    """Return a small model with tokenisers and weights that are large enough to choose by."""
    scale = 0.4 if name.startswith("conv") else 0.7  # its values grow by the block
    return small_models.randomised(small_models.small(name, **options), scale)


def some_rows(model, lengths=(9, 4, 6, 1, 2), steps=5, seed=0):
    """Return source ids, rows of these many tokens with EOS, and target_in ids."""
    rng = np.random.default_rng(seed)
    source = np.zeros((len(lengths), max(lengths)), np.int32)
    for row, length in zip(source, lengths, strict=True):
        row[:length] = [*rng.integers(UNK, model.source_size, length - 1), EOS]
    target_in = rng.integers(UNK, model.target_size, (len(lengths), steps)).astype(np.int32)
    target_in[:, 0] = BOS
    return source, target_in


def check(model, source, target_in, attend=None, training=False, atol=1e-5):
    """Hold every row of the model to the loop, which reads the row without the padding."""
    inputs = {"source": source, "target_in": target_in}
    predictions = np.array(model(inputs, training=training))
    alignments = np.array(model.alignments(inputs))
    assert np.isfinite(predictions).all() and np.ptp(predictions) > 0.5
    for b in range(len(source)):
        x = source[b, : np.count_nonzero(source[b])]
        attend_to = attend or FAMILY[model.name][1]
        expected, weights = family(model, x, target_in[b], attend_to)
        width = expected.shape[1]  # V, or V + S of the row
        np.testing.assert_allclose(predictions[b, :, :width], expected, atol=atol, rtol=1e-6)
        if model.decoder.gate.copies:
            assert (np.exp(predictions[b, :, width:]) < 1e-20).all()
        if not training:
            np.testing.assert_allclose(alignments[b, :, : len(x)], weights, atol=atol)
            assert not alignments[b, :, len(x) :].any()


# === Whole models ===


@pytest.mark.parametrize("name", FAMILY)
def test_predictions_and_alignments_are_the_equations(name):
    model = small(name)
    check(model, *some_rows(model), atol=2e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_nothing_but_rounding_stands_between_model_and_equations(name):
    model = small(name, dtype="float64")
    # Keras takes the scale of its attention heads through float32.
    check(model, *some_rows(model), atol=1e-6 if name.startswith("transformer") else 1e-10)


def test_every_entry_is_held_to_its_equations():
    plain = {*small_models.PLAIN, *zoo.names("*201?*")}  # tested elsewhere
    assert set(zoo.names()) - plain == set(FAMILY)


def test_copied_tokens_that_nobody_knows_are_answered_by_their_first_position():
    model = small("attention_copy")
    source, target_in = some_rows(model)
    size, V = model.source_size, model.target_size
    source[0, [1, 4]] = size + 1  # one unknown token, twice
    source[2, 3], source[2, 4] = size + 3, UNK  # another, and one without a text
    source[1, :3] = [n for n, token in enumerate(model.source.vocabulary) if token in "azk"][:3]
    target_in[0, 2] = V + 1
    check(model, source, target_in, atol=2e-5)
    inputs = {"source": source, "target_in": target_in}
    p, a = np.exp(model(inputs)), np.array(model.alignments(inputs))
    np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-5)
    gate = p[0, :, V + 1] / (a[0, :, 1] + a[0, :, 4])  # 1 - g
    assert (gate > 0).all() and (gate < 1).all()
    assert (p[0, :, V + 4] < 1e-20).all()
    known = [model.source.vocabulary[token] in model.target.vocabulary for token in source[1, :3]]
    assert any(known), "nothing is copied to the target's own ids"


def test_monotonic_attention_in_training_is_the_expectation():
    window = layers.MonotonicWindow(noise=0.0)
    model = small("attention_monotonic", window=window, dropout=0.0)
    attend = weighted(monotonic_in_training)
    check(model, *some_rows(model), attend=attend, training=True, atol=2e-5)


def test_monotonic_attention_never_goes_back():
    model = small("attention_monotonic")
    source, target_in = some_rows(model, (12, 9, 5), steps=8)
    check(model, source, target_in, atol=2e-5)
    alignments = np.array(model.alignments({"source": source, "target_in": target_in}))
    assert set(np.unique(alignments)) == {0, 1}
    for row in alignments:
        ended = row.sum(axis=-1) == 0
        positions = np.where(ended, row.shape[1], row.argmax(axis=-1))
        assert (np.diff(positions) >= 0).all()


def test_hard_attention_is_one_hot_in_training_too():
    model = small("attention_hard", dropout=0.0)
    source, target_in = some_rows(model)
    check(model, source, target_in, training=True, atol=2e-5)
    alignments = np.array(model.alignments({"source": source, "target_in": target_in}))
    np.testing.assert_array_equal(alignments.max(axis=-1), 1)
    np.testing.assert_array_equal(alignments.sum(axis=-1), 1)


def test_a_local_window_leaves_out_what_is_far():
    model = small("attention_local", max_source=40)
    source, target_in = some_rows(model, (37, 20, 3, 1))
    check(model, source, target_in, atol=2e-5)
    alignments = np.array(model.alignments({"source": source, "target_in": target_in}))
    assert (alignments[0] == 0).any() and (alignments.sum(axis=-1) < 1).all()


@pytest.mark.parametrize("name", [*BIDIRECTIONAL, "conv_attention", "transformer_attention"])
def test_the_decoder_attends_with_the_new_state_and_feeds_nothing(name):
    model = small(name)
    decoder = model.decoder
    assert isinstance(decoder.order, layers.UpdateAttend) and not decoder.input_feeding
    assert decoder.recurrence.layers[0].cell.kernel.shape[0] == model.embedding_size
    assert len(decoder.bridge.projections) == 2  # h and the cell's state


def test_the_coverage_loss_is_off():
    model = small("attention_coverage")
    assert model.decoder.context.attention.coverage_loss == model.decoder.terms_depth == 0


# === Encoders without recurrence ===


@pytest.mark.parametrize("name", ["conv_attention", "transformer_attention"])
def test_the_values_are_the_encoders_alone(name):
    model = small(name)
    source, _ = some_rows(model)
    memory, state = model.encode(source)
    for b in range(len(source)):
        x = source[b, : np.count_nonzero(source[b])]
        h, first = FAMILY[name][0](model, x)
        np.testing.assert_allclose(memory.values[b, : len(x)], h, atol=2e-5)
        assert not np.any(memory.values[b, len(x) :])
        for tensor, number in zip(state.recurrent[0], first, strict=True):
            np.testing.assert_allclose(tensor[b], number, atol=1e-5)


def test_a_transformers_values_are_normalised_once_more():
    model = small("transformer_attention")
    norm = model.encoder.norm
    norm.gamma.assign(np.ones(8)), norm.beta.assign(np.zeros(8))
    memory, _ = model.encode(some_rows(model)[0])
    h = memory.values.numpy()[0]
    np.testing.assert_allclose(h.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(h.var(axis=-1), 1, atol=1e-3)
