"""What exports are: size, time to load and to answer, and what of them a GPU would run.

    python benchmarks/exports.py [NAME ...]    of the zoo; let nothing else run
    python benchmarks/exports.py --shipped     the exports in saved_models

Every architecture of the zoo, at its default size with the vocabulary of dates, untrained, is
exported; loaded and asked through TensorFlow's C API in a process without Python's TensorFlow; its
operations are looked up among the kernels that TensorFlow has for GPUs; and TensorFlow's placer is
asked where it would put every node. Results go to exports.json beside this file and to
docs/exports.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from measuring import commit, machine

HERE = Path(__file__).parent
SAVED_MODELS = HERE.parent / "saved_models"
DOCS = HERE.parent / "docs" / "exports.md"
OF_IDS = ("ids", "ids_beam", "encode", "step")
OF_TEXTS = ("serving_default", "beam", "options", "sample", "score", "attend")
TEXTS = {  # by how the name of a task begins
    "cmudict": "throughout",
    "dates": "29. Mai 1975",
    "g2p_dut": "zonsopgang",
    "g2p_fre": "bibliothèque",
    "g2p_hun": "köszönöm",
    "g2p_ice": "kristján",
    "g2p_vie_hanoi": "không",
    "scan": "jump around left twice and walk",
    "slovene": "zhaſt",
}
PAGE = """# Exports: what they weigh, how soon they answer, and what a GPU would run

Every architecture at its default size, with the vocabularies of dates, untrained. "First" and
"later" are milliseconds of one text of 12 characters through `serving_default`, in a process
without Python's TensorFlow, by TensorFlow's C API; later ones are a median of 20. An untrained
model ends where it happens to, behind one token or {steps}. Made by `benchmarks/exports.py`; the
data is benchmarks/exports.json.

## Trained models

The exports in saved_models, asked for the text that is shown: disk, time to load, and milliseconds
of the first answer and of later ones (the median of 20). {shipped_on}.

| model | disk, MB | load, s | first, ms | later, ms | text | answer |
|---|---|---|---|---|---|---|
{shipped}

## Architectures

{measured_on}.

| architecture | weights | graph, MB | weights, MB | export, s | load, s | first, ms | later, ms |
|---|---|---|---|---|---|---|---|
{sizes}

## Kernels

Nodes of a signature, functions and loops included, by what TensorFlow {tensorflow} has for them:
kernels that compute on GPUs / kernels for GPUs that compute in host memory, as most of int32 do /
kernels for CPUs alone, which are those of texts. No loop has one of the last kind, and no node is
pinned to a device.

{kernels}

## Places

Nodes that TensorFlow's own placer puts on a GPU / on the CPU, given both, loops lowered
(`keras-attn inspect --placer`). What of `ids`, `ids_beam`, `encode` and `step` is left on the CPU
are the texts of error messages.

{places}
"""
RUN = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import session
begun = time.perf_counter()
model = session.Session(sys.argv[2])
loaded = time.perf_counter()
model.run(source=[sys.argv[3]])
first = time.perf_counter()
later = []
for _ in range(20):
    start = time.perf_counter()
    answer = model.run(source=[sys.argv[3]])
    later.append(time.perf_counter() - start)
assert "tensorflow" not in sys.modules
found = [loaded - begun, 1e3 * (first - loaded), 1e3 * sorted(later)[10]]
found.append(answer["target"][0].decode())
print(json.dumps(dict(zip(("load", "first", "later", "answer"), found))))
"""


def built(name: str):
    """Return an architecture with the vocabularies of dates."""
    from keras_attn import text, zoo
    from keras_attn.datasets import dates

    data = dates.load()
    source = text.CharacterTokenizer.learn(data.train.sources)
    target = text.CharacterTokenizer.learn(data.train.targets)
    return zoo.build(name, source=source, target=target)


def placed(path: Path, signatures: Iterable[str]) -> dict:
    """Return how many nodes of each signature are placed where, given a GPU."""
    from keras_attn.serving import placement

    places = placement.placed(path, list(signatures))
    for key in OF_IDS:  # of what has no texts, only those of error messages stay on the CPU
        on_cpu = set(places[key].get("CPU:0", ()))
        assert on_cpu <= {"Const"}, (key, on_cpu)
    return {
        key: {device: sum(ops.values()) for device, ops in devices.items()}
        for key, devices in places.items()
    }


