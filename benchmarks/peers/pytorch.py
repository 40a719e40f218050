"""The same two models in PyTorch, in the forms that people write and in the fastest ones found."""

from __future__ import annotations

import contextlib
import os

# Inductor's pool of compilers would stay beside the measurements.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from sizes import BOS, EOS, PAD, Size, Work, batches, sources, weights
from torch import nn

from peers import torch_loops

IMPOSSIBLE = -1e9


class Network(nn.Module):
    """Encoder, attention and decoder.

    Args:
        size: The size.
        attention: "luong" or "bahdanau".
        packed: Whether the encoder skips padding, as Keras' masked layers do. Without it, it reads
            on through the padding, which is faster and a slightly different model.
        hoisted: Whether Bahdanau's loop multiplies what it can outside the loop.
    """

    def __init__(self, size: Size, attention="luong", packed=False, hoisted=False):
        super().__init__()
        e, u, v = size.embedding, size.units, size.vocabulary
        self.additive, self.packed, self.hoisted = attention == "bahdanau", packed, hoisted
        self.source_embedding = nn.Embedding(v, e, padding_idx=PAD)
        self.target_embedding = nn.Embedding(v, e, padding_idx=PAD)
        self.encoder = nn.LSTM(e, u, batch_first=True)
        if self.additive:
            self.decoder = nn.LSTMCell(e + u, u)
            self.query, self.keys = (nn.Linear(u, u, bias=False) for _ in range(2))
            self.scale = nn.Linear(u, 1, bias=False)
        else:
            self.decoder = nn.LSTM(e, u, batch_first=True)
        self.combine = nn.Linear(2 * u, u, bias=False)
        self.projection = nn.Linear(u, v)

    def encode(self, source):
        """Return encoded sources (B, S, U), the scores' mask (B, S) and the final state."""
        embedded, bias = self.source_embedding(source), (source == PAD) * IMPOSSIBLE
        if not self.packed:
            encoded, (h, c) = self.encoder(embedded)
            return encoded, bias, (h[0], c[0])
        packed = nn.utils.rnn.pack_padded_sequence(
            embedded, (source != PAD).sum(1), batch_first=True, enforce_sorted=False
        )
        encoded, (h, c) = self.encoder(packed)
        encoded, _ = nn.utils.rnn.pad_packed_sequence(
            encoded, batch_first=True, total_length=source.shape[1]
        )
        return encoded, bias, (h[0], c[0])

    def forward(self, source, target):
        """Return the logits of given targets (B, T, V)."""
        encoded, bias, state = self.encode(source)
        embedded = self.target_embedding(target)
        if self.additive:
            read = self._attend_and_update(embedded, encoded, bias, state)
        else:
            states, _ = self.decoder(embedded, tuple(part[None] for part in state))
            scores = states @ encoded.transpose(1, 2) + bias[:, None]
            read = torch.cat([scores.softmax(-1) @ encoded, states], -1)
        return self.projection(torch.tanh(self.combine(read)))

    def _attend_and_update(self, embedded, encoded, bias, state):
        keys, read = self.keys(encoded), []
        if self.hoisted:
            depth = embedded.shape[-1]
            of_input, of_context = self.decoder.weight_ih.split([depth, encoded.shape[-1]], 1)
            embedded = F.linear(embedded, of_input, self.decoder.bias_ih + self.decoder.bias_hh)
        for now in embedded.unbind(1):
            context = self.attend(keys, encoded, bias, state[0])
            if self.hoisted:
                gates = now + F.linear(context, of_context)
                state = updated(gates + F.linear(state[0], self.decoder.weight_hh), state[1])
            else:
                state = self.decoder(torch.cat([now, context], -1), state)
            read.append(torch.cat([context, state[0]], -1))
        return torch.stack(read, 1)

    def attend(self, keys, values, bias, query):
        """Return the context (N, U) of queries (N, U), by additive scores."""
        hidden = torch.tanh(keys + self.query(query)[:, None])
        return weighed(self.scale(hidden)[..., 0] + bias, values)

    def load(self, made: dict[str, np.ndarray]):
        """Take the weights of `sizes.weights`."""
        suffix = "" if self.additive else "_l0"
        places = {
            "source_embedding": self.source_embedding.weight,
            "target_embedding": self.target_embedding.weight,
            "encoder_kernel": self.encoder.weight_ih_l0,
            "encoder_recurrent": self.encoder.weight_hh_l0,
            "encoder_bias": self.encoder.bias_ih_l0,
            "decoder_kernel": getattr(self.decoder, "weight_ih" + suffix),
            "decoder_recurrent": getattr(self.decoder, "weight_hh" + suffix),
            "decoder_bias": getattr(self.decoder, "bias_ih" + suffix),
            "combine": self.combine.weight,
            "projection": self.projection.weight,
            "projection_bias": self.projection.bias,
        }
        if self.additive:
            places |= {"query": self.query.weight, "keys": self.keys.weight}
            places |= {"scale": self.scale.weight}
        with torch.no_grad():
            self.encoder.bias_hh_l0.zero_()
            getattr(self.decoder, "bias_hh" + suffix).zero_()
            for name, value in made.items():
                kept = "embedding" in name or value.ndim == 1
                value = torch.from_numpy(value if kept else value.T.copy())
                places[name].copy_(value.reshape(places[name].shape))


