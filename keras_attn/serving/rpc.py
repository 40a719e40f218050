"""TF Serving's gRPC interface: Predict, GetModelMetadata and GetModelStatus, in its messages."""

from __future__ import annotations

import math
from concurrent import futures
from typing import Any

import tensorflow as tf

from keras_attn.serving.servable import Refused, Servable, answered, check_rows

THREADS = 16
ELEMENT = 4  # bytes of most numbers
FIELDS = {"float32": "float_val", "int32": "int_val", "int64": "int64_val"}
NEEDS = "gRPC needs tensorflow-serving-api: pip install 'tensorflow-serving-api>=2.21,<2.22'"


def started(servable: Servable, host: str, port: int, max_bytes: int) -> tuple[Any, int]:
    """Start a gRPC server.

    Args:
        servable: What it serves.
        host: String, such as "127.0.0.1".
        port: Int; 0 takes any that is free.
        max_bytes: Int, of a request.

    Returns:
        The server, and its port.

    Raises:
        ImportError: tensorflow-serving-api is not installed.
        OSError: the port is taken.
    """
    try:
        import grpc
        from tensorflow_serving.apis import (
            get_model_metadata_pb2,
            get_model_status_pb2,
            model_service_pb2_grpc,
            predict_pb2,
            prediction_service_pb2_grpc,
        )
    except ImportError as error:
        raise ImportError(NEEDS) from error

    def abort(context, refused):
        context.abort(
            getattr(grpc.StatusCode, refused.code, grpc.StatusCode.UNKNOWN), refused.message
        )

    def version_of(spec):
        if not spec.name:
            raise Refused("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        if spec.HasField("version_label"):
            label = spec.version_label
            raise Refused("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        number = spec.version.value if spec.HasField("version") else None
        return servable.version(spec.name, number)

    class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
        """PredictionService."""

        def Predict(self, request, context):  # noqa: N802
            """Run a signature."""
            try:
                version = version_of(request.model_spec)
                outputs = predicted(version.session, request, max_bytes)
            except Refused as refused:
                abort(context, refused)
            response = predict_pb2.PredictResponse()
            response.model_spec.name = servable.name
            response.model_spec.signature_name = signature_of(request)
            response.model_spec.version.value = version.number
            for name, array in outputs.items():
                write(array, response.outputs[name])
            return response

        def GetModelMetadata(self, request, context):  # noqa: N802
            """Return the signatures."""
            try:
                version = version_of(request.model_spec)
                if list(request.metadata_field) != ["signature_def"]:
                    message = "metadata_field: signature_def is what there is"
                    raise Refused("INVALID_ARGUMENT", message)
            except Refused as refused:
                abort(context, refused)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = servable.name
            response.model_spec.version.value = version.number
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, definition in version.definitions().items():
                signatures.signature_def[name].CopyFrom(definition)
            response.metadata["signature_def"].Pack(signatures)
            return response

    class Models(model_service_pb2_grpc.ModelServiceServicer):
        """ModelService."""

        def GetModelStatus(self, request, context):  # noqa: N802
            """Return the version that is served."""
            try:
                version = version_of(request.model_spec)
            except Refused as refused:
                abort(context, refused)
            response = get_model_status_pb2.GetModelStatusResponse()
            available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            said = response.model_version_status.add(version=version.number, state=available)
            said.status.SetInParent()
            return response

    options = [("grpc.max_receive_message_length", max_bytes), ("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Predictions(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
    try:
        bound = server.add_insecure_port(f"{bracketed(host)}:{port}")
    except RuntimeError as error:
        at = f"{bracketed(host)}:{port}"
        raise OSError(f"grpc_port: cannot listen on {at}: {error}") from error
    server.start()
    return server, bound


def bracketed(host: str) -> str:
    """Return a host as it stands before a port: an address of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def write(array, proto) -> None:
    """Write an array into a `TensorProto` as TF Serving does: values in the field of their type."""
    field = FIELDS.get(array.dtype.name)
    if field is None:  # texts, which are in theirs anyway
        proto.CopyFrom(tf.make_tensor_proto(array))
        return
    proto.dtype = tf.as_dtype(array.dtype).as_datatype_enum
    proto.tensor_shape.SetInParent()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, field).extend(array.ravel().tolist())


def signature_of(request) -> str:
    """Return the name of the signature that a request asks for."""
    return request.model_spec.signature_name or "serving_default"


def predicted(session, request, max_bytes: int) -> dict[str, Any]:
    """Run the signature that a `PredictRequest` asks for, and return its outputs.

    A few bytes of a request may stand for many equal elements; here for no more than `max_bytes`
    would hold if each were written down.

    Raises:
        Refused: unknown names, tensors that are not as the signature says, or what TensorFlow says.
    """
    name = signature_of(request)
    signature = session.signatures.get(name)
    if signature is None:
        raise Refused("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
    wanted = list(request.output_filter)
    if len(set(wanted)) < len(wanted):
        raise Refused("INVALID_ARGUMENT", f"duplicate output tensor alias: {sorted(wanted)}")
    unknown = [output for output in wanted if output not in signature.outputs]
    if unknown:
        message = f"output tensor alias not found in signature: {unknown[0]}"
        raise Refused("INVALID_ARGUMENT", message)
    for key, tensor in request.inputs.items():
        _check_size(key, tensor, max_bytes)
    given = {key: tensor.SerializeToString() for key, tensor in request.inputs.items()}
    return dict(answered(session.run_protos, name, given, wanted or None))


def _check_size(key, tensor, max_bytes) -> None:
    """Refuse a tensor in which a few bytes stand for as many elements as one likes."""
    sizes = [axis.size for axis in tensor.tensor_shape.dim]
    texts, number = len(tensor.string_val), math.prod(max(size, 1) for size in sizes)
    if tensor.dtype == tf.string.as_datatype_enum:
        if math.prod(sizes) != texts:  # TensorFlow repeats the last
            raise Refused("INVALID_ARGUMENT", f"{key}: {texts} texts in a tensor of {sizes}")
    elif number > max_bytes // ELEMENT:
        most = max_bytes // ELEMENT
        message = f"{key}: a tensor of {sizes} has more than {most} elements"
        raise Refused("INVALID_ARGUMENT", message)
    check_rows(key, sizes)
