"""Signatures: what an exported model answers; all of it is checked and clamped in the graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_attn.text.pipeline import shifted, source_ids, target_ids
from keras_attn.types import EOS, PAD, UNK

RAGGED = "every input has one value a source"
TEXTS = tf.TensorSpec([None], tf.string)
INTS = tf.TensorSpec([None], tf.int32)
FLOATS = tf.TensorSpec([None], tf.float32)
IDS = {"source_ids": tf.TensorSpec([None, None], tf.int32), "source_lengths": INTS}


def signatures(model: Any, search: Callable, beam_size: int) -> dict[str, Any]:
    """Return the model's signatures by name; without attention there is no `attend`.

    Args:
        model: A `Seq2Seq`, or an `Ensemble`, with tokenisers.
        search: Function of (model, source_ids, width, **tensors), see `models.runner.served`.
        beam_size: Int K of `beam` and `ids_beam`, and the most that `options` takes.
    """

    def traced_once(width):
        found = functools.partial(search, model, width=width)
        return tf.function(found, input_signature=[IDS["source_ids"]], autograph=False)

    best, beam = traced_once(1), traced_once(beam_size)
    asked = functools.partial(search, model)
    made = {
        **of_texts(model, best, beam, asked, beam_size),
        **of_ids(model, best, beam),
        **of_steps(model),
    }
    if not model.attends:
        del made["attend"]
    return made


def of_texts(model, best_of, beam_of, search, beam_size) -> dict[str, Any]:
    """Return the signatures of strings: of whole searches, and `score`."""

    def ids_of(source):
        return _at_least_one(source_ids(model.codec.source_ids(source), model.max_source))

    def best(source, result):
        target = model.codec.text(result.token_ids[:, 0], source)
        return {"target": target, "score": tf.cast(result.scores[:, 0], tf.float32)}

    def serving_default(source):
        return best(source, best_of(ids_of(source)))

    def attend(source):
        ids = ids_of(source)
        result = best_of(ids)
        ids = tf.pad(ids, [[0, 0], [0, model.max_source - tf.shape(ids)[1]]])
        ids = tf.ensure_shape(ids, [None, model.max_source])
        return {
            **best(source, result),
            "source_tokens": model.codec.source_tokens(ids, source),
            "target_tokens": model.codec.target_tokens(result.token_ids[:, 0], source),
            "alignments": _alignments(result, model.max_source),
            "target_lengths": tf.cast(result.lengths[:, 0], tf.int32),
        }

    def beam(source):
        result = beam_of(ids_of(source))
        flat = tf.reshape(result.token_ids, [-1, model.max_target])
        target = model.codec.text(flat, tf.repeat(source, beam_size))
        scores = tf.cast(result.scores, tf.float32)
        return {"target": tf.reshape(target, tf.shape(scores)), "score": scores}

    def options(source, **given):
        one = tf.ones_like(given["beam_size"])
        return best(source, search(ids_of(source), beam_size, num_return=one, **given))

    def sample(source, **given):
        return best(source, search(ids_of(source), **given))

    def score(source, target):
        ids = target_ids(model.codec.target_ids(target, source), model.max_target)
        target_out = _at_least_one(ids)
        found = model.log_likelihood(ids_of(source), shifted(target_out), target_out)
        return {"score": tf.cast(found, tf.float32)}

    source = {"source": TEXTS}
    asked = {"beam_size": INTS, "max_length": INTS, "length_penalty": FLOATS}
    drawn = {"seed": tf.TensorSpec([None], tf.int64), "temperature": FLOATS}
    drawn |= {"top_k": INTS, "top_p": FLOATS, "max_length": INTS}
    return {
        "serving_default": signature(serving_default, source),
        "beam": signature(beam, source),
        "options": signature(options, source | asked),
        "sample": signature(sample, source | drawn),
        "score": signature(score, source | {"target": TEXTS}),
        "attend": signature(attend, source),
    }


def of_ids(model, best_of, beam_of) -> dict[str, Any]:
    """Return the signatures of ids, to ids."""

    def ids(source_ids, source_lengths):
        result = best_of(rows_of_ids(model, source_ids, source_lengths))
        found = {
            "target_ids": tf.cast(result.token_ids[:, 0], tf.int32),
            "target_lengths": tf.cast(result.lengths[:, 0], tf.int32),
            "score": tf.cast(result.scores[:, 0], tf.float32),
        }
        if model.attends:
            found["alignments"] = _alignments(result, model.max_source)
        return found

    def ids_beam(source_ids, source_lengths):
        result = beam_of(rows_of_ids(model, source_ids, source_lengths))
        return {
            "target_ids": tf.cast(result.token_ids, tf.int32),
            "target_lengths": tf.cast(result.lengths, tf.int32),
            "score": tf.cast(result.scores, tf.float32),
        }

    return {"ids": signature(ids, IDS), "ids_beam": signature(ids_beam, IDS)}


def of_steps(model) -> dict[str, Any]:
    """Return `encode` and `step`: what a client searches with, or streams; see `Steps`."""
    steps = Steps(model)

    def encode(source_ids, source_lengths):
        return steps.encode(rows_of_ids(model, source_ids, source_lengths))

    return {
        "encode": signature(encode, IDS),
        "step": signature(steps.step, {"token": INTS, **steps.specs}),
    }


class Steps:
    """Encoding and stepping with tensors by name.

    `encode` gives the memory and the first state as `memory_...` and `state_...`; `step` takes them
    all and gives the state that follows. What a model does not have, and would be of width 0, is
    left out. In place of a mask stand lengths, and heads follow positions: so whatever a server
    pads the positions with to merge requests, it is not read.

    Args:
        model: Has `encode`, `step` and `attends`.
    """

    def __init__(self, model):
        self.model = model
        three = tf.function(model.encode, autograph=False).get_concrete_function(
            tf.TensorSpec([1, 3], tf.int32)
        )
        memory, _ = three.structured_outputs
        self.heads = {  # positions in a row for each of the source's
            name: x.shape[1] // 3 for name, x in named(memory, "memory") if len(x.shape) == 3
        }

    @functools.cached_property
    def _traced(self):
        """What the model encodes to, nested as it is and by name, of symbolic tensors."""

        def both(source_ids):
            nested = self.model.encode(source_ids)
            return nested, self.by_name(*nested)

        ids = IDS["source_ids"]
        return tf.function(both, autograph=False).get_concrete_function(ids).structured_outputs

    @functools.cached_property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """Dict of the specs of memory and state, by name."""
        return {
            name: tf.TensorSpec([None, *x.shape[1:]], x.dtype)
            for name, x in self._traced[1].items()
        }

    def encode(self, source_ids):
        """Return the tensors of sources, int (B, S), rows that end with EOS, PAD behind it."""
        return self.by_name(*self.model.encode(source_ids))

    def by_name(self, memory, state):
        """Return the tensors of memory and state by the names that they are served by."""
        found = dict(named(memory, "memory")) | _present(named(state, "state"))
        for name in [name for name in found if name.endswith("_mask")]:
            lengths = tf.reduce_sum(tf.cast(found.pop(name), tf.int32), axis=1)
            found[name.removesuffix("mask") + "lengths"] = lengths
        for name, heads in self.heads.items():
            if heads > 1:
                found[name] = tf.transpose(_split(found[name], heads), [0, 2, 1, 3])
        return _present(found.items())

    def step(self, token, **given):
        """Return logits, alignments if there are any, and the state behind the tokens (B,)."""
        for name in [name for name in given if name.endswith("_lengths")]:
            prefix, lengths = name.removesuffix("lengths"), given[name]
            longest = self._positions(prefix, given, tf.reduce_max(lengths))
            mask = given[f"{prefix}mask"] = tf.sequence_mask(lengths, longest)
            state = prefix.replace("memory", "state", 1)
            for key in [key for key in given if key.startswith(state)]:
                if given[key].shape[-1] is None:  # (B, H, S), or wider behind a merged step
                    there = given[key][..., :longest]
                    given[key] = tf.where(mask[:, None], there, tf.zeros_like(there))
        for name, heads in self.heads.items():
            if heads > 1 and name in given:
                given[name] = _joined(tf.transpose(given[name], [0, 2, 1, 3]))
        memory, state = (
            _put_together(kind, prefix, given, self.heads)
            for kind, prefix in zip(self._traced[0], ("memory", "state"), strict=True)
        )
        logits, alignments, state = self.model.step(token, state, memory)
        found = {"logits": logits} | ({"alignments": alignments} if self.model.attends else {})
        return _present((found | dict(named(state, "state"))).items())

    def _positions(self, prefix, given, otherwise):
        """Return how many positions the tensors of a memory have, which has to be the same."""
        names = [name for name in self.heads if name.startswith(prefix) and name in given]
        if not names:
            return otherwise
        first, *others = (tf.shape(given[name])[1] for name in names)
        told = f"{' and '.join(names)}: expected as many positions"
        same = [tf.debugging.assert_equal(other, first, told) for other in others]
        with tf.control_dependencies(same):
            return tf.identity(first)


def _present(tensors) -> dict[str, Any]:
    """Return tensors by name as they are served, but those of width 0."""
    return {name: shown(x) for name, x in tensors if 0 not in x.shape}


def _split(x, parts: int):
    """Return x (B, parts * N, C) as (B, parts, N, C)."""
    batch, size, _ = tf.unstack(tf.shape(x))
    return tf.reshape(x, [batch, parts, size // parts, x.shape[-1]])


def _joined(x):
    """Return x (B, parts, N, C) as (B, parts * N, C)."""
    batch, parts, size, _ = tf.unstack(tf.shape(x))
    return tf.reshape(x, [batch, parts * size, x.shape[-1]])


def signature(function: Callable, specs: dict[str, tf.TensorSpec]):
    """Return a `tf.function` of tensors by name, refused in any other shape than the specs say.

    The first axis of all of them is that of the batch. What a session is given is not checked
    against a signature, so the graph does.
    """
    names = tuple(specs)

    def checked(*given):
        given = [
            tf.ensure_shape(x, specs[name].shape) for name, x in zip(names, given, strict=True)
        ]
        rows = tf.shape(given[0])[0]
        same = [tf.debugging.assert_equal(tf.shape(x)[0], rows, RAGGED) for x in given[1:]]
        with tf.control_dependencies(same):
            return function(**{name: tf.identity(x) for name, x in zip(names, given, strict=True)})

    inputs = [tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()]
    return tf.function(checked, input_signature=inputs, autograph=False)


def rows_of_ids(model, source_ids, source_lengths):
    """Return ids as the model reads them, int32 (B, S): of whatever numbers, in the graph.

    A row is what stands before its first EOS, its length and `max_source` - 1, and then EOS.
    Lengths count EOS, and one outside of [0, S] is the nearest of them. An id that is none of a
    token, PAD among them, is UNK.

    Args:
        model: Has a `codec` and `max_source`.
        source_ids: Int32 (B, S); S may be 0.
        source_lengths: Int32 (B,).
    """
    ids = tf.cast(source_ids[:, : tf.size(source_ids)], tf.int64)  # no rows may be any width
    places = tf.range(tf.shape(ids, tf.int64)[1])
    within = places < tf.cast(source_lengths, tf.int64)[:, None]
    tokens = within & (tf.cumsum(tf.cast(ids == EOS, tf.int64), axis=1) == 0)
    lengths = tf.reduce_sum(tf.cast(tokens, tf.int64), axis=1, keepdims=True)  # (B, 1)
    lengths = tf.minimum(lengths, model.max_source - 1)
    limit = tf.cast(model.codec.source_limit(lengths), tf.int64)
    ids = tf.where((ids > PAD) & (ids < limit), ids, UNK)
    ids = tf.concat([ids, tf.zeros_like(lengths)], axis=1)  # room for EOS
    width = tf.reduce_max(tf.concat([lengths[:, 0], [0]], axis=0)) + 1
    ids, places = ids[:, :width], tf.range(width)
    ids = tf.where(places < lengths, ids, tf.where(places == lengths, tf.cast(EOS, tf.int64), PAD))
    return tf.cast(ids, tf.int32)


def named(nested: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of named and plain tuples with their names, `memory_keys`, `x_0_1`."""
    if isinstance(nested, tuple):
        for part, tensor in zip(_parts(nested), nested, strict=True):
            yield from named(tensor, f"{name}_{part}")
    else:
        yield name, nested


