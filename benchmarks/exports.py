"""What exports are: size, time to load and to answer, and what of them a GPU would run.

    python benchmarks/exports.py [NAME ...]            times, sizes, kernels; let nothing else run
    python benchmarks/exports.py [NAME ...] --placer   where TensorFlow's placer puts every node
    python benchmarks/exports.py --shipped             the exports in saved_models

Every architecture of the zoo, at its default size with the vocabulary of dates, untrained, is
exported; loaded and asked through TensorFlow's C API in a process without Python's TensorFlow; and
its operations are looked up among the kernels that TensorFlow has for GPUs. Results go to
exports.json beside this file and to docs/exports.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SAVED_MODELS = HERE.parent / "saved_models"
DOCS = HERE.parent / "docs" / "exports.md"
OF_IDS = ("ids", "ids_beam", "encode", "step")
TEXTS = {"dates": "29. Mai 1975", "cmudict": "throughout"}
SIGNATURES = (*OF_IDS, "serving_default", "beam", "options", "sample", "score")
PAGE = """# Exports: what they weigh, how soon they answer, and what a GPU would run

Every architecture at its default size, with the vocabularies of dates, untrained. "First" and
"later" are milliseconds of one text of 12 characters through `serving_default`, in a process
without Python's TensorFlow, by TensorFlow's C API; later ones are a median of 20. An untrained
model ends where it happens to, behind one token or {steps}.
{machine}. Made by `benchmarks/exports.py`; the data is benchmarks/exports.json.

## Trained models

The exports in saved_models, asked for the text that is shown: disk, time to load, and milliseconds
of the first answer and of later ones (the median of 20). {shipped_on}.

| model | disk, MB | load, s | first, ms | later, ms | text | answer |
|---|---|---|---|---|---|---|
{shipped}

## Architectures

| architecture | weights | graph, MB | weights, MB | export, s | load, s | first, ms | later, ms |
|---|---|---|---|---|---|---|---|
{sizes}

## Kernels

Nodes of a signature, functions and loops included, by what TensorFlow {tensorflow} has for them:
kernels that compute on GPUs; kernels for GPUs that compute in host memory, as most of int32 do; and
kernels for CPUs alone. No loop has one of the last kind, and no node is pinned to a device.

| architecture | `ids`: GPU / host / CPU | `serving_default`: the same | placed on GPU / CPU |
|---|---|---|---|
{kernels}

The last column is where TensorFlow's own placer puts the nodes of `ids`, loops lowered, given a GPU
(`keras-attn inspect --placer`); what is left on the CPU are the texts of error messages.
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


def placed(name: str) -> dict:
    """Return how many nodes of each signature are placed where, given a GPU."""
    from keras_attn.serving import placement

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "1"
        built(name).export(path, verbose=False)
        places = placement.placed(path, SIGNATURES)
    for key in OF_IDS:  # of what has no texts, only those of error messages stay on the CPU
        on_cpu = set(places[key].get("CPU:0", ()))
        assert on_cpu <= {"Const"}, (name, key, on_cpu)
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
        data = path.parent.name.partition(".")[2].partition("_")[0]
        found[path.parent.name] = {"bytes": size, "text": TEXTS[data], **asked(path, TEXTS[data])}
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
        "places": {},
        "steps": model.max_target,
        "tensorflow": found.tensorflow,
    }


def page(results: dict) -> str:
    """Return the results as Markdown."""
    sizes, kernels = [], []
    trained = [
        f"| `{name}` | {found['bytes'] / 1e6:.1f} | {found['load']:.2f} | {found['first']:.0f} | "
        f"{found['later']:.1f} | `{found['text']}` | `{found['answer']}` |"
        for name, found in results["shipped"].items()
    ]
    for name, found in results["models"].items():
        sizes.append(
            f"| `{name}` | {found['weights']:,} | {found['graph_bytes'] / 1e6:.1f} | "
            f"{found['weight_bytes'] / 1e6:.1f} | {found['export']:.1f} | {found['load']:.2f} | "
            f"{found['first']:.0f} | {found['later']:.1f} |"
        )
        counts = [
            " / ".join(
                str(found["kernels"][key][kind])
                for kind in ("gpu", "gpu in host memory", "cpu only")
            )
            for key in ("ids", "serving_default")
        ]
        placed = found["places"].get("ids", {})
        where = " / ".join(str(placed.get(device, 0)) for device in ("GPU:0", "CPU:0"))
        kernels.append(f"| `{name}` | {counts[0]} | {counts[1]} | {where if placed else ''} |")
    first = next(iter(results["models"].values()))
    return PAGE.format(
        steps=first["steps"],
        tensorflow=first["tensorflow"],
        machine=results["machine"],
        sizes="\n".join(sizes),
        kernels="\n".join(kernels),
        shipped="\n".join(trained),
        shipped_on=results["shipped_on"],
    )


def save(file: Path, results: dict) -> None:
    """Write the results, and the page."""
    file.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    DOCS.write_text(page(results))


def main():
    """Measure, and write the results."""
    from measuring import machine

    from keras_attn import zoo

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--placer", action="store_true", help="of what has been measured")
    parser.add_argument("--shipped", action="store_true", help="the exports in saved_models")
    given = parser.parse_args()
    file, of = HERE / "exports.json", machine()
    here = f"{of['cpu']}, {of['cores']} cores"
    results = {"models": {}, "machine": here, "shipped": {}, "shipped_on": here}
    if file.exists():
        results |= json.loads(file.read_text())
    if given.shipped:
        results |= {"shipped": shipped(), "shipped_on": here}
        save(file, results)
        return
    results["machine"] = here
    for name in given.names or zoo.names():
        if given.placer:
            results["models"][name]["places"] = placed(name)
        else:
            results["models"][name] = measured(name)
        results["models"] = dict(sorted(results["models"].items()))
        save(file, results)
        print(
            name, {k: v for k, v in results["models"][name].items() if k != "kernels"}, flush=True
        )


if __name__ == "__main__":
    main()
