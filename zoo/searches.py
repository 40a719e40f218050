"""What a search brings, of a model that comes with the package: writes NAME/searches.json.

    python zoo/searches.py NAME [--data-dir DIR]

The sources that chose the model's epoch are answered by several searches; `python zoo/pages.py`
makes a table of it on the card. A few minutes.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import train

from keras_attn import recipes, scoring, zoo
from keras_attn.zoo import shipped

HERE = Path(__file__).parent
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beam 2": {"beam_size": 2},
    "beam 5": {"beam_size": 5},
    "beam 5, length penalty 0.6": {"beam_size": 5, "length_penalty": 0.6},
    "beam 5, length penalty 1": {"beam_size": 5, "length_penalty": 1.0},
    "beam 5, coverage penalty 0.2": {"beam_size": 5, "coverage_penalty": 0.2},
    "beam 10": {"beam_size": 10},
}


def searched(model, sources, references, options, tokens) -> tuple[dict[str, Any], np.ndarray]:
    """Return how good one search is, and the scores of what it found, nats (n,)."""
    width = options.get("beam_size", 1)
    texts, scores = model.generate(sources, num_return=width, return_scores=True, **options)
    best = [row[0] if row else "" for row in texts]
    found = scoring.sequence_scores(best, references, tokens)
    listed = [bool({*row} & {*right}) for row, right in zip(texts, references, strict=True)]
    scored = np.array([row[0] if row else -np.inf for row in scores])
    return found | {"in_the_list": float(np.mean(listed))}, scored


def main() -> None:
    """Search, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--data-dir", help="where the data lies, if it is not to be downloaded")
    given = parser.parse_args()
    train.one_of(parser, given.name, train.names())
    recipe = recipes.read(HERE / given.name / "recipe.toml")
    if recipes.DATA[recipe.data].ABOUT.by_row:
        parser.error(f"NAME: expected data in which a source counts once, got {recipe.data!r}.")
    train.one_of(parser, given.name, shipped.names())
    model = zoo.build(given.name)
    seed = json.loads((HERE / given.name / "results.json").read_text())["shipped"]["seed"]
    _, held_out = recipes.pairs_of(recipe, given.data_dir, seed)
    (sources, references), _ = recipes.answered(list, model.target.cleaning, held_out)
    tokens = recipes.tokens_of(recipe, "target")
    results: dict[str, Any] = {"weights_sha256": shipped.digest(given.name)}
    results |= {"sources": len(sources), "searches": {}}
    greedy = np.full(len(sources), -np.inf)
    for name, options in SEARCHES.items():
        found, scores = searched(model, sources, references, options, tokens)
        greedy = scores if not options else greedy  # it is the first
        lower = int((scores < greedy - 1e-4).sum())
        found |= {"mean_score": float(scores.mean()), "lower": lower}
        results["searches"][name] = {"options": options, **found}
        print(name, found, flush=True)
    aside = HERE / given.name / ".searches.json"
    aside.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(aside, HERE / given.name / "searches.json")


if __name__ == "__main__":
    with train.told():
        main()