def _parts(nested):
    return getattr(nested, "_fields", range(len(nested)))


def _put_together(kind, name, given, heads):
    """Return tensors by name nested as `kind`; what is not given has width 0."""
    if isinstance(kind, tuple):
        parts = [
            _put_together(part, f"{name}_{key}", given, heads)
            for key, part in zip(_parts(kind), kind, strict=True)
        ]
        return type(kind)(*parts) if hasattr(kind, "_fields") else tuple(parts)
    if name in given:
        return tf.cast(given[name], kind.dtype)
    mask = next(x for key, x in given.items() if key.endswith("_mask"))
    rows, length = tf.unstack(tf.shape(mask))
    positions = length * heads.get(name, 1)
    inner = [positions if size is None else size for size in kind.shape[1:]]
    return tf.zeros([rows, *inner], kind.dtype)


def shown(x):
    """Return a tensor as it is served: floats are float32."""
    return tf.cast(x, _served_dtype(x))


def _served_dtype(x):
    return tf.float32 if x.dtype.is_floating else x.dtype


def _alignments(result, max_source):
    """Return the alignments of the best targets, as wide as any source."""
    found = tf.cast(result.alignments[:, 0], tf.float32)
    found = tf.pad(found, [[0, 0], [0, 0], [0, max_source - tf.shape(found)[2]]])
    return tf.ensure_shape(found, [None, None, max_source])


def _at_least_one(ids):
    """Return ragged ids (B, None) as a tensor (B, T), padded with PAD, with T at least 1."""
    array = ids.to_tensor(PAD)
    return tf.pad(array, [[0, 0], [0, tf.cast(tf.shape(array)[1] == 0, tf.int32)]])
