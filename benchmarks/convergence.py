"""Whether fast training ends where plain training does: on dates from five seeds, on CMUdict.

    python benchmarks/convergence.py dates
    python benchmarks/convergence.py cmudict [--data-dir DIR]
    python benchmarks/convergence.py decoding [--data-dir DIR]

"Fast" is the recipe of zoo/attention.DATA, in `mixed_bfloat16` and by the kernels. "Plain" is the
same in float32 by Keras' own layers (`keras_attn.kernels.plain`). Both have tanh between encoder
and decoder, the default when they were first run. What is trained is in build/runs, where a run
that was killed goes on. Both are measured by the recipe's search in float32. "decoding" asks the
model of CMUdict that comes with the package in half precision and in float32. Results go to
convergence.json and .md beside this file; a run that is there is not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from pathlib import Path

from measuring import commit, machine

HERE = Path(__file__).parent
ZOO = HERE.parent / "zoo"
RUNS = HERE.parent / "build" / "runs"
RESULTS = HERE / "convergence.json"
NAMES = {"dates": "attention.dates", "cmudict": "attention.cmudict"}
BATCHES = {"attention.cmudict": {"batch_size": 128}}
SEEDS = {"dates": range(5), "cmudict": range(1)}
PAGE = """# Convergence: does fast training end at the same quality?

Made by `python benchmarks/convergence.py dates`, `... cmudict` and `... decoding`; the data is
convergence.json. "Fast" is `mixed_bfloat16` and the kernels, as the zoo trains. "Plain" is the
same recipe in float32 by Keras' own layers and optimiser, with this package's loss. Both have tanh
between encoder and decoder (`bridge="dense"`), which the zoo's models of today leave out, and on
CMUdict batches of 128, where the zoo's have 64. Both leave out padding, and split batches where a
run had several cores. Both are measured by the recipe's search, in float32, on validation data;
means of the seeds (least–most).

| recipe | mode | seeds | exact match, % | tokens wrong, % | processor, commit |
|---|---|---|---|---|---|
{rows}

Of dates the mean of the fast runs lies {fast} the range of the plain ones, and the mean of the
plain ones {plain} that of the fast ones. What a step costs is in [training.md](training.md).
The standard error of {share:.1f} % of {sources:,} sources is {error:.2f} points.

## What half precision does in decoding

`attention.cmudict` as it comes with the package, greedily, on {words:,} development words:

| precision | WER, % | PER, % |
|---|---|---|
| bfloat16 | {half[0]:.2f} | {half[1]:.2f} |
| float32, frozen | {full[0]:.2f} | {full[1]:.2f} |

