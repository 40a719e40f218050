"""Small things that every layer here needs."""

from __future__ import annotations

import math
import numbers
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_attn.types import UNK


def build_once(layer, *shapes) -> None:
    """Build `layer` unless it is built.

    Keras builds nested layers when it loads them; building them again would orphan the loaded
    weights.
    """
    if not layer.built:
        layer.build(*shapes)


def positive(argument: str, value: Any) -> int:
    """Return `value` if it is a positive int, or raise a ValueError that names `argument`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{argument}: expected a positive int, got {value!r}.")
    return int(value)


def fraction(argument: str, value: Any) -> float:
    """Return `value` if it is a number in [0, 1), or raise a ValueError that names `argument`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) < 1:
        raise ValueError(f"{argument}: expected a number in [0, 1), got {value!r}.")
    return float(value)


def not_negative(argument: str, value: Any) -> float:
    """Return `value` if it is a number >= 0, or raise a ValueError that names `argument`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{argument}: expected a number >= 0, got {value!r}.")
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"{argument}: expected a number >= 0, got {value!r}.")
    return float(value)


def flag(argument: str, value: Any) -> bool:
    """Return `value` if it is True or False, or raise a ValueError that names `argument`."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{argument}: expected True or False, got {value!r}.")
    return bool(value)


def at_least_float32(x):
    """Cast half precision up to float32; leave float32 and float64 alone."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, "float32") if dtype in ("float16", "bfloat16") else x


def inside(ids, size: int):
    """Map ids outside [0, size) to UNK."""
    known = ops.logical_and(ops.greater_equal(ids, 0), ops.less(ids, size))
    return ops.where(known, ids, ops.cast(UNK, ids.dtype))


def projected(x, kernel):
    """Return x @ kernel over the last axis of x, as one product of two matrices.

    XLA compiles its gradient within loops, which it does not for a product of more axes.
    """
    flat = ops.matmul(ops.reshape(x, (-1, x.shape[-1])), kernel)
    return ops.reshape(flat, (*ops.shape(x)[:-1], kernel.shape[-1]))


def beside(*parts):
    """Concatenate tensors along the last axis; those of width 0 cost nothing."""
    wide = [x for x in parts if x.shape[-1] != 0]
    return wide[0] if len(wide) == 1 else ops.concatenate(wide or parts, axis=-1)


def rows(x, like):
    """Repeat each of B sources for its K rows: (B, ...) -> (N, ...), with N the rows of `like`."""
    n, shape = ops.shape(like)[0], ops.shape(x)
    beams = n // ops.maximum(shape[0], 1)
    repeated = ops.broadcast_to(ops.expand_dims(x, 1), (shape[0], beams, *shape[1:]))
    return ops.reshape(repeated, (n, *shape[1:]))  # (N, ...)


class Component(keras.layers.Layer):
    """A layer whose children share its dtype policy and whose weights can be read in any method.

    Keras casts weights to the compute dtype only inside `__call__`; `weight` does so anywhere,
    because one decoding step is not a `__call__`.
    """

    def weight(self, variable):
        """Return `variable` in the compute dtype."""
        return ops.cast(variable, self.compute_dtype)

    def zeros(self, *shape):
        """Return zeros of `shape` in the compute dtype."""
        return ops.zeros(shape, dtype=self.compute_dtype)

    def get_config(self):
        """Return the constructor's arguments; a subclass adds its own."""
        # Keras serialises a layer whose constructor takes arguments only if it overrides this.
        return super().get_config()
