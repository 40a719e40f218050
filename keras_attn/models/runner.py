"""The graphs behind generate, search, score and stream: traced once, for every batch and length."""

from __future__ import annotations

import threading
from typing import Any

import tensorflow as tf

from keras_attn import kernels
from keras_attn.search import (
    Draw,
    Ranking,
    Settings,
    Trie,
    advance,
    begin,
    choice_of,
    clamped,
    plain,
    rules_of,
    search,
)
from keras_attn.text import pipeline
from keras_attn.text.arguments import as_strings
from keras_attn.types import EOS, PAD, SearchResult

IDS = tf.TensorSpec([None, None], tf.int32)
ROWS = tf.TensorSpec([None], tf.int32)
TEXTS = tf.TensorSpec([None], tf.string)
SCALAR = tf.TensorSpec([], tf.int32)
FLOATS = tf.TensorSpec([None], tf.float32)

SETTINGS = Settings(ROWS, ROWS, IDS, IDS, IDS, Trie(ROWS, ROWS, ROWS))
RANKING = Ranking(ROWS, ROWS, FLOATS, tf.TensorSpec([None, None], tf.float32))
DRAW = Draw(tf.TensorSpec([None, None], tf.int64), FLOATS, ROWS, FLOATS)


def searched(model, source_ids, settings: Settings, how: Any, *, width: int, steps) -> SearchResult:
    """Search the best targets of each source, or draw some, in the graph.

    Args:
        model: Has `encode`, `stepper` and `scored`.
        source_ids: Int (B, S), rows that end with EOS, PAD behind it. A source without tokens
            forces EOS at the first step.
        settings: `Settings`.
        how: `Ranking`, or `Draw`.
        width: Int K.
        steps: Int, the width T of the result.
    """
    memory, state = model.encode(source_ids)
    step, choice, rules = _parts(
        model, source_ids, model.stepper(memory), settings, how, width, steps
    )
    return search(step, state, choice, rules, batch=tf.shape(source_ids)[0], steps=steps)


def _parts(model, source_ids, stepper, settings, how, width, steps):
    """Return what a search is made of: the step, the choice and the rules."""

    def step(token_ids, state):
        logits, alignments, state = stepper(token_ids, state)
        return model.scored(logits), alignments, state

    settings = _with_ends(clamped(settings, steps), source_ids)
    choice = choice_of(how, width, settings.max_length, tf.not_equal(source_ids, PAD))
    return step, choice, rules_of(settings, steps, width)


def _with_ends(settings: Settings, source_ids) -> Settings:
    """Force EOS at the first step of sources without tokens."""
    prefix = tf.pad(settings.prefix, [[0, 0], [0, 1]])
    first = tf.range(tf.shape(prefix)[1]) == 0
    empty = tf.equal(source_ids[:, 0], EOS)[:, None]
    return settings._replace(prefix=tf.where(empty & first, EOS, prefix))


def served(model, source_ids, width: int = 1, **given) -> SearchResult:
    """Search as a server asks for it, in the graph.

    Args:
        model: See `searched`.
        source_ids: Int (B, S).
        width: Int K.
        **given: Tensors (B,): `max_length` (by default the model's), `beam_size` and `num_return`
            (K) and `length_penalty` (0); or `seed`, `temperature`, `top_k` and `top_p`, to draw.
    """
    whole = tf.fill([tf.shape(source_ids)[0]], width)
    settings = plain(given.get("max_length", tf.zeros_like(whole) + model.max_target))
    if "seed" in given:
        how: Any = Draw(given["seed"][:, None], *(given[x] for x in Draw._fields[1:]))
    else:
        nothing = tf.zeros_like(whole, tf.float32)
        how = Ranking(
            given.get("beam_size", whole),
            given.get("num_return", whole),
            given.get("length_penalty", nothing),
            nothing[:, None][:, :0],
        )
    return searched(model, source_ids, settings, how, width=width, steps=model.max_target)


