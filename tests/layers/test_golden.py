"""Decoding and alignments against arrays that tensorflow_addons made of the same weights."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_attn.layers import Attention, AttentionContext, Decoder, Recurrence
from keras_attn.types import DecoderState, Encoded

B, S, T, E, U, A, D = 3, 5, 4, 3, 4, 7, 6


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[1] / "golden" / "tfa.npz") as arrays:
        return dict(arrays)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


class Encoder:
    """What a decoder asks of an encoder when it is built."""

    value_depth, summary_depth, state_depths = D, D, ((U, U),)


def luong_decoder(golden):
    """Return a decoder with the golden weights, its memory, and its first state."""
    recurrence = Recurrence("lstm", U)
    context = AttentionContext(Attention("general"))
    decoder = Decoder(recurrence, context, bridge="zeros", readout="tanh", input_feeding=True)
    decoder.build_for(Encoder, E)
    names = ("kernel", "recurrent_kernel", "bias")
    recurrence.layers[0].cell.set_weights([golden[f"luong_{name}"] for name in names])
    context.attention.scorer.kernel.assign(golden["luong_memory_kernel"].T)
    kernel = golden["luong_attention_kernel"]  # rows of the state, then of the context
    decoder.readout.combine.kernel.assign(np.concatenate([kernel[U:], kernel[:U]]))
    mask = np.arange(S) < golden["luong_lengths"][:, None]
    values = keras.ops.convert_to_tensor(golden["luong_memory"])
    encoded = Encoded(values, keras.ops.convert_to_tensor(mask), keras.ops.zeros((B, D)), ())
    memory, state = decoder.prepare(encoded)
    first = ((golden["luong_h0"], golden["luong_c0"]),)
    first = keras.tree.map_structure(keras.ops.convert_to_tensor, first)
    return decoder, memory, DecoderState(first, state.context, state.fed)


def test_luong_decodes_a_target_as_tensorflow_addons_does(golden):
    decoder, memory, state = luong_decoder(golden)
    output = decoder(golden["luong_inputs"], state, memory)
    close(output.alignments, golden["luong_alignments"])
    close(output.features, golden["luong_attentions"])


def test_luong_steps_as_tensorflow_addons_does(golden):
    decoder, memory, state = luong_decoder(golden)
    for t in range(T):
        output, state = decoder.step(golden["luong_inputs"][:, t], state, memory)
        close(output.alignments, golden["luong_alignments"][:, t])
        close(output.features, golden["luong_attentions"][:, t])
        close(state.recurrent[0][0], golden["luong_cell_outputs"][:, t])
        context = np.einsum("bs,bsd->bd", output.alignments, golden["luong_memory"])
        close(context, golden["luong_contexts"][:, t])


def test_luong_attention_is_that_of_tensorflow_addons(golden):
    attention = Attention("general")
    attention.build((None, None, U), (None, None, D))
    attention.scorer.kernel.assign(golden["luong_memory_kernel"].T)
    mask = np.arange(S) < golden["luong_lengths"][:, None]
    context, alignments = attention(
        golden["luong_cell_outputs"], golden["luong_memory"], value_mask=mask
    )
    close(alignments, golden["luong_alignments"])
    close(context, golden["luong_contexts"])


def test_bahdanau_attention_is_that_of_tensorflow_addons(golden):
    attention = Attention("additive", units=A)
    attention.build((None, None, U), (None, None, D))
    names = ("query_kernel", "memory_kernel", "attention_v")
    attention.scorer.set_weights([golden[f"bahdanau_{name}"] for name in names])
    mask = np.arange(S) < golden["bahdanau_lengths"][:, None]
    context, alignments = attention(
        golden["bahdanau_queries"], golden["bahdanau_memory"], value_mask=mask
    )
    close(alignments, golden["bahdanau_alignments"])
    close(context, golden["bahdanau_contexts"])


def test_one_concat_kernel_scores_as_bahdanau_does(golden):
    attention = Attention("concat", units=A)
    attention.build((None, None, U), (None, None, D))
    kernels = [golden["bahdanau_query_kernel"], golden["bahdanau_memory_kernel"]]
    attention.scorer.set_weights([np.concatenate(kernels), golden["bahdanau_attention_v"]])
    mask = np.arange(S) < golden["bahdanau_lengths"][:, None]
    arrays = golden["bahdanau_queries"], golden["bahdanau_memory"]
    close(attention(*arrays, value_mask=mask)[1], golden["bahdanau_alignments"])
