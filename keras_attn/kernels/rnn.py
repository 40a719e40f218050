"""A recurrence over a whole sequence, with a gradient of its own.

The loop holds one product a step. All else that grows with the number of weights stands outside of
it: the projection of the inputs before, and the gradient of the recurrent weights, as one product
over all steps, behind. What the gates have computed is kept for the way back, not computed again.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_attn.kernels import loops
from keras_attn.kernels.gates import Gates
from keras_attn.kernels.products import column_sums


def recurrence(gates: Gates, projected, kernel, bias, states, mask, training: bool):
    """Run a cell over inputs that are projected already.

    Products are in the dtype of `kernel`; states, gates and their gradients are in that of
    `states`.

    Args:
        gates: `gates.LSTM` or `gates.GRU`.
        projected: Float (T, B, G).
        kernel: Float (U, G), the recurrent weights.
        bias: Float (G,), added to their product, or (0,) for none.
        states: Tuple of float (B, U), the output first.
        mask: Bool (T, B, 1), False where states stay as they are, or (T, B, 0) for nowhere.
        training: Whether gradients are wanted, and so what they need is kept. There are gradients
            without it too, slower ones.

    Returns:
        The outputs (T, B, U), and the last states.
    """

    def plain(*inputs):
        outputs, last, _ = _forwards(gates, mask, *inputs)
        return outputs, *last

    @tf.custom_gradient
    def run(*inputs):
        outputs, last, arrays = _forwards(gates, mask, *inputs, keeps=True)

        def gradient(*upstream):
            @tf.custom_gradient
            def first(*_):
                found = _backwards(gates, mask, upstream, arrays, *inputs)
                return found, lambda *second: loops.second_order(plain, upstream, inputs, second)

            return first(*upstream, *inputs)

        return (outputs, *last), gradient

    if not training:
        return _forwards(gates, mask, projected, kernel, bias, *states)[:2]
    outputs, *last = run(projected, kernel, bias, *states)
    return outputs, tuple(last)


class Arrays(NamedTuple):
    """What the way forward keeps for the way back, an array over time each.

    Attributes:
        outputs: The output before each step, (B, U), in the dtype of products.
        states: The states before each step, (B, U) each.
        gates: What the gates kept of each step, (B, U) each.
    """

    outputs: tuple
    states: tuple
    gates: tuple


def _forwards(gates, mask, projected, kernel, bias, *states, keeps=False):
    """Return the outputs, the last states, and `Arrays`, which without `keeps` are empty."""
    steps, wide = tf.shape(projected)[0], states[0].dtype
    inputs, real = loops.read(projected), loops.read(mask)
    outputs, narrow = (loops.array(steps, x) for x in (states[0], tf.cast(states[0], kernel.dtype)))
    arrays = Arrays((), (), ())
    if keeps:
        kept = tuple(loops.array(steps, states[0]) for _ in range(gates.kept))
        arrays = Arrays((narrow,), tuple(loops.array(steps, x) for x in states), kept)

    def body(t, states, outputs, arrays):
        output = tf.cast(states[0], kernel.dtype)
        recurrent = tf.matmul(output, kernel)
        if bias.shape[0] != 0:
            recurrent += bias
        found, kept = gates.forward(tf.cast(inputs.read(t), wide), tf.cast(recurrent, wide), states)
        following = _where(real.read(t), found, states)
        news = Arrays((output,), states, kept)
        arrays = Arrays(*(loops.written(a, t, x) for a, x in zip(arrays, news, strict=True)))
        return t + 1, following, outputs.write(t, following[0]), arrays

    _, states, outputs, arrays = loops.loop(
        lambda t, *_: t < steps, body, (0, states, outputs, arrays), steps
    )
    return outputs.stack(), states, arrays


def _backwards(gates, mask, upstream, arrays, projected, kernel, bias, *states):
    """Return the gradients of the inputs, given those of the outputs and the last states."""
    steps, dtype = tf.shape(projected)[0], kernel.dtype
    transposed = tf.transpose(kernel)  # once: a product with a transposed factor is slower
    coming, real = loops.read(upstream[0]), loops.read(mask)
    found = tuple(
        loops.array(steps, loops.step_of(projected)) for _ in range(1 if gates.tied else 2)
    )

    def body(t, gradients, found):
        gradients = (gradients[0] + coming.read(t), *gradients[1:])
        skipped, passed = _parted(real.read(t), gradients)
        states, kept = (tuple(x.read(t) for x in a) for a in (arrays.states, arrays.gates))
        *of_gates, direct = gates.backward(passed, kept, states)
        of_gates = tuple(tf.cast(x, dtype) for x in of_gates[: len(found)])
        through = tf.cast(tf.matmul(of_gates[-1], transposed), direct[0].dtype)
        following = (direct[0] + through, *direct[1:])
        following = tuple(a + b for a, b in zip(following, skipped, strict=True))
        return t - 1, following, loops.written(found, t, of_gates)

    _, of_states, found = loops.loop(
        lambda t, *_: t >= 0, body, (steps - 1, tuple(upstream[1:]), found), steps
    )
    of_inputs, of_recurrent = found[0].stack(), found[-1].stack()
    flat = tf.reshape(of_recurrent, [-1, kernel.shape[1]])
    outputs = tf.reshape(arrays.outputs[0].stack(), [-1, kernel.shape[0]])
    of_kernel = tf.matmul(outputs, flat, transpose_a=True)
    of_bias = column_sums(flat)[: bias.shape[0]]
    return of_inputs, of_kernel, of_bias, *of_states


def _where(real, new, old):
    """Return the new states where `real` (N, 1), else the old; all new ones for (N, 0)."""
    if real.shape[-1] == 0:
        return tuple(new)
    return tuple(tf.where(real, a, b) for a, b in zip(new, old, strict=True))


def _parted(real, gradients):
    """Part gradients of states into those that pass by a step and those that go through it."""
    if real.shape[-1] == 0:
        return tuple(tf.zeros([], x.dtype) for x in gradients), gradients
    through = tuple(tf.where(real, x, tf.zeros_like(x)) for x in gradients)
    return tuple(x - y for x, y in zip(gradients, through, strict=True)), through
