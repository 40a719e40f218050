"""The zoo: architectures by name."""

from keras_attn.models import Ensemble as ensemble
from keras_attn.zoo import architectures, family, papers  # noqa: F401  (registers them)
from keras_attn.zoo.registry import Card, build, card, config, names, register

__all__ = ["Card", "build", "card", "config", "ensemble", "names", "register"]
