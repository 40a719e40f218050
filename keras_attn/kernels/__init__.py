"""Fast forms for CPUs of what layers and training do; the plain forms are what they equal."""

from keras_attn.kernels.layers import GRU, LSTM, applies, is_plain, plain, projected

__all__ = ["GRU", "LSTM", "applies", "is_plain", "plain", "projected"]
