"""The graphs behind generate, search and score: traced once, for every batch and length."""

from __future__ import annotations

import functools

import tensorflow as tf

from keras_attn.search import greedy
from keras_attn.training.losses import negative_log_likelihood, real_tokens
from keras_attn.types import EOS, SearchResult

IDS = tf.TensorSpec([None, None], tf.int32)
ROWS = tf.TensorSpec([None], tf.int32)
SCALAR = tf.TensorSpec([], tf.int32)


def search(model, source_ids, max_length, steps) -> SearchResult:
    """Search the best target of each source, in the graph.

    Args:
        model: Has `encode` and `step`.
        source_ids: Int (B, S), rows that end with EOS, PAD behind it.
        max_length: Int (B,), tokens.
        steps: Int, the width T of the result.
    """
    memory, state = model.encode(source_ids)

    def step(token_ids, state):
        return model.step(token_ids, state, memory)

    return greedy(
        step,
        state,
        max_length=max_length,
        steps=steps,
        forced_end=source_ids[:, 0] == EOS,
    )


class Runner:
    """A model's compiled graphs.

    They read its weights where they are, so a model that trains on answers with its newest ones.

    Args:
        model: A `Seq2Seq`.
    """

    def __init__(self, model):
        self.model = model

    @functools.cached_property
    def search(self):
        """Function of source_ids (B, S), max_length (B,) and steps to a `SearchResult`."""
        return _graph(functools.partial(search, self.model), IDS, ROWS, SCALAR)

    @functools.cached_property
    def score(self):
        """Function of source_ids (B, S), target_in and target_out (B, T) to log p (B,)."""

        def score(source_ids, target_in, target_out):
            logits = self.model({"source": source_ids, "target_in": target_in}, training=False)
            losses = negative_log_likelihood(target_out, logits)
            return -tf.reduce_sum(losses * real_tokens(target_out, losses.dtype), axis=-1)

        return _graph(score, IDS, IDS, IDS)


def _graph(function, *signature):
    """Trace `function` once for all shapes of its signature."""
    traced = tf.function(function, input_signature=signature, autograph=False)
    concrete = traced.get_concrete_function()
    return lambda *arrays: concrete(
        *(tf.constant(a, spec.dtype) for a, spec in zip(arrays, signature, strict=True))
    )
