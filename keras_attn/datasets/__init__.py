"""Data to learn from."""

from keras_attn.datasets import cmudict, dates
from keras_attn.datasets.about import Pairs
from keras_attn.datasets.files import pairs
from keras_attn.datasets.parts import split

__all__ = ["Pairs", "cmudict", "dates", "pairs", "split"]
