"""TensorFlow's own placer, asked about a GPU that is not there."""

from __future__ import annotations

import shutil

import pytest
import small_models

from keras_attn.serving import inspection, placement

OF_IDS = ("ids", "ids_beam", "encode", "step")
HANDLING = set(  # of texts, and of where they begin and end
    "AsString ConcatV2 Const DenseBincount ExpandDims Fill GatherV2 HashTableV2 Identity "
    "LookupTableFindV2 PadV2 RaggedGather RaggedRange RaggedTensorToTensor Reshape SelectV2 Shape "
    "StringJoin StringSplitV2 Tile UnicodeDecode UnicodeEncode UnicodeTranscode "
    "UnsortedSegmentJoin".split()
)


needs_a_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="the placer is compiled by g++"
)


@needs_a_compiler
@pytest.mark.parametrize("name", small_models.EVERY if small_models.EVIDENCE else ["attention"])
def test_all_of_ids_and_all_loops_are_put_on_the_gpu(name, tmp_path):
    path = tmp_path / "1" if small_models.EVIDENCE else small_models.exported(name)
    if small_models.EVIDENCE:  # each is asked once
        small_models.small(name).export(path, verbose=False)
    operations = inspection.inspect(path).operations
    names = set(operations)
    assert names >= {*OF_IDS, "serving_default", "beam", "options", "sample", "score"}
    found = placement.placed(path, names)
    for signature in names:
        on_cpu, on_gpu = (found[signature].get(f"{kind}:0", {}) for kind in ("CPU", "GPU"))
        read = sum(n for of, n in operations[signature].items() if of.op == "VarHandleOp")
        assert on_gpu["MatMul"] >= 2 and on_gpu["VarHandleOp"] == read
        assert read >= 7 or (signature == "step" and "attend" not in names)
        assert not set(on_cpu) & {"Enter", "Exit", "Merge", "LoopCond", "While", "VarHandleOp"}
        assert set(on_cpu) <= ({"Const"} if signature in OF_IDS else HANDLING), signature
        assert ("HashTableV2" in on_cpu) == (signature not in OF_IDS)
    assert all(found[name]["GPU:0"]["Enter"] > 20 for name in ("ids", "ids_beam", "beam"))


@needs_a_compiler
def test_signatures_that_are_not_there_are_refused():
    path = small_models.exported("attention")
    with pytest.raises(RuntimeError, match="no signature nonsense"):
        placement.placed(path, ["nonsense"])


def test_without_a_compiler_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler"):
        placement.compiled()
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match="does not compile"):
        placement.compiled()
    assert not list((tmp_path / "keras_attn").iterdir())
