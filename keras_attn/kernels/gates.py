"""Gates: what an RNN cell does behind its products, forwards and backwards."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


class Gates(NamedTuple):
    """A cell without its products; N rows, U units, G the width of all gates.

    Attributes:
        forward: Function of the projected input and the projected output, both (N, G), and the
            states, a tuple of (N, U) of which the first is the output. It returns the next states,
            and what `backward` needs, a tuple of (N, U).
        backward: Function of the gradients of the next states, of what `forward` kept, and of the
            states before the step. It returns the gradients of both projections (N, G), and of the
            states, as far as they do not go through the projection.
        kept: How many tensors `forward` keeps.
        tied: Whether both projections have one gradient, since they are only ever added.
    """

    forward: Any
    backward: Any
    kept: int
    tied: bool


def _lstm(projected, recurrent, states):
    """Keras' LSTM: gates i, f, c, o; states h, c."""
    i, f, g, o = tf.split(projected + recurrent, 4, axis=-1)
    i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
    c = f * states[1] + i * g
    squashed = tf.tanh(c)
    return (o * squashed, c), (i, f, g, o, squashed)


def _lstm_gradient(gradients, kept, states):
    dh, dc = gradients
    i, f, g, o, squashed = kept
    by_output = dh * o
    dc += by_output - by_output * squashed * squashed
    by_input = dc * i
    by_forget = dc * f
    gates = (
        by_input * g * (1 - i),
        by_forget * states[1] * (1 - f),
        by_input - by_input * g * g,
        by_output * squashed * (1 - o),
    )
    both = tf.concat(gates, axis=-1)
    return both, both, (tf.zeros_like(dh), by_forget)


def _gru(projected, recurrent, states):
    """Keras' GRU with the reset after the product: gates z, r, h; state h."""
    units = states[0].shape[-1]
    gates = tf.sigmoid(projected[:, : 2 * units] + recurrent[:, : 2 * units])
    z, r = tf.split(gates, 2, axis=-1)
    old = recurrent[:, 2 * units :]
    new = tf.tanh(projected[:, 2 * units :] + r * old)
    return (new + z * (states[0] - new),), (z, r, new, old)


def _gru_gradient(gradients, kept, states):
    (dh,) = gradients
    z, r, new, old = kept
    through = dh * z
    dnew = (dh - through) * (1 - new * new)
    dz = through * (states[0] - new) * (1 - z)
    reset = dnew * r
    dr = reset * old * (1 - r)
    return tf.concat([dz, dr, dnew], -1), tf.concat([dz, dr, reset], -1), (through,)


LSTM = Gates(_lstm, _lstm_gradient, kept=5, tied=True)
GRU = Gates(_gru, _gru_gradient, kept=4, tied=False)
