"""TF Serving's messages, written without its package: the few fields that a warm-up request has.

Field numbers are those of prediction_log.proto, predict.proto and model.proto in
tensorflow_serving/apis.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_attn.serving.session import field


def prediction_log(model: str, signature: str, inputs: dict[str, np.ndarray]) -> bytes:
    """Return a serialised `PredictionLog` of a request to a signature, by tensors' names."""
    spec = field(1, model.encode()) + field(3, signature.encode())
    request = field(1, spec)
    for name, value in sorted(inputs.items()):
        tensor = tf.make_tensor_proto(value).SerializeToString(deterministic=True)
        request += field(2, field(1, name.encode()) + field(2, tensor))
    return field(6, field(1, request))
