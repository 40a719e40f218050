"""Data to learn from."""

from keras_attn.datasets import cmudict, dates, g2p, geo880, inflection, multi30k, scan, slovene
from keras_attn.datasets.about import Pairs, Parts
from keras_attn.datasets.files import pairs
from keras_attn.datasets.parts import split

__all__ = [
    "Pairs",
    "Parts",
    "cmudict",
    "dates",
    "g2p",
    "geo880",
    "inflection",
    "multi30k",
    "pairs",
    "scan",
    "slovene",
    "split",
]
