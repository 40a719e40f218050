"""Words to phonemes a second, over many words: keras_attn, g2p-en and Phonetisaurus.

    python benchmarks/corpus.py WORDS [--fst MODEL.fst] [--rounds 3] [--number 100000]

The model is the package's `attention.cmudict`; WORDS a file whose lines begin with a word,
such as CMUdict's train.tsv. g2p-en and phonetisaurus are optional (`pip install g2p-en
phonetisaurus`); Phonetisaurus' model is what `phonetisaurus train --model MODEL.fst LEXICON` makes
of the same file with its words in lower case, as all are asked, in two minutes. All run in turn,
round after round. It also counts how many of 1,000 words are spelt otherwise by Keras' own layers,
which are the reference of the kernels. Results go to corpus.json and corpus.md beside this file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from measuring import PAUSE, TWO_CORES, canary, commit, machine, waited

from keras_attn import kernels, zoo

HERE = Path(__file__).parent
ONE_BY_ONE = 1000  # words for what takes one at a time
CHECKED = 1000
ASKED = "[attention.cmudict](../zoo/attention.cmudict/card.md)"
CLOSE = 1e-4  # difference of two logits that rounding may turn round
PAGE = """# Corpora: words a second

Spelling to phonemes, greedy, {words:,} words, one process, median (least–most) of {rounds} rounds
in turn; {cpu}, {cores} cores, {flags}; Python {python}, TensorFlow {tensorflow}, Keras {keras};
commit {commit}, {when}. keras_attn is `model.generate` of
{asked}, {weights:,} weights; "frozen" after
`model.freeze()`, "one by one" called for each word, "bfloat16" built with `dtype="mixed_bfloat16"`
and given the weights (for what that changes see [convergence.md](convergence.md)). g2p-en {g2p} is
its `G2p.predict`, which takes one word; Phonetisaurus {phonetisaurus} its `phonetisaurus-g2pfst` on
a list of words, start included. Those that go one by one were given {one:,} words. Made by
`benchmarks/corpus.py`; the data is corpus.json.

| contestant | words a second | over g2p-en | over Phonetisaurus |
|---|---|---|---|
{rows}

{company}Of {checked:,} of these words, {model} by the model and {frozen} by the frozen model are
spelt otherwise than by Keras' own layers; where they are, the two best logits differ by less than
{close} in {near} of {differing}.
"""


def installed(package: str) -> str:
    """Return the version of a package, or nothing."""
    if importlib.util.find_spec(package) is None:
        return ""
    return importlib.metadata.version(package.replace("_", "-"))


def g2p_en():
    """Return a function of words that spells each by g2p-en's network."""
    from g2p_en import g2p

    g2p.cmudict = type("Empty", (), {"dict": staticmethod(dict)})  # the network alone is asked
    network = g2p.G2p()
    return lambda words: [network.predict(word) for word in words]


def phonetisaurus(model: str):
    """Return a function of words that spells them by Phonetisaurus."""
    (found,) = Path(importlib.util.find_spec("phonetisaurus").origin).parent.glob(
        "bin/x86_64/phonetisaurus-g2pfst"
    )

    def spell(words):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(words) + "\n")
            file.flush()
            command = [found, f"--model={model}", f"--wordlist={file.name}"]
            environment = {"LD_LIBRARY_PATH": str(found.parents[2] / "lib" / "x86_64")}
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment
            )
        return [line.split("\t")[2] for line in done.stdout.splitlines()]

    return spell


