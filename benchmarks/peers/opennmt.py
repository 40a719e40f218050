"""OpenNMT-py's own encoder and decoder, which with dot products are the same model as ours.

They are trained by our loop, since its trainer reads files, and decoded greedily a step at a time
by its decoder. OpenNMT-py may need an environment of its own: see README.md.
"""

from __future__ import annotations

import torch
from onmt.decoders.decoder import InputFeedRNNDecoder, StdRNNDecoder
from onmt.encoders.rnn_encoder import RNNEncoder
from onmt.models import NMTModel
from onmt.modules import Embeddings
from sizes import PAD, Size, Work, sources, weights
from torch import nn

from peers import torch_loops


def built(
    size: Size, attention: str = "luong", generating: bool = False
) -> tuple[NMTModel, nn.Linear]:
    """Return model and projection with the weights that all contestants begin with."""
    tables = [Embeddings(size.embedding, size.vocabulary, PAD) for _ in range(2)]
    encoder = RNNEncoder("LSTM", False, 1, size.units, embeddings=tables[0])
    kind = StdRNNDecoder if attention == "luong" else InputFeedRNNDecoder
    decoder = kind("LSTM", False, 1, size.units, attn_type="dot", embeddings=tables[1])
    projection = nn.Linear(size.units, size.vocabulary)
    places = {
        "source_embedding": tables[0].word_lut.weight,
        "target_embedding": tables[1].word_lut.weight,
        "combine": decoder.attn.linear_out.weight,
        "projection": projection.weight,
        "projection_bias": projection.bias,
    }
    cell = decoder.rnn if attention == "luong" else decoder.rnn.layers[0]
    for side, rnn in (("encoder", encoder.rnn), ("decoder", cell)):
        end = "" if hasattr(rnn, "weight_ih") else "_l0"
        places |= {
            f"{side}_kernel": getattr(rnn, f"weight_ih{end}"),
            f"{side}_recurrent": getattr(rnn, f"weight_hh{end}"),
            f"{side}_bias": getattr(rnn, f"bias_ih{end}"),
            f"{side}_bias_again": getattr(rnn, f"bias_hh{end}"),
        }
    with torch.no_grad():
        for side in ("encoder", "decoder"):
            places.pop(f"{side}_bias_again").zero_()
        for name, value in weights(size, attention, generating).items():
            kept = "embedding" in name or value.ndim == 1
            places[name].copy_(torch.from_numpy(value if kept else value.T.copy()))
    return NMTModel(encoder, decoder), projection


def training(size: Size, attention: str = "luong") -> Work:
    """Return a pass over the batches; attention is "luong" or "feeding"."""
    model, projection = built(size, attention)

    def loss(source, target_in, target_out):
        encoded, state, lengths = model.encoder(source[:, :, None], (source != PAD).sum(1))
        model.decoder.init_state(source, encoded, state)
        features, _ = model.decoder(target_in[:, :, None], encoded, src_len=lengths)
        return torch_loops.cross_entropy(projection(features), target_out)

    return torch_loops.training(size, nn.ModuleList([model, projection]), loss)


def generating(size: Size) -> Work:
    """Return the greedy decoding of one batch, with an early exit."""
    model, projection = built(size, generating=True)
    model.eval()
    source = torch.from_numpy(sources(size)).long()

    @torch.inference_mode()
    def run():
        encoded, state, lengths = model.encoder(source[:, :, None], (source != PAD).sum(1))
        model.decoder.init_state(source, encoded, state)

        def after(tokens, step):
            features, _ = model.decoder(tokens[:, None, None], encoded, lengths, step=step)
            return projection(features)[:, 0], step + 1

        return torch_loops.greedy(after, 0, len(source), size.steps)

    return torch_loops.work(run, nn.ModuleList([model, projection]))
