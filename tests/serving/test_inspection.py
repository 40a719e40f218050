"""What is seen of an exported model, against models whose operations are known."""

from __future__ import annotations

from collections import Counter

import pytest
import small_models
import tensorflow as tf

from keras_attn.serving import inspection
from keras_attn.serving.inspection import CPU, GPU, HOST, UNKNOWN, Operation


class Known(tf.Module):
    """A loop with a string in it, int32 and float32, and a branch."""

    def __init__(self):
        self.weight = tf.Variable(tf.ones([3, 2]))

    @tf.function(input_signature=[tf.TensorSpec([None, 3], name="x")], autograph=False)
    def known(self, x):
        def body(i, text):
            return i + 1, tf.strings.join([text, "a"])

        text = tf.while_loop(lambda i, _: i < 3, body, [tf.constant(0), tf.constant("")])[1]
        y = tf.cond(tf.size(x) > 1, lambda: tf.exp(x), lambda: tf.sin(x))
        return {"y": tf.matmul(y, self.weight), "text": text}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    path = tmp_path_factory.mktemp("known") / "1"
    module = Known()
    tf.saved_model.save(module, str(path), signatures={"known": module.known})
    return inspection.inspect(path)


def test_operations_are_found_in_functions_loops_and_branches(known):
    counted = known.operations["known"]
    assert counted[Operation("MatMul", ("float",), GPU, False)] == 1
    assert counted[Operation("Exp", ("float",), GPU, False)] == 1
    assert counted[Operation("Sin", ("float",), GPU, False)] == 1
    assert counted[Operation("StringJoin", (), CPU, True)] == 1
    assert counted[Operation("AddV2", ("int32",), HOST, True)] == 2  # TensorFlow counts too
    assert counted[Operation("Less", ("int32",), HOST, True)] == 1
    assert not any(op.op == "Placeholder" or "__inference" in op.op for op in counted)


def test_weights_and_files_are_listed(known):
    assert list(known.weights.values()) == [("float", (3, 2))]
    assert known.tensorflow == tf.__version__ and known.about == {}
    assert known.files["saved_model.pb"] > 1000 and "variables/variables.index" in known.files


def test_kinds_follow_the_kernels():
    float32, int32, string = tf.float32, tf.int32, tf.string

    def kind(op, **types):
        return inspection._kind(op, {name: [t.as_datatype_enum] for name, t in types.items()})

    assert kind("AddV2", T=float32) == GPU and kind("AddV2", T=int32) == HOST
    assert kind("AddV2", T=string) == CPU and kind("StringLower") == CPU
    assert kind("CudnnRNNV3", T=float32) == inspection.GPU_ONLY
    assert inspection._kind("NoSuchOp", None) == UNKNOWN
    assert inspection._types(tf.compat.v1.NodeDef(op="NoSuchOp")) is None


def test_it_reads_as_a_page():
    found = inspection.inspect(small_models.exported("combined", **small_models.CHEAP))
    assert found.about["name"] == "letters" and not found.pinned
    places = {"ids": {"GPU:0": {"MatMul": 2}, "CPU:0": {"Const": 1, "Fill": 4}}}
    page = "\n".join(inspection.lines(found, places))
    name, (dtype, shape) = next(iter(found.weights.items()))
    assert f"  {dtype}{list(shape)} {name}" in page.splitlines()
    assert "letters: seq2seq" in page and "ids: source_ids int32[-1, -1], source_len" in page
    assert "placed on GPU:0: 2\n" in page and "placed on CPU:0: 5: Const Fill" in page
    ids = found.operations["ids"]
    assert f"{inspection.total(ids, GPU)} gpu, " in page and inspection.total(ids, CPU) == 0
    assert "cpu only: Fill" in page
    counted = Counter({Operation("X", (), UNKNOWN, True): 2, Operation("Y", (), UNKNOWN, False): 1})
    odd = found._replace(operations={"odd": counted}, pinned=["here"], about={})
    page = "\n".join(inspection.lines(odd))
    assert "unknown, in a loop: X" in page and "unknown: Y" in page and "a device: here" in page
    assert inspection.total(counted, UNKNOWN) == 3


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: there is no saved_model.pb"):
        inspection.inspect(tmp_path)


def test_operations_of_a_library_that_came_later_are_known(monkeypatch):
    graph = tf.Graph()
    with graph.as_default():
        tf.matmul(tf.zeros([2, 2]), tf.ones([2, 2]))
    (node,) = (node for node in graph.as_graph_def().node if node.op == "MatMul")
    monkeypatch.setattr(inspection, "_known", {"NoOp": None})  # as when TensorFlow had no other
    assert inspection._kind("MatMul", inspection._types(node)) == GPU
