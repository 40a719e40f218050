"""What each entry of the zoo learns: strings over 8 letters, turned round, doubled, or copied.

    python benchmarks/learning.py --only 'attention*' --out benchmarks/learning.json

Every run is of one seed, on fresh random pairs; what is measured are 1,000 strings that training
never saw. Results are added to the file, so that entries can be run one by one; then

    python benchmarks/learning.py --table

writes benchmarks/learning.md from it.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import platform
import time
import zlib
from pathlib import Path

import keras
import numpy as np

import keras_attn
from keras_attn import layers, text, zoo
from keras_attn.training import adam

LETTERS = "abcdefgh"
PAIRS, HELD_OUT, BATCH = 20_000, 1_000, 64
WITHOUT_ATTENTION = (
    "context_as_init",
    "context_every_step",
    "combined",
    "cho2014",
    "sutskever2014",
)
HARD = {
    "straight_through": {"training": "straight_through"},
    "gumbel": {"training": "gumbel"},
    "score_function": {"training": "score_function"},
}


def held_out(words):
    """Return whether a string is kept from training: one in ten, by its hash."""
    return zlib.crc32(" ".join(words).encode()) % 10 == 0


def strings(rng, number, longest, held, words, wanted):
    """Return lists of words of 1 to `longest`, all held out, or none, that have what is wanted."""
    found = []
    while len(found) < number:
        several = [words(rng) for _ in range(rng.integers(1, longest + 1))]
        if held_out(several) == held and wanted(several):
            found.append(several)
    return found


def letter(rng):
    """Return one of 8 letters."""
    return str(rng.choice(list(LETTERS)))


def has_a_number(words):
    """Return whether any of the words is a number."""
    return any(word not in LETTERS for word in words)


def letter_or_number(first, last):
    """Return a function that gives a letter, or a number of a range, which no vocabulary knows."""

    def word(rng):
        return letter(rng) if rng.random() < 0.5 else str(rng.integers(first, last))

    return word


TASKS = {
    "reverse": lambda words: words[::-1],
    "double": lambda words: [word for word in words for _ in range(2)],
}


def data(task, longest, seed, unknown=False):
    """Return pairs for training and for measuring; with `unknown`, each with numbers of its own."""
    rng = np.random.default_rng(seed)
    parts = []
    for number, held, numbers in ((PAIRS, False, (1000, 5000)), (HELD_OUT, True, (5000, 9000))):
        words = letter_or_number(*numbers) if unknown else letter
        wanted = has_a_number if unknown and held else bool
        sources = strings(rng, number, longest, held, words, wanted)
        pairs = [" ".join(s) for s in sources], [" ".join(TASKS[task](s)) for s in sources]
        parts.append(pairs)
    return parts


def run(name, task, longest, *, epochs, seed=0, unknown=False, label="", **options):
    """Train until 99.5 % are exact or epochs end; return what came of it."""
    keras.utils.set_random_seed(seed)
    (x, y), held = data(task, longest, seed, unknown)
    tokenizer = text.WhitespaceTokenizer(["<pad>", "<s>", "</s>", "<unk>", *LETTERS])
    sizes = {"units": 64, "embedding_size": 32, "max_source": 20, "max_target": 20}
    options = {**sizes, "dropout": 0.0, **options}
    model = zoo.build(name, source=tokenizer, target=tokenizer, **options)
    model.compile(adam(epochs * PAIRS // BATCH, learning_rate=4e-3))
    started, exact, epoch = time.time(), 0.0, 0
    for epoch in range(1, epochs + 1):
        model.fit(x, y, batch_size=BATCH, verbose=0, initial_epoch=epoch - 1, epochs=epoch)
        exact = model.generation_metrics(*held)["exact_match"]
        print(f"{name} {label} {task} <= {longest}: epoch {epoch}, {exact:.1%}", flush=True)
        if exact >= 0.995:
            break
    return {
        "name": name,
        "label": label,
        "task": task,
        "longest": longest,
        "unknown": unknown,
        "exact": exact,
        "epochs": epoch,
        "seconds": round(time.time() - started, 1),
        "weights": model.count_params(),
        "seed": seed,
    }


def runs(name, epochs):
    """Yield the results of all tasks of an entry."""
    if name in WITHOUT_ATTENTION:
        yield run(name, "reverse", 5, epochs=epochs)
    elif name == "attention_monotonic":
        yield run(name, "double", 8, epochs=epochs)
    elif name == "attention_hard":
        for label, options in HARD.items():
            hard = layers.Hard(**options)
            yield run(name, "reverse", 8, epochs=epochs, label=label, normaliser=hard)
    else:
        yield run(name, "reverse", 8, epochs=epochs)
    if name in ("attention", "attention_copy"):
        yield run(name, "reverse", 8, epochs=min(epochs, 12), unknown=True)


def recorded(path, result):
    """Put a result in the file, in place of an older one of the same run."""
    found = json.loads(path.read_text()) if path.exists() else {"runs": []}
    key = ("name", "label", "task", "longest", "unknown", "seed")
    others = [r for r in found["runs"] if any(r[k] != result[k] for k in key)]
    order = [*others, result]
    found["runs"] = sorted(order, key=lambda r: (r["unknown"], r["task"], r["name"], r["label"]))
    found["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "keras_attn": keras_attn.__version__,
    }
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(found, indent=1) + "\n")
    aside.replace(path)


def page(results: dict) -> str:
    """Return the results as Markdown."""
    rows = results["runs"]
    lines = [
        "# What each entry learns",
        "",
        "Strings over 8 letters, one token a letter, up to the length given; 20,000 pairs, at most "
        "30 epochs (12 with words never seen; training stops at 99.5 %), 64 units, Adam, one seed. "
        "Exact match, "
        "greedy, on 1,000 strings held out from training. Made by `benchmarks/learning.py`; the "
        "data is learning.json. The seconds are of shared cores, and say little.",
        "",
        "| entry | task | exact match | epochs | weights | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        task = f"{r['task']}, length <= {r['longest']}"
        task += ", half of the words never seen" if r["unknown"] else ""
        name = f"`{r['name']}` {r['label']}".strip()
        lines.append(
            f"| {name} | {task} | {r['exact']:.1%} | {r['epochs']} | {r['weights']:,} | "
            f"{r['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main():
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="a pattern of names")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "learning.json")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table:
        for name in fnmatch.filter(zoo.names(), given.only):
            for result in runs(name, given.epochs):
                recorded(given.out, result)
    given.out.with_suffix(".md").write_text(page(json.loads(given.out.read_text())))


if __name__ == "__main__":
    main()
