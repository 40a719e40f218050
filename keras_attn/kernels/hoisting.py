"""A step over time whose weight gradients stand outside of the loop.

TensorFlow differentiates a loop by adding up the gradient of every weight step by step. Here the
loop keeps the products of its steps instead. On the way back a step is run again but for its
products, which are there already, and is differentiated; the gradient of each weight is one product
over all steps, behind the loop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_attn.kernels import loops
from keras_attn.kernels.products import column_sums

UNCONNECTED = tf.UnconnectedGradients.ZERO


class Matrix(NamedTuple):
    """A factor of a product that each step takes.

    Attributes:
        kernel: Float (I, O), or one for each row, (B, I, O).
        bias: Float (O,) that is added, or (0,) for none.
    """

    kernel: Any
    bias: Any

    def times(self, x):
        """Return x (B, I) times the matrix, (B, O)."""
        if self.kernel.shape.rank == 3:
            return tf.matmul(tf.expand_dims(x, 1), self.kernel)[:, 0]
        y = tf.matmul(x, self.kernel)
        return y + self.bias if self.bias.shape[0] else y


class Over(NamedTuple):
    """What a step goes over, nested tuples of tensors each.

    Attributes:
        inputs: Float (T, B, ...), of which a step gets (B, ...).
        matrices: Dict of `Matrix` by name.
        states: Float (B, ...), the first states.
        constants: Float, what all steps read besides.
    """

    inputs: Any
    matrices: dict[str, Matrix]
    states: Any
    constants: Any


def steps(step, over: Over, like, training: bool):
    """Take a step at a time.

    Args:
        step: Function of (times, inputs, states, constants) to a tuple of outputs (B, ...) and the
            next states. `times(name, *parts)` is a product, (B, O) in the matrix's dtype: of the
            parts, joined to (B, I), with a matrix. There is each product once a step. The step must
            close over nothing that gradients are wanted of.
        over: `Over`.
        like: A tuple of tensors, of the outputs' dtypes and widths.
        training: Whether gradients are wanted, and so what they need is kept. There are gradients
            without it too, slower ones.

    Returns:
        The outputs, (T, B, ...) each.
    """
    flat = tf.nest.flatten(over)

    def plain(*flat):
        return _forwards(step, tf.nest.pack_sequence_as(over, flat), like, keeps=False)[0]

    @tf.custom_gradient
    def run(*flat):
        given = tf.nest.pack_sequence_as(over, flat)
        outputs, *arrays = _forwards(step, given, like, keeps=True)

        def gradient(*upstream):
            @tf.custom_gradient
            def first(*_):
                found = _backwards(step, given, upstream, *arrays)
                return found, lambda *second: loops.second_order(plain, upstream, flat, second)

            return first(*upstream, *flat)

        return outputs, gradient

    return run(*flat) if training else plain(*flat)


class Arrays(NamedTuple):
    """What the way forward keeps for the way back, as arrays over time.

    Attributes:
        states: The states before each step.
        products: Dict of the products of each step.
    """

    states: Any
    products: Any


def _forwards(step, over, like, keeps):
    """Return the outputs, and `Arrays`, which without `keeps` are empty."""
    number = tf.shape(tf.nest.flatten(over.inputs)[0])[0]
    inputs = tf.nest.map_structure(loops.read, over.inputs)
    outputs = tuple(loops.array(number, x) for x in like)
    arrays = Arrays((), {})
    if keeps:
        rows = {name: _row(matrix.kernel) for name, matrix in over.matrices.items()}
        arrays = _arrays(Arrays(over.states, rows), number)

    def body(t, states, outputs, arrays):
        made = {}

        def times(name, *parts):
            matrix = over.matrices[name]
            made[name] = matrix.times(_joined(parts, matrix.kernel.dtype))
            return made[name]

        shown, following = step(times, _at(inputs, t), states, over.constants)
        outputs = loops.written(outputs, t, shown)
        if keeps:
            arrays = _written(arrays, t, Arrays(states, made))
        return t + 1, following, outputs, arrays

    variables = 0, over.states, outputs, arrays
    *_, outputs, arrays = loops.loop(lambda t, *_: t < number, body, variables, number)
    return tuple(x.stack() for x in outputs), arrays


class Found(NamedTuple):
    """What the way back finds at each step.

    Attributes:
        inputs: Gradients of the inputs.
        factors: Dict of the left factors of the products.
        products: Dict of the gradients of the products.
    """

    inputs: Any
    factors: Any
    products: Any


def _backwards(step, over, upstream, arrays):
    """Return the gradients of all that a step goes over, given those of the outputs."""
    number = tf.shape(upstream[0])[0]
    inputs, coming = tf.nest.map_structure(loops.read, (over.inputs, upstream))
    backs = {name: _back(matrix.kernel) for name, matrix in over.matrices.items()}
    first = tf.nest.map_structure(loops.step_of, over.inputs)
    columns = {name: _column(matrix.kernel) for name, matrix in over.matrices.items()}
    rows = {name: _row(matrix.kernel) for name, matrix in over.matrices.items()}

    def body(t, of_states, of_constants, found):
        kept = _at(arrays, t)
        watched = _at(inputs, t), kept.states, over.constants
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tf.nest.flatten(watched))
            times, factors, products = _known(kept.products, backs)
            made = step(times, *watched)
        given = tf.nest.flatten((_at(coming, t), of_states))
        made, sources = tf.nest.flatten(made), tf.nest.flatten(watched)
        found_now = tape.gradient(made, sources, given, UNCONNECTED)
        of_inputs, of_states, more = tf.nest.pack_sequence_as(watched, found_now)
        of_constants = tf.nest.map_structure(tf.add, of_constants, more)
        found = _written(found, t, Found(of_inputs, factors, products))
        return t - 1, of_states, of_constants, found

    zeros = tf.nest.map_structure(tf.zeros_like, (over.states, over.constants))
    variables = number - 1, *zeros, _arrays(Found(first, columns, rows), number)
    _, *of_rest, found = loops.loop(lambda t, *_: t >= 0, body, variables, number)
    found = tf.nest.map_structure(lambda array: array.stack(), found)
    of_matrices = {
        name: _of_matrix(matrix, found.factors[name], found.products[name])
        for name, matrix in over.matrices.items()
    }
    return tf.nest.flatten(Over(found.inputs, of_matrices, *of_rest))


def _known(products, backs):
    """Return `times` for products that are known, and dicts that it fills.

    The dicts get the left factors, and the gradients of the products once there are any.
    """
    factors, gradients = {}, {name: tf.zeros_like(y) for name, y in products.items()}

    def times(name, *parts):
        factors[name] = x = _joined(parts, products[name].dtype)

        @tf.custom_gradient
        def product(_):
            def gradient(upstream):
                gradients[name] = upstream
                return backs[name](upstream)

            return tf.identity(products[name]), gradient

        return product(x)

    return times, factors, gradients


def _back(kernel):
    """Return a function of the gradient of a product to that of its left factor."""
    if kernel.shape.rank == 3:
        return lambda of_y: tf.matmul(kernel, tf.expand_dims(of_y, 2))[:, :, 0]
    transposed = tf.transpose(kernel)  # once: a product with a transposed factor is slower
    return lambda of_y: tf.matmul(of_y, transposed)


def _of_matrix(matrix, x, of_y):
    """Return the gradient of a matrix, from all left factors (T, B, I) and products (T, B, O)."""
    if matrix.kernel.shape.rank == 3:
        by_row = tf.transpose(x, [1, 2, 0]), tf.transpose(of_y, [1, 0, 2])
        return Matrix(tf.matmul(*by_row), tf.zeros_like(matrix.bias))
    x, of_y = (tf.reshape(flat, [-1, flat.shape[-1]]) for flat in (x, of_y))
    bias = column_sums(of_y)[: matrix.bias.shape[0]]
    return Matrix(tf.matmul(x, of_y, transpose_a=True), bias)


def _joined(parts, dtype):
    """Return the parts (B, ...) beside each other."""
    parts = [tf.cast(part, dtype) for part in parts]
    return tf.concat(parts, axis=1) if len(parts) > 1 else parts[0]


def _arrays(like, number):
    """Return an array for each tensor."""
    return tf.nest.map_structure(lambda x: loops.array(number, x), like)


def _at(arrays, t):
    """Return what arrays hold of a step."""
    return tf.nest.map_structure(lambda array: array.read(t), arrays)


def _written(arrays, t, tensors):
    """Return the arrays with the tensors of a step."""
    tensors = tf.nest.pack_sequence_as(arrays, tf.nest.flatten(tensors))
    return tf.nest.map_structure(lambda array, x: array.write(t, x), arrays, tensors)


def _row(kernel):
    """Return the spec of a product, (B, O)."""
    return tf.TensorSpec([None, kernel.shape[-1]], kernel.dtype)


def _column(kernel):
    """Return the spec of a left factor, (B, I)."""
    return tf.TensorSpec([None, kernel.shape[-2]], kernel.dtype)
