"""The four variants, and attention by its plain scores: points on the axes, each with a card."""

from __future__ import annotations

from keras_attn.zoo.registry import Card, register

ENCODER = "h_j = [->h_j; <-h_j], a bidirectional RNN over the embedded source"
KERAS_CELLS = "Keras' cells: an LSTM without peepholes, a GRU with the reset after the product."


@register(
    "context_every_step",
    Card(
        title="the fixed context vector at every step; nothing is fed back",
        equations=(
            ENCODER,
            "c = h_S, the final state of both directions (or another summary)",
            "s_0 = 0",
            "s_t = f(c, s_{t-1})",
            "p(y_t) = softmax(W [s_t; c] + b)",
        ),
        paper="Cho et al. 2014, arXiv:1406.1078, without its initial state and feedback.",
        deviations=(
            "An ablation: Cho's model starts from c and feeds y_{t-1} back, which is `combined`.",
            KERAS_CELLS,
        ),
    ),
)
def _context_every_step():
    return {
        "context": "fixed",
        "bridge": "zeros",
        "feedback": False,
        "order": "attend_update",
        "readout": "linear",
    }


@register(
    "context_as_init",
    Card(
        title="the encoder's final state is the decoder's first",
        equations=(
            ENCODER,
            "s_0 = W_b h_S + b_b, for each state of each layer",
            "s_t = f(E y_{t-1}, s_{t-1})",
            "p(y_t) = softmax(W s_t + b)",
        ),
        paper="Sutskever, Vinyals & Le 2014, arXiv:1409.3215.",
        deviations=(
            "One bidirectional layer in place of four over the reversed source, so that the states "
            "are projected rather than copied.",
            KERAS_CELLS,
        ),
    ),
)
def _context_as_init():
    return {"context": "none", "bridge": "linear", "readout": "linear"}


@register(
    "combined",
    Card(
        title="the fixed context vector at every step and as the first state",
        equations=(
            ENCODER,
            "c = h_S, the final state of both directions (or another summary)",
            "s_0 = W_b h_S + b_b, for each state of each layer",
            "s_t = f([E y_{t-1}; c], s_{t-1})",
            "p(y_t) = softmax(W [s_t; c] + b)",
        ),
        paper="Cho et al. 2014, arXiv:1406.1078, secs. 2.2 and A.1.",
        deviations=(
            "c is the final state itself, without tanh(V h).",
            "The first states have no tanh either, which an LSTM's cell state saturates.",
            "The readout is linear and does not read y_{t-1}; Cho's is maxout (readout='maxout').",
            KERAS_CELLS,
        ),
    ),
)
def _combined():
    return {
        "context": "fixed",
        "bridge": "linear",
        "order": "attend_update",
        "readout": "linear",
    }


SOFTMAX = "a_tj = exp(e_tj) / sum_k exp(e_tk)"
SUM = "c_t = sum_j a_tj h_j"
PREDICT = "p(y_t) = softmax(W s~_t + b)"


def attention_card(
    title,
    score,
    paper="Luong, Pham & Manning 2015, arXiv:1508.04025, sec. 3.1.",
    weigh=(SOFTMAX, SUM),
    predict=(PREDICT,),
    deviations=(),
    **fields,
):
    """Return the card of an entry that is `attention` but for its score, weights or prediction."""
    return Card(
        title=title,
        equations=(
            ENCODER,
            "s_0 = W_b h_S + b_b, for each state of each layer",
            "s_t = f(E y_{t-1}, s_{t-1})",
            f"e_tj = {score}",
            *weigh,
            "s~_t = tanh(W_c [c_t; s_t])",
            *predict,
        ),
        paper=paper,
        deviations=(
            *deviations,
            "All else is Luong's (arXiv:1508.04025), with one bidirectional layer in place of four "
            "unidirectional ones, so that the states are projected rather than copied.",
            "No input feeding (input_feeding=True), which would cost a loop in training.",
            KERAS_CELLS,
        ),
        **fields,
    )


@register("attention", attention_card("a context of its own for every step", "s_t^T W_a h_j"))
def _attention():
    return {}


@register("attention_general", attention_card("attention, bilinear score", "s_t^T W_a h_j"))
def _attention_general():
    return {"scorer": "general"}


@register("attention_dot", attention_card("attention, dot product", "s_t^T h_j"))
def _attention_dot():
    return {"scorer": "dot"}


@register(
    "attention_scaled_dot",
    attention_card(
        "attention, scaled dot product",
        "s_t^T h_j / sqrt(U)",
        "Luong, Pham & Manning 2015, arXiv:1508.04025; the scale: Vaswani et al. 2017, "
        "arXiv:1706.03762, sec. 3.2.1.",
    ),
)
def _attention_scaled_dot():
    return {"scorer": "scaled_dot"}


@register(
    "attention_additive",
    attention_card(
        "attention, additive (MLP) score, after the update",
        "v^T tanh(W_a s_t + U_a h_j)",
        "The score: Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, sec. A.1.2; the rest: Luong, "
        "Pham & Manning 2015, arXiv:1508.04025. order='attend_update' gives Bahdanau's order.",
    ),
)
def _attention_additive():
    return {"scorer": "additive"}
