"""The papers' own models: the equations as written, at a trainable size or at the papers'."""

from __future__ import annotations

from keras_attn.zoo.registry import Card, register

BIASES = (
    "There are biases in gates, bridge and vocabulary projection; the papers leave them out to "
    "write less."
)
TRAINING = (
    "Weights start as Keras' layers do and Adam trains them; the paper's initial values and "
    "optimiser are for its size and weeks of training."
)
PEEPHOLES = "Keras' LSTM has no peepholes."


@register(
    "cho2014",
    Card(
        title="RNN Encoder-Decoder: one vector, at every step and as the first state",
        equations=(
            "z_j, r_j = sigmoid(W x_j + U h_{j-1})",
            "h_j = z_j * h_{j-1} + (1 - z_j) * tanh(W x_j + U (r_j * h_{j-1})), h_0 = 0",
            "c = tanh(V h_S)",
            "s_0 = tanh(V' c)",
            "z_t, r_t = sigmoid(W E y_{t-1} + U s_{t-1} + C c)",
            "s_t = z_t * s_{t-1} + (1 - z_t) * tanh(W E y_{t-1} + r_t * (U s_{t-1} + C c))",
            "t_t = max over pairs of O_h s_t + O_y E y_{t-1} + O_c c, with E y_0 = 0",
            "p(y_t) = softmax(G t_t)",
        ),
        paper="Cho et al. 2014, arXiv:1406.1078, sec. 2 and appendix A.",
        deviations=(
            BIASES,
            "The vocabulary projection is one full matrix; the paper's has rank 100, as its input "
            "matrices have, which here are W E.",
            TRAINING,
            "Dropout 0.2 at the default size; none at size='paper'.",
        ),
        paper_size=(
            ("units", 1000),
            ("embedding_size", 100),
            ("readout_units", 500),
            ("dropout", 0.0),
        ),
    ),
)
def _cho2014():
    return {
        "cell": "gru_before",
        "decoder_cell": "cho",
        "bidirectional": False,
        "context": "fixed",
        "summary": "projected",
        "bridge": "summary",
        "start": "zeros",
        "order": "attend_update",
        "readout": "maxout",
    }


@register(
    "sutskever2014",
    Card(
        title="a stack of LSTMs reads the source backwards and hands over all its states",
        equations=(
            "(h, k) = LSTM(x_j, (h, k)), j = S-1, ..., 1, and at last x_S = EOS, in every layer",
            "(s, m)_0 = (h, k) after the last token read, layer by layer",
            "(s, m)_t = LSTM(E y_{t-1}, (s, m)_{t-1})",
            "p(y_t) = softmax(W s_t + b), s_t of the top layer",
        ),
        paper="Sutskever, Vinyals & Le 2014, arXiv:1409.3215.",
        deviations=(
            "Two layers by default; size='paper' has four.",
            "The decoder's first input is a start token of its own, not EOS.",
            PEEPHOLES,
            TRAINING,
            "Dropout 0.2 at the default size; none at size='paper'.",
        ),
        paper_size=(
            ("units", 1000),
            ("embedding_size", 1000),
            ("num_layers", 4),
            ("dropout", 0.0),
        ),
    ),
)
def _sutskever2014():
    return {
        "num_layers": 2,
        "bidirectional": False,
        "reverse_source": True,
        "context": "none",
        "bridge": "copy",
        "readout": "linear",
    }


@register(
    "bahdanau2015",
    Card(
        title="RNNsearch: attend with the last state, then update",
        equations=(
            "h_j = [->h_j; <-h_j], gated units in both directions",
            "s_0 = tanh(W_s <-h_1)",
            "e_tj = v_a^T tanh(W_a s_{t-1} + U_a h_j)",
            "a_tj = exp(e_tj) / sum_k exp(e_tk)",
            "c_t = sum_j a_tj h_j",
            "z_t, r_t = sigmoid(W E y_{t-1} + U s_{t-1} + C c_t)",
            "s_t = z_t * s_{t-1} + (1 - z_t) * tanh(W E y_{t-1} + U (r_t * s_{t-1}) + C c_t)",
            "t_t = max over pairs of U_o s_t + V_o E y_{t-1} + C_o c_t",
            "p(y_t) = softmax(W_o t_t)",
        ),
        paper="Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, sec. 3 and appendix A.",
        deviations=(
            "The readout sees s_t, as eq. 4 says; sec. A.2.2 says s_{t-1}, which is "
            "readout_state='previous'.",
            "z is written the other way round in the paper: the same model with z and 1 - z "
            "exchanged.",
            BIASES,
            TRAINING,
            "v_a starts from Glorot's distribution, not from 0.",
            "The first y is a start token's embedding; the authors' code has zeros.",
            "Dropout 0.2 at the default size; none at size='paper'.",
        ),
        paper_size=(
            ("units", 1000),
            ("embedding_size", 620),
            ("readout_units", 500),
            ("dropout", 0.0),
            ("max_source", 51),
            ("max_target", 51),
        ),
    ),
)
def _bahdanau2015():
    return {
        "cell": "gru_before",
        "summary": "backward",
        "bridge": "summary",
        "order": "attend_update",
        "scorer": "additive",
        "readout": "maxout",
    }


