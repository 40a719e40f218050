"""What a GPU makes of models and exports: for whoever has one.

    python benchmarks/gpu.py [--rehearse]

Trains a small model of dates there, exports it with every `rnn_kernel`, and asks each export in a
process without Python's TensorFlow for its golden answers and its warm-up requests; compares texts
with those that were trained, times them for batches of 1, 32 and 256, and traces which operations
ran on which device, cuDNN's kernel among them or not. Answers are held to each other in full
float32, since TF32, which TensorFlow uses by itself on newer GPUs, rounds products at the third
digit; times are taken of both. The results go to gpu/DEVICE.json beside this file: please send it.
Without a GPU it stops, unless it is a rehearsal, which runs on the CPU what runs there, and writes
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several processes share it

HERE = Path(__file__).parent
KERNELS = ("cpu", "portable", "cudnn")
BATCHES = (1, 32, 256)
CLOSE = 1e-4  # nats
FULL = {"NVIDIA_TF32_OVERRIDE": "0"}
RUN = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import session
texts, batches = json.loads(sys.stdin.read())
begun = time.perf_counter()
model = session.Session(sys.argv[2])
found = {"load": time.perf_counter() - begun, "milliseconds": {}}
begun = time.perf_counter()
model.run(source=texts[:1])
found["first"] = time.perf_counter() - begun
found["targets"] = [target.decode() for target in model.run(source=texts)["target"]]
for batch in batches:
    some, times = (texts * batch)[:batch], []
    for _ in range(12):
        begun = time.perf_counter()
        model.run(source=some)
        times.append(1e3 * (time.perf_counter() - begun))
    found["milliseconds"][batch] = sorted(times[2:])
print(json.dumps(found))
"""
# What ran, and where: by TensorFlow's own trace, since the choice is made inside of the graph.
TRACE = """
import collections, json, sys
import tensorflow.compat.v1 as tf
texts = json.loads(sys.stdin.read())
tf.disable_eager_execution()
with tf.Session(graph=tf.Graph()) as session:
    meta = tf.saved_model.load(session, ["serve"], sys.argv[1])
    of = meta.signature_def["serving_default"]
    feed = {of.inputs["source"].name: texts}
    traced = tf.RunMetadata()
    options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
    session.run(of.outputs["target"].name, feed, options=options, run_metadata=traced)
ran, kernels = collections.defaultdict(collections.Counter), 0
for device in traced.step_stats.dev_stats:
    for node in device.node_stats:
        operation = node.timeline_label.partition(" = ")[2].partition("(")[0]
        kernels += operation == "CudnnRNNV3"
        if operation:
            ran[device.device.rpartition("/")[2]][operation] += 1
print(json.dumps({"cudnn_calls": kernels, "operations": ran}))
"""


def trained():
    """Train a model of dates for two epochs; return it, the data and the seconds an epoch took."""
    import keras

    from keras_attn import text, zoo
    from keras_attn.datasets import dates

    keras.utils.set_random_seed(0)
    data = dates.load()
    source = text.CharacterTokenizer.learn(data.train.sources)
    target = text.CharacterTokenizer.learn(data.train.targets)
    model = zoo.build("attention", source=source, target=target)
    model.compile("adam", metrics=None)
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        model.fit(data.train.sources, data.train.targets, batch_size=128, verbose=2)
        seconds.append(time.perf_counter() - begun)
    return model, data.validation.sources[:200], seconds


def asked(path: Path, texts: list[str], surroundings: dict[str, str]) -> dict:
    """Ask an export, in a process of its own; what fails is said."""
    from keras_attn.serving import session

    command = [sys.executable, "-c", RUN, str(Path(session.__file__).parent), str(path)]
    given = json.dumps([texts, BATCHES])
    environment = os.environ | surroundings
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:500]}
    return json.loads(done.stdout.splitlines()[-1])


def traced(path: Path, texts: list[str]) -> dict:
    """Return how often cuDNN's kernel ran, and the operations of each device."""
    command = [sys.executable, "-c", TRACE, str(path)]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:500]}
    return json.loads(done.stdout.splitlines()[-1])


