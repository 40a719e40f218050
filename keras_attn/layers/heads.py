"""Heads: projections of queries, keys and values, and the axis of heads folded into the batch."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_attn.layers.base import Component, projected
from keras_attn.layers.choices import serializable, unknown_name

KEYS = ("values", "projected")


def key_sources(keys: Any) -> str:
    """Return `keys` if it is "values" or "projected", or raise a ValueError."""
    if keys not in KEYS:
        raise unknown_name("keys", keys, KEYS)
    return keys


@serializable
class Heads(Component):
    """What stands before and behind the scores of several heads, B*H rows of a head each.

    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.2.2; keys and values apart: Daniluk et al.
    2017, arXiv:1702.04521. Deviation: all heads share the scorer's own weights. Weights, without
    biases: `query_kernel` (U, U) and `output_kernel` (D, D) with several heads; `key_kernel` (C, U)
    and `value_kernel` (D, D) with several, or if `projected`.

    Args:
        num_heads: Positive int H.
        projected: Whether keys and values are projected for a single head too.
        uses_keys: Whether the scorer looks at keys; without, there is no `key_kernel`.

    Raises:
        ValueError: H does not divide U or D.
    """

    def __init__(
        self, num_heads: int = 1, projected: bool = False, uses_keys: bool = True, **kwargs
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.uses_keys = uses_keys
        self.projected = projected or num_heads > 1

    def build(self, query_shape, value_shape, key_shape):
        """Make the kernels from shapes (B, Q, U), (B, S, D) and (B, S, C)."""
        units, depth, key_depth = query_shape[-1], value_shape[-1], key_shape[-1]
        for argument, width in (("query", units), ("value", depth)):
            if width % self.num_heads:
                raise ValueError(
                    f"num_heads: expected a divisor of the {argument}'s depth, {width}, got "
                    f"{self.num_heads}."
                )
        if self.projected:
            self.value_kernel = self.add_weight(shape=(depth, depth), name="value_kernel")
        if self.projected and self.uses_keys:
            self.key_kernel = self.add_weight(shape=(key_depth, units), name="key_kernel")
            key_depth = units
        if self.num_heads > 1:
            self.query_kernel = self.add_weight(shape=(units, units), name="query_kernel")
            self.output_kernel = self.add_weight(shape=(depth, depth), name="output_kernel")
        self.query_shape = (*query_shape[:2], units // self.num_heads)
        self.key_shape = (*key_shape[:2], key_depth // self.num_heads)
        self.built = True

    def queries_of(self, query):
        """Return the queries of the heads: (B, Q, U) -> (B*H, Q, U / H)."""
        if self.num_heads == 1:
            return ops.cast(query, self.compute_dtype)
        return self._folded(self._projected(query, self.query_kernel))

    def keys_of(self, key):
        """Return the keys of the heads: (B, S, C) -> (B*H, S, ...)."""
        if not self.uses_keys:
            key = key[..., :0]
        if not self.projected or not self.uses_keys:
            return self.repeated(ops.cast(key, self.compute_dtype))
        return self._folded(self._projected(key, self.key_kernel))

    def values_of(self, value):
        """Return the values of the heads: (B, S, D) -> (B*H, S, D / H)."""
        if not self.projected:
            return value
        return self._folded(self._projected(value, self.value_kernel))

    def joined(self, context):
        """Join the contexts of the heads: (B*H, Q, D / H) -> (B, Q, D)."""
        if self.num_heads == 1:
            return context
        together = ops.transpose(self.apart(context), (0, 2, 1, 3))
        batch, queries = ops.shape(together)[:2]
        depth = self.num_heads * context.shape[-1]
        return self._projected(ops.reshape(together, (batch, queries, depth)), self.output_kernel)

    def apart(self, x):
        """Give the heads an axis: (B*H, Q, ...) -> (B, H, Q, ...)."""
        if self.num_heads == 1:
            return x[:, None]
        rows, *rest = ops.shape(x)
        return ops.reshape(x, (rows // self.num_heads, self.num_heads, *rest))

    def repeated(self, x):
        """Repeat what all heads share: (B, ...) -> (B*H, ...)."""
        return x if self.num_heads == 1 else ops.repeat(x, self.num_heads, axis=0)

    def stored(self, x):
        """Put head after head, for the memory: (B*H, S, ...) -> (B, H*S, ...)."""
        if self.num_heads == 1:
            return x
        rows, length, depth = ops.shape(x)
        return ops.reshape(x, (rows // self.num_heads, self.num_heads * length, depth))

    def loaded(self, x):
        """Undo `stored`."""
        if self.num_heads == 1:
            return x
        rows, length, depth = ops.shape(x)
        return ops.reshape(x, (rows * self.num_heads, length // self.num_heads, depth))

    def _projected(self, x, kernel):
        return projected(ops.cast(x, self.compute_dtype), self.weight(kernel))

    def _folded(self, x):
        """Split the last axis by heads, into the batch: (B, Q, U) -> (B*H, Q, U / H)."""
        if self.num_heads == 1:
            return x
        (batch, length), depth = ops.shape(x)[:2], x.shape[-1] // self.num_heads
        apart = ops.reshape(x, (batch, length, self.num_heads, depth))
        apart = ops.transpose(apart, (0, 2, 1, 3))
        return ops.reshape(apart, (batch * self.num_heads, length, depth))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "projected": self.projected,
            "uses_keys": self.uses_keys,
        }
