"""JoeyNMT's own embeddings, encoder, attention and decoder.

They are trained by our loop, since its trainer reads files, and decoded greedily a step at a time
by its decoder. Luong's order, with and without input feeding, is the same model as ours and begins
with the same weights, so that its loss is that of OpenNMT-py. What differs:

- Its decoder is a loop in Python over the steps in training too, whether it feeds or not: each step
  calls an LSTM, an attention and a readout.
- Its products are Luong's "general" scores alone. Their matrix (U, U) is held at the identity, so
  that they are the others' dot products: one more product of all encoded tokens forward and one
  back, and U * U more weights, which are counted. Decoding takes that product anew in every step,
  as its decoder does.
- Its readout has a bias where ours has none, and its projection none where ours has one. Both are
  set as ours are.
- Its encoder fails in one direction, see `OneWay`. Its decoder takes the encoder's state for the
  cell too, unless it is given both, as it is here.

"bahdanau" is its additive attention, with input feeding. Weights and products are as many as ours
and of the same shapes, but in another order: scores are of the state after the update instead of
before, and the LSTM reads the readout of the step before instead of the context, so that the
readout is within the loop, where ours need not be. It begins with the same weights; its loss is
another model's.

JoeyNMT needs an environment of its own: see README.md.
"""

from __future__ import annotations

import numpy as np
import torch
from joeynmt.decoders import RecurrentDecoder
from joeynmt.embeddings import Embeddings
from joeynmt.encoders import RecurrentEncoder
from sizes import PAD, Size, Work, sources, weights
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from peers import torch_loops


class OneWay(RecurrentEncoder):
    """JoeyNMT's encoder in one direction.

    There its own `forward` fails, as it takes the state of the second direction too. This one packs
    as that one does, and returns the cell, which that one drops.
    """

    def forward(self, embedded: Tensor, lengths: Tensor):
        """Return encoded sources (B, S, U) and the final h and c, (B, 1, U) each."""
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        packed, (h, c) = self.rnn(packed)
        encoded, _ = pad_packed_sequence(packed, batch_first=True, total_length=embedded.shape[1])
        return encoded, (h.transpose(0, 1), c.transpose(0, 1))


class Network(nn.Module):
    """JoeyNMT's modules, put together as its `Model` does, which needs vocabularies.

    Args:
        size: The size.
        attention: "luong", "feeding" or "bahdanau".
    """

    def __init__(self, size: Size, attention: str):
        super().__init__()
        e, u, v = size.embedding, size.units, size.vocabulary
        self.source, self.target = (Embeddings(e, vocab_size=v, padding_idx=PAD) for _ in range(2))
        self.encoder = OneWay("lstm", u, e, bidirectional=False)
        self.decoder = RecurrentDecoder(
            "lstm",
            e,
            u,
            self.encoder,
            attention="bahdanau" if attention == "bahdanau" else "luong",
            vocab_size=v,
            init_hidden="last",
            input_feeding=attention != "luong",
        )
        self.decoder.att_vector_layer.bias = None
        self.decoder.output_layer = nn.Linear(u, v)

    def encode(self, source: Tensor):
        """Return encoded sources (B, S, U), what of them is real (B, 1, S), and the final state."""
        real = source != PAD
        encoded, state = self.encoder(self.source(source), real.sum(1))
        return encoded, real[:, None], state

    def forward(self, source: Tensor, target: Tensor):
        """Return the logits of given targets (B, T, V)."""
        return self.decode(target, *self.encode(source))[0]

    def decode(self, target: Tensor, encoded, real, state, fed=None):
        """Return the logits (B, T, V), the state and what is fed to the next step, (B, 1, U)."""
        logits, state, _, read = self.decoder(
            self.target(target), encoded, None, real, target.shape[1], state, fed
        )
        return logits, state, read[:, -1:]


def places(network: Network, attention: str) -> dict[str, Tensor]:
    """Return the parameters by the names of `sizes.weights`."""
    encoder, decoder = network.encoder.rnn, network.decoder
    found = {
        "source_embedding": network.source.lut.weight,
        "target_embedding": network.target.lut.weight,
        "combine": decoder.att_vector_layer.weight,
        "projection": decoder.output_layer.weight,
        "projection_bias": decoder.output_layer.bias,
    }
    for side, rnn in (("encoder", encoder), ("decoder", decoder.rnn)):
        found |= {
            f"{side}_kernel": rnn.weight_ih_l0,
            f"{side}_recurrent": rnn.weight_hh_l0,
            f"{side}_bias": rnn.bias_ih_l0,
        }
    if attention == "bahdanau":
        found |= {
            "query": decoder.attention.query_layer.weight,
            "keys": decoder.attention.key_layer.weight,
            "scale": decoder.attention.energy_layer.weight,
        }
    return found


@torch.no_grad()
def built(size: Size, attention: str, generating: bool = False) -> Network:
    """Return a network with the weights that all contestants begin with."""
    network = Network(size, attention)
    for rnn in (network.encoder.rnn, network.decoder.rnn):
        rnn.bias_hh_l0.zero_()
    if attention != "bahdanau":
        nn.init.eye_(network.decoder.attention.key_layer.weight).requires_grad_(False)
    there = places(network, attention)
    for name, value in weights(size, attention, generating).items():
        if name == "combine":  # of [context; state], where JoeyNMT's reads [state; context]
            value = np.roll(value, size.units, axis=0)
        kept = "embedding" in name or value.ndim == 1
        value = torch.from_numpy(value if kept else value.T.copy())
        there[name].copy_(value.reshape(there[name].shape))
    return network


def training(size: Size, attention: str = "luong") -> Work:
    """Return a pass over the batches; attention is "luong", "feeding" or "bahdanau"."""
    network = built(size, attention)

    def loss(source, target_in, target_out):
        return torch_loops.cross_entropy(network(source, target_in), target_out)

    return torch_loops.training(size, network, loss)


def generating(size: Size) -> Work:
    """Return the greedy decoding of one batch in Luong's order, with an early exit."""
    network = built(size, "luong", generating=True).eval()
    source = torch.from_numpy(sources(size)).long()

    @torch.inference_mode()
    def run():
        encoded, real, begun = network.encode(source)

        def after(tokens, state):
            logits, *state = network.decode(tokens[:, None], encoded, real, *state)
            return logits[:, 0], state

        return torch_loops.greedy(after, (begun,), len(source), size.steps)

    return torch_loops.work(run, network)
