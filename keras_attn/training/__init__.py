"""Training: losses, metrics, callbacks, the optimizer, and runs that survive."""

from keras_attn.training.callbacks import GenerationMetrics
from keras_attn.training.losses import TokenMean
from keras_attn.training.metrics import Perplexity
from keras_attn.training.optimizers import Adam, adam, averaged
from keras_attn.training.progress import Progress
from keras_attn.training.runs import best, finite, train

__all__ = [
    "Adam",
    "GenerationMetrics",
    "Perplexity",
    "Progress",
    "TokenMean",
    "adam",
    "averaged",
    "best",
    "finite",
    "train",
]
