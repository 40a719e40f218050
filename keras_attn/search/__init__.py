"""Search: pure functions of a decoding step that choose a target."""

from keras_attn.search.greedy import greedy

__all__ = ["greedy"]
