"""The step of a decoder that attends within its loop, for `hoisting`.

Bahdanau's order attends before each update; input feeding reads what the step before has seen. Both
keep a target from being one run of the recurrence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_attn.kernels.gates import Gates

MASKED = -1e30


class Form(NamedTuple):
    """What a step does.

    Attributes:
        gates: `gates.LSTM` or `gates.GRU`, of every layer.
        attends_first: Whether it attends with the output before, or with its own.
        additive: Whether scores are v^T tanh(...), or inner products.
        feeds: Whether the next step reads tanh(W [c; s]).
        residual: Whether layers after the first add their input to their output.
        mask: Bool (B, S), True at tokens.
    """

    gates: Gates
    attends_first: bool
    additive: bool
    feeds: bool
    residual: bool
    mask: Any


class Inputs(NamedTuple):
    """What a step gets of the target.

    Attributes:
        projected: Float (B, G), the token by the first layer, with its bias.
        drops: Tuple of float (B, U), what the inputs of the layers after the first are times; empty
            where nothing is dropped.
    """

    projected: Any
    drops: tuple


class States(NamedTuple):
    """What a step hands to the next.

    Attributes:
        layers: Tuple over layers of tuples of (B, U), the output first, in the dtype of gates.
        fed: Float (B, F), in the dtype of products; width 0 without feeding.
    """

    layers: tuple
    fed: Any


class Constants(NamedTuple):
    """What the additive score reads, in the dtype of gates; width 0 with inner products.

    Attributes:
        keys: Float (B, S, A), projected.
        scale: Float (A,).
    """

    keys: Any
    scale: Any


def attending(form: Form):
    """Return a step for `hoisting.steps`.

    Its matrices: "values" (B, S, D); "keys" (B, A, S) or, if it is additive, "query" (U, A); of
    each layer i, "i" with the rows of what is read besides the token, then of the output, or for
    gates that are not tied "i input" and "i output"; "readout" (D + U, F) if it feeds. Its outputs
    are the output (B, U), the context (B, D), the alignments (B, S), and what is fed.
    """

    def step(times, inputs, states, constants):
        if form.attends_first:
            context, alignments = _attended(form, times, states.layers[-1][0], constants)
            output, layers = _updated(form, times, inputs, states, (context,))
        else:
            output, layers = _updated(form, times, inputs, states, ())
            context, alignments = _attended(form, times, output, constants)
        features = states.fed
        if form.feeds:
            features = tf.tanh(times("readout", context, output))
        return (output, context, alignments, features), States(layers, features)

    return step


def _attended(form, times, output, constants):
    """Return context and alignments of an output (B, U)."""
    if form.additive:
        query = tf.cast(times("query", output), constants.keys.dtype)
        hidden = tf.tanh(constants.keys + tf.expand_dims(query, 1))
        flat = tf.reshape(hidden, [-1, hidden.shape[-1]])  # one product of matrices is fastest
        scores = tf.matmul(flat, tf.expand_dims(constants.scale, 1))
        scores = tf.reshape(scores, tf.shape(form.mask))
    else:
        scores = times("keys", output)
    alignments = aligned(scores, form.mask)
    return times("values", alignments), alignments


def _updated(form, times, inputs, states, read):
    """Return the output (B, U) and the states of all layers, having read the token and more."""
    parts = (*read, states.fed) if form.feeds else read
    first, *others = states.layers
    following = [_cell(form, times, 0, inputs.projected, parts, first)]
    output = following[0][0]
    for i, before in enumerate(others, start=1):
        below = output * inputs.drops[i - 1] if inputs.drops else output
        projected = tf.zeros([], before[0].dtype)  # all of it is in the product
        following.append(_cell(form, times, i, projected, (below,), before))
        output = following[-1][0] + output if form.residual else following[-1][0]
    return output, tuple(following)


def _cell(form, times, i, projected, parts, states):
    """Return the next states of layer i."""

    def product(name, *parts):
        return tf.cast(times(f"{i}{name}", *parts), states[0].dtype)

    given = tf.cast(projected, states[0].dtype)
    if form.gates.tied:
        recurrent = product("", *parts, states[0])
    else:
        given, recurrent = given + product(" input", *parts), product(" output", states[0])
    return tuple(form.gates.forward(given, recurrent, states)[0])


def aligned(scores, mask):
    """Return a softmax over the tokens; zeros where there are none."""
    soft = tf.nn.softmax(tf.where(mask, scores, tf.constant(MASKED, scores.dtype)))
    return tf.where(mask, soft, tf.zeros_like(soft))
