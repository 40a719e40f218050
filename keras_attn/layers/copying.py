"""Copying: a step either generates a token of the vocabulary or copies one of the source.

Ids V + j stand for source position j, the first position of its token: so tokens that neither
vocabulary knows can be answered.
"""

from __future__ import annotations

import keras
import tensorflow as tf
from keras import ops

from keras_attn.layers.base import Component, beside, rows
from keras_attn.layers.choices import Choices
from keras_attn.types import UNK

gates = Choices("copy")

TINY = 1e-30  # the least probability, so that its logarithm is finite
IMPOSSIBLE = -69.0  # nats: what is below is log TINY, of an id without any probability


class Gate(Component):
    """Base of the gates between generating and copying.

    `build(units, context_depth, embedding_size)` makes the weights.

    Attributes:
        copies: Whether ids V + j are answered.
    """

    copies = False

    def build(self, units, context_depth, embedding_size):
        """Make the weights, if any."""
        self.built = True

    def logit(self, state, context, embedded):
        """Return the logit of generating, (N, 1), or (N, 0) where nothing is copied.

        Args:
            state: Float (N, U), the top layer's output; all may have a time axis.
            context: Float (N, D).
            embedded: Float (N, E), the step's input.
        """
        return state[..., :0]

    def mix(self, logits, output, memory):
        """Return what a search reads: logits (N, V) as they are, or log-probabilities (N, V + S).

        Args:
            logits: Float (N, V), at least float32.
            output: The step's `Output`.
            memory: With the slots (B, S).
        """
        return logits


@gates.register("none")
class NoGate(Gate):
    """Every token is generated."""


@gates.register("pointer")
class PointerGate(Gate):
    r"""Generate with probability g = sigmoid(w_c^T c_t + w_s^T s_t + w_x^T x_t + b), or copy.

    p(w) = g p_vocabulary(w) + (1 - g) sum_{j: token j is w} a_tj.

    Source: See, Liu & Manning 2017, arXiv:1704.04368, eqs. 8 and 9. Deviation: alignments
    that a window has left with a sum below 1 are divided by it; a step that looks nowhere
    generates. Weights: `kernel` (U + D + E, 1), `bias` (1,).
    """

    copies = True

    def build(self, units, context_depth, embedding_size):
        """Make the weights."""
        self.project = keras.layers.Dense(1, name="project", dtype=self.dtype_policy)
        self.project.build((None, units + context_depth + embedding_size))
        self.built = True

    def logit(self, state, context, embedded):
        """See `Gate.logit`."""
        return self.project(beside(state, context, embedded))

    def mix(self, logits, output, memory):
        """See `Gate.mix`."""
        size, length = logits.shape[-1], ops.shape(memory.slots)[-1]
        leading = ops.shape(logits)[:-1]
        slots = rows(memory.slots, like=logits)  # (N, S)
        if len(leading) == 2:
            slots = ops.repeat(slots, leading[1], axis=0)
        flat = [tf.reshape(x, [-1, x.shape[-1]]) for x in (logits, output.gate)]
        alignments = tf.reshape(output.alignments, tf.stack([tf.shape(flat[0])[0], length]))
        found = log_mixture(*flat, alignments, slots)  # (N*T, V + S)
        return ops.reshape(found, (*leading, size + length))


def log_mixture(logits, gate, alignments, slots):
    """Return log p of generating or copying, (N, V + S), at least -69.

    Args:
        logits: Float (N, V), at least float32.
        gate: Float (N, 1), the logit of generating.
        alignments: Float (N, S).
        slots: Int (N, S), the id in [0, V + S) that a copy of each position gets.
    """
    alignments = ops.cast(alignments, logits.dtype)
    total = ops.sum(alignments, axis=-1, keepdims=True)  # less than 1 in some windows
    generate = ops.where(total > 0, ops.sigmoid(ops.cast(gate, logits.dtype)), 1.0)
    vocabulary = generate * ops.softmax(logits)
    copied = (1 - generate) * alignments / ops.where(total > 0, total, 1.0)
    number = tf.broadcast_to(tf.range(tf.shape(slots)[0])[:, None], tf.shape(slots))
    both = tf.pad(vocabulary, [[0, 0], [0, tf.shape(slots)[1]]])
    both = tf.tensor_scatter_nd_add(both, tf.stack([number, slots], axis=-1), copied)
    return ops.log(ops.maximum(both, TINY))


def copy_slots(source_ids, to_target, target_size: int):
    """Return the id that a copy of each source token gets, int32 (B, S).

    It is the target's id of the token, or V + j where the target vocabulary does not know it, with
    j the first position of that token in the source.

    Args:
        source_ids: Int (B, S), Vs + j for a token that the source vocabulary does not know, with j
            its first position.
        to_target: Int (Vs,), the target's id of every source id, UNK where it has none.
        target_size: Int V.
    """
    source_ids = ops.cast(source_ids, "int32")
    same = ops.equal(source_ids[:, :, None], source_ids[:, None, :])  # (B, S, S)
    first = ops.cast(tf.argmax(ops.cast(same, "float32"), axis=-1), "int32")
    size = to_target.shape[0]
    known = ops.less(source_ids, size)
    found = ops.take(to_target, ops.where(known, source_ids, UNK))
    unknown = ops.logical_or(ops.logical_not(known), ops.equal(found, UNK))
    special = ops.less_equal(source_ids, UNK)  # an id that is UNK itself has no text to copy
    return ops.where(ops.logical_and(unknown, ops.logical_not(special)), target_size + first, found)
