"""Packing: many small arrays handed to a graph as a few, since each costs as much as a large one.

Arrays of one dtype go side by side: those of rows, (B,) and (B, n), in one matrix, the others, (n,)
each, in one vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


class Packing:
    """How arguments of these specs are packed.

    Args:
        specs: Nested `tf.TensorSpec`s of one or two axes. A first axis of None is that of rows; at
            most one of the matrices of a dtype has None for its second axis.
    """

    def __init__(self, specs: Any):
        self.specs = specs
        self._flat = tf.nest.flatten(specs)
        self._groups: dict[Any, list[int]] = {}
        for i, spec in enumerate(self._flat):
            self._groups.setdefault((spec.dtype, spec.shape[0] is None), []).append(i)

    @property
    def signature(self) -> list[tf.TensorSpec]:
        """The specs of what is packed."""
        return [
            tf.TensorSpec([None, None] if rows else [None], dtype) for dtype, rows in self._groups
        ]

    def packed(self, arguments: Any) -> list[np.ndarray]:
        """Return arguments as a few arrays."""
        arrays = tf.nest.flatten(arguments)
        found = []
        for (dtype, rows), group in self._groups.items():
            parts = [np.asarray(arrays[i]) for i in group]
            parts = [x[:, None] if rows and x.ndim == 1 else x for x in parts]
            found.append(np.concatenate(parts, axis=-1, dtype=dtype.as_numpy_dtype))
        return found

    def unpacked(self, tensors: list[tf.Tensor]) -> Any:
        """Return the arguments that were packed, nested as they were, in the graph."""
        arguments: list[Any] = [None] * len(self._flat)
        for group, tensor in zip(self._groups.values(), tensors, strict=True):
            specs = [self._flat[i].shape for i in group]
            widths = [1 if shape.rank == 1 and shape[0] is None else shape[-1] for shape in specs]
            parts = tf.split(tensor, [-1 if w is None else w for w in widths], axis=-1)
            for i, part, shape in zip(group, parts, specs, strict=True):
                arguments[i] = part[:, 0] if shape.rank < part.shape.rank else part
        return tf.nest.pack_sequence_as(self.specs, arguments)
