"""Score searches of a trained model on CMUdict's development words.

    python zoo/search_on_cmudict.py build/runs/attention.cmudict [--data DIR]

A minute or two. Results go to zoo/search_on_cmudict.json and .md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras
import numpy as np

import keras_attn  # noqa: F401  (registers what the file is made of)
from keras_attn import scoring
from keras_attn.datasets import cmudict

HERE = Path(__file__).parent
RESULTS = HERE / "search_on_cmudict.json"
SEARCHES = {
    "greedy": {},
    "beam 2": {"beam_size": 2},
    "beam 5": {"beam_size": 5},
    "beam 5, α 0.6": {"beam_size": 5, "length_penalty": 0.6},
    "beam 5, α 1": {"beam_size": 5, "length_penalty": 1.0},
    "beam 5, β 0.2": {"beam_size": 5, "coverage_penalty": 0.2},
    "beam 10": {"beam_size": 10},
}

PAGE = """# CMUdict: what the search brings

{words:,} development words, `attention` trained by `python zoo/cmudict.py attention`; a word is
right if any of its pronunciations is found (WER), phoneme errors are counted to the closest (PER).
The mean score is log p of what was found, nats; "lower" counts the words whose score is lower than
that of greedy search. "In the list" counts words with a right pronunciation anywhere in the beam.
Made by `python zoo/search_on_cmudict.py build/runs/attention.cmudict`; the data is
search_on_cmudict.json.

| search | WER, % | PER, % | mean score | lower | in the list, % |
|---|---|---|---|---|---|
"""

READING = """
## Reading

The model is a later run of the recipe in [cmudict.md](cmudict.md), at 3b14a21, on cores shared
with other work: 24.87 % of words wrong by greedy search, where the run there has 24.12 %. Its
seed is the same; so much lies between two runs (the standard error of the rate is 0.8).

A beam of 5 finds a target at least as probable as the greedy one for every word, a more probable
one on average, and 11 more words come out right. A beam of 10 finds the same best targets: for
this task the search is not what is missing. The list of 5 holds a right pronunciation for 92.7 %
of the words, so choosing among them is. A length penalty of 1 does no harm. The coverage penalty
does: it asks that every letter be looked at, and in spelling many stand for no sound of their
own.
"""


def searched(model, sources, references, options):
    """Return how good one search is, and its scores, (n,)."""
    width = options.get("beam_size", 1)
    texts, scores = model.generate(sources, num_return=width, return_scores=True, **options)
    best = [row[0] if row else "" for row in texts]
    found = scoring.sequence_scores(best, references)
    listed = [bool({*row} & {*right}) for row, right in zip(texts, references, strict=True)]
    found["in_the_list"] = float(np.mean(listed))
    return found, np.array([row[0] if row else -np.inf for row in scores])


def main():
    """Search, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", help="a folder with the data, if it is not to be downloaded")
    arguments = parser.parse_args()
    model = keras.saving.load_model(arguments.run / "model.keras", compile=False)
    sources, references = scoring.grouped(*cmudict.load(arguments.data).validation)
    results = {"words": len(sources), "weights": model.count_params(), "searches": {}}
    for name, options in SEARCHES.items():
        found, scores = searched(model, sources, references, options)
        if name == "greedy":
            greedy = scores
        found["mean_score"] = float(scores.mean())
        found["lower"] = int((scores < greedy - 1e-4).sum())
        results["searches"][name] = {"options": options, **found}
        print(name, found, flush=True)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    lines = [PAGE.format(**results).rstrip("\n")]
    for name, found in results["searches"].items():
        wrong, edits = 100 * found["sequence_error_rate"], 100 * found["token_error_rate"]
        lines.append(
            f"| {name} | {wrong:.2f} | {edits:.2f} | {found['mean_score']:.4f} | "
            f"{found['lower']} | {100 * found['in_the_list']:.2f} |"
        )
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n" + READING)


if __name__ == "__main__":
    main()
