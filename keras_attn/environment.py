"""What this library needs of its surroundings, checked before anything else is imported."""

from __future__ import annotations

import os

VERSION = "0.1.0"


def check() -> None:
    """Refuse surroundings in which nothing here could work.

    Raises:
        ImportError: Keras runs on another backend than TensorFlow, or legacy Keras is asked for.
    """
    if os.environ.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        raise ImportError(
            "keras_attn needs Keras 3, but TF_USE_LEGACY_KERAS asks for Keras 2; unset it."
        )
    import keras

    backend = keras.config.backend()
    if backend != "tensorflow":
        raise ImportError(
            f"keras_attn needs the TensorFlow backend of Keras, but it is {backend!r}; set "
            "KERAS_BACKEND=tensorflow before Keras is imported."
        )
