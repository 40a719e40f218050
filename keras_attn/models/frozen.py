"""Frozen: a model as it is now, which only answers, and as fast as this machine can."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from keras_attn.models.generation import Generation
from keras_attn.models.runner import Runner, graph_of, searched
from keras_attn.search import Settings
from keras_attn.text.pipeline import widths
from keras_attn.types import EOS, PAD, SearchResult

# What a loop is compiled for: so many rows, or a multiple of the last; sources as wide as batches
# of training; and multiples of so many tokens of prefixes, and of targets.
ROWS = (1, 8, 32, 128)
PREFIX, STEPS = 8, 16


class Frozen(Generation):
    """A model as it was when it was frozen, made by `freeze`.

    It generates, searches, streams, scores, attends and exports, with weights of its own that
    nothing changes. Threads may share it.

    Args:
        model: A `Seq2Seq` or an `Ensemble` that nobody else has.
        jit_compile: Whether searches are compiled by XLA.
    """

    def __init__(self, model: Any, jit_compile: bool):
        self._model = model
        self.source, self.target, self.codec = model.source, model.target, model.codec
        self.max_source, self.max_target = model.max_source, model.max_target
        self.attends = model.attends
        self.stepper = model.steppers(kept=True)
        self._runner = Compiled(self) if jit_compile else Runner(self)

    def encode(self, source_ids):
        """Encode sources, see `Seq2Seq.encode`."""
        return self._model.encode(source_ids)

    def step(self, token_ids, state, memory):
        """Take one decoding step, see `Seq2Seq.step`."""
        return self._model.step(token_ids, state, memory)

    def log_probabilities(self, logits):
        """Return log p of what `step` gives, see `Seq2Seq.log_probabilities`."""
        return self._model.log_probabilities(logits)

    def log_likelihood(self, source_ids, target_in, target_out):
        """Return log p of targets, nats (B,), see `Seq2Seq.log_likelihood`."""
        return self._model.log_likelihood(source_ids, target_in, target_out)

    def export(self, *arguments, **options) -> str:
        """Write a SavedModel, see `Seq2Seq.export`; a server has no compiled loops."""
        return self._model.export(*arguments, **options)


class Compiled(Runner):
    """Graphs of which those that search are compiled by XLA, one for each set of shapes."""

    def search(self, source_ids, settings, how, width, steps):
        """See `Runner.search`."""
        rows, length = source_ids.shape
        if not rows:
            return super().search(source_ids, settings, how, width, steps)
        capacity = _multiple(steps, STEPS)
        given = _filled(source_ids, settings, how)
        arrays = tf.nest.flatten(given)
        specs = tuple((x.shape, x.dtype) for x in arrays)

        def run(*vectors):
            unpacked = tf.nest.pack_sequence_as(given, _unpacked(vectors, specs))
            return searched(self.model, *unpacked, width=width, steps=capacity)

        vectors = _packed(arrays)
        signature = tuple(tf.TensorSpec(x.shape, x.dtype) for x in vectors)
        found = self._made(
            ("compiled", type(how), width, capacity, specs),
            lambda: graph_of(run, *signature, jit_compile=True),
        )(*vectors)
        found = SearchResult(*(x.numpy()[:rows] for x in found))
        return found._replace(
            token_ids=found.token_ids[:, :, :steps],
            token_scores=found.token_scores[:, :, :steps],
            alignments=found.alignments[:, :, :steps, :length],
        )


def _filled(source_ids, settings, how):
    """Fill arrays up to shapes for which loops are compiled; rows that are added end at once."""
    rows, length = source_ids.shape
    wanted = next((size for size in ROWS if size >= rows), _multiple(rows, ROWS[-1]))
    filled = np.full((wanted, _width(length)), PAD, source_ids.dtype)
    filled[rows:, 0] = EOS
    filled[:rows, :length] = source_ids
    repeated = np.minimum(np.arange(wanted), rows - 1)
    asked = (x if x is settings.trie else x[repeated] for x in settings)
    settings, how = Settings(*asked), type(how)(*(x[repeated] for x in how))
    prefix = settings.prefix
    wider = np.zeros((wanted, _multiple(prefix.shape[1], PREFIX)), prefix.dtype)
    wider[:, : prefix.shape[1]] = prefix
    return filled, settings._replace(prefix=wider), how


def _packed(arrays):
    """Return arrays as one vector for each dtype: every argument of a graph costs time."""
    return tuple(
        np.concatenate([x.ravel() for x in arrays if x.dtype == dtype])
        for dtype in _dtypes(x.dtype for x in arrays)
    )


def _unpacked(vectors, specs):
    """Return the arrays, of these shapes and dtypes, of which vectors were made."""
    parts = {}
    for dtype, vector in zip(_dtypes(dtype for _, dtype in specs), vectors, strict=True):
        sizes = [math.prod(shape) for shape, other in specs if other == dtype]
        parts[dtype] = iter(tf.split(vector, sizes))
    return [tf.reshape(next(parts[dtype]), shape) for shape, dtype in specs]


def _dtypes(dtypes):
    return sorted(set(dtypes), key=str)


def _width(length):
    return int(widths(length)[-1])


def _multiple(number: int, step: int) -> int:
    """Return the smallest multiple of `step` that is not less than `number`."""
    return -(-number // step) * step
