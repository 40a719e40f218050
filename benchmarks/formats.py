"""What a model loses and costs in other runtimes: ONNX, LiteRT, and LiteRT with weights of 8 bits.

    python benchmarks/formats.py [--data DIR]

The model is the package's `attention.cmudict`, the words are those that chose its epoch. Every
runtime answers through `answer.py`, the script that an export writes. Results go to formats.json
and formats.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import tempfile
import time
from pathlib import Path

from measuring import commit, machine

from keras_attn import scoring, zoo
from keras_attn.datasets import cmudict

HERE = Path(__file__).parent
ONE_BY_ONE = 200  # words, for the time of one
BATCH = 32
STEPS = ("encode", "step")
KINDS = {
    "ONNX": ("onnx", {}, (*STEPS, ".onnx")),
    "ONNX, `whole=True`": ("onnx", {"whole": True}, ("greedy", ".onnx")),
    "LiteRT": ("litert", {}, (*STEPS, ".tflite")),
    "LiteRT, 8 bits": ("litert", {"int8": True}, (*STEPS, ".int8.tflite")),
}
PAGE = """# Other runtimes: what they lose and cost

Made by `python benchmarks/formats.py`; the data is formats.json; {machine}.
[attention.cmudict](../zoo/attention.cmudict/card.md) over {words:,} development words, greedily:
LiteRT {batch} at a time for the rates of errors, and one for the time; `answer.py` searches, so
that a step is a call from Python, but with `whole=True`, where `greedy.onnx` is all of it. "MB" is
what is read: `encode` and `step`, or `greedy`.

| runtime | MB | load, s | ms a word, one at a time | WER, % | PER, % | words that differ |
|---|---|---|---|---|---|---|
{rows}
"""


def rates(hypotheses, references) -> dict:
    """Return errors in words and phonemes, %."""
    found = scoring.sequence_scores(hypotheses, references, str.split)
    return {
        "wer": 100 * (1 - found["exact_match"]),
        "per": 100 * found["token_error_rate"],
    }


def measured(model, folder: Path, kind, sources, references, expected) -> dict:
    """Export and ask in one runtime."""
    format, how, (*graphs, end) = kind
    paths = {size: folder / f"{format}.{size}" / "1" for size in (1, BATCH)}
    for size, path in paths.items():
        if path.exists():
            continue
        fixed = {"batch_size": size} if format == "litert" else {}
        model.export(path, format, verbose=False, **fixed)
    answer = runpy.run_path(str(paths[1] / "answer.py"))["Model"]
    begun = time.perf_counter()
    one = answer(paths[1], **how)
    one.generate(["a"])
    loaded = time.perf_counter() - begun
    begun = time.perf_counter()
    for word in sources[:ONE_BY_ONE]:
        one.generate([word])
    each = (time.perf_counter() - begun) / ONE_BY_ONE
    hypotheses = answer(paths[BATCH], **how).generate(sources)
    return {
        "bytes": sum(os.path.getsize(paths[1] / f"{graph}{end}") for graph in graphs),
        "load_seconds": loaded,
        "ms_a_word": 1000 * each,
        "differ": sum(a != b for a, b in zip(hypotheses, expected, strict=True)),
        **rates(hypotheses, references),
    }


def page(results: dict) -> str:
    """Return the page of the results."""
    rows = [
        f"| {name} | {found['bytes'] / 1e6:.1f} | "
        + ("" if found["load_seconds"] is None else f"{found['load_seconds']:.2f}")
        + f" | {found['ms_a_word']:.1f} | {found['wer']:.2f} | {found['per']:.2f} | "
        f"{found['differ']} |"
        for name, found in results["runtimes"].items()
    ]
    facts = {key: results[key] for key in ("machine", "words")}
    return PAGE.format(rows="\n".join(rows), batch=BATCH, **facts)


def main():
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="a folder with CMUdict, if it is not to be downloaded")
    given = parser.parse_args()
    model = zoo.build("attention.cmudict")
    part = cmudict.load(given.data).validation
    sources, references = scoring.grouped(part.sources, part.targets)
    expected = model.generate(sources)
    model.generate(sources[:1])
    begun = time.perf_counter()
    for word in sources[:ONE_BY_ONE]:
        model.generate([word])
    here = {
        "bytes": sum(weight.value.numpy().nbytes for weight in model.weights),
        "load_seconds": None,
        "ms_a_word": 1000 * (time.perf_counter() - begun) / ONE_BY_ONE,
        "differ": 0,
        **rates(expected, references),
    }
    about = machine()
    results = {"machine": f"{about['cpu']}, {about['cores']} cores, commit {commit()}"}
    results |= {"words": len(sources), "runtimes": {"TensorFlow, `model.generate`": here}}
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in KINDS.items():
            found = measured(model, Path(folder), kind, sources, references, expected)
            results["runtimes"][name] = found
    (HERE / "formats.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "formats.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
