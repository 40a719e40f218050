"""Classic sequence-to-sequence learning on Keras 3.

>>> from keras_attn import text, zoo
>>> zoo.names("context*")
['context_as_init', 'context_every_step']
"""

from keras_attn import environment

environment.check()

from keras_attn import (  # noqa: E402
    datasets,
    kernels,
    layers,
    plots,
    scoring,
    search,
    text,
    training,
    types,
    zoo,
)
from keras_attn.kernels.cache import cache_compiled  # noqa: E402
from keras_attn.kernels.cores import configure_cpu  # noqa: E402
from keras_attn.models import Seq2Seq  # noqa: E402

__version__ = environment.VERSION

__all__ = [
    "Seq2Seq",
    "cache_compiled",
    "configure_cpu",
    "datasets",
    "kernels",
    "layers",
    "plots",
    "scoring",
    "search",
    "text",
    "training",
    "types",
    "zoo",
]
