"""Graphs for other runtimes answer as the model does, where there is no TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models

from keras_attn import datasets, text, zoo
from keras_attn.serving import formats

RUN = Path(__file__).parent.parent / "run_answer.py"
NAMES = small_models.EVERY if small_models.EVIDENCE else ["attention_copy"]
FILES = {
    "onnx": {"encode.onnx", "step.onnx", "greedy.onnx"},
    "litert": {f"{name}{end}.tflite" for name in ("encode", "step") for end in ("", ".int8")},
}
BESIDE = {"README.md", "answer.py", "keras_attn.json", "golden.jsonl"}
BESIDE |= {"source_vocabulary.json", "target_vocabulary.json"}
SOURCES = [
    *small_models.WORDS,
    *("", " ", "\n", "\0", "a\0b", "🙂", "e\u0301", "\ufeffabc", "ЖЖЖ", "</s>", "<unk>"),
    *("x" * 10, "x" * 11, "x" * 12, "abc" * 500, "xyz🙂🙂Ж", "qqqq", "Hello"),
]


def answered(path, *flags, sources=SOURCES):
    """Return what the script in the folder says."""
    done = subprocess.run(
        [sys.executable, "-P", str(RUN), str(path), *flags],
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_answers(model, found, sources=SOURCES):
    """Compare texts, scores and tokens with the model's own."""
    expected = model.search(sources, num_return=1)
    targets = model.codec.text(expected.token_ids[:, 0], sources).numpy().tolist()
    rows = zip(expected.token_ids[:, 0].tolist(), expected.lengths[:, 0].tolist(), strict=True)
    expected_ids = [row[:length] for row, length in rows]
    for searched in (found[kind] for kind in ("steps", "whole") if kind in found):
        texts, scores = zip(*searched["search"], strict=True)
        assert list(texts) == [target.decode() for target in targets]
        np.testing.assert_allclose(scores, expected.scores[:, 0], rtol=1e-5, atol=1e-5)
        ids, scores = zip(*searched["search_ids"], strict=True)
        assert list(ids) == expected_ids
        np.testing.assert_allclose(scores, expected.scores[:, 0], rtol=1e-5, atol=1e-5)
    assert found["stream"] == list(model.stream(sources[0]))


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_the_model(name, format, tmp_path):
    model, rows = small_models.shared(name), 1 if format == "onnx" else 3
    path = tmp_path / "letters" / "1"
    assert model.export(path, format, batch_size=rows, verbose=False) == str(path)
    assert set(os.listdir(path)) == FILES[format] | BESIDE
    found = answered(path)
    assert_answers(model, found)
    assert ("whole" in found) == (format == "onnx")
    if format == "litert":
        assert len(answered(path, "--int8")["steps"]["search"]) == len(SOURCES)
    about = json.loads((path / "keras_attn.json").read_text())
    assert about["runtime"] == format and set(about["signatures"]) == {
        file.partition(".")[0] for file in FILES[format]
    }


def test_weights_of_8_bits_take_a_quarter_and_say_nearly_the_same(tmp_path):
    """Of a trained model, which is sure of what it says: else small changes lead elsewhere."""
    path = tmp_path / "1"
    zoo.build("attention.dates").export(path, "litert", verbose=False)
    sizes = {file.name: file.stat().st_size for file in path.iterdir()}
    for name in ("encode", "step"):
        assert sizes[f"{name}.int8.tflite"] < 0.4 * sizes[f"{name}.tflite"]
    sources = list(datasets.dates.load(1, 30, 1).validation.sources)
    exact, rough = (
        answered(path, *flags, sources=sources)["steps"]["search"] for flags in ((), ("--int8",))
    )
    assert [text for text, _ in exact] == [text for text, _ in rough]
    assert len({text for text, _ in exact}) > 20
    exact, rough = ([score for _, score in row] for row in (exact, rough))
    assert exact != rough
    assert np.mean(np.abs(np.subtract(exact, rough))) < 0.2 * np.mean(np.abs(exact))


def test_texts_that_only_tensorflow_reads_are_left_to_ids(tmp_path):
    words = text.WordPieceTokenizer.learn([*small_models.WORDS] * 3, 40)
    model = zoo.build("context_as_init", source=words, target=words, units=4, embedding_size=4)
    model.export(tmp_path / "1", "litert", verbose=False)
    assert "only ids are answered here" in (tmp_path / "1" / "README.md").read_text()
    from keras_attn.serving.answer import Model

    found = Model(tmp_path / "1")
    with pytest.raises(NotImplementedError, match=r"a WordPieceTokenizer.*use Model.search_ids"):
        found.generate(["abc"])
    expected = model.search(["abc x"], num_return=1)
    (row,) = words.tokenize(["abc x"]).to_list()
    ((target, score),) = found.search_ids([row])
    assert found.search_ids([[*row, 2, 9, 9]]) == [(target, score)]
    assert target == expected.token_ids[0, 0, : expected.lengths[0, 0]].tolist()
    assert score == pytest.approx(float(expected.scores[0, 0]), rel=1e-5)


