"""The model: strings in, strings out."""

from keras_attn.models.ensemble import Ensemble
from keras_attn.models.request import SearchOptions
from keras_attn.models.seq2seq import Seq2Seq

__all__ = ["Ensemble", "SearchOptions", "Seq2Seq"]
