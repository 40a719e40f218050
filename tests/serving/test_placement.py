"""TensorFlow's own placer, asked about a GPU that is not there."""

from __future__ import annotations

import shutil

import pytest
import small_models

from keras_attn.serving import placement

NAMES = ("ids", "ids_beam", "step", "serving_default", "beam")


needs_a_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="the placer is compiled by g++"
)


@needs_a_compiler
@pytest.mark.parametrize("name", small_models.EVERY if small_models.EVIDENCE else ["attention"])
def test_all_of_ids_and_all_loops_are_put_on_the_gpu(name, tmp_path):
    path = tmp_path / "1" if small_models.EVIDENCE else small_models.exported(name)
    if small_models.EVIDENCE:  # each is asked once
        small_models.small(name).export(path, verbose=False)
    found = placement.placed(path, NAMES)
    for signature in NAMES:
        on_cpu, on_gpu = (found[signature].get(f"{kind}:0", {}) for kind in ("CPU", "GPU"))
        assert on_gpu["MatMul"] >= 2 and on_gpu["VarHandleOp"] >= 7
        assert not set(on_cpu) & {"Enter", "Exit", "Merge", "LoopCond", "While", "VarHandleOp"}
        if signature.startswith("ids"):
            assert set(on_cpu) <= {"Const"} and on_gpu["Enter"] > 20  # texts of messages
        assert ("HashTableV2" in on_cpu) == (signature not in ("ids", "ids_beam", "step"))


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
