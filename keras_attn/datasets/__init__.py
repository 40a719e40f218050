"""Data to learn from."""

from keras_attn.datasets import dates

__all__ = ["dates"]