def updated(gates, c):
    """Return the LSTM's states after gates (N, 4U)."""
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def weighed(scores, values):
    """Return the sums (N, D) of values (N, S, D), weighed by scores (N, S)."""
    return torch.bmm(scores.softmax(-1)[:, None], values)[:, 0]


def built(size: Size, attention: str, generating: bool = False, **options) -> Network:
    """Return a network with the weights that all contestants begin with."""
    network = Network(size, attention, **options)
    network.load(weights(size, attention, generating))
    return network


def precision(half: bool):
    """Return a context in which matrices are multiplied in bfloat16, or one that does nothing."""
    return torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext()


def training(size: Size, attention="luong", half=False, compiled=False, **options) -> Work:
    """Return a pass over the batches with the fused Adam.

    Args:
        size: The size.
        attention: "luong" or "bahdanau".
        half: Whether autocast multiplies in bfloat16.
        compiled: Whether the network goes through torch.compile.
        **options: Of `Network`.
    """
    network = built(size, attention, **options)
    forward = torch.compile(network, dynamic=False) if compiled else network

    def loss(source, target_in, target_out):
        with precision(half):
            logits = forward(source, target_in)
        return torch_loops.cross_entropy(logits, target_out)

    return torch_loops.training(size, network, loss)


class CellSteps:
    """Decoding steps of LSTMCell, as people write them."""

    def __init__(self, network: Network, size: Size):
        self.network = network
        self.cell = network.decoder
        if not network.additive:  # an LSTM's own weights, in a cell
            self.cell = nn.LSTMCell(size.embedding, size.units)
            for name, weight in network.decoder.named_parameters():
                setattr(self.cell, name.removesuffix("_l0"), weight)

    def begin(self, source):
        """Return what steps read of sources (B, S), and the first state."""
        encoded, bias, state = self.network.encode(source)
        keys = self.network.keys(encoded) if self.network.additive else encoded
        return (keys, encoded, bias), state

    def __call__(self, tokens, h, c, keys, values, bias):
        """Return logits (N, V) and the next state."""
        network, embedded = self.network, self.network.target_embedding(tokens)
        if network.additive:
            context = network.attend(keys, values, bias, h)
            h, c = self.cell(torch.cat([embedded, context], -1), (h, c))
        else:
            h, c = self.cell(embedded, (h, c))
            context = weighed(torch.bmm(keys, h[:, :, None])[:, :, 0] + bias, values)
        features = torch.tanh(network.combine(torch.cat([context, h], -1)))
        return network.projection(features), h, c


