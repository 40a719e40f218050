"""The attention family: what alignments can be made of, and what memory, one entry each."""

from __future__ import annotations

from keras_attn.zoo.architectures import PREDICT, SOFTMAX, SUM, attention_card
from keras_attn.zoo.registry import Card, register

GENERAL = "s_t^T W_a h_j"


@register(
    "attention_low_rank",
    attention_card(
        "attention, bilinear score of low rank",
        "(P s_t)^T (K h_j)",
        "Luong, Pham & Manning 2015, arXiv:1508.04025, sec. 3.1, with W_a = P^T K of rank 32.",
    ),
)
def _attention_low_rank():
    return {"scorer": "low_rank"}


@register(
    "attention_hard",
    attention_card(
        "hard attention: one position at a time",
        GENERAL,
        "Xu et al. 2015, arXiv:1502.03044, sec. 4.1; the training: Bengio, Leonard & Courville "
        "2013, arXiv:1308.3432.",
        weigh=(
            "p_tj = exp(e_tj) / sum_k exp(e_tk)",
            "a_t = one-hot at argmax_j p_tj",
            SUM,
        ),
        deviations=(
            "Trained straight through: the gradient is that of p_t. Hard(training='gumbel') and "
            "Hard(training='score_function'), which is the paper's, are the other ways.",
            "The largest p_tj is taken; the paper draws from p_t (Hard(choice='sample')).",
            "The score is bilinear, of the new state; the paper's is a network's, of the last.",
        ),
    ),
)
def _attention_hard():
    return {"normaliser": "hard"}


@register(
    "attention_local",
    attention_card(
        "attention around a predicted position",
        GENERAL,
        "Luong, Pham & Manning 2015, arXiv:1508.04025, sec. 3.2, local-p.",
        weigh=(
            "p_t = S sigmoid(v_p^T tanh(W_p s_t))",
            "a_tj = softmax over |j - p_t| <= 10 of e_tj, times exp(-(j - p_t)^2 / 50),",
            "       not normalised again",
            SUM,
        ),
        deviations=("Positions are counted from 0.",),
    ),
)
def _attention_local():
    return {"window": "local_p"}


@register(
    "attention_monotonic",
    attention_card(
        "monotonic attention: it reads on and never goes back",
        "v^T tanh(W_a s_t + U_a h_j) + r",
        "Raffel et al. 2017, arXiv:1704.00784.",
        weigh=(
            "training: p_tj = sigmoid(e_tj + noise)",
            "          a_tj = p_tj sum_{k<=j} a_{t-1,k} prod_{l=k}^{j-1} (1 - p_tl)",
            "inference: a_t is one-hot at the first j from the last position on with p_tj > 0.5",
            SUM,
        ),
        deviations=(
            "The query is s_t, after the update; the paper's is s_{t-1}.",
            "v is not normalised, there is no bias within tanh, and r starts at 0, not below.",
        ),
    ),
)
def _attention_monotonic():
    return {"window": "monotonic", "scorer": "additive"}


@register(
    "attention_multi_head",
    attention_card(
        "attention with four heads",
        "(W_q s_t)^T (W_k h_j) / sqrt(U / 4), for each head",
        "Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2.2.",
        weigh=(SOFTMAX, "c_t = W_o [the heads' sum_j a_tj W_v h_j]"),
        deviations=("a_t, where it is shown, is the mean of the heads.",),
    ),
)
def _attention_multi_head():
    return {"scorer": "scaled_dot", "num_heads": 4}


@register(
    "attention_coverage",
    attention_card(
        "attention that sees where it has looked",
        "v^T tanh(W_a s_t + U_a h_j + w_c sum_{t'<t} a_t'j + b)",
        "See, Liu & Manning 2017, arXiv:1704.04368, eqs. 10 and 11, as Tu et al. 2016, "
        "arXiv:1601.04811, without fertility (CoverageScorer(fertility=2) has it).",
        deviations=(
            "The coverage loss is off (coverage_loss=1.0 is the paper's), as there it is switched "
            "on at the end of training.",
            "The features are tanh(W_c [c_t; s_t]); the paper's pass two linear layers.",
        ),
    ),
)
def _attention_coverage():
    return {"scorer": "coverage"}


@register(
    "attention_copy",
    attention_card(
        "attention that may copy a token of the source, known or not",
        GENERAL,
        "See, Liu & Manning 2017, arXiv:1704.04368, eqs. 8 and 9.",
        predict=(
            "g_t = sigmoid(w_c^T c_t + w_s^T s_t + w_x^T E y_{t-1} + b_g)",
            "p(y_t) = g_t softmax(W s~_t + b) + (1 - g_t) sum_{j: x_j is y_t} a_tj",
        ),
        deviations=(
            "The score is bilinear; the paper's is scorer='coverage'.",
            "The features are tanh(W_c [c_t; s_t]); the paper's pass two linear layers.",
            "The source's EOS can be copied too.",
        ),
    ),
)
def _attention_copy():
    return {"copy": "pointer"}


@register(
    "attention_key_value",
    attention_card(
        "attention with keys and values apart",
        "s_t^T W_a k_j, with k_j = W_k h_j",
        "Daniluk et al. 2017, arXiv:1702.04521.",
        weigh=(SOFTMAX, "c_t = sum_j a_tj v_j, with v_j = W_v h_j"),
        deviations=(
            "Keys and values are projections of h_j, not halves of it.",
            "It looks at a source with a bilinear score; the paper's looks back over a language "
            "model's own outputs, with an additive one.",
        ),
    ),
)
def _attention_key_value():
    return {"keys": "projected"}


def _encoder_card(title, encoder, paper, deviations):
    return Card(
        title=title,
        equations=(
            encoder,
            "s_0 = tanh(V mean_j h_j + b)",
            "s_t = f(E y_{t-1}, s_{t-1})",
            f"e_tj = {GENERAL}",
            SOFTMAX,
            SUM,
            "s~_t = tanh(W_c [c_t; s_t])",
            PREDICT,
        ),
        paper=paper,
        deviations=(
            *deviations,
            "The decoder is recurrent, that of `attention`.",
        ),
    )


@register(
    "conv_attention",
    _encoder_card(
        "attention over gated convolutions",
        "h = sqrt(1/2) (GLU(conv(x)) + x), two layers over W_x [sqrt(E) embedding + position] + b",
        "Gehring et al. 2017, arXiv:1705.03122, secs. 3.1, 3.2 and 3.4.",
        (
            "No weight normalisation.",
            "Positions are sinusoids, so that no length is a limit, and embeddings are multiplied "
            "by sqrt(E), as in Vaswani et al. 2017.",
            "Values are h_j; the paper's are h_j plus the embedding.",
        ),
    ),
)
def _conv_attention():
    return {"encoder": "conv", "encoder_layers": 2, "bridge": "summary", "summary": "mean"}


@register(
    "transformer_attention",
    _encoder_card(
        "attention over self-attention",
        "h = LN(z''), z'' = z' + FFN(LN(z')), z' = z + MHA(LN(z)), two layers of z to z'' over "
        "sqrt(U) W_x embedding + position",
        "Vaswani et al. 2017, arXiv:1706.03762, secs. 3.1 to 3.5.",
        (
            "Normalisation stands before each part and once at the end, which trains without a "
            "warm-up.",
            "Embeddings are projected to U.",
        ),
    ),
)
def _transformer_attention():
    return {
        "encoder": "self_attention",
        "encoder_layers": 2,
        "bridge": "summary",
        "summary": "mean",
    }
