"""One export through every loader there is, from a copy that nobody may write to, nor does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models
import tensorflow as tf

from keras_attn.serving import placement, rpc, session
from keras_attn.serving.servable import Servable

WORDS = ["abc", "", "hello", "é", "x" * 40]
SOURCE = Path(__file__).parent.parent / "loader.cc"


@pytest.fixture(scope="module")
def expected():
    model = small_models.shared("attention")
    with pytest.warns(UserWarning, match="were longer than"):
        return model.generate(WORDS, return_scores=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    copy = tmp_path_factory.mktemp("loaders") / "a copy" / "7"
    shutil.copytree(small_models.exported("attention"), copy)
    for place, _, files in os.walk(copy):
        for name in files:
            os.chmod(Path(place) / name, 0o444)
        os.chmod(place, 0o555)
    before = listing(copy)  # who is root may write all the same
    yield copy
    assert listing(copy) == before
    for place, _, _ in os.walk(copy):
        os.chmod(place, 0o755)


def listing(folder):
    """Return names, sizes and times of all that is in a folder."""
    found = ((path, path.stat()) for path in sorted(folder.rglob("*")))
    return [(str(path), about.st_size, about.st_mtime_ns) for path, about in found]


def same(targets, scores, expected):
    assert [target.decode() for target in targets] == expected[0]
    np.testing.assert_allclose(scores, expected[1], rtol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_program_in_cplusplus(path, expected, tmp_path):
    placement.compile_against_tensorflow(SOURCE, tmp_path / "loader")
    done = subprocess.run(
        [tmp_path / "loader", path, *WORDS], capture_output=True, check=True, cwd="/"
    )
    lines = [line.split(b"\t") for line in done.stdout.splitlines()]
    same([target for target, _ in lines], [float(score) for _, score in lines], expected)


def test_saved_model_cli(path, expected, tmp_path):
    given = "source=[" + ",".join(repr(word.encode()) for word in WORDS) + "]"
    command = [Path(sys.executable).with_name("saved_model_cli"), "run", "--dir", path]
    command += ["--tag_set", "serve", "--signature_def", "serving_default", "--input_exprs", given]
    command += ["--outdir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    targets = np.load(tmp_path / "target.npy", allow_pickle=True)
    same(targets.tolist(), np.load(tmp_path / "score.npy"), expected)


def test_the_loader_of_version_1(path, expected):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        signature = graph.signature_def["serving_default"]
        names = [signature.outputs[key].name for key in ("target", "score")]
        found = session.run(names, {signature.inputs["source"].name: WORDS})
    same(found[0], found[1], expected)


WITHOUT_KERAS = """
import json, sys
import tensorflow as tf  # which looks for Keras itself
for name in [name for name in sys.modules if name.partition(".")[0] == "keras"]:
    del sys.modules[name]
sys.modules["keras"] = sys.modules["keras_attn"] = None
loaded = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
said = loaded(source=tf.constant(sys.argv[2:]))
print(json.dumps([[x.decode() for x in said["target"].numpy()], said["score"].numpy().tolist()]))
"""


def test_python_without_keras(path, expected):
    command = [sys.executable, "-c", WITHOUT_KERAS, path, *WORDS]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr[-2000:]
    targets, scores = json.loads(done.stdout)
    same([target.encode() for target in targets], scores, expected)


@small_models.evidence  # test_exports asks another model the same
def test_all_that_is_checked_of_an_export(path):
    script = Path(__file__).parent.parent / "check_export.py"
    command = [sys.executable, script, session.__file__, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_c_api(path, expected):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import session; session.main(sys.argv[2:])"
    folder = Path(session.__file__).parent
    for word, target in zip(WORDS[:3], expected[0][:3], strict=True):
        done = subprocess.run(
            [sys.executable, "-c", code, folder, path, word],
            capture_output=True,
            text=True,
            cwd="/",
        )
        assert done.stdout.rstrip("\n").split("\t")[0] == target, done.stderr[-2000:]


def test_the_official_stubs(path, expected):
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    server, port = rpc.started(Servable(path, "letters", lambda _: None), "127.0.0.1", 0, 10_000)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "letters"
        request.inputs["source"].CopyFrom(tf.make_tensor_proto(WORDS))
        outputs = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, 60)
        targets, scores = (tf.make_ndarray(outputs.outputs[key]) for key in ("target", "score"))
        same(targets, scores, expected)
    server.stop(None)