class FoldedSteps:
    """Decoding steps of which all that depends on tokens or sources alone is multiplied before."""

    def __init__(self, network: Network, size: Size):
        self.network, self.units = network, size.units
        u, cell = size.units, network.decoder
        suffix = "" if network.additive else "_l0"
        kernel, recurrent, *biases = (
            getattr(cell, name + suffix)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        table = network.target_embedding.weight
        self.table = F.linear(table, kernel[:, : size.embedding], sum(biases))  # (V, 4U)
        of_context, self.of_state = network.combine.weight.split(u, 1)
        self.of_values = of_context
        self.recurrent = recurrent
        if network.additive:
            self.of_values = torch.cat([of_context, kernel[:, size.embedding :]])  # (5U, U)
            self.recurrent = torch.cat([network.query.weight, recurrent])

    def begin(self, source):
        """See `CellSteps.begin`."""
        encoded, bias, state = self.network.encode(source)
        keys = self.network.keys(encoded) if self.network.additive else encoded
        return (keys, F.linear(encoded, self.of_values), bias), state

    def __call__(self, tokens, h, c, keys, values, bias):
        """See `CellSteps.__call__`."""
        gates = F.embedding(tokens, self.table)
        product = F.linear(h, self.recurrent)
        if self.network.additive:
            query, recurrent = product.split([self.units, 4 * self.units], -1)
            hidden = torch.tanh(keys + query[:, None])
            found = weighed(self.network.scale(hidden)[..., 0] + bias, values)
            context, of_context = found.split([self.units, 4 * self.units], -1)
            h, c = updated(gates + recurrent + of_context, c)
        else:
            h, c = updated(gates + product, c)
            context = weighed(torch.bmm(keys, h[:, :, None])[:, :, 0] + bias, values)
        return self.network.projection(torch.tanh(context + F.linear(h, self.of_state))), h, c


def greedy(steps, step, source, size: Size):
    """Return the most probable tokens, one after the other (B, steps)."""
    memory, begun = steps.begin(source)

    def after(tokens, state):
        logits, *state = step(tokens, *state, *memory)
        return logits, state

    return torch_loops.greedy(after, begun, len(source), size.steps)


def beam(steps, step, source, size: Size):
    """Return the most probable of `size.beam` hypotheses (B, steps); each has a copy of memory."""
    number, width = len(source), size.beam
    memory, (h, c) = steps.begin(source)
    *memory, h, c = (part.repeat_interleave(width, 0) for part in (*memory, h, c))
    scores = torch.full((number, width), IMPOSSIBLE)
    scores[:, 0] = 0
    tokens = torch.full((number, width), BOS)
    done = torch.zeros((number, width), dtype=torch.bool)
    ended = torch.full((size.vocabulary,), IMPOSSIBLE)
    ended[PAD] = 0  # a hypothesis that has ended goes on with padding, for nothing
    first, found = width * torch.arange(number)[:, None], torch.zeros((number, width, 0)).long()
    for _ in range(size.steps):
        logits, h, c = step(tokens.flatten(), h, c, *memory)
        log_p = logits.float().log_softmax(-1).unflatten(0, (number, width))
        if done.any():
            log_p = torch.where(done[:, :, None], ended, log_p)
        scores, places = (scores[:, :, None] + log_p).flatten(1).topk(width)
        parents, tokens = places // size.vocabulary, places % size.vocabulary
        kept = (parents + first).flatten()
        h, c = h[kept], c[kept]
        found = torch.cat(
            [found.flatten(0, 1)[kept].unflatten(0, (number, width)), tokens[:, :, None]], -1
        )
        done = done.gather(1, parents) | (tokens == EOS)
        if done.all():
            break
    return found[:, 0].numpy()


def generating(
    size: Size, attention="luong", folded=False, half=False, compiled=False, packed=False
) -> Work:
    """Return the decoding of one batch.

    Args:
        size: The size; `size.beam` is the beam.
        attention: "luong" or "bahdanau".
        folded: `FoldedSteps`, in place of `CellSteps`.
        half: Whether autocast multiplies in bfloat16.
        compiled: Whether the step goes through torch.compile.
        packed: See `Network`.
    """
    network = built(size, attention, generating=True, packed=packed).eval()
    source = torch.from_numpy(sources(size)).long()
    search = greedy if size.beam == 1 else beam
    with torch.inference_mode():
        steps = (FoldedSteps if folded else CellSteps)(network, size)
    step = torch.compile(steps.__call__, dynamic=False) if compiled else steps

    def run():
        with torch.inference_mode(), precision(half):
            return search(steps, step, source, size)

    return torch_loops.work(run, network)


def starting(size: Size, told, what: str):
    """Train for one step, or generate once, in a new process."""
    if what == "training":
        network = built(size, "luong")
        adam = torch.optim.Adam(network.parameters(), fused=True)
        one = [torch.from_numpy(ids[: size.batch]).long() for ids in batches(size)]
        told("built")
        logits = network(*one[:2])
        F.cross_entropy(logits.flatten(0, 1), one[2].flatten(), ignore_index=PAD).backward()
        adam.step()
    else:
        work = generating(size)
        told("built")
        work.run()
    told("done")