def _luong_card(title, weights, section, deviations=()):
    return Card(
        title=title,
        equations=(
            "(h, k) = LSTM(x_j, (h, k)), j = S-1, ..., 1, and at last x_S = EOS, in every layer",
            "(s, m)_0 = (h, k) after the last token read, layer by layer",
            "(s, m)_t = LSTM([E y_{t-1}; s~_{t-1}], (s, m)_{t-1}), s~_0 = 0",
            *weights,
            "c_t = sum_j a_tj h_j",
            "s~_t = tanh(W_c [c_t; s_t])",
            "p(y_t) = softmax(W_s s~_t + b)",
        ),
        paper=f"Luong, Pham & Manning 2015, arXiv:1508.04025, {section}; input feeding: sec. 3.3.",
        deviations=(
            *deviations,
            "Two layers by default; size='paper' has four.",
            "The vocabulary projection has a bias.",
            "EOS is read last, after the reversed words, and is part of the memory, which the "
            "authors' code leaves it out of; h_j stand in the order of the source.",
            "Dropout is 0.2, on embeddings, layer inputs and features; the paper reports models "
            "with and without.",
            PEEPHOLES,
            TRAINING,
        ),
        paper_size=(
            ("units", 1000),
            ("embedding_size", 1000),
            ("num_layers", 4),
            ("max_source", 51),
            ("max_target", 51),
        ),
    )


def _luong(**changes):
    return {
        "num_layers": 2,
        "bidirectional": False,
        "reverse_source": True,
        "bridge": "copy",
        "input_feeding": True,
        **changes,
    }


SOFTMAX = "a_tj = exp(e_tj) / sum_k exp(e_tk)"
GLOBAL = "sec. 3.1"
LOCAL = "sec. 3.2"
BILINEAR = "The score is the bilinear one, the paper's best for local attention."
FROM_ZERO = "Positions and steps are counted from 0."


@register(
    "luong2015_dot",
    _luong_card("global attention, dot product", ("e_tj = s_t^T h_j", SOFTMAX), GLOBAL),
)
def _luong2015_dot():
    return _luong(scorer="dot")


@register(
    "luong2015_general",
    _luong_card("global attention, bilinear score", ("e_tj = s_t^T W_a h_j", SOFTMAX), GLOBAL),
)
def _luong2015_general():
    return _luong(scorer="general")


@register(
    "luong2015_concat",
    _luong_card(
        "global attention, score of both joined",
        ("e_tj = v_a^T tanh(W_a [s_t; h_j])", SOFTMAX),
        GLOBAL,
        ("W_a applies to both, as written; the authors' code applies it to s_t alone.",),
    ),
)
def _luong2015_concat():
    return _luong(scorer="concat")


@register(
    "luong2015_location",
    _luong_card(
        "global attention, positions from the state alone",
        ("a_t = softmax(W_a s_t), over the first S positions",),
        GLOBAL,
        ("W_a has max_source rows; what lies beyond a source's end is left out of the softmax.",),
    ),
)
def _luong2015_location():
    return _luong(scorer="location")


@register(
    "luong2015_local_m",
    _luong_card(
        "local attention, around the step's own position",
        ("p_t = t", "a_tj = softmax over |j - p_t| <= 10 of s_t^T W_a h_j"),
        LOCAL,
        (
            FROM_ZERO,
            BILINEAR,
            "A step more than 10 beyond the source's end sees nothing: a_t = 0 and c_t = 0.",
        ),
    ),
)
def _luong2015_local_m():
    return _luong(window="local_m")


@register(
    "luong2015_local_p",
    _luong_card(
        "local attention, around a predicted position",
        (
            "p_t = S sigmoid(v_p^T tanh(W_p s_t))",
            "a_tj = softmax over |j - p_t| <= 10 of s_t^T W_a h_j, times exp(-(j - p_t)^2 / 50),",
            "       not normalised again",
        ),
        LOCAL,
        (FROM_ZERO, BILINEAR),
    ),
)
def _luong2015_local_p():
    return _luong(window="local_p")