@pytest.mark.parametrize("format", FILES)
def test_half_precision_is_written_in_float32(format, tmp_path):
    model = small_models.small("attention", dtype="mixed_bfloat16", **small_models.CHEAP)
    model.export(tmp_path / "1", format, verbose=False)
    assert_answers(model.freeze(jit_compile=False), answered(tmp_path / "1"))


def test_what_the_script_refuses_and_forgives(tmp_path):
    from keras_attn.serving.answer import Model

    model = small_models.small("attention", **small_models.CHEAP)
    model.export(tmp_path / "1", "litert", verbose=False)
    with pytest.raises(ValueError, match="whole: only ONNX's graphs"):
        Model(tmp_path / "1", whole=True)
    found = Model(tmp_path / "1")
    assert found.generate("abc") == model.generate("abc") == found.generate([b"abc"])[0]
    assert found.generate([]) == []
    for bad, message in (([None], "texts, got NoneType"), ([3], "texts, got int")):
        with pytest.raises(TypeError, match=message):
            found.generate(bad)
    with pytest.raises(TypeError, match="a list of texts, got one text"):
        found.search("abc")
    with pytest.raises(TypeError, match="expected lists of ids, got 4"):
        found.search_ids([4, 5])
    unknown = found.search_ids([[5, 3, 3, 3]])
    assert found.search_ids([[5, 9999, -3, 0]]) == unknown
    about = json.loads((tmp_path / "1" / "keras_attn.json").read_text())
    (tmp_path / "1" / "keras_attn.json").write_text(json.dumps(about | {"runtime": "onnx"}))
    with pytest.raises(ValueError, match="only LiteRT's graphs"):
        Model(tmp_path / "1", int8=True)
    (tmp_path / "1" / "keras_attn.json").write_text(json.dumps(about))
    lines = b"abc\n\xff\nde\r\n"
    command = [sys.executable, str(tmp_path / "1" / "answer.py")]
    done = subprocess.run(command, input=lines, capture_output=True, check=True)
    expected = model.generate([b"abc", b"\xff", b"de"])
    assert done.stdout.decode().splitlines() == expected
    done = subprocess.run([*command, b"a\xff"], capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [model.generate(b"a\xff")]


def test_from_a_shell_the_whole_search_answers_where_it_is_told_to(tmp_path):
    model = small_models.small("context_as_init", **small_models.CHEAP)
    model.export(tmp_path / "1", "onnx", verbose=False)
    sources, script = ["abc", "", "x" * 20], tmp_path / "1" / "answer.py"

    def run(*flags):
        return subprocess.run([sys.executable, str(script), *flags, *sources], capture_output=True)

    expected = "".join(f"{target}\n" for target in model.generate(sources))
    assert run("--whole").stdout.decode() == expected == run().stdout.decode()
    (tmp_path / "1" / "greedy.onnx").unlink()
    assert run("--whole").returncode != 0 == run().returncode


def test_what_is_refused(tmp_path, monkeypatch):
    model = small_models.shared("attention")
    with pytest.raises(ValueError, match="batch_size: expected a positive int, got 0"):
        model.export(tmp_path / "1", "litert", batch_size=0)
    with pytest.raises(TypeError, match="filepath: expected a path, got int"):
        model.export(1, "onnx")
    with pytest.raises(TypeError, match="need tokenisers"):
        zoo.build("attention", units=4, source=9, target=9).export(tmp_path / "1", "onnx")
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match="needs tf2onnx: pip install tf2onnx"):
        model.export(tmp_path / "1", "onnx")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", FILES)
def test_graphs_that_do_not_run_are_not_published(format, tmp_path, monkeypatch):
    model, to = small_models.small("context_as_init", **small_models.CHEAP), f"_to_{format}"
    written, last = getattr(formats, to), "greedy.onnx" if format == "onnx" else "step.int8.tflite"

    def damaged(path, function, model):
        written(path, function, model)
        if (path.parent / last).exists():
            (path.parent / last).write_bytes(b"nothing")

    monkeypatch.setattr(formats, to, damaged)
    with pytest.raises(ValueError, match=f"format: {format} does not run what was written"):
        model.export(tmp_path / "1", format, verbose=False)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_expressed_is_said(tmp_path, monkeypatch):
    import tf2onnx

    def refuse(*_, **__):
        raise KeyError("some operation\nand a trace")

    monkeypatch.setattr(tf2onnx.convert, "from_function", refuse)
    model = small_models.small("context_as_init", **small_models.CHEAP)
    with pytest.raises(ValueError, match="format: ONNX cannot express 'encode': 'some operation"):
        model.export(tmp_path / "1", "onnx", verbose=False)
    assert os.listdir(tmp_path) == []