class Runner:
    """A model's compiled graphs.

    They read its weights where they are, so a model that trains on answers with its newest ones.

    Args:
        model: A `Seq2Seq`, or an `Ensemble`.

    Attributes:
        shared: Int, the number of hypotheses from which a batch is faster in parts, one for a core.
    """

    shared = 128

    def __init__(self, model):
        self.model = model
        self._graphs: dict[Any, Any] = {}
        self._weights: list[int] = []
        self._lock = threading.Lock()

    def search(self, source_ids, settings: Settings, how: Ranking | Draw, width: int, steps: int):
        """Return the `SearchResult` of one batch, see `searched`; one graph for each width."""

        def make():
            def run(source_ids, settings, how, steps):
                return searched(self.model, source_ids, settings, how, width=width, steps=steps)

            return graph_of(run, IDS, SETTINGS, _spec(how), SCALAR)

        return self._made(("search", type(how), width), make)(source_ids, settings, how, steps)

    def source_rows(self, texts):
        """Turn sources, n strings, into rows of ids; see `pipeline.rows_of`."""
        model = self.model

        def make():
            rows = pipeline.rows_of(model.codec.source_ids, model.max_source, pipeline.source_ids)
            return graph_of(rows, TEXTS)

        return self._of_texts("source_rows", make)(as_strings(texts))

    def texts(self, token_ids, sources):
        """Turn ids (n, T) of targets of n sources into strings; see `Codec.text`."""

        def make():
            return graph_of(self.model.codec.text, IDS, TEXTS)

        return self._of_texts("texts", make)(token_ids, as_strings(sources))

    def score(self, source_ids, target_in, target_out):
        """Return log p (B,) of targets; ids (B, S), (B, T) and (B, T)."""

        def make():
            return graph_of(self.model.log_likelihood, IDS, IDS, IDS)

        return self._made(("score",), make)(source_ids, target_in, target_out)

    def stream(self, source_ids, settings: Settings, how: Ranking | Draw, steps: int):
        """Yield (token int, ended bool) of one source, step by step."""
        first, following = self._made(("stream", type(how)), lambda: self._walkers(how))
        memory, walk = first(source_ids, settings, how, steps)
        for t in range(steps):
            walk = following(t, walk, memory, source_ids, settings, how, steps)
            slots = walk.slots
            yield int(slots.token[0, 0]), bool(slots.ended[0, 0])
            if slots.ended[0, 0]:
                return

    def _walkers(self, how):
        """Return the graphs of what stands before the first step, and of one step."""
        model = self.model

        def parts(source_ids, memory, settings, how, steps):
            def unfolded(token_ids, state):  # a graph of one step has nothing to fold
                return model.step(token_ids, state, memory)

            return _parts(model, source_ids, unfolded, settings, how, 1, steps)

        def first(source_ids, settings, how, steps):
            memory, state = model.encode(source_ids)
            step, choice, rules = parts(source_ids, memory, settings, how, steps)
            batch = tf.shape(source_ids)[0]
            token = tf.zeros([batch], tf.int64)
            scores, alignments, _ = step(token, state)  # for its dtype and width alone
            length = tf.shape(alignments)[1]
            return memory, begin(state, choice, rules, batch, length, scores.values.dtype)

        def following(t, walk, memory, source_ids, settings, how, steps):
            step, choice, rules = parts(source_ids, memory, settings, how, steps)
            return advance(step, choice, rules, t, walk)[1]

        inputs = IDS, SETTINGS, _spec(how), SCALAR
        begun = graph_of(first, *inputs)
        memory, walk = tf.nest.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype), begun.outputs
        )
        return begun, graph_of(following, tf.TensorSpec([], tf.int64), walk, memory, *inputs)

    def _made(self, key, make):
        """Return the graph of a key, made at most once, whatever threads ask.

        A layer that is quantised, or gets LoRA, has other variables from then on; graphs read those
        that they were made with, so they are all made again.
        """
        key, weights = (*key, kernels.is_plain()), list(map(id, self.model.weights))
        if weights != self._weights:
            with self._lock:
                if weights != self._weights:  # another thread may have been here meanwhile
                    self._graphs, self._weights = {}, weights
        graph = self._graphs.get(key)
        if graph is None:
            with self._lock:
                graph = self._graphs.get(key) or make()
                self._graphs[key] = graph
        return graph

    def _of_texts(self, name, make):
        """Return a graph with tokenisers, made once for each time that their tables were built."""
        key = name, self.model.codec.builds()
        graph = self._made(key, make)
        for other in list(self._graphs):
            if other[0] == name and other[1] != key[1]:
                self._graphs.pop(other, None)  # nobody asks it any more
        return graph


def _spec(how):
    return DRAW if isinstance(how, Draw) else RANKING


class _Graph:
    """A function traced once for all shapes of its signature, nested as it is."""

    def __init__(self, function, signature, jit_compile=None):
        self.specs = tf.nest.flatten(signature)

        def flat(*arrays):
            return function(*tf.nest.pack_sequence_as(signature, arrays))

        traced = tf.function(
            flat, input_signature=self.specs, autograph=False, jit_compile=jit_compile
        )
        self.concrete = traced.get_concrete_function()

    @property
    def outputs(self):
        """What it returns, as symbolic tensors."""
        return self.concrete.structured_outputs

    def __call__(self, *arguments):
        """Run it."""
        given = zip(tf.nest.flatten(arguments), self.specs, strict=True)
        return self.concrete(*(tf.convert_to_tensor(array, spec.dtype) for array, spec in given))


def graph_of(function, *signature, jit_compile=None):
    """Return a `_Graph`: functions of what the signature nests."""
    return _Graph(function, signature, jit_compile)
