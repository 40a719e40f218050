"""The model: strings in, strings out."""

from keras_attn.models.seq2seq import Seq2Seq

__all__ = ["Seq2Seq"]