They differ in {differ} words.
"""


def recipe_of(mode: str, name: str):
    """Return the recipe of the runs that there are, in float32 if it is to be plain."""
    from keras_attn import recipes

    recipe = recipes.read(ZOO / name / "recipe.toml")
    other = {"dtype": "float32"} if mode == "plain" else {}
    return recipe._replace(
        options=recipe.options | {"bridge": "dense"} | other,
        training=recipe.training | BATCHES.get(name, {}),
    )


def trained(mode: str, name: str, seed: int, directory: str | None) -> dict:
    """Train a recipe in one of the modes, and return what it measured."""
    from keras_attn import kernels, recipes

    recipe = recipe_of(mode, name)
    folder = RUNS / f"{mode}.{name}.{seed}.{recipes.digest(recipe, 'decoding')[:8]}"
    begun, of = commit(), machine()
    with kernels.plain() if mode == "plain" else contextlib.nullcontext():
        _, found = recipes.run(recipe, folder, seed, directory)
    by = {"commit": begun, "machine": f"{of['cpu']}, {of['cores']} cores"}
    return found | by | {"recipe_sha256": recipes.digest(recipe)}


def decoded(directory: str | None) -> dict:
    """Return how a model decodes in half precision, and how frozen, which is float32."""
    from keras_attn import recipes, scoring, zoo

    name = NAMES["cmudict"]
    recipe = recipes.read(ZOO / name / "recipe.toml")
    pairs, held_out = recipes.pairs_of(recipe, directory)
    model = recipes.build(recipe, pairs, seed=0)
    model.set_weights(zoo.build(name).get_weights())
    sources, references = scoring.grouped(held_out.sources, held_out.targets)
    found, said = {"words": len(sources), "commit": commit()}, []
    for precision, asked in (("bfloat16", model), ("float32", model.freeze())):
        said.append(asked.generate(sources))
        rates = scoring.sequence_scores(said[-1], references, str.split)
        found[precision] = [rates[key] for key in ("sequence_error_rate", "token_error_rate")]
    return found | {"differ": sum(a != b for a, b in zip(*said, strict=True))}


def modes(results: dict, name: str) -> dict[str, list[dict]]:
    """Return the runs of a recipe by mode."""
    return {mode: list(results[mode].get(name, {}).values()) for mode in ("plain", "fast")}


def shown(values: list[float]) -> str:
    """Return the mean of fractions as percents, with their range."""
    mean, several = 100 * sum(values) / len(values), len(values) > 1
    return f"{mean:.2f}" + f" ({100 * min(values):.2f}–{100 * max(values):.2f})" * several


def placed(found: dict[str, list[dict]]) -> dict[str, str]:
    """Return where the mean of each mode's exact matches lies, seen from the range of the other."""
    exact = {mode: [run["measured"]["exact_match"] for run in runs] for mode, runs in found.items()}
    words = {}
    for mode, other in (("fast", "plain"), ("plain", "fast")):
        mean = sum(exact[mode]) / len(exact[mode])
        least, most = min(exact[other]), max(exact[other])
        words[mode] = "below" if mean < least else "above" if mean > most else "within"
    return words


def page(results: dict) -> str:
    """Return the results as Markdown."""
    rows = []
    for name in results["plain"]:
        for mode, runs in modes(results, name).items():
            exact, wrong = (
                shown([run["measured"][key] for run in runs])
                for key in ("exact_match", "token_error_rate")
            )
            by = "; ".join(dict.fromkeys(f"{run['machine']}, {run['commit']}" for run in runs))
            rows.append(f"| `{name}` | {mode} | {len(runs)} | {exact} | {wrong} | {by} |")
    (fast, *_) = modes(results, NAMES["cmudict"])["fast"]
    share, sources = fast["measured"]["exact_match"], fast["measured"]["sources"]
    decoding = results["decoding"]
    half, full = ([100 * x for x in decoding[key]] for key in ("bfloat16", "float32"))
    return PAGE.format(
        rows="\n".join(rows),
        **placed(modes(results, NAMES["dates"])),
        share=100 * share,
        sources=sources,
        error=100 * math.sqrt(share * (1 - share) / sources),
        words=decoding["words"],
        half=half,
        full=full,
        differ=decoding["differ"],
    )


def save(results: dict) -> None:
    """Write the data, and the page once all of it is there."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if set(results["plain"]) == set(NAMES.values()) and results["decoding"]:
        RESULTS.with_suffix(".md").write_text(page(results))


def main():
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=(*NAMES, "decoding"))
    parser.add_argument("--data-dir", help="where CMUdict lies, if it is not to be downloaded")
    given = parser.parse_args()
    results = {"plain": {}, "fast": {}, "decoding": {}}
    if RESULTS.exists():
        results |= json.loads(RESULTS.read_text())
    if given.task == "decoding":
        results["decoding"] = decoded(given.data_dir)
        save(results)
        return
    name = NAMES[given.task]
    for seed in map(str, SEEDS[given.task]):
        for mode in ("plain", "fast"):
            runs = results[mode].setdefault(name, {})
            if seed not in runs:
                runs[seed] = trained(mode, name, int(seed), given.data_dir)
                save(results)


if __name__ == "__main__":
    main()