def checked(path: Path) -> dict:
    """Hold an export to its golden answers, its warm-up and all that can go wrong."""
    from keras_attn.serving import session

    script = HERE.parent / "tests" / "check_export.py"
    command = [sys.executable, str(script), session.__file__, str(path)]
    environment = os.environ | FULL
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:500]}
    return json.loads(done.stdout.splitlines()[-1])


def ties(model, texts: list[str]) -> int:
    """Return of how many texts rounding may decide: two tokens are closer than `CLOSE` nats."""
    from keras_attn.serving.beside import gaps
    from keras_attn.types import EOS

    if not texts:
        return 0
    rows = [[*row[: model.max_source - 1], EOS] for row in model.codec.source_ids(texts).to_list()]
    found = gaps(model, rows, model.search(texts).token_ids[:, 0])
    return sum(gap is not None and gap < CLOSE for gap in found)


def medians(found: dict) -> dict[str, float]:
    """Return the milliseconds of each batch."""
    return {b: statistics.median(times) for b, times in found.get("milliseconds", {}).items()}


def faults(kernels: dict[str, dict], gpu: bool) -> Iterator[str]:
    """Yield what is not as it should be."""
    for kernel, found in kernels.items():
        for said in (found, found["tf32"], found["check"], found["ran"]):
            if "failed" in said:
                yield f"{kernel}: {said['failed']}"
        if found["equal"] + found["ties"] < found["texts"]:
            told = f"{found['equal']} of {found['texts']} are equal, {found['ties']} are ties"
            yield f"{kernel}: {told}"
        if bool(found["ran"].get("cudnn_calls")) != (gpu and kernel != "cpu"):
            yield f"{kernel}: cuDNN's kernel ran {found['ran'].get('cudnn_calls')} times"
        ran = {op for counted in found["ran"].get("operations", {}).values() for op in counted}
        if not any(op.endswith("MatMul") for op in ran):  # oneDNN's begin with _Mkl
            yield f"{kernel}: the trace shows no product, so that it says nothing"


def main():
    """Measure, and write the results."""
    import tensorflow as tf
    from measuring import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args()
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and not given.rehearse:
        raise SystemExit("TensorFlow sees no GPU here; --rehearse runs the rest on the CPU.")
    tf.config.experimental.enable_tensor_float_32_execution(False)
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    device = details.get("device_name", "CPU")
    model, texts, seconds = trained()
    expected = model.generate(texts)
    results = {
        "device": device,
        "tensorflow": tf.__version__,
        "machine": machine(),
        "seconds_an_epoch": seconds,
        "kernels": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for kernel in KERNELS if gpus else KERNELS[:2]:
            path = Path(folder) / kernel / "1"
            model.export(path, rnn_kernel=kernel, verbose=False)
            found = asked(path, texts, FULL)
            targets = found.pop("targets", [])
            same = [a == b for a, b in zip(targets, expected, strict=False)]
            differing = [text for text, equal in zip(texts, same, strict=False) if not equal]
            times, tf32 = medians(found), asked(path, texts, {})
            said = {
                "texts": len(texts),
                "equal": sum(same),
                "ties": ties(model, differing),
                "median": times,
                "median_with_tf32": medians(tf32),
                "tf32": {key: tf32[key] for key in ("failed",) if key in tf32},
                "check": checked(path),
                "ran": traced(path, texts[:32]),
            }
            results["kernels"][kernel] = found | said
            shown = {key: value for key, value in results["kernels"][kernel].items()}
            shown.pop("milliseconds", None)
            print(kernel, json.dumps(shown, indent=1), flush=True)
    wrong = list(faults(results["kernels"], bool(gpus)))
    if not gpus:
        print("a rehearsal: nothing is written")
        raise SystemExit("\n".join(wrong) or 0)
    (HERE / "gpu").mkdir(exist_ok=True)
    file = HERE / "gpu" / f"{re.sub(r'[^a-z0-9]+', '_', device.lower())}.json"
    file.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {file}")
    raise SystemExit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
