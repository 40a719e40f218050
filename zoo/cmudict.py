"""Train variants on CMUdict, spelling to phonemes, and score them on its development words.

    python zoo/cmudict.py attention context_as_init combined [--data DIR]

About 30 minutes each on 2 cores. A run that was killed goes on where it was; one that is there is
not run again. Results go to zoo/cmudict.json, .md and .png, the runs themselves to build/runs.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import keras
import tensorflow as tf
from matplotlib.figure import Figure

from keras_attn import scoring, text, training, zoo
from keras_attn.datasets import cmudict

HERE = Path(__file__).parent
RESULTS = HERE / "cmudict.json"
RUNS = HERE.parent / "build" / "runs"
OPTIONS = {"dropout": 0.25, "max_source": 40, "max_target": 40}
# Without attention the state carries the whole word: more units, at a like number of weights.
UNITS = {"attention": 256, "context_as_init": 288, "combined": 240}
EPOCHS, BATCH_SIZE, SEED = 20, 128, 0

INTRODUCTION = """# CMUdict: spelling to phonemes

39 phonemes without stress; the published split's training words, of which 2,670 are held out here
as development words ({train:,} and {validation:,} pairs). A word is right if any of its
pronunciations is generated; phoneme errors are counted to the closest. Greedy search, single
models, {epochs} epochs, batches of {batch_size}, one seed; {machine}.

Made by `python zoo/cmudict.py {names}`; `cmudict.json` holds the runs.

| model | weights | WER, % | PER, % | minutes | best epoch |
|---|---|---|---|---|---|
"""

READING = """
![Development words wrong by epoch](cmudict.png)
"""


def train(name, data):
    """Train one variant, and score its best epoch on the development words."""
    keras.utils.set_random_seed(SEED)
    source = text.CharacterTokenizer.learn(data.train.sources, lowercase=True)
    target = text.WhitespaceTokenizer.learn(data.train.targets)
    model = zoo.build(name, source=source, target=target, units=UNITS[name], **OPTIONS)
    model.summary()
    log = training.train(
        model,
        data.train,
        data.validation,
        RUNS / f"{name}.cmudict",
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        seed=SEED,
        callbacks=[training.Progress()],
    )
    words, references = scoring.grouped(*data.validation)
    found = scoring.sequence_scores(model.generate(words), references)
    best = training.best(log, "loss")
    return {
        "units": UNITS[name],
        **OPTIONS,
        "weights": model.count_params(),
        "seed": SEED,
        "best_epoch": int(best["epoch"]),
        "minutes": round(sum(entry["seconds"] for entry in log) / 60, 1),
        "validation": {key: round(value, 5) for key, value in found.items()},
        "log": [{key: round(value, 5) for key, value in entry.items()} for entry in log],
    }


def table(results):
    """Return the results as Markdown."""
    lines = [INTRODUCTION.format(**results, names=" ".join(results["runs"])).rstrip("\n")]
    for name, run in results["runs"].items():
        scores = run["validation"]
        lines.append(
            f"| `{name}`, {run['units']} units | {run['weights']:,} | "
            f"{100 * scores['sequence_error_rate']:.2f} | {100 * scores['token_error_rate']:.2f} | "
            f"{run['minutes']} | {run['best_epoch']} of {results['epochs']} |"
        )
    return "\n".join(lines) + "\n"


def picture(results):
    """Draw the learning curves."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, run in results["runs"].items():
        wrong = [100 * (1 - entry["val_exact_match"]) for entry in run["log"]]
        axes.plot(range(1, len(wrong) + 1), wrong, marker=".", label=name)
    axes.set_ylim(22, 50)
    axes.set_xlabel("epoch")
    axes.set_ylabel("development words wrong, %")
    axes.set_xticks(range(2, results["epochs"] + 1, 2))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(RESULTS.with_suffix(".png"), dpi=120)


def save(results):
    """Write results, page and picture."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(table(results) + READING)
    picture(results)


def main():
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=list(UNITS))
    parser.add_argument("--data", help="a folder with the data, if it is not to be downloaded")
    arguments = parser.parse_args()
    data = cmudict.load(arguments.data)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    results |= {
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "train": len(data.train.sources),
        "validation": len(data.validation.sources),
        "machine": f"{platform.processor() or platform.machine()}, 2 cores, "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}",
    }
    for name in arguments.names:
        if name not in results["runs"]:
            print(f"--- {name}", flush=True)
            results["runs"][name] = train(name, data)
            save(results)
    save(results)
    print(table(results))


if __name__ == "__main__":
    main()
