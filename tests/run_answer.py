"""Answer sources by the script of an exported folder, where TensorFlow cannot be imported.

    python run_answer.py FOLDER [--int8] < sources

A JSON list of strings on standard input; on standard output a JSON object of what `search` and
`search_ids` give by steps, for ONNX by the whole search too, and what `stream` gives of the first.
"""

from __future__ import annotations

import json
import sys


class Refused:
    """Keeps modules from being imported."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "keras_attn", "tf2onnx", "torch"):
            raise ImportError(f"{name}: not here")


def main():
    """Answer."""
    sys.meta_path.insert(0, Refused())
    folder, *flags = sys.argv[1:]
    sys.path.insert(0, folder)
    import answer

    sources = json.load(sys.stdin)
    model = answer.Model(folder, int8="--int8" in flags)
    ids = [model._ids(model.source.pieces(source)) for source in sources]

    def searched(model):
        return {"search": model.search(sources), "search_ids": model.search_ids(ids)}

    found = {"steps": searched(model), "stream": list(model.stream(sources[0]))}
    if model.about["runtime"] == "onnx":
        found["whole"] = searched(answer.Model(folder, whole=True))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
