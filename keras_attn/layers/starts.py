"""Starts: what the first decoding step reads in place of a previous token."""

from __future__ import annotations

import keras
from keras import ops

from keras_attn.layers.base import Component, rows
from keras_attn.layers.choices import Choices
from keras_attn.types import BOS, Encoded, Memory

starts = Choices("start")


class Start(Component):
    """Base of the starts. `build(summary_depth, embedding_size)` makes the weights."""

    uses_summary = False

    def build(self, summary_depth, embedding_size):
        """Make the weights, if any."""
        self.built = True

    def prepare(self, encoded: Encoded, memory: Memory) -> Memory:
        """Return the memory with what `embed` needs of it."""
        return memory

    def embed(self, embedded, token_ids, memory: Memory):
        """Return the step's input (N, E), or (B, T, E), given the tokens and their embeddings."""
        return embedded


@starts.register("token")
class TokenStart(Start):
    """The embedding of the start token, learnt like any other."""


@starts.register("summary")
class SummaryStart(Start):
    """The projected summary of the source in place of the start token's embedding."""

    uses_summary = True

    def build(self, summary_depth, embedding_size):
        """Make the projection."""
        self.projection = keras.layers.Dense(
            embedding_size, name="projection", dtype=self.dtype_policy
        )
        self.projection.build((None, summary_depth))
        self.built = True

    def prepare(self, encoded, memory):
        """See `Start.prepare`."""
        return memory._replace(start=self.projection(encoded.summary))

    def embed(self, embedded, token_ids, memory):
        """See `Start.embed`."""
        first = rows(memory.start, like=token_ids)  # (N, E)
        if len(token_ids.shape) == 2:
            first = first[:, None, :]
        return ops.where(ops.equal(token_ids, BOS)[..., None], first, embedded)


@starts.register("zeros")
class ZeroStart(Start):
    """Zeros in place of the start token's embedding.

    Source: Cho et al. 2014, arXiv:1406.1078, appendix A: the first step reads no previous token.
    """

    def embed(self, embedded, token_ids, memory):
        """See `Start.embed`."""
        return ops.where(ops.equal(token_ids, BOS)[..., None], 0, embedded)
