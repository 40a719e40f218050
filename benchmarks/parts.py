"""Where the time of a training step goes: the step with what comes behind a part left out.

    python benchmarks/parts.py [--repeats 15]

Milliseconds of one batch, median of the repeats: the encoder's forward pass; with the decoder; with
logits and loss; the encoder both ways; with the decoder; all gradients; the whole step with Adam.
Each model in a process of its own, fast (`configure_cpu()`, `mixed_bfloat16`), those of Luong's
order in float32 with default threads too. Results go to parts.json and parts.md beside this file.
Let nothing else run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import reporting
from measuring import commit, machine

CASES = {
    "Luong, small": ("small", "luong", True),
    "Luong, medium": ("medium", "luong", True),
    "Bahdanau, small": ("small", "bahdanau", True),
    "Bahdanau, medium": ("medium", "bahdanau", True),
    "Luong, small, float32": ("small", "luong", False),
    "Luong, medium, float32": ("medium", "luong", False),
}
PARTS = (
    *("encoder forward", "and decoder", "and logits, loss"),
    *("encoder, both ways", "with decoder", "all gradients", "with Adam"),
)
PAGE = """# Parts: where the time of a training step goes

Milliseconds of one batch, medians of {repeats}, of the step with what comes behind a part left out:
so the difference of two columns is what the later one adds. In float32 threads are the defaults,
else it is the fast form. {cpu}, {cores} cores ({flags}); {when}, commit {commit}. Made by
`python benchmarks/parts.py`; the data is parts.json. What it says stands in
[README.md](README.md#what-limits-what).

| | {head} |
|---|{rule}|
{rows}
"""


def functions(model, x, y) -> dict:
    """Return a function without arguments for every part, each a graph."""
    import tensorflow as tf

    from keras_attn.kernels import cores

    def halves():
        return cores.split((x, y), cores.parts())

    def total(found) -> tf.Tensor:
        floats = [t for t in tf.nest.flatten(found) if t.dtype.is_floating]
        return tf.add_n([tf.reduce_sum(tf.cast(t, "float32")) for t in floats])

    def encoded():
        return total([model.encode(x["source"], training=True) for x, _ in halves()])

    def decoded():
        return total([model(x, training=True, features=True) for x, _ in halves()])

    def lost():
        found = []
        for x, y in halves():
            real = tf.where(tf.reshape(y, [-1]) != 0)[:, 0]
            features = model(x, training=True, features=True)
            features = tf.gather(tf.reshape(features, [-1, features.shape[-1]]), real)[None]
            picked = tf.gather(tf.reshape(y, [-1]), real)[None]
            found.append(model.loss.call(picked, model.project(features)))
        return total(found)

    def both_ways(forward):
        def gradients():
            with tf.GradientTape() as tape:
                value = forward()
            found = tape.gradient(value, model.trainable_weights)
            return [tf.convert_to_tensor(g) for g in found if g is not None]

        return gradients

    works = [encoded, decoded, lost, *map(both_ways, (encoded, decoded, lost))]
    named = {name: tf.function(work) for name, work in zip(PARTS, works, strict=False)}
    return named | {"with Adam": tf.function(lambda: model.train_step((x, y)))}


def measured(size: str, attention: str, fast: bool, repeats: int) -> dict[str, float]:
    """Return the milliseconds of every part; in a process of its own."""
    from peers import product
    from sizes import SIZES, batches

    if fast:
        product.configured()
    import tensorflow as tf

    of = SIZES[size]
    model = product.built(of, attention, "mixed_bfloat16" if fast else "float32")
    model.compile("adam", metrics=None)
    model.optimizer.build(model.trainable_weights)
    source, target_in, target_out = (tf.constant(ids[: of.batch]) for ids in batches(of))
    found: dict[str, list[float]] = {name: [] for name in PARTS}
    works = functions(model, {"source": source, "target_in": target_in}, target_out)
    for work in works.values():
        work(), work()
    for _ in range(repeats):
        for name, work in works.items():
            begun = time.perf_counter()
            tf.nest.map_structure(lambda t: t.numpy(), work())
            found[name].append(1e3 * (time.perf_counter() - begun))
    return {name: statistics.median(times) for name, times in found.items()}


def page(results: dict) -> str:
    """Return the results as Markdown."""
    about = results["machine"]
    rows = [
        f"| {name} | {' | '.join(format(found[part], '.3g') for part in PARTS)} |"
        for name, found in results["cases"].items()
    ]
    return PAGE.format(
        head=" | ".join(PARTS),
        rule="|".join(["---"] * len(PARTS)),
        rows="\n".join(rows),
        flags=", ".join(about["flags"]),
        cpu=about["cpu"],
        cores=about["cores"],
        **{key: results[key] for key in ("repeats", "when", "commit")},
    )


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        size, attention, fast = given.one
        print(json.dumps(measured(size, attention, fast == "fast", given.repeats)))
        return
    cases = {}
    for name, (size, attention, fast) in CASES.items():
        mode = "fast" if fast else "float32"
        one = ["--repeats", str(given.repeats), "--one", size, attention, mode]
        done = subprocess.run([sys.executable, __file__, *one], stdout=subprocess.PIPE, check=True)
        cases[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, cases[name], flush=True)
    about = {"machine": machine(), "commit": commit(), "repeats": given.repeats}
    results = reporting.save(
        "parts", about | {"when": datetime.now(UTC).strftime("%Y-%m-%d"), "cases": cases}
    )
    Path(__file__).with_suffix(".md").write_text(page(results))


if __name__ == "__main__":
    main()
