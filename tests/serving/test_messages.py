"""Warm-up requests are what TF Serving's own package reads."""

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from keras_attn.serving import messages


def test_a_request_is_read_by_the_servers_package():
    inputs = {
        "source": np.array([b"a\0b", "é".encode()], object),
        "top_k": np.array([3, -1], np.int32),
        "temperature": np.array([0.5, 2], np.float32),
    }
    log = prediction_log_pb2.PredictionLog.FromString(
        messages.prediction_log("m", "sample", inputs)
    )
    assert log.WhichOneof("log_type") == "predict_log"
    request = log.predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("m", "sample")
    assert set(request.inputs) == set(inputs)
    for name, value in inputs.items():
        np.testing.assert_array_equal(tf.make_ndarray(request.inputs[name]), value)
