"""Training: losses, metrics and callbacks."""

from keras_attn.training.callbacks import GenerationMetrics
from keras_attn.training.losses import TokenMean
from keras_attn.training.metrics import Perplexity

__all__ = ["GenerationMetrics", "Perplexity", "TokenMean"]
