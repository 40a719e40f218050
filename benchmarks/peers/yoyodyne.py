"""yoyodyne's own LSTM with soft attention, which is near Bahdanau's order.

Additive scores are of the state before the update, and the LSTM reads [embedded; context], as ours
does. It is trained by our loop, since Lightning's trainer brings its own, on its own loss. What
differs, so that its loss is another model's:

- More work: the scores' matrix multiplies [encoded; state] of every source token in every step,
  where ours multiplies the encoded tokens once for all steps, and the state once for all tokens.
  That is T times our product of the keys and S times that of the queries.
- More work: training is a loop in Python over the steps, with the projection within it, and logits
  are (B, V, T).
- Less work: the projection reads the state alone. There is no readout of [context; state], which
  is 2 * U * U weights and a product of all target tokens.
- The decoder begins with a state and a cell that are learned, here from zeros, and not with the
  encoder's. The scores have biases. Together these are 3 * U + 1 weights.
- Source and target share one table. Here it holds both vocabularies, the target's first, as
  yoyodyne's own index does with `tie_embeddings=False`, so that there are as many rows as ours.

What both have begins with the same weights. yoyodyne needs an environment of its own: see
README.md.
"""

from __future__ import annotations

import torch
from sizes import BOS, PAD, Size, Work, sources, weights
from torch import Tensor
from yoyodyne import data, special
from yoyodyne.models import SoftAttentionLSTMModel
from yoyodyne.models.modules import LSTMEncoder

from peers import torch_loops


def model(size: Size) -> SoftAttentionLSTMModel:
    """Return its model, in one direction and without dropout."""
    encoder = LSTMEncoder(
        dropout=0, embedding_size=size.embedding, hidden_size=size.units, bidirectional=False
    )
    return SoftAttentionLSTMModel(
        source_encoder=encoder,
        decoder_hidden_size=size.units,
        decoder_dropout=0,
        embedding_size=size.embedding,
        vocab_size=2 * size.vocabulary,
        target_vocab_size=size.vocabulary,
        max_target_length=size.steps,
        compute_accuracy=False,
    )


@torch.no_grad()
def built(size: Size, generating: bool = False) -> SoftAttentionLSTMModel:
    """Return a model with the weights that all contestants begin with, as far as it has them."""
    network = model(size)
    attention = network.decoder.attention
    made = {
        name: torch.from_numpy(value)
        for name, value in weights(size, "bahdanau", generating).items()
    }
    for side, module in (("encoder", network.source_encoder), ("decoder", network.decoder)):
        module.module.weight_ih_l0.copy_(made[f"{side}_kernel"].T)
        module.module.weight_hh_l0.copy_(made[f"{side}_recurrent"].T)
        module.module.bias_ih_l0.copy_(made[f"{side}_bias"])
        module.module.bias_hh_l0.zero_()
    table = network.embeddings.weight
    table.copy_(torch.cat([made["target_embedding"], made["source_embedding"]]))
    table[special.START_IDX] = made["target_embedding"][BOS]  # what it begins targets with
    attention.M.weight.copy_(torch.cat([made["keys"], made["query"]]).T)
    attention.V.weight.copy_(made["scale"][None])
    network.classifier.weight.copy_(made["projection"].T)
    network.classifier.bias.copy_(made["projection_bias"])
    for zero in (attention.M.bias, attention.V.bias, network.decoder.h0, network.decoder.c0):
        zero.zero_()
    return network


def in_table(source: Tensor, size: Size) -> data.PaddedTensor:
    """Return sources (B, S) as ids of the table: behind those of targets, but for padding."""
    return data.PaddedTensor.from_tensor(torch.where(source == PAD, PAD, source + size.vocabulary))


def training(size: Size) -> Work:
    """Return a pass over the batches."""
    network = built(size)

    def loss(source, _, target):  # it makes the decoder's inputs of the targets itself
        batch = data.Batch(in_table(source, size), target=data.PaddedTensor.from_tensor(target))
        return network.loss_func(network(batch), target)

    return torch_loops.training(size, network, loss)


def generating(size: Size) -> Work:
    """Return the greedy decoding of one batch, by its own loop, with an early exit."""
    network = built(size, generating=True).eval()
    source = torch.from_numpy(sources(size)).long()

    @torch.inference_mode()
    def run():
        padded = in_table(source, size)
        encoded = network.source_encoder(padded, network.embeddings)
        return network.greedy_decode_predict_test(encoded, padded.mask).argmax(1).numpy()

    return torch_loops.work(run, network)