def asked(path: Path, text: str) -> dict:
    """Return seconds to load an export, milliseconds to answer a text, and the answer."""
    from keras_attn.serving import session

    command = [sys.executable, "-c", RUN, str(Path(session.__file__).parent), str(path), text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def shipped() -> dict:
    """Return what is found of the exports in saved_models."""
    found = {}
    for path in sorted(SAVED_MODELS.glob("*/1")):
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        task = path.parent.name.partition(".")[2]
        text = next(text for name, text in TEXTS.items() if task.startswith(name))
        found[path.parent.name] = {"bytes": size, "text": text, **asked(path, text)}
    return found


def measured(name: str) -> dict:
    """Export an architecture, and return what is found of it."""
    from keras_attn.serving import inspection

    model = built(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1"
        begun = time.perf_counter()
        model.export(path, verbose=False)
        seconds = time.perf_counter() - begun
        times = asked(path, TEXTS["dates"])
        found = inspection.inspect(path)
        places = placed(path, found.operations)
    files = found.files
    looped = {
        op.op
        for counted in found.operations.values()
        for op in counted
        if op.looped and op.kind == inspection.CPU
    }
    assert not looped and not found.pinned, (name, looped, found.pinned)
    return {
        "weights": model.count_params(),
        "graph_bytes": files["saved_model.pb"],
        "weight_bytes": sum(n for file, n in files.items() if file.startswith("variables/")),
        "export": seconds,
        **{key: times[key] for key in ("load", "first", "later")},
        "kernels": {
            key: {kind: inspection.total(counted, kind) for kind in inspection.KINDS}
            for key, counted in found.operations.items()
        },
        "places": places,
        "steps": model.max_target,
        "tensorflow": found.tensorflow,
        "measured": here(),
    }


def here() -> str:
    """Return the machine and the commit."""
    about = machine()
    return f"{about['cpu']}, {about['cores']} cores, commit {commit()}"


def rows(models: dict, cell: Callable[[dict, str], str]) -> str:
    """Return two tables with a row an architecture: signatures of ids, and those of texts."""
    tables = []
    for signatures in (OF_IDS, OF_TEXTS):
        head = ["architecture", *(f"`{name}`" for name in signatures)]
        lines = [head, ["---"] * len(head)]
        for name, found in models.items():
            cells = (cell(found, key) if key in found["kernels"] else "" for key in signatures)
            lines.append([f"`{name}`", *cells])
        tables.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(tables)


def kernels(found: dict, signature: str) -> str:
    """Return a cell: how many nodes have which kernels."""
    counted = found["kernels"][signature]
    return " / ".join(str(counted[kind]) for kind in ("gpu", "gpu in host memory", "cpu only"))


def places(found: dict, signature: str) -> str:
    """Return a cell: how many nodes are placed where."""
    counted = found["places"][signature]
    return " / ".join(str(counted.get(device, 0)) for device in ("GPU:0", "CPU:0"))


def page(results: dict) -> str:
    """Return the results as Markdown."""
    models = results["models"]
    shipped = [
        f"| `{name}` | {found['bytes'] / 1e6:.1f} | {found['load']:.2f} | {found['first']:.0f} | "
        f"{found['later']:.1f} | `{found['text']}` | `{found['answer']}` |"
        for name, found in results["shipped"].items()
    ]
    sizes = [
        f"| `{name}` | {found['weights']:,} | {found['graph_bytes'] / 1e6:.1f} | "
        f"{found['weight_bytes'] / 1e6:.1f} | {found['export']:.1f} | {found['load']:.2f} | "
        f"{found['first']:.0f} | {found['later']:.1f} |"
        for name, found in models.items()
    ]
    return PAGE.format(
        steps=max(found["steps"] for found in models.values()),
        tensorflow=", ".join(sorted({found["tensorflow"] for found in models.values()})),
        measured_on="; ".join(sorted({found["measured"] for found in models.values()})),
        sizes="\n".join(sizes),
        kernels=rows(models, kernels),
        places=rows(models, places),
        shipped="\n".join(shipped),
        shipped_on=results["shipped_on"],
    )


def save(file: Path, results: dict) -> None:
    """Write the results, and the page."""
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    DOCS.write_text(page(results))


def main():
    """Measure, and write the results."""
    from keras_attn import zoo

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--shipped", action="store_true", help="the exports in saved_models")
    given = parser.parse_args()
    file = HERE / "exports.json"
    results = {"models": {}, "shipped": {}, "shipped_on": ""}
    if file.exists():
        results |= json.loads(file.read_text())
    if given.shipped:
        save(file, results | {"shipped": shipped(), "shipped_on": here()})
        return
    for name in given.names or zoo.names():
        found = measured(name)
        results["models"] = dict(sorted({**results["models"], name: found}.items()))
        save(file, results)
        told = {key: found[key] for key in found if key not in ("kernels", "places")}
        print(name, told, flush=True)


if __name__ == "__main__":
    main()
