"""OpenNMT-py's own encoder and decoder, which with dot products are the same model as ours.

They are trained by our loop, since its trainer reads files, and decoded greedily a step at a time
by its decoder. OpenNMT-py may need an environment of its own: see README.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from onmt.decoders.decoder import InputFeedRNNDecoder, StdRNNDecoder
from onmt.encoders.rnn_encoder import RNNEncoder
from onmt.models import NMTModel
from onmt.modules import Embeddings
from sizes import BOS, EOS, PAD, Size, Work, batches, sources, weights
from torch import nn


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


def counted(*modules: nn.Module) -> int:
    """Return the number of weights."""
    return sum(weight.numel() for module in modules for weight in module.parameters())


def training(size: Size, attention: str = "luong") -> Work:
    """Return a pass over the batches with the fused Adam; attention is "luong" or "feeding"."""
    model, projection = built(size, attention)
    parameters = [*model.parameters(), *projection.parameters()]
    adam = torch.optim.Adam(parameters, lr=1e-3, eps=1e-7, fused=True)
    split = (torch.from_numpy(ids).long().split(size.batch) for ids in batches(size))
    data = list(zip(*split, strict=True))

    def run():
        total = torch.zeros(())
        for source, target_in, target_out in data:
            adam.zero_grad(set_to_none=True)
            encoded, state, lengths = model.encoder(source[:, :, None], (source != PAD).sum(1))
            model.decoder.init_state(source, encoded, state)
            features, _ = model.decoder(target_in[:, :, None], encoded, src_len=lengths)
            logits = projection(features).flatten(0, 1)
            loss = F.cross_entropy(logits, target_out.flatten(), ignore_index=PAD)
            loss.backward()
            adam.step()
            total += loss.detach()
        return total.item() / len(data)

    facts = {"threads": torch.get_num_threads()}
    return Work(run, counted(model, projection), size.batches, facts)


def generating(size: Size) -> Work:
    """Return the greedy decoding of one batch, with an early exit."""
    model, projection = built(size, generating=True)
    model.eval()
    source = torch.from_numpy(sources(size)).long()

    @torch.inference_mode()
    def run():
        encoded, state, lengths = model.encoder(source[:, :, None], (source != PAD).sum(1))
        model.decoder.init_state(source, encoded, state)
        tokens = torch.full((len(source),), BOS)
        done, found = torch.zeros(len(source), dtype=torch.bool), []
        for step in range(size.steps):
            features, _ = model.decoder(tokens[:, None, None], encoded, lengths, step=step)
            tokens = torch.where(done, PAD, projection(features)[:, 0].argmax(-1))
            found.append(tokens)
            done |= tokens == EOS
            if done.all():
                break
        return torch.stack(found, 1).numpy()

    return Work(run, counted(model, projection), 1, {"threads": torch.get_num_threads()})
