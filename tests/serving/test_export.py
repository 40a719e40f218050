"""Export: what it refuses, and that a server never sees half of it."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import small_models
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_attn import zoo
from keras_attn.serving import export
from keras_attn.serving.session import Session


@pytest.fixture(scope="module")
def model():
    return small_models.small("context_as_init", **small_models.CHEAP)


def test_an_existing_path_is_kept(model, tmp_path):
    path = tmp_path / "1"
    path.mkdir()
    (path / "precious").write_text("x")
    with pytest.raises(FileExistsError, match=r"exists; export to the next version, or give overw"):
        model.export(path)
    with pytest.raises(FileExistsError, match="is not an exported model"):
        model.export(path, overwrite=True)
    with pytest.raises(FileExistsError, match="is not an exported model"):
        model.export(path / "precious", overwrite=True)
    assert os.listdir(path) == ["precious"] and os.listdir(tmp_path) == ["1"]
    (path / "precious").rename(path / "saved_model.pb")
    model.export(path, overwrite=True, verbose=False)
    assert (path / "saved_model.pb").stat().st_size > 1000
    assert "saved_model.pb" in os.listdir(path) and os.listdir(tmp_path) == ["1"]


def test_a_path_that_cannot_be_written(model, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="filepath: cannot write beside"):
        model.export(tmp_path / "file" / "m" / "1")
    if os.path.isdir("/proc/self"):
        with pytest.raises(OSError, match="filepath: cannot write beside"):
            model.export("/proc/self/m/1")


def test_nothing_is_left_when_it_fails(model, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        (args[0] and open(os.path.join(args[0], "half"), "w")).close()
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(export, "save_slim", broken)
    (tmp_path / "1").mkdir()
    with pytest.raises(RuntimeError, match="on fire"):
        model.export(tmp_path / "2")
    with pytest.raises(RuntimeError, match="on fire"):
        model.export(tmp_path / "1", overwrite=True)
    assert os.listdir(tmp_path) == ["1"]


def test_a_watcher_sees_whole_versions_only(model, tmp_path, capsys):
    seen, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            for entry in os.listdir(tmp_path):
                if entry.isdigit():
                    seen.append(sorted(os.listdir(tmp_path / entry)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert model.export(tmp_path / "1") == str(tmp_path / "1")
    finally:
        stop.set()
        watcher.join()
    assert str(tmp_path / "1") in capsys.readouterr().out
    whole = sorted(os.listdir(tmp_path / "1"))
    assert all(entries == whole for entries in seen)
    assert {"saved_model.pb", "variables"} <= set(whole) and os.listdir(tmp_path) == ["1"]


def test_a_model_of_ids_and_other_formats(model, tmp_path):
    with pytest.raises(TypeError, match="need tokenisers"):
        zoo.build("attention", units=4, source=9, target=9).export(tmp_path / "1")
    with pytest.raises(ValueError, match="expected one of .*'litert'.*, got 'openvino'"):
        model.export(tmp_path / "1", format="openvino")
    with pytest.raises(TypeError, match="overwritte"):
        model.export(tmp_path / "1", overwritte=True)
    assert os.listdir(tmp_path) == []


def graph(path):
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].graph_def


def nodes(path):
    found = graph(path)
    return [*found.node, *(node for f in found.library.function for node in f.node_def)]


def test_no_device_and_one_copy(tmp_path):
    model = small_models.small("context_as_init", units=64, bidirectional=False)
    model.export(tmp_path / "1", verbose=False)
    found = nodes(tmp_path / "1")
    assert len(found) > 100 and not any(node.device for node in found)
    must_compile = [
        f for f in graph(tmp_path / "1").library.function if f.attr["_XlaMustCompile"].b
    ]
    assert not must_compile and not any("Cudnn" in node.op for node in found)
    data = (tmp_path / "1/variables/variables.data-00000-of-00001").stat().st_size
    weights = 4 * model.count_params()
    assert weights <= data < 1.05 * weights + 1000


def test_half_precision_is_written_in_float32(tmp_path):
    model = small_models.small("attention", dtype="mixed_bfloat16", **small_models.CHEAP)
    model.export(tmp_path / "1", verbose=False)
    types = {attr.type for node in nodes(tmp_path / "1") for attr in node.attr.values()}
    assert tf.float32.as_datatype_enum in types and tf.bfloat16.as_datatype_enum not in types
    with Session(tmp_path / "1") as session:
        answer = session.run(source=small_models.WORDS)
    texts, scores = model.in_full_precision().generate(small_models.WORDS, return_scores=True)
    assert [text.decode() for text in answer["target"]] == texts
    small_models.assert_close(answer["score"], np.array(scores, "float32"), 1e-5)
    assert model.compute_dtype == "bfloat16"
    model.project = lambda *given: None
    with pytest.raises(ValueError, match="model: 'project' was put on the model itself"):
        model.export(tmp_path / "2", verbose=False)


def test_rnn_kernels_are_restored():
    model = small_models.small("context_as_init")
    layers = [*model.encoder.layers, *model.decoder.recurrence.layers]
    inner = [getattr(layer, "forward_layer", layer) for layer in layers]
    assert all(layer.use_cudnn == "auto" for layer in inner)
    with model.portable():
        assert not any(layer.use_cudnn for layer in inner)
    assert all(layer.use_cudnn == "auto" for layer in inner)
