"""gRPC, by TF Serving's own stubs."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import small_models
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_attn.serving import rpc
from keras_attn.serving.servable import Servable


@pytest.fixture(scope="module")
def channel():
    servable = Servable(
        small_models.exported("combined", **small_models.CHEAP), tell=lambda _: None
    )
    server, port = rpc.started(servable, "127.0.0.1", 0, 10_000)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None)


@pytest.fixture
def predict(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def call(signature="", model="letters", version=None, wanted=(), label="", **inputs):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        if version is not None:
            request.model_spec.version.value = version
        if label:
            request.model_spec.version_label = label
        request.output_filter.extend(wanted)
        for name, value in inputs.items():
            proto = value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
            request.inputs[name].CopyFrom(proto)
        return stub.Predict(request, 20)

    return call


def test_predictions(predict):
    model, words = small_models.shared("combined", **small_models.CHEAP), ["abc", "", "é"]
    response = predict(source=words)
    texts = [text.decode() for text in response.outputs["target"].string_val]
    assert texts == model.generate(words)
    spec = response.model_spec
    assert (spec.name, spec.version.value) == ("letters", 1)
    assert spec.signature_name == "serving_default"
    response = predict("beam", version=1, wanted=["score"], source=words)
    assert list(response.outputs) == ["score"]
    assert tf.make_ndarray(response.outputs["score"]).shape == (3, 3)
    assert len(response.outputs["score"].float_val) == 9  # and not in tensor_content
    ids = np.array([[5, 6, 2]] * 2, np.int32)
    outputs = predict("ids", source_ids=ids, source_lengths=np.array([3, 3], np.int32)).outputs
    assert len(outputs["target_lengths"].int_val) == 2
    assert tf.make_ndarray(outputs["target_ids"]).dtype == np.int32


def repeated(text, times):
    """Return a tensor of one text that stands for many."""
    proto = tf.make_tensor_proto([text])
    proto.tensor_shape.dim[0].size = times
    return proto


def one_number(times):
    """Return a tensor of one number that stands for many rows."""
    proto = tf.make_tensor_proto(np.array([[5]], np.int32))
    proto.tensor_shape.dim[0].size = times
    return proto


def test_errors_are_those_of_the_protocol(predict):
    codes = grpc.StatusCode
    many = ["a" * 20_000]
    ids = {"signature": "ids", "source_lengths": np.zeros(0, np.int32)}
    for code, given in (
        (codes.FAILED_PRECONDITION, {"signature": "nope", "source": ["a"]}),
        (codes.NOT_FOUND, {"model": "x", "source": ["a"]}),
        (codes.NOT_FOUND, {"version": 6, "source": ["a"]}),
        (codes.INVALID_ARGUMENT, {"text": ["a"]}),
        (codes.INVALID_ARGUMENT, {"source": np.array([1, 2])}),
        (codes.INVALID_ARGUMENT, {"source": [["a"]]}),
        (codes.INVALID_ARGUMENT, {"source": ["a"], "wanted": ["nothing"]}),
        (codes.INVALID_ARGUMENT, {"signature": "score", "source": ["a"]}),
        (codes.INVALID_ARGUMENT, {"source": ["a"], "wanted": ["score", "score"]}),
        (codes.INVALID_ARGUMENT, {"model": "", "source": ["a"]}),
        (codes.INVALID_ARGUMENT, {"label": "canary", "source": ["a"]}),
        (codes.INVALID_ARGUMENT, {"source": repeated("a", 1000)}),
        (codes.RESOURCE_EXHAUSTED, {"source": many}),
        (codes.INVALID_ARGUMENT, {"source": [""] * 4500}),
        (codes.INVALID_ARGUMENT, ids | {"source_ids": np.zeros((0, 2**31 - 1), np.int32)}),
        (codes.INVALID_ARGUMENT, ids | {"source_ids": one_number(20_000)}),
    ):
        with pytest.raises(grpc.RpcError) as failed:
            predict(**given)
        assert failed.value.code() == code, (given, failed.value.details())
        assert failed.value.details()


def test_metadata_and_status(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "letters"
    with pytest.raises(grpc.RpcError) as failed:
        stub.GetModelMetadata(request, 5)
    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    request.metadata_field.append("signature_def")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(request, 5).metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["ids"].inputs["source_ids"].dtype == tf.int32.as_datatype_enum
    asked = get_model_status_pb2.GetModelStatusRequest()
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    asked.model_spec.name = "letters"
    (status,) = models.GetModelStatus(asked, 5).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert (status.version, status.state) == (1, available)
    asked.model_spec.name = "x"
    with pytest.raises(grpc.RpcError) as failed:
        models.GetModelStatus(asked, 5)
    assert failed.value.code() == grpc.StatusCode.NOT_FOUND
