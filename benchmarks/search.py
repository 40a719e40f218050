"""What a beam costs beside greedy search, in paired runs on one model.

    python benchmarks/search.py [--rounds 15]

A step costs (time of 40 steps - time of 8 steps) / 32, on 64 words at a time, with the end token
banned, so that all searches take as many steps; whole calls are `generate` on 640 words, in batches
of 64, with their own ends. All variants run in turn, round after round. Results go to search.json
and search.md beside this file. The model is the package's `attention.cmudict`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_attn
from keras_attn import zoo

HERE = Path(__file__).parent
BATCH, SHORT, LONG, WORDS = 64, 8, 40, 640
WIDTHS = (1, 2, 5, 10)


def words_of(model, count):
    """Return made-up words of 4 to 12 letters that the model can spell."""
    random = np.random.default_rng(0)
    letters = [token for token in model.source.vocabulary[4:] if token.isalpha()]
    return ["".join(random.choice(letters, random.integers(4, 13))) for _ in range(count)]


def seconds(function):
    """Return how long a call takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def measure(model, rounds):
    """Return seconds a step, and a whole call, by width: lists of one figure a round."""
    words = words_of(model, WORDS)

    def steps(width, length):
        options = {"beam_size": width, "num_return": 1, "banned": [2]}
        return lambda: model.search(words[:BATCH], max_length=length, **options)

    def whole(width):
        return lambda: model.generate(words, beam_size=width, batch_size=BATCH)

    found = {kind: {width: [] for width in WIDTHS} for kind in ("step", "whole")}
    for turn in range(rounds + 2):
        for width in WIDTHS:
            step = (seconds(steps(width, LONG)) - seconds(steps(width, SHORT))) / (LONG - SHORT)
            call = seconds(whole(width))
            if turn >= 2:  # the first rounds trace and warm up
                found["step"][width].append(step)
                found["whole"][width].append(call)
    return found


def ratios(found):
    """Return median, least and most of width over greedy, paired by round."""
    table = {}
    for kind, by_width in found.items():
        for width in WIDTHS[1:]:
            pairs = [b / g for b, g in zip(by_width[width], by_width[1], strict=True)]
            table[f"{kind} {width}"] = [statistics.median(pairs), min(pairs), max(pairs)]
    return table


PAGE = """# Search: what beams cost

Beam over greedy, medians of {rounds} paired rounds (least to most); {machine}. The model is
{asked}, {weights:,} weights, 64 words at a time.
Made by `benchmarks/search.py`; the data is search.json.

| beam | a step | a whole `generate` | a step, ms | words a second |
|---|---|---|---|---|
{rows}
"""


def page(results):
    """Return the page of the results."""
    rows = []
    for width in WIDTHS:
        step = 1000 * statistics.median(results["seconds"]["step"][str(width)])
        rate = WORDS / statistics.median(results["seconds"]["whole"][str(width)])
        cells = ["1", "1"]
        if width > 1:
            cells = [
                f"{m:.2f} ({low:.2f}–{high:.2f})"
                for m, low, high in (results["ratios"][f"{k} {width}"] for k in ("step", "whole"))
            ]
        rows.append(f"| {width} | {cells[0]} | {cells[1]} | {step:.2f} | {rate:,.0f} |")
    return PAGE.format(rows="\n".join(rows), **results)


def main():
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    model = zoo.build("attention.cmudict")
    found = measure(model, arguments.rounds)
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    results = {
        "asked": "[attention.cmudict](../zoo/attention.cmudict/card.md)",
        "rounds": arguments.rounds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {versions}, default threads",
        "keras_attn": keras_attn.__version__,
        "weights": model.count_params(),
        "seconds": {kind: {str(w): s for w, s in x.items()} for kind, x in found.items()},
        "ratios": ratios(found),
    }
    (HERE / "search.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "search.md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
