r"""What the papers say, as plain NumPy loops: the oracle that the library is tested against.

Written from the papers and from nothing else: only numpy and the standard library are imported, no
code is shared with `keras_attn`, everything is float64, and a loop is preferred to a clever array
expression.

Conventions
    Letters are those of `keras_attn/types.py`: B batch, S source, T target, Q queries, E embedding,
    U units, C key depth, A attention units, D value depth, F features, V vocabulary.
    Every kernel is (inputs, outputs), as in Keras, and stands to the right of a row vector:
    `x @ kernel` is the papers' W x with W = kernel^T.
    A mask is bool (B, S), True at tokens (EOS included); None means that all are tokens.
    Recurrent weights are the triple (kernel, recurrent_kernel, bias), in the order of
    `get_weights()`. States of one layer are a tuple of (B, U): (h, c) for an LSTM, (h,) for the
    others. States of a stack are a tuple over layers of those.

Papers
    Elman 1990, "Finding structure in time".
    Schuster & Paliwal 1997, "Bidirectional recurrent neural networks".
    Graves 2013, arXiv:1308.0850.               Goodfellow et al. 2013 (maxout), arXiv:1302.4389.
    Cho et al. 2014, arXiv:1406.1078.           Sutskever, Vinyals & Le 2014, arXiv:1409.3215.
    Bahdanau, Cho & Bengio 2015, arXiv:1409.0473.
    Luong, Pham & Manning 2015, arXiv:1508.04025.
    Chorowski et al. 2015, arXiv:1506.07503.    Tu et al. 2016 (coverage), arXiv:1601.04811.
    Wu et al. 2016, arXiv:1609.08144.           Martins & Astudillo 2016, arXiv:1602.02068.
    Jang, Gu & Poole 2017, arXiv:1611.01144.    Raffel et al. 2017, arXiv:1704.00784.
    See, Liu & Manning 2017, arXiv:1704.04368.  Vaswani et al. 2017, arXiv:1706.03762.
    Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators".
    Paulus, Xiong & Socher 2017 (no trigram twice), arXiv:1705.04304.
    De Cao et al. 2021 (allowed targets), arXiv:2010.00904.
    Fan, Lewis & Dauphin 2018 (top k), arXiv:1805.04833.
    Holtzman et al. 2020 (top p), arXiv:1904.09751.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

PAD, BOS, EOS, UNK = 0, 1, 2, 3

NUM_STATES = {"lstm": 2, "gru": 1, "gru_before": 1, "simple_rnn": 1}


class Encoded(NamedTuple):
    """What an encoder makes of a batch of sources.

    Attributes:
        values: (B, S, D), one vector a source token.
        mask: Bool (B, S), True at tokens.
        summary: (B, D'), one vector a source: the fixed context.
        states: Tuple over layers of tuples of (B, D''), directions concatenated.
    """

    values: Any
    mask: Any
    summary: Any
    states: Any


class Variant(NamedTuple):
    """A decoder as a point on the axes of the design.

    Attributes:
        cell: "lstm", "gru", "gru_before" or "simple_rnn".
        context: "none" (width 0), "fixed" (the summary at every step) or "attention".
        order: "update_attend" (Luong) or "attend_update" (Bahdanau).
        feedback: Whether the previous token's embedding is fed; without it, that has width 0.
        input_feeding: Whether the last features are fed to the recurrence.
        readout: "linear", "tanh" or "maxout".
        readout_state: "current" or, with "attend_update" only, "previous".
    """

    cell: str = "lstm"
    context: str = "attention"
    order: str = "update_attend"
    feedback: bool = True
    input_feeding: bool = False
    readout: str = "tanh"
    readout_state: str = "current"


class DecoderWeights(NamedTuple):
    """The weights of a decoder.

    Attributes:
        cells: Tuple over layers of recurrent triples.
        output_kernel: (F, V).
        output_bias: (V,).
        readout_kernel: Of the tanh readout (D + U, F), of maxout (U + E + D, 2F); None for linear.
        score: A function (query (U,), key (C,)) -> float; None without attention.
    """

    cells: Any
    output_kernel: Any
    output_bias: Any
    readout_kernel: Any = None
    score: Callable[[np.ndarray, np.ndarray], float] | None = None


class Hypothesis(NamedTuple):
    """One target sequence that a search has made.

    Attributes:
        token_ids: Tuple of ids, without BOS, with EOS where `finished`.
        score: log p of the sequence, in nats: the sum of `token_scores`.
        penalised_score: `score` over Wu's length penalty, and his coverage penalty added.
        token_scores: Tuple of log p, one a token.
        finished: False where the sequence was cut at the maximum length.
    """

    token_ids: tuple[int, ...]
    score: float
    penalised_score: float
    token_scores: tuple[float, ...]
    finished: bool


def _real(array):
    """Returns `array` as float64."""
    return np.asarray(array, np.float64)


def _tokens(mask, rows, length):
    """Returns the mask as bool (rows, length); None means that every position is a token."""
    if mask is None:
        return np.ones((rows, length), bool)
    mask = np.asarray(mask).astype(bool)
    if mask.shape != (rows, length):
        raise ValueError(f"Expected a mask of shape {(rows, length)}. Received: {mask.shape}")
    return mask


def _allowed(scores, mask):
    """Returns bool, of the shape of `scores`: True where the mask is and the score is not -inf."""
    mask = np.ones(scores.shape, bool) if mask is None else np.asarray(mask).astype(bool)
    return np.broadcast_to(mask, scores.shape) & (scores != -np.inf)


# === Functions of one array ===


def sigmoid(x):
    """Logistic function 1 / (1 + exp(-x)), elementwise, without overflow at either end."""
    x = _real(x)
    small = np.exp(-np.abs(x))  # in (0, 1]
    return np.where(x >= 0, 1.0 / (1.0 + small), small / (1.0 + small))


def softmax(scores, mask=None):
    """Softmax over the last axis, exp(e_j) / sum_k exp(e_k), over tokens only.

    Source: Bahdanau 2015, eq. 6. Masked positions get 0; a row without tokens is all zeros. A score
    of -inf is as good as masked.

    Args:
        scores: (..., S).
        mask: Bool, of a shape that broadcasts to `scores`; True at tokens.

    Returns:
        (..., S), each row of sum 1, or 0 where everything is masked.
    """
    scores = _real(scores)
    allowed = _allowed(scores, mask)
    result = np.zeros(scores.shape)
    for row in np.ndindex(scores.shape[:-1]):
        tokens = [j for j in range(scores.shape[-1]) if allowed[row][j]]
        if not tokens:
            continue
        peak = max(scores[row][j] for j in tokens)
        exponentials = {j: math.exp(scores[row][j] - peak) for j in tokens}
        total = math.fsum(exponentials.values())
        for j in tokens:
            result[row][j] = exponentials[j] / total
    return result


def log_softmax(logits):
    """Log of the softmax of one vector (V,), by shifting with the largest logit: (V,)."""
    logits = _real(logits)
    peak = logits.max()
    return logits - peak - math.log(math.fsum(np.exp(logits - peak)))


def sparsemax(scores, mask=None):
    """The point of the simplex nearest to the scores of the tokens, by rows of the last axis.

    Source: Martins & Astudillo 2016, eqs. 2 to 4, and their algorithm: with z_1 >= z_2 >= ... the
    sorted scores, k is the largest count for which 1 + k z_k > z_1 + ... + z_k,
    tau = (z_1 + ... + z_k - 1) / k, and p_j = max(z_j - tau, 0). Masked positions get 0, as do
    those of score -inf; a row without tokens is all zeros.

    Args:
        scores: (..., S).
        mask: Bool, of a shape that broadcasts to `scores`; True at tokens.

    Returns:
        (..., S), each row of sum 1, or 0 where everything is masked.
    """
    scores = _real(scores)
    allowed = _allowed(scores, mask)
    result = np.zeros(scores.shape)
    for row in np.ndindex(scores.shape[:-1]):
        tokens = [j for j in range(scores.shape[-1]) if allowed[row][j]]
        if not tokens:
            continue
        peak = max(scores[row][j] for j in tokens)  # a common shift moves tau alone
        descending = sorted((scores[row][j] - peak for j in tokens), reverse=True)
        threshold = None
        for count in range(1, len(descending) + 1):
            total = math.fsum(descending[:count])
            if 1.0 + count * descending[count - 1] > total:
                threshold = (total - 1.0) / count
        for j in tokens:
            result[row][j] = max(scores[row][j] - peak - threshold, 0.0)
    return result


def hardmax(scores, mask=None):
    """One-hot of the largest score among tokens, of equals the first, by rows of the last axis.

    Masked positions are never chosen, nor those of score -inf; a row without tokens is all zeros.

    Args:
        scores: (..., S).
        mask: Bool, of a shape that broadcasts to `scores`; True at tokens.

    Returns:
        (..., S), of zeros and at most one 1 a row.
    """
    scores = _real(scores)
    allowed = _allowed(scores, mask)
    result = np.zeros(scores.shape)
    for row in np.ndindex(scores.shape[:-1]):
        best = None
        for j in range(scores.shape[-1]):
            if allowed[row][j] and (best is None or scores[row][j] > scores[row][best]):
                best = j
        if best is not None:
            result[row][best] = 1.0
    return result


def gumbel_softmax(scores, noise, temperature, mask=None):
    """A relaxed sample, softmax((log pi + g) / temperature) with pi = softmax(scores).

    Source: Jang 2017, eq. 2. Masked positions get 0; a row without tokens is all zeros.

    Args:
        scores: (..., S).
        noise: (..., S), the g, drawn from Gumbel(0, 1).
        temperature: Float > 0.
        mask: Bool, of a shape that broadcasts to `scores`; True at tokens.

    Returns:
        (..., S), each row of sum 1, or 0 where everything is masked.
    """
    scores, noise = _real(scores), _real(noise)
    allowed = _allowed(scores, mask)
    perturbed = np.zeros(scores.shape)
    for row in np.ndindex(scores.shape[:-1]):
        tokens = [j for j in range(scores.shape[-1]) if allowed[row][j]]
        if not tokens:
            continue
        log_pi = log_softmax([scores[row][j] for j in tokens])
        for index, j in enumerate(tokens):
            perturbed[row][j] = (log_pi[index] + noise[row][j]) / temperature
    return softmax(perturbed, allowed)


# === Recurrent cells: one step of a batch ===


def lstm_step(x, h, c, kernel, recurrent_kernel, bias):
    """One step of an LSTM; the gates lie in Keras's order i, f, g, o.

    Source: Graves 2013, eqs. 7-11 (the LSTM of Sutskever 2014). Deviation: no peepholes, as Keras
    has none.
        i, f, o = sigmoid(..), g = tanh(..);  c' = f c + i g;  h' = o tanh(c').

    Args:
        x: (B, E).
        h: (B, U), the previous output.
        c: (B, U), the previous cell.
        kernel: (E, 4U).
        recurrent_kernel: (U, 4U).
        bias: (4U,).

    Returns:
        h' (B, U) and c' (B, U).
    """
    x, h, c = _real(x), _real(h), _real(c)
    i, f, g, o = np.split(x @ _real(kernel) + h @ _real(recurrent_kernel) + _real(bias), 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, c


def gru_step(x, h, kernel, recurrent_kernel, bias):
    """One step of a GRU with `reset_after=True`; the gates lie in Keras's order z, r, h.

    Source: Cho 2014, eqs. 5-8, with their z: h' = z h + (1 - z) candidate. Deviation (cuDNN's
    form): the reset gate multiplies the product h U + b', not h itself, so that
        candidate = tanh(x W + b + r (h U + b')).

    Args:
        x: (B, E).
        h: (B, U).
        kernel: (E, 3U).
        recurrent_kernel: (U, 3U).
        bias: (2, 3U): b of the input, b' of the recurrence.

    Returns:
        h' (B, U).
    """
    x, h, bias = _real(x), _real(h), _real(bias)
    x_z, x_r, x_h = np.split(x @ _real(kernel) + bias[0], 3, axis=1)
    h_z, h_r, h_h = np.split(h @ _real(recurrent_kernel) + bias[1], 3, axis=1)
    z = sigmoid(x_z + h_z)
    r = sigmoid(x_r + h_r)
    candidate = np.tanh(x_h + r * h_h)
    return z * h + (1.0 - z) * candidate


def gru_before_step(x, h, kernel, recurrent_kernel, bias):
    """One step of a GRU as published (Keras's `reset_after=False`); gates in Keras's order z, r, h.

    Source: Cho 2014, eqs. 5-8, the encoder; Bahdanau 2015, sec. A.1.1, the decoder, whose z is this
    1 - z and whose context stands in x. The reset gate multiplies h before the product:
        candidate = tanh(x W + (r h) U + b);  h' = z h + (1 - z) candidate.
    Deviation: a bias.

    Args:
        x: (B, E).
        h: (B, U).
        kernel: (E, 3U).
        recurrent_kernel: (U, 3U).
        bias: (3U,).

    Returns:
        h' (B, U).
    """
    x, h = _real(x), _real(h)
    x_z, x_r, x_h = np.split(x @ _real(kernel) + _real(bias), 3, axis=1)
    to_z, to_r, to_h = np.split(_real(recurrent_kernel), 3, axis=1)
    z = sigmoid(x_z + h @ to_z)
    r = sigmoid(x_r + h @ to_r)
    candidate = np.tanh(x_h + (r * h) @ to_h)
    return z * h + (1.0 - z) * candidate


def cho_step(x, context, h, kernel, recurrent_kernel, context_kernel, bias):
    """One step of Cho's decoder, whose every gate reads the context too; in the order z, r, h.

    Source: Cho 2014, sec. A.1.2. The reset gate covers the context as well as the state, and both
    after their products:
        candidate = tanh(x W + r (h U + context C) + b);  h' = z h + (1 - z) candidate.
    Deviation: a bias.

    Args:
        x: (B, E), the previous token.
        context: (B, D).
        h: (B, U).
        kernel: (E, 3U).
        recurrent_kernel: (U, 3U).
        context_kernel: (D, 3U).
        bias: (3U,).

    Returns:
        h' (B, U).
    """
    x, context, h = _real(x), _real(context), _real(h)
    x_z, x_r, x_h = np.split(x @ _real(kernel) + _real(bias), 3, axis=1)
    h_z, h_r, h_h = np.split(h @ _real(recurrent_kernel), 3, axis=1)
    c_z, c_r, c_h = np.split(context @ _real(context_kernel), 3, axis=1)
    z = sigmoid(x_z + h_z + c_z)
    r = sigmoid(x_r + h_r + c_r)
    candidate = np.tanh(x_h + r * (h_h + c_h))
    return z * h + (1.0 - z) * candidate


def simple_rnn_step(x, h, kernel, recurrent_kernel, bias):
    """One step of a simple recurrent network, h' = tanh(x W + h U + b).

    Source: Elman 1990; Cho 2014, eq. 1, with f = tanh.

    Args:
        x: (B, E).
        h: (B, U).
        kernel: (E, U).
        recurrent_kernel: (U, U).
        bias: (U,).

    Returns:
        h' (B, U).
    """
    return np.tanh(_real(x) @ _real(kernel) + _real(h) @ _real(recurrent_kernel) + _real(bias))


def cell_step(kind, x, states, weights):
    """One step of the cell named `kind`.

    Args:
        kind: "lstm", "gru" (reset after the product), "gru_before" or "simple_rnn".
        x: (B, E).
        states: (h, c) or (h,), each (B, U).
        weights: Triple kernel, recurrent_kernel, bias.

    Returns:
        Output (B, U), which is the new h, and the new states.
    """
    kernel, recurrent_kernel, bias = weights
    if kind == "lstm":
        h, c = lstm_step(x, *states, kernel, recurrent_kernel, bias)
        return h, (h, c)
    if kind == "gru":
        h = gru_step(x, *states, kernel, recurrent_kernel, bias)
        return h, (h,)
    if kind == "gru_before":
        h = gru_before_step(x, *states, kernel, recurrent_kernel, bias)
        return h, (h,)
    if kind == "simple_rnn":
        h = simple_rnn_step(x, *states, kernel, recurrent_kernel, bias)
        return h, (h,)
    raise ValueError(f"Expected one of {sorted(NUM_STATES)}. Received: {kind!r}")


def zero_states(kind, rows, units):
    """Returns the states of one layer before the first step, a tuple of zeros (rows, units)."""
    return tuple(np.zeros((rows, units)) for _ in range(NUM_STATES[kind]))


# === Recurrence over a sequence ===


def run_rnn(kind, inputs, mask, weights, initial=None, backwards=False):
    """Runs one recurrent layer over the tokens of each row, h_j = f(h_{j-1}, x_j).

    Source: Cho 2014, eq. 1; backwards as in Sutskever 2014, sec. 3.3. Each row is unpadded first,
    so padding is never seen: the state is held there. Backwards starts at the last token and ends
    at the first.

    Args:
        kind: Name of a cell.
        inputs: (B, S, E).
        mask: Bool (B, S), or None.
        weights: Triple kernel, recurrent_kernel, bias.
        initial: Tuple of (B, U), or None for zeros.
        backwards: Whether to read from the last token to the first.

    Returns:
        Outputs (B, S, U), output j beside input j in either direction, zero where masked; and the
        final states, a tuple of (B, U).
    """
    inputs = _real(inputs)
    rows, length, _ = inputs.shape
    mask = _tokens(mask, rows, length)
    units = np.shape(weights[1])[0]
    if initial is None:
        initial = zero_states(kind, rows, units)
    outputs = np.zeros((rows, length, units))
    finals = [np.zeros((rows, units)) for _ in initial]
    for b in range(rows):
        states = tuple(_real(tensor)[b : b + 1] for tensor in initial)
        tokens = [j for j in range(length) if mask[b, j]]
        if backwards:
            tokens.reverse()
        for j in tokens:
            output, states = cell_step(kind, inputs[b : b + 1, j], states, weights)
            outputs[b, j] = output[0]
        for final, state in zip(finals, states, strict=True):
            final[b] = state[0]
    return outputs, tuple(finals)


def bidirectional(kind, inputs, mask, forward_weights, backward_weights):
    """Runs two layers in opposite directions, h_j = [->h_j; <-h_j].

    Source: Schuster & Paliwal 1997; Bahdanau 2015, sec. 3.2 and eq. 7.

    Args:
        kind: Name of a cell.
        inputs: (B, S, E).
        mask: Bool (B, S), or None.
        forward_weights: Triple of the layer that starts at the first token.
        backward_weights: Triple of the layer that starts at the last token.

    Returns:
        Values (B, S, 2U), zero where masked; and the final states, a tuple of (B, 2U): for each
        state tensor the forward one after the last token, then the backward one after the first
        token.
    """
    forward, forward_states = run_rnn(kind, inputs, mask, forward_weights)
    backward, backward_states = run_rnn(kind, inputs, mask, backward_weights, backwards=True)
    values = np.concatenate([forward, backward], axis=2)
    states = tuple(
        np.concatenate([ahead, back], axis=1)
        for ahead, back in zip(forward_states, backward_states, strict=True)
    )
    return values, states


def stacked(kind, inputs, mask, layers, residual=False, backwards=False):
    """Runs several layers, each over the outputs of the one below.

    Source: Sutskever 2014, sec. 3.4 (stack); Wu 2016, sec. 3.1 (residual: a layer's input is added
    to its output, not to its state). The first layer is never residual, nor is one that changes the
    width.

    Args:
        kind: Name of a cell.
        inputs: (B, S, E).
        mask: Bool (B, S), or None.
        layers: One entry a layer: a triple of weights, or a pair (forward triple, backward triple)
            for a bidirectional layer.
        residual: Whether to add its input to the output of each layer from the second on.
        backwards: Whether unidirectional layers read from the last token to the first.

    Returns:
        Values (B, S, D) of the top layer, and the final states of all layers, a tuple of tuples.
        States know nothing of the residual sums.
    """
    values, states = _real(inputs), []
    for index, weights in enumerate(layers):
        if len(weights) == 2:
            outputs, final = bidirectional(kind, values, mask, *weights)
        else:
            outputs, final = run_rnn(kind, values, mask, weights, backwards=backwards)
        if residual and index > 0 and outputs.shape[2] == values.shape[2]:
            outputs = outputs + values  # both are zero where masked
        values = outputs
        states.append(final)
    return values, tuple(states)


def reverse_by_length(rows, lengths):
    """Turns each sequence round, but for its last token, EOS, and the padding: these stay.

    Source: Sutskever 2014, sec. 3.3, of a source that ends with EOS.

    Args:
        rows: (B, S, ...), ids or vectors.
        lengths: Int (B,), tokens a row, EOS included.

    Returns:
        Array of the shape and dtype of `rows`: entry j of row b is that of length - 2 - j.
    """
    rows = np.asarray(rows)
    result = rows.copy()
    for b in range(rows.shape[0]):
        words = int(lengths[b]) - 1
        for j in range(words):
            result[b, j] = rows[b, words - 1 - j]
    return result


# === Scores of one query and one key ===


def dot(query, key):
    """Source: Luong 2015, sec. 3.1, "dot": q^T k, of (U,) and (U,)."""
    query, key = _real(query), _real(key)
    if query.shape != key.shape:
        raise ValueError(f"Expected equal widths. Received: {query.shape} and {key.shape}")
    return float(sum(query[u] * key[u] for u in range(len(query))))


def scaled_dot(query, key):
    """Source: Vaswani 2017, eq. 1: q^T k / sqrt(d), d the common width."""
    return dot(query, key) / math.sqrt(len(query))


def general(query, key, kernel):
    """Source: Luong 2015, sec. 3.1, "general": q^T K k, of (U,), (C,) and kernel (U, C)."""
    query, key, kernel = _real(query), _real(key), _real(kernel)
    total = 0.0
    for u in range(len(query)):
        for c in range(len(key)):
            total += query[u] * kernel[u, c] * key[c]
    return float(total)


def additive(query, key, query_kernel, key_kernel, scale):
    """Scores by a small network, v_a^T tanh(W_a q + U_a k).

    Source: Bahdanau 2015, sec. A.1.2.

    Args:
        query: (U,).
        key: (C,).
        query_kernel: (U, A), W_a transposed.
        key_kernel: (C, A), U_a transposed.
        scale: (A,), v_a.

    Returns:
        Float.
    """
    hidden = np.tanh(_real(query) @ _real(query_kernel) + _real(key) @ _real(key_kernel))
    return dot(scale, hidden)


def low_rank(query, key, query_kernel, key_kernel):
    """Scores in a common narrow space, (q W_q) . (k W_k): `general` with W_q W_k^T as its kernel.

    Args:
        query: (U,).
        key: (C,).
        query_kernel: (U, R).
        key_kernel: (C, R).

    Returns:
        Float.
    """
    return dot(_real(query) @ _real(query_kernel), _real(key) @ _real(key_kernel))


def concat(query, key, kernel, scale):
    """Scores by a small network on the query and the key below it, v_a^T tanh(W_a [q; k]).

    Source: Luong 2015, sec. 3.1, "concat".

    Args:
        query: (U,).
        key: (C,).
        kernel: (U + C, A), W_a transposed.
        scale: (A,), v_a.

    Returns:
        Float.
    """
    together = np.concatenate([_real(query), _real(key)])
    return dot(scale, np.tanh(together @ _real(kernel)))


def location(query, kernel, length):
    """Scores of positions from the query alone, W_a q: no key is read.

    Source: Luong 2015, sec. 3.1, "location": a shorter source takes the first of the scores, a
    longer one is not attended to behind the last.

    Args:
        query: (U,).
        kernel: (U, L), W_a transposed.
        length: Int, the number of source positions.

    Returns:
        (length,), -inf from position L on.
    """
    scores = _real(query) @ _real(kernel)
    result = np.full(length, -np.inf)
    for j in range(min(length, len(scores))):
        result[j] = scores[j]
    return result


def location_features(previous, filters):
    """The features of each position in the previous alignments, f = F * alpha.

    Source: Chorowski 2015, eq. 8. As in Keras the filter is not turned round, stands with its
    middle on the position, and reads zeros off either end:
        f_j = sum_w alpha_{j + w - (W - 1) / 2} F_w.

    Args:
        previous: (S,).
        filters: (W, 1, F), W odd.

    Returns:
        (S, F).
    """
    previous, filters = _real(previous), _real(filters)
    width, _, depth = filters.shape
    if width % 2 == 0:
        raise ValueError(f"Expected an odd number of taps. Received: {width}")
    result = np.zeros((len(previous), depth))
    for j in range(len(previous)):
        for w in range(width):
            k = j + w - width // 2
            if 0 <= k < len(previous):
                result[j] += previous[k] * filters[w, 0]
    return result


def location_sensitive(query, key, feature, query_kernel, key_kernel, feature_kernel, bias, scale):
    """Scores by a small network that also reads where attention was, w^T tanh(W q + V k + U f + b).

    Source: Chorowski 2015, eq. 9.

    Args:
        query: (U,).
        key: (C,).
        feature: (F,), a row of `location_features`.
        query_kernel: (U, A).
        key_kernel: (C, A).
        feature_kernel: (F, A).
        bias: (A,).
        scale: (A,), their w.

    Returns:
        Float.
    """
    hidden = _real(query) @ _real(query_kernel) + _real(key) @ _real(key_kernel)
    hidden = hidden + _real(feature) @ _real(feature_kernel) + _real(bias)
    return dot(scale, np.tanh(hidden))


def coverage(query, key, covered, query_kernel, key_kernel, coverage_kernel, bias, scale):
    """Scores by a small network that also reads how much attention its position has had.

    Source: See 2017, eq. 11: v^T tanh(W_h k + W_s q + w_c c + b), c the sum of the alignments of
    the position so far (eq. 10).

    Args:
        query: (U,).
        key: (C,).
        covered: Float, c.
        query_kernel: (U, A).
        key_kernel: (C, A).
        coverage_kernel: (1, A), w_c.
        bias: (A,).
        scale: (A,), v.

    Returns:
        Float.
    """
    hidden = _real(query) @ _real(query_kernel) + _real(key) @ _real(key_kernel)
    hidden = hidden + float(covered) * _real(coverage_kernel)[0] + _real(bias)
    return dot(scale, np.tanh(hidden))


def fertility(key, kernel, most):
    """How many tokens a source token is expected to make, N sigmoid(U_f h), between 0 and N.

    Source: Tu 2016, sec. 3.1.1, linguistic coverage, where the covered amount is the sum of the
    past alignments over this.

    Args:
        key: (C,).
        kernel: (C, 1), U_f transposed.
        most: Float, N.

    Returns:
        Float.
    """
    return float(most * sigmoid(dot(key, _real(kernel)[:, 0])))


# === Attention ===


def attend(score_fn, queries, values, keys=None, mask=None, attention_mask=None):
    """Weights the values by the softmax of the scores of their keys, c_i = sum_j alpha_ij h_j.

    Source: Bahdanau 2015, eqs. 5 and 6; Luong 2015, eq. 7.

    Args:
        score_fn: Function (query (U,), key (C,)) -> float.
        queries: (B, Q, U).
        values: (B, S, D).
        keys: (B, S, C); None means the values.
        mask: Bool (B, S), or None: which sources are tokens.
        attention_mask: Bool (B, Q, S), or None: which source each query may see.

    Returns:
        Contexts (B, Q, D) and alignments (B, Q, S); both zero where a query sees nothing.
    """
    queries, values = _real(queries), _real(values)
    keys = values if keys is None else _real(keys)
    rows, num_queries, _ = queries.shape
    _, length, depth = values.shape
    mask = _tokens(mask, rows, length)
    contexts = np.zeros((rows, num_queries, depth))
    alignments = np.zeros((rows, num_queries, length))
    for b in range(rows):
        for i in range(num_queries):
            visible = mask[b]
            if attention_mask is not None:
                visible = visible & np.asarray(attention_mask).astype(bool)[b, i]
            scores = np.zeros(length)
            for j in range(length):
                if visible[j]:
                    scores[j] = score_fn(queries[b, i], keys[b, j])
            alignments[b, i] = softmax(scores, visible)
            for j in range(length):
                if visible[j]:
                    contexts[b, i] += alignments[b, i, j] * values[b, j]
    return contexts, alignments


def multi_head(
    score_fn,
    queries,
    keys,
    values,
    query_kernel,
    key_kernel,
    value_kernel,
    output_kernel,
    heads,
    mask=None,
):
    """Attends several times, each head to its own slice of the projections.

    Source: Vaswani 2017, sec. 3.2.2: head_i = attention(Q W_i^Q, K W_i^K, V W_i^V), and
    [head_1; ...; head_H] W^O. The kernels of the heads stand side by side. No biases.

    Args:
        score_fn: Function (query (P/H,), key (P/H,)) -> float.
        queries: (B, Q, U).
        keys: (B, S, C).
        values: (B, S, D).
        query_kernel: (U, P).
        key_kernel: (C, P).
        value_kernel: (D, W).
        output_kernel: (W, D').
        heads: Int, H, a divisor of P and of W.
        mask: Bool (B, S), or None: which sources are tokens.

    Returns:
        Contexts (B, Q, D') and alignments of the heads (B, H, Q, S).
    """
    queries = _real(queries) @ _real(query_kernel)
    keys = _real(keys) @ _real(key_kernel)
    values = _real(values) @ _real(value_kernel)
    if queries.shape[2] % heads or values.shape[2] % heads:
        raise ValueError(
            f"Expected widths that {heads} divides. Received: {queries.shape[2]} and "
            f"{values.shape[2]}"
        )
    narrow, deep = queries.shape[2] // heads, values.shape[2] // heads
    contexts, alignments = [], []
    for head in range(heads):
        slices = slice(head * narrow, (head + 1) * narrow)
        context, alignment = attend(
            score_fn,
            queries[:, :, slices],
            values[:, :, head * deep : (head + 1) * deep],
            keys=keys[:, :, slices],
            mask=mask,
        )
        contexts.append(context)
        alignments.append(alignment)
    return np.concatenate(contexts, axis=2) @ _real(output_kernel), np.stack(alignments, axis=1)


# === Windows: which positions of one source a query may read ===
# Positions are counted from 0. A window is clipped at both ends of the source.


def local_m(scores, t, width, mask=None):
    """The softmax over the window |j - t| <= D around the query's own position t.

    Source: Luong 2015, sec. 3.2, "local-m".

    Args:
        scores: (S,).
        t: Int, the query's position in the target.
        width: D, positions to either side.
        mask: Bool (S,), or None.

    Returns:
        (S,), zero outside the window; all zeros where it holds no token.
    """
    scores = _real(scores)
    window = [abs(j - t) <= width for j in range(len(scores))]
    if mask is not None:
        window = [inside and bool(token) for inside, token in zip(window, mask, strict=True)]
    return softmax(scores, window)


def predicted_position(query, kernel, scale, length):
    """The real number p_t = S sigmoid(v_p^T tanh(W_p q)) between 0 and S.

    Source: Luong 2015, sec. 3.2, "local-p".

    Args:
        query: (U,).
        kernel: (U, A), W_p transposed.
        scale: (A,), v_p.
        length: S, the tokens of the source.

    Returns:
        Float.
    """
    return float(length * sigmoid(dot(scale, np.tanh(_real(query) @ _real(kernel)))))


def local_p(scores, position, width, mask=None):
    """The softmax over the window |j - p| <= D, times the Gaussian exp(-(j - p)^2 / (2 sigma^2)).

    Source: Luong 2015, sec. 3.2, "local-p", sigma = D / 2. The products are not normalised again:
    their sum is at most 1.

    Args:
        scores: (S,).
        position: Float, p.
        width: D > 0, positions to either side.
        mask: Bool (S,), or None.

    Returns:
        (S,), zero outside the window; all zeros where it holds no token.
    """
    result = local_m(scores, position, width, mask)
    sigma = width / 2.0
    for j in range(len(result)):
        result[j] *= math.exp(-((j - position) ** 2) / (2.0 * sigma**2))
    return result


# === Monotonic attention: one query of one source ===


def monotonic_expected(chances, previous):
    """The expected alignments of a reader that starts where it last stopped, and may stop there.

    Source: Raffel 2017, eq. 9: alpha_j = p_j sum_{k<=j} previous_k prod_{l=k}^{j-1} (1 - p_l). The
    reader passes the end with the probability that is missing from the sum.

    Args:
        chances: (S,), p_j: to stop at j when there.
        previous: (S,), the alignments of the query before; one-hot at 0 for the first query.

    Returns:
        (S,), of sum at most that of `previous`.
    """
    chances, previous = _real(chances), _real(previous)
    result = np.zeros(len(chances))
    for j in range(len(chances)):
        for k in range(j + 1):
            passed = 1.0
            for i in range(k, j):
                passed *= 1.0 - chances[i]
            result[j] += chances[j] * previous[k] * passed
    return result


def monotonic_hard(chances, previous):
    """The first position from the previous one on whose chance exceeds 1/2.

    Source: Raffel 2017, sec. 2.2, with a threshold in the place of the draws. Once past the end,
    the reader never comes back.

    Args:
        chances: (S,).
        previous: (S,), one-hot or zeros.

    Returns:
        (S,), one-hot, or zeros where there is no such position.
    """
    chances, previous = _real(chances), _real(previous)
    result = np.zeros(len(chances))
    reading = False
    for j in range(len(chances)):
        reading = reading or previous[j] == 1.0
        if reading and chances[j] > 0.5:
            result[j] = 1.0
            break
    return result


# === Coverage ===


def coverage_penalty(alignments):
    """How far each query reads again what was read: sum_j min(a_tj, c_tj), c_t the sum before t.

    Source: See 2017, eq. 12.

    Args:
        alignments: (T, S), of one target and its source.

    Returns:
        (T,), 0 at first.
    """
    alignments = _real(alignments)
    steps, length = alignments.shape
    result = np.zeros(steps)
    for t in range(steps):
        for j in range(length):
            covered = math.fsum(alignments[before, j] for before in range(t))
            result[t] += min(alignments[t, j], covered)
    return result


# === Summaries: one vector a source ===


def summary_last(states):
    """The final h of the top layer, (B, U) or (B, 2U) as [forward; backward].

    Source: Cho 2014, sec. 2.2; Sutskever 2014, sec. 2.

    Args:
        states: Tuple over layers of tuples of final states, as `stacked` returns them.
    """
    return _real(states[-1][0])


def summary_mean(values, mask=None):
    """The mean over tokens of values (B, S, D): (B, D); zeros for a row without tokens."""
    values = _real(values)
    rows, length, depth = values.shape
    mask = _tokens(mask, rows, length)
    result = np.zeros((rows, depth))
    for b in range(rows):
        tokens = [j for j in range(length) if mask[b, j]]
        for j in tokens:
            result[b] += values[b, j] / len(tokens)
    return result


def summary_max(values, mask=None):
    """The largest of each feature over tokens (winner takes all) of values (B, S, D): (B, D)."""
    values = _real(values)
    rows, length, depth = values.shape
    mask = _tokens(mask, rows, length)
    result = np.zeros((rows, depth))
    for b in range(rows):
        tokens = [j for j in range(length) if mask[b, j]]
        for d in range(depth):
            if tokens:
                result[b, d] = max(values[b, j, d] for j in tokens)
    return result


def summary_gated(values, mask, kernel, bias):
    """The mean over tokens of gated values, (1/n) sum_j gate_j * h_j, elementwise.

    Source: the design's own formula (saliency without a query): gate_j = sigmoid(h_j @ kernel + b),
    n the number of tokens of the row.

    Args:
        values: (B, S, D).
        mask: Bool (B, S), or None.
        kernel: (D, D).
        bias: (D,).

    Returns:
        (B, D), zeros for a row without tokens.
    """
    values, kernel, bias = _real(values), _real(kernel), _real(bias)
    gated = np.zeros(values.shape)
    for b in range(values.shape[0]):
        for j in range(values.shape[1]):
            gate = sigmoid(values[b, j] @ kernel + bias)
            gated[b, j] = gate * values[b, j]
    return summary_mean(gated, mask)


def summary_concat(values, mask, length):
    """All values one behind the other, [h_1; ...; h_length], zeros behind the last token.

    Source: the article's literal code [y_1 ... y_t], for a fixed source length.

    Args:
        values: (B, S, D).
        mask: Bool (B, S), or None.
        length: Int, the fixed source length in tokens.

    Returns:
        (B, length * D).

    Raises:
        ValueError: A token stands behind `length`.
    """
    values = _real(values)
    rows, positions, depth = values.shape
    mask = _tokens(mask, rows, positions)
    result = np.zeros((rows, length * depth))
    for b in range(rows):
        for j in range(positions):
            if not mask[b, j]:
                continue
            if j >= length:
                raise ValueError(f"Expected at most {length} positions. Received: a token at {j}")
            result[b, j * depth : (j + 1) * depth] = values[b, j]
    return result


# === Bridges: from the encoder to the decoder's first states ===


def bridge_zeros(kind, num_layers, rows, units):
    """First states of zeros (the pure form of a context at every step): layers of tuples (B, U)."""
    return tuple(zero_states(kind, rows, units) for _ in range(num_layers))


def bridge_copy(encoder_states):
    """The final states of encoder layer i start decoder layer i.

    Source: Sutskever 2014, sec. 3.4 (all h and c of all layers are the code).
    """
    return tuple(tuple(_real(tensor) for tensor in layer) for layer in encoder_states)


def bridge_dense(encoder_states, weights):
    """First states tanh(W state + b), one W for each layer and kind of state (h from h, c from c).

    Source: Cho 2014, app. A, s_0 = tanh(V' c); Bahdanau 2015, sec. A.2.2, s_0 = tanh(W_s <-h_1).
    Deviations: the whole final state [forward; backward] is read, and there is a bias.

    Args:
        encoder_states: Tuple over layers of tuples of (B, D).
        weights: Over layers, over states: pairs kernel (D, U), bias (U,).

    Returns:
        Tuple over layers of tuples of (B, U).
    """
    projected = bridge_linear(encoder_states, weights)
    return tuple(tuple(np.tanh(tensor) for tensor in layer) for layer in projected)


def bridge_linear(encoder_states, weights):
    """First states W state + b, one W for each layer and kind of state, without tanh.

    Args:
        encoder_states: Tuple over layers of tuples of (B, D).
        weights: Over layers, over states: pairs kernel (D, U), bias (U,).

    Returns:
        Tuple over layers of tuples of (B, U).
    """
    return tuple(
        tuple(
            _real(tensor) @ _real(kernel) + _real(bias)
            for tensor, (kernel, bias) in zip(layer, pairs, strict=True)
        )
        for layer, pairs in zip(encoder_states, weights, strict=True)
    )


def bridge_summary(summary, weights):
    """First states tanh(W summary + b), one W for each state tensor.

    Source: Cho 2014, app. A, s_0 = tanh(V' c). Deviation: a bias.

    Args:
        summary: (B, D).
        weights: Over layers, over states: pairs kernel (D, U), bias (U,).

    Returns:
        Tuple over layers of tuples of (B, U).
    """
    summary = _real(summary)
    return tuple(
        tuple(np.tanh(summary @ _real(kernel) + _real(bias)) for kernel, bias in pairs)
        for pairs in weights
    )


# === Readouts: from state, context and previous token to logits ===


def features_linear(state, context):
    """The features [state; context] as they are, of (B, U) and (B, D): (B, U + D)."""
    return np.concatenate([_real(state), _real(context)], axis=1)


def features_tanh(state, context, kernel):
    """The attentional state tanh(W_c [c; s]), context first, without a bias.

    Source: Luong 2015, eq. 5.

    Args:
        state: (B, U).
        context: (B, D).
        kernel: (D + U, F), W_c transposed.

    Returns:
        (B, F).
    """
    return np.tanh(np.concatenate([_real(context), _real(state)], axis=1) @ _real(kernel))


def features_maxout(state, embedded, context, kernel):
    """The larger of each pair of t = O_s s + O_y y + O_c c: max(t_0, t_1), max(t_2, t_3), ...

    Source: Bahdanau 2015, sec. A.2.2 (their U_o, V_o, C_o); Cho 2014, app. A; Goodfellow 2013. No
    bias.

    Args:
        state: (B, U).
        embedded: (B, E).
        context: (B, D).
        kernel: (U + E + D, 2F), O_s, O_y and O_c transposed, one below the other.

    Returns:
        (B, F).
    """
    together = np.concatenate([_real(state), _real(embedded), _real(context)], axis=1)
    t = together @ _real(kernel)  # (B, 2F)
    features = np.zeros((t.shape[0], t.shape[1] // 2))
    for b in range(features.shape[0]):
        for i in range(features.shape[1]):
            features[b, i] = max(t[b, 2 * i], t[b, 2 * i + 1])
    return features


def readout(kind, state, context, embedded, kernel=None):
    """Features (B, F) of the readout named `kind`: "linear", "tanh" or "maxout"."""
    if kind == "linear":
        return features_linear(state, context)
    if kind == "tanh":
        return features_tanh(state, context, kernel)
    if kind == "maxout":
        return features_maxout(state, embedded, context, kernel)
    raise ValueError(f"Expected one of linear, tanh, maxout. Received: {kind!r}")


def output_logits(features, kernel, bias):
    """Source: Luong 2015, eq. 6: W_s s~ + b, of (B, F), (F, V) and (V,): (B, V). Deviation: b."""
    return _real(features) @ _real(kernel) + _real(bias)


# === Copying, of one row ===


def copy_slots(source_ids, source_to_target, source_size, target_size):
    """Where in the extended target vocabulary the copy of each source token goes.

    Source: See 2017, sec. 2.2 (the union of the vocabulary and the words of the source); the ids
    are DESIGN.md's. PAD, BOS, EOS and UNK go to themselves; a token that the target vocabulary has,
    to its id there; any other to target_size + j, j the first position of its id in the row.

    Args:
        source_ids: Int (S,); source_size + j is an unknown token, j its first position.
        source_to_target: Int (source_size,): the target's id of each source token, or UNK.
        source_size: Int, the size of the source vocabulary.
        target_size: Int, the size of the target vocabulary.

    Returns:
        Int (S,), each below target_size + S.
    """
    source_ids = [int(token_id) for token_id in source_ids]
    slots = []
    for token_id in source_ids:
        if token_id in (PAD, BOS, EOS, UNK):
            slots.append(token_id)
        elif token_id < source_size and int(source_to_target[token_id]) != UNK:
            slots.append(int(source_to_target[token_id]))
        else:
            slots.append(target_size + source_ids.index(token_id))
    return np.array(slots, np.int64)


def pointer_generator(logits, gate, alignments, slots, width):
    """Mixes generating and copying, p(w) = g P_vocab(w) + (1 - g) sum of alpha_j where x_j is w.

    Source: See 2017, eq. 9.

    Args:
        logits: (V,).
        gate: Float in (0, 1), g: the probability of generating.
        alignments: (S,).
        slots: Int (S,), from `copy_slots`.
        width: Int >= V, the size of the extended vocabulary.

    Returns:
        Probabilities (width,), of sum 1 where the alignments have sum 1.
    """
    generated = softmax(logits)
    result = np.zeros(width)
    for token_id in range(len(generated)):
        result[token_id] += gate * generated[token_id]
    for j, slot in enumerate(slots):
        result[slot] += (1.0 - gate) * float(alignments[j])
    return result


# === Decoder ===


def recurrent_stack_step(kind, x, states, cells):
    """One step of a stack of cells without residual connections.

    Source: Sutskever 2014, sec. 3.4.

    Args:
        kind: Name of a cell.
        x: (B, E).
        states: Tuple over layers of tuples of (B, U).
        cells: Tuple over layers of triples.

    Returns:
        The top layer's output (B, U), and the new states.
    """
    updated = []
    for layer, weights in zip(states, cells, strict=True):
        x, layer = cell_step(kind, x, layer, weights)
        updated.append(layer)
    return x, tuple(updated)


def read_context(variant, query, encoded, weights):
    """The context of one step.

    Args:
        variant: A `Variant`.
        query: (B, U), read by attention alone.
        encoded: An `Encoded`.
        weights: A `DecoderWeights`.

    Returns:
        Context (B, D) and alignments (B, S); without attention the alignments are (B, 0).
    """
    rows = query.shape[0]
    if variant.context == "none":
        return np.zeros((rows, 0)), np.zeros((rows, 0))
    if variant.context == "fixed":
        return _real(encoded.summary), np.zeros((rows, 0))
    if variant.context == "attention":
        queries = query[:, np.newaxis, :]
        contexts, alignments = attend(weights.score, queries, encoded.values, mask=encoded.mask)
        return contexts[:, 0], alignments[:, 0]
    raise ValueError(f"Expected one of none, fixed, attention. Received: {variant.context!r}")


def first_fed(variant, rows, weights):
    """What input feeding feeds to the first step: zeros (B, F); without it, width 0."""
    width = np.shape(weights.output_kernel)[0] if variant.input_feeding else 0
    return np.zeros((rows, width))


def decode_step(variant, embedded, states, fed, encoded, weights):
    """One step of a decoder.

    "update_attend", Luong 2015, sec. 3 and 3.3: s_t from [embedded; fed]; the context from s_t; the
    features from s_t, context and embedded. The context does not enter the recurrence.
    "attend_update", Bahdanau 2015, sec. 3.1 and A.2.2: the context from s_{t-1}; s_t from
    [embedded; context; fed]; the features from s_t (eq. 4) or s_{t-1} (sec. A.2.2), context and
    embedded. With the fixed context this is the decoder of Cho 2014, app. A, but for their cell,
    where the reset gate also covers C c (`cho_step`). The s of a stack is the top layer's h.

    Args:
        variant: A `Variant`.
        embedded: (B, E), the previous token; dropped where the variant has no feedback.
        states: Tuple over layers of tuples of (B, U).
        fed: (B, F) as `first_fed` or the last step returned it.
        encoded: An `Encoded`.
        weights: A `DecoderWeights`.

    Returns:
        Logits (B, V), alignments (B, S) or (B, 0), the new states, and what to feed next.
    """
    embedded = _real(embedded)
    if not variant.feedback:
        embedded = embedded[:, :0]
    if variant.order == "update_attend":
        if variant.readout_state != "current":
            raise ValueError("A readout of the previous state needs the order 'attend_update'.")
        x = np.concatenate([embedded, fed], axis=1)
        state, states = recurrent_stack_step(variant.cell, x, states, weights.cells)
        context, alignments = read_context(variant, state, encoded, weights)
    elif variant.order == "attend_update":
        previous = _real(states[-1][0])
        context, alignments = read_context(variant, previous, encoded, weights)
        x = np.concatenate([embedded, context, fed], axis=1)
        state, states = recurrent_stack_step(variant.cell, x, states, weights.cells)
        if variant.readout_state == "previous":
            state = previous
        elif variant.readout_state != "current":
            raise ValueError(f"Expected current or previous. Received: {variant.readout_state!r}")
    else:
        raise ValueError(f"Expected update_attend or attend_update. Received: {variant.order!r}")
    features = readout(variant.readout, state, context, embedded, weights.readout_kernel)
    logits = output_logits(features, weights.output_kernel, weights.output_bias)
    return logits, alignments, states, features if variant.input_feeding else fed


def decode(variant, embedded, encoded, initial, weights):
    """Teacher forcing, one step after the other.

    Args:
        variant: A `Variant`.
        embedded: (B, T, E), the embedded target_in. (For `start="summary"`, put the projected
            summary in the place of the first.)
        encoded: An `Encoded`.
        initial: First states from a bridge, a tuple over layers of tuples of (B, U).
        weights: A `DecoderWeights`.

    Returns:
        Logits (B, T, V), and alignments (B, T, S), or (B, T, 0) without attention.
    """
    embedded = _real(embedded)
    rows, length, _ = embedded.shape
    states, fed = initial, first_fed(variant, rows, weights)
    all_logits, all_alignments = [], []
    for t in range(length):
        logits, alignments, states, fed = decode_step(
            variant, embedded[:, t], states, fed, encoded, weights
        )
        all_logits.append(logits)
        all_alignments.append(alignments)
    return np.stack(all_logits, axis=1), np.stack(all_alignments, axis=1)


# === Probabilities and gradients ===


def log_probability(logits, target_out, pad=PAD):
    """The log p of each target, sum_t log p(y_t | y_<t, x), in nats.

    Source: Sutskever 2014, eq. 1; log p is over all V ids, and EOS counts.

    Args:
        logits: (B, T, V).
        target_out: Int (B, T), `y... </s>`, `pad` where there is no token.
        pad: Int, the id of padding.

    Returns:
        (B,).
    """
    logits, target_out = _real(logits), np.asarray(target_out)
    rows, length, _ = logits.shape
    result = np.zeros(rows)
    for b in range(rows):
        for t in range(length):
            if target_out[b, t] != pad:
                result[b] += log_softmax(logits[b, t])[target_out[b, t]]
    return result


def finite_difference(function, arrays, epsilon=1e-6):
    """Gradients by central differences, (f(x + epsilon) - f(x - epsilon)) / (2 epsilon).

    Args:
        function: Function of the arrays, called as `function(*arrays)`, that returns a float.
        arrays: Sequence of arrays; they are copied.
        epsilon: Float, the step in each coordinate.

    Returns:
        List of float64 arrays, one gradient an array, of its shape.
    """
    arrays = [np.array(array, np.float64) for array in arrays]
    gradients = []
    for array in arrays:
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + epsilon
            above = float(function(*arrays))
            array[index] = kept - epsilon
            below = float(function(*arrays))
            array[index] = kept
            gradient[index] = (above - below) / (2.0 * epsilon)
        gradients.append(gradient)
    return gradients


# === Search, for one source ===
# `step` is a function (token_id, state) -> (logits (V,), state) or, where the alignments matter,
# (logits (V,), alignments (S,), state); it gets BOS first, and must not change the state that it is
# given. Log p will do as logits. `**rules` are the options of `choices`.


def length_penalty_of(length, alpha):
    """Source: Wu 2016, eq. 14: lp(Y) = ((5 + |Y|) / 6)^alpha, |Y| counting EOS."""
    return ((5.0 + length) / 6.0) ** alpha


def coverage_penalty_of(alignments, beta, source_mask=None):
    """Source: Wu 2016, eq. 14: cp(X; Y) = beta * sum_j log(min(sum_t a_tj, 1)).

    Only the source's tokens are summed over. Deviation: a sum below 1e-9 counts as 1e-9.

    Args:
        alignments: (T, S), one row a token of the target, EOS included.
        beta: Float.
        source_mask: Bool (S,), True at tokens; None means that all are.

    Returns:
        Float <= 0 for beta >= 0.
    """
    alignments = _real(alignments)
    if beta == 0 or not len(alignments):
        return 0.0
    (tokens,) = _tokens(None if source_mask is None else [source_mask], 1, alignments.shape[1])
    terms = []
    for j in range(alignments.shape[1]):
        if tokens[j]:
            total = math.fsum(alignments[t, j] for t in range(len(alignments)))
            terms.append(math.log(min(max(total, 1e-9), 1.0)))
    return beta * math.fsum(terms)


def choices(
    num_ids,
    token_ids,
    empty_source=False,
    min_length=0,
    banned=(),
    no_repeat=0,
    allowed=None,
    prefix=(),
):
    """The ids that may follow `token_ids`, in rising order.

    PAD and BOS never do. The rules come on top of that and of each other; only a forced prefix, and
    the end of an empty source, do not ask the others.

    Args:
        num_ids: Int, V.
        token_ids: Sequence of the ids so far, without BOS.
        empty_source: Whether the source has no token but EOS; then EOS is forced at the first
            position.
        min_length: Int; EOS is no choice where it would make a target of fewer tokens, itself
            included.
        banned: Ids that are never chosen.
        no_repeat: Int n; no n tokens in a row may come twice, overlapping or not (Paulus 2017,
            sec. 2.5, with n = 3); 0 for no such rule.
        allowed: Sequence of targets, each with EOS at its end; what is chosen must begin one of
            them (De Cao 2021). None for no such rule.
        prefix: Ids that the target must begin with.

    Returns:
        List of ids.
    """
    token_ids = list(token_ids)
    position = len(token_ids)
    if empty_source and position == 0:
        return [EOS]
    if position < len(prefix):
        return [int(prefix[position])]
    result = []
    for token_id in range(num_ids):
        longer = [*token_ids, token_id]
        if token_id in (PAD, BOS) or token_id in banned:
            continue
        if token_id == EOS and len(longer) < min_length:
            continue
        if no_repeat > 0:
            runs = [tuple(longer[i : i + no_repeat]) for i in range(len(longer) - no_repeat + 1)]
            if runs and runs[-1] in runs[:-1]:
                continue
        if allowed is not None and not any(list(one[: len(longer)]) == longer for one in allowed):
            continue
        result.append(token_id)
    return result


def _hypothesis(token_ids, token_scores, alpha, coverage=0.0):
    """Makes the record of a sequence; `coverage` is its coverage penalty."""
    score = math.fsum(token_scores)
    return Hypothesis(
        token_ids=tuple(token_ids),
        score=score,
        penalised_score=score / length_penalty_of(len(token_ids), alpha) + coverage,
        token_scores=tuple(token_scores),
        finished=bool(token_ids) and token_ids[-1] == EOS,
    )


def _take_step(step, token_ids, state, rules):
    """What may follow: pairs (id, log p) by rising id; then the alignments (S,) and the state.

    An id of log p -inf or NaN is impossible, and is left out. Without alignments, they are (0,).
    """
    logits, *alignments, state = step(token_ids[-1] if token_ids else BOS, state)
    with np.errstate(invalid="ignore"):
        log_p = log_softmax(logits)
    pairs = []
    for token_id in choices(len(log_p), token_ids, **rules):
        if log_p[token_id] > -math.inf:  # false of NaN
            pairs.append((token_id, float(log_p[token_id])))
    return pairs, _real(alignments[0]) if alignments else np.zeros(0), state


def greedy(
    step: Callable, state: Any, max_length: int, empty_source: bool = False, **rules: Any
) -> Hypothesis:
    """Takes the likeliest id at each position, until EOS or `max_length` tokens.

    Source: DESIGN.md. Probabilities are over all V ids; PAD and BOS are never chosen, without
    renormalising; of equals the smallest id is taken. EOS counts, in score and in length.

    Args:
        step: Function (token_id, state) -> (logits (V,), state).
        state: The state before the first step.
        max_length: Int >= 1, in tokens, EOS included.
        empty_source: Whether the source has no token but EOS; then EOS is forced at the first
            position.
        **rules: Other options of `choices`.

    Returns:
        A `Hypothesis`; cut at `max_length` tokens it has no EOS and is not `finished`. Where at
        some position nothing is possible there is none: no tokens, and a score of -inf.
    """
    rules = {"empty_source": empty_source, **rules}
    token_ids, token_scores = [], []
    while len(token_ids) < max_length and token_ids[-1:] != [EOS]:
        pairs, _, state = _take_step(step, token_ids, state, rules)
        best = None
        for pair in pairs:
            if best is None or pair[1] > best[1]:
                best = pair
        if best is None:
            return Hypothesis((), -math.inf, -math.inf, (), False)
        token_ids.append(best[0])
        token_scores.append(best[1])
    return _hypothesis(token_ids, token_scores, 0.0)


def brute_force_best(
    step: Callable,
    state: Any,
    max_length: int,
    length_penalty: float = 0.0,
    empty_source: bool = False,
    coverage_penalty: float = 0.0,
    source_mask: Any = None,
    **rules: Any,
) -> Sequence[Hypothesis]:
    """Every sequence that a search could return, best first: what a beam of unlimited width finds.

    A sequence ends with EOS, or is cut after `max_length` tokens without one; one with a token of
    probability zero is none. Without rules their number is at most sum_{t<T} w^t + w^T, with
    w = V - 3 and T = `max_length`: for tiny V and T only.

    Args:
        step: Function (token_id, state) -> (logits (V,), state), or with alignments (S,) between.
        state: The state before the first step.
        max_length: Int >= 1, in tokens, EOS included.
        length_penalty: Float, Wu's alpha; 0 orders by log p.
        empty_source: Whether the source has no token but EOS.
        coverage_penalty: Float, Wu's beta; 0 asks for no alignments.
        source_mask: Bool (S,), True at the source's tokens; None means that all are.
        **rules: Other options of `choices`.

    Returns:
        List of `Hypothesis`, by falling penalised score; of equals the smaller ids come first.
    """
    rules = {"empty_source": empty_source, **rules}
    found = []

    def extend(state, token_ids, token_scores, alignments):
        if len(token_ids) == max_length or token_ids[-1:] == [EOS]:
            coverage = coverage_penalty_of(alignments, coverage_penalty, source_mask)
            found.append(_hypothesis(token_ids, token_scores, length_penalty, coverage))
            return
        pairs, now, state = _take_step(step, token_ids, state, rules)
        for token_id, log_p in pairs:
            extend(state, [*token_ids, token_id], [*token_scores, log_p], [*alignments, now])

    extend(state, [], [], [])
    return sorted(found, key=lambda one: (-one.penalised_score, one.token_ids))


def beam(
    step: Callable,
    state: Any,
    max_length: int,
    width: int,
    num_return: int | None = None,
    length_penalty: float = 0.0,
    coverage_penalty: float = 0.0,
    source_mask: Any = None,
    **rules: Any,
) -> tuple[list[Hypothesis], int]:
    """Beam search whose ended hypotheses keep their slots, unchanged, until better ones take them.

    At each step every hypothesis under way offers all its extensions, an ended one (by EOS, or cut
    at `max_length` tokens) only itself; the `width` best of all stay. They are ranked by Wu 2016,
    eq. 14, those under way at their present length; of equals, what comes from the better slot is
    first, and then the smaller id. It is over when nothing is under way, or when what is cannot get
    among the `num_return` best: when the last of the best ended ranks above log p / lp(max_length)
    of each one under way.

    Args:
        step: Function (token_id, state) -> (logits (V,), state), or with alignments (S,) between.
        state: The state before the first step.
        max_length: Int >= 1, in tokens, EOS included.
        width: Int >= 1.
        num_return: Int from 1 to `width`, or None for `width`.
        length_penalty: Float >= 0, Wu's alpha.
        coverage_penalty: Float >= 0, Wu's beta.
        source_mask: Bool (S,), True at the source's tokens; None means that all are.
        **rules: Options of `choices`.

    Returns:
        List of at most `num_return` `Hypothesis`, best first, and the number of steps taken.
    """
    num_return = width if num_return is None else num_return

    def is_ended(one):
        return one.finished or len(one.token_ids) == max_length

    slots = [(_hypothesis([], [], length_penalty), state, [])]  # with state and alignments
    steps = 0
    while True:
        ended = [one for one, _, _ in slots if is_ended(one)][:num_return]
        under_way = [one for one, _, _ in slots if not is_ended(one)]
        if not under_way:
            return ended, steps
        if len(ended) == num_return:
            bound = max(one.score for one in under_way)
            if ended[-1].penalised_score > bound / length_penalty_of(max_length, length_penalty):
                return ended, steps
        offers = []
        for place, (one, state, alignments) in enumerate(slots):
            if is_ended(one):
                offers.append((-one.penalised_score, place, PAD, (one, state, alignments)))
                continue
            pairs, now, following = _take_step(step, list(one.token_ids), state, rules)
            covered = [*alignments, now]
            coverage = coverage_penalty_of(covered, coverage_penalty, source_mask)
            for token_id, log_p in pairs:
                token_ids, token_scores = [*one.token_ids, token_id], [*one.token_scores, log_p]
                longer = _hypothesis(token_ids, token_scores, length_penalty, coverage)
                slot = longer, following, covered
                offers.append((-longer.penalised_score, place, token_id, slot))
        slots = [slot for *_, slot in sorted(offers, key=lambda offer: offer[:3])[:width]]
        steps += 1


# === Sampling ===


def sampling_probabilities(log_p, temperature=1.0, top_k=0, top_p=1.0, may_be=None):
    """The probabilities of a draw, after these filters in this order.

    What may not be is left out; log p is divided by the temperature; the `top_k` most probable
    stay, and are normalised; of these stay the fewest most probable whose sum reaches `top_p`, and
    at least one; these are normalised. Of equally probable ones the smaller id comes first.
    Sources: Fan 2018, sec. 5.4 (top k); Holtzman 2020, sec. 3.1 (top p).

    Args:
        log_p: (V,); -inf and NaN are impossible.
        temperature: Float > 0.
        top_k: Int; 0 for all.
        top_p: Float in (0, 1].
        may_be: Ids that may be drawn, as of `choices`; None means all but PAD and BOS.

    Returns:
        (V,), of sum 1, or zeros where nothing is possible.
    """
    log_p = _real(log_p)
    may_be = choices(len(log_p), ()) if may_be is None else may_be
    possible = [token_id for token_id in may_be if log_p[token_id] > -math.inf]
    result = np.zeros(len(log_p))
    if not possible:
        return result
    ranked = sorted(possible, key=lambda token_id: (-log_p[token_id], token_id))
    if top_k > 0:
        ranked = ranked[:top_k]
    p = softmax([log_p[token_id] / temperature for token_id in ranked])
    kept = 1
    while kept < len(ranked) and math.fsum(p[:kept]) < top_p:
        kept += 1
    for place in range(kept):
        result[ranked[place]] = p[place] / math.fsum(p[:kept])
    return result


def draw(probabilities, number):
    """The id that a number in [0, 1) stands for, or None where all probabilities are zero.

    The probabilities (V,) lie side by side on [0, 1), the largest first, of equals the smaller id.
    """
    total = 0.0
    for token_id in sorted(range(len(probabilities)), key=lambda i: (-probabilities[i], i)):
        total += probabilities[token_id]
        if number < total:
            return token_id
    return None


_WORD = 2**64
_GOLDEN = 0x9E3779B97F4A7C15


def mix(word):
    """The finaliser of SplitMix64 (Steele 2014, their mix64variant13), of 64 bits: an int >= 0."""
    word %= _WORD
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % _WORD
    return word ^ (word >> 31)


def fold(seed, i):
    """Makes of a seed the seed of its part `i`, mix(mix(seed + G) + (i + 1) G), as signed 64 bits.

    That is output i of the SplitMix64 generator whose seed is mix(seed + G).
    """
    word = mix(mix(seed + _GOLDEN) + (i + 1) * _GOLDEN)
    return word - _WORD if word >= _WORD // 2 else word


def uniform(word):
    """A number in [0, 1) of the upper 53 of 64 bits, signed or not."""
    return (word % _WORD >> 11) / 2**53
