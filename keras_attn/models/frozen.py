"""Frozen: a model as it is now, which only answers, and as fast as this machine can."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import tensorflow as tf

from keras_attn.kernels import cache
from keras_attn.models.generation import Generation
from keras_attn.models.packing import Packing
from keras_attn.models.runner import IDS, Runner, graph_of, searched
from keras_attn.search import Settings, Trie
from keras_attn.text.pipeline import widths
from keras_attn.types import EOS, PAD, SearchResult

# What a loop is compiled for: so many rows, or a multiple of the last; sources as wide as batches
# of training; and multiples of so many tokens of prefixes, and of targets.
ROWS = (1, 8, 16, 32, 64, 128)
WIDER, STEPS = 8, 16


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
        self._weights = model.weights  # asked at each call, and Keras walks all layers for them
        self._encode, self.stepper = model.encoders(), model.steppers(kept=True)
        self._runner = Compiled(self) if jit_compile else Runner(self)

    @property
    def weights(self) -> list[Any]:
        """The weights of the model that it is a copy of, its own."""
        return list(self._weights)

    def encode(self, source_ids):
        """Encode sources, see `Seq2Seq.encode`."""
        return self._encode(source_ids)

    def step(self, token_ids, state, memory):
        """Take one decoding step, see `Seq2Seq.step`."""
        return self._model.step(token_ids, state, memory)

    def log_probabilities(self, logits):
        """Return log p of what `step` gives, see `Seq2Seq.log_probabilities`."""
        return self._model.log_probabilities(logits)

    def scored(self, logits):
        """Return the scores of a search's step, see `Seq2Seq.scored`."""
        return self._model.scored(logits)

    def log_likelihood(self, source_ids, target_in, target_out):
        """Return log p of targets, nats (B,), see `Seq2Seq.log_likelihood`."""
        return self._model.log_likelihood(source_ids, target_in, target_out)

    def portable(self, rnn_kernel: str = "cpu"):
        """Return a context in which graphs are traced, see `Seq2Seq.portable`."""
        return self._model.portable(rnn_kernel)

    def export(self, *arguments, **options) -> str:
        """Write a SavedModel, see `Seq2Seq.export`; a server has no compiled loops."""
        return self._model.export(*arguments, **options)


_compiling = threading.Lock()


class Compiled(Runner):
    """Graphs of which those that search are compiled by XLA, once for each set of shapes."""

    shared = 32  # a compiled loop keeps one core busy, but for its largest products

    def __init__(self, model):
        super().__init__(model)
        self._ready: set[Any] = set()

    def search(self, source_ids, settings, how, width, steps):
        """See `Runner.search`."""
        rows, length = source_ids.shape
        if not rows:
            return super().search(source_ids, settings, how, width, steps)
        capacity = _multiple(steps, STEPS)
        source_ids, settings, how = _filled(source_ids, settings, how)
        specs = IDS, _specs(settings), _specs(how)

        def make():
            packing = Packing(specs)

            def run(*packed):
                asked = packing.unpacked(packed)
                return searched(self.model, *asked, width=width, steps=capacity)

            with self.model.portable():  # XLA compiles no kernel of cuDNN
                return packing, graph_of(run, *packing.signature, jit_compile=True)

        key = "compiled", type(how), width, capacity, specs
        packing, graph = self._made(key, make)
        packed = packing.packed((source_ids, settings, how))
        found = self._run(graph, source_ids.shape, *packed)
        found = SearchResult(*(x.numpy()[:rows] for x in found))
        return found._replace(
            token_ids=found.token_ids[:, :, :steps],
            token_scores=found.token_scores[:, :, :steps],
            alignments=found.alignments[:, :, :steps, :length],
        )

    def _run(self, graph, shape, *arguments):
        """Run a graph: first with a shape, when XLA compiles it, while nothing else is compiled.

        XLA has been seen to crash a process in which threads compiled the same loop at once.
        """
        if (graph, shape) in self._ready:
            return graph(*arguments)
        with _compiling, cache.compiling():
            found = graph(*arguments)
        self._ready.add((graph, shape))
        return found


def _specs(asked):
    """Return the specs of what is asked: any number of rows, each as wide as it is; one trie."""

    def spec(x):
        if isinstance(x, Trie):
            return Trie(*(tf.TensorSpec(part.shape, part.dtype) for part in x))
        return tf.TensorSpec([None, *x.shape[1:]], x.dtype)

    return type(asked)(*(spec(x) for x in asked))


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
    lists = {name: _wider(getattr(settings, name)) for name in ("prefix", "banned")}
    return filled, settings._replace(**lists), how


def _wider(ids):
    """Fill ids (B, N) with PAD, which stands for none, up to a multiple of `WIDER`."""
    missing = -ids.shape[1] % WIDER
    return np.pad(ids, [(0, 0), (0, missing)], constant_values=PAD) if missing else ids


def _width(length):
    return int(widths(length)[-1])


def _multiple(number: int, step: int) -> int:
    """Return the smallest multiple of `step` that is not less than `number`."""
    return -(-number // step) * step
