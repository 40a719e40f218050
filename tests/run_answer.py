"""Answer sources by the script of an exported folder, where TensorFlow cannot be imported.

    python run_answer.py FOLDER [--int8] < sources

A JSON list of strings on standard input; on standard output a JSON object of what `search` gives,
what `stream` gives of the first source, and for ONNX the ids and scores of the whole search.
"""

from __future__ import annotations

import json
import sys


class Refused:
    """Keeps modules from being imported."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "keras_attn", "tf2onnx", "torch"):
            raise ImportError(f"{name}: not here")


def whole(model, sources):
    """Return ids and scores of greedy.onnx, as `Model.search_ids` does."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(model.folder / "greedy.onnx")
    ids = [model._ids(model.source.pieces(source))[: model.max_source - 1] for source in sources]
    array = np.zeros((len(ids), max(map(len, ids)) + 1), np.int32)
    for row, of_source in zip(array, ids, strict=True):
        row[: len(of_source) + 1] = [*of_source, 2]
    found, scores = session.run(["target_ids", "score"], {"source_ids": array})
    return [[i for i in row if i] for row in found.tolist()], scores.tolist()


def main():
    """Answer."""
    sys.meta_path.insert(0, Refused())
    folder, *flags = sys.argv[1:]
    sys.path.insert(0, folder)
    import answer

    sources = json.load(sys.stdin)
    model = answer.Model(folder, int8="--int8" in flags)
    found = {"search": model.search(sources), "stream": list(model.stream(sources[0]))}
    if model.about["runtime"] == "onnx":
        found["whole"] = whole(model, sources)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