def measure(contestants, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return words a second of each contestant, one figure a round, and the lower canary of it."""
    found: dict[str, dict[str, list[float]]] = {
        label: {"words_a_second": [], "canary": []} for label in contestants
    }
    for turn in range(rounds + 1):
        for label, (function, words) in contestants.items():
            few = words if turn else words[: max(len(words) // 20, 100)]  # warms up
            before, begun = waited(), time.perf_counter()
            answers = list(function(few))
            if turn:
                speed = len(few) / (time.perf_counter() - begun)
                time.sleep(PAUSE)  # threads of a contestant's own may still spin
                found[label]["words_a_second"].append(speed)
                found[label]["canary"].append(min(before, canary()))
                print(f"{label}: {speed:,.0f} words a second", flush=True)
            said = sum(map(bool, answers))
            assert said >= 0.98 * len(few), (label, said, len(few))
    return found


def compared(model, frozen, words) -> dict[str, int]:
    """Count words that are spelt otherwise than by Keras' own layers, and why."""
    with kernels.plain():
        reference = keras.models.clone_model(model)
        reference.set_weights(model.get_weights())
        expected = reference.search(words)
    counts = {"model": 0, "frozen": 0, "differing": 0, "near": 0}
    for name, asked in (("model", model), ("frozen", frozen)):
        found = asked.search(words)
        steps = min(found.token_ids.shape[2], expected.token_ids.shape[2])
        other = found.token_ids[:, 0, :steps] != expected.token_ids[:, 0, :steps]
        rows = np.nonzero(other.any(axis=1))[0]
        counts[name] = len(rows)
        counts["differing"] += len(rows)
        for row in rows:
            counts["near"] += margin(reference, words[row], expected.token_ids[row, 0], other[row])
    return counts


def margin(model, word, ids, other) -> bool:
    """Return whether two logits are close where another token was chosen."""
    step = int(np.argmax(other))
    rows = model._source_rows([word])
    target_in = np.concatenate([[1], ids[:step]])[None].astype(np.int32)
    logits = model({"source": rows.values[None], "target_in": target_in})[0, step]
    best = np.sort(np.asarray(logits))[-2:]
    return bool(best[1] - best[0] < CLOSE)


def halved(model):
    """Return the model as it is with products in bfloat16."""
    half = zoo.build(
        "attention",
        source=model.source,
        target=model.target,
        max_source=model.max_source,
        max_target=model.max_target,
        dtype="mixed_bfloat16",
    )
    half.set_weights(model.get_weights())
    return half


def page(results) -> str:
    """Return the page of the results."""
    speeds = {label: found["words_a_second"] for label, found in results["measured"].items()}
    rows = []
    for label, found in results["measured"].items():
        mark = "" if min(found["canary"]) >= TWO_CORES else " †"
        cells = [f"| {label} | {spread(speeds[label], '{:,.0f}')}{mark} "]
        for peer in ("g2p-en", "Phonetisaurus"):
            pairs = zip(speeds[label], speeds.get(peer, []), strict=False)
            ratios = [ours / theirs for ours, theirs in pairs]
            cells.append(f"| {spread(ratios, '{:.2f}') if ratios else ''} ")
        rows.append("".join(cells) + "|")
    text = "\n".join(rows)
    company = "† Something else ran beside a round.\n\n" if "†" in text else ""
    facts = {**results, **results["compared"], "flags": ", ".join(results["flags"])}
    return PAGE.format(rows=text, company=company, **facts)


def spread(values, form: str) -> str:
    """Return median, least and most."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{form.format(middle)} ({form.format(least)}–{form.format(most)})"


def main():
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", type=Path)
    parser.add_argument("--fst", help="Phonetisaurus' model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--number", type=int, default=100_000)
    parser.add_argument("--compare", action="store_true", help="only what Keras' layers spell")
    given = parser.parse_args()
    lines = given.words.read_text().splitlines()
    words = list(dict.fromkeys(line.split("\t")[0].lower() for line in lines))[: given.number]
    words = np.random.default_rng(0).permutation(words).tolist()
    few = words[:ONE_BY_ONE]
    model = zoo.build("attention.cmudict")
    frozen = model.freeze()
    if given.compare:
        results = json.loads((HERE / "corpus.json").read_text())
        save(results | {"compared": compared(model, frozen, words[:CHECKED])})
        return
    contestants = {
        "keras_attn": (model.generate, words),
        "keras_attn, frozen": (frozen.generate, words),
        "keras_attn, bfloat16": (halved(model).generate, words),
        "keras_attn, frozen, one by one": (lambda words: map(frozen.generate, words), few),
    }
    if installed("g2p_en"):
        contestants["g2p-en"] = g2p_en(), few
    if given.fst and installed("phonetisaurus"):
        contestants["Phonetisaurus"] = phonetisaurus(given.fst), words
    results = {
        **machine(),
        "commit": commit(),
        "when": datetime.now(UTC).strftime("%Y-%m-%d"),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "asked": ASKED,
        "words": len(words),
        "rounds": given.rounds,
        "one": ONE_BY_ONE,
        "weights": model.count_params(),
        "g2p": installed("g2p_en"),
        "phonetisaurus": installed("phonetisaurus"),
        "checked": CHECKED,
        "close": CLOSE,
        "compared": compared(model, frozen, words[:CHECKED]),
        "measured": measure(contestants, given.rounds),
    }
    save(results)


def save(results) -> None:
    """Write data and page."""
    (HERE / "corpus.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "corpus.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
