"""Whether fast training ends where plain training does: on dates, three seeds each, and on CMUdict.

    python benchmarks/convergence.py dates [--seeds 0 1 2] [--modes plain fast]
    python benchmarks/convergence.py cmudict [--data DIR] [--seeds 0 1] [--modes plain fast]
    python benchmarks/convergence.py decoding [--data DIR]   # of what these left in build/runs

"plain" is Keras' own layers in float32 (`keras_attn.kernels.plain`); "fast" is
`keras_attn.configure_cpu()` and `mixed_bfloat16`, each run in a process of its own. Dates are the
model and the training of zoo/variants_on_dates.py, CMUdict those of zoo/cmudict.py, whose float32
run stands beside it. Results go to convergence.json and .md beside this file; a run that is there
is not run again. A few minutes a run on dates, about 40 on CMUdict.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ZOO = HERE.parent / "zoo"
RESULTS = HERE / "convergence.json"
MODES = ("plain", "fast")
NAME = "attention"
PAGE = """# Convergence: does fast training end at the same quality?

Made by `python benchmarks/convergence.py dates` and `... cmudict`; the runs are in
convergence.json; {machine}. "plain": Keras' own layers in float32, with our loss. "fast":
`mixed_bfloat16`, the kernels, and batches split over cores. Generated greedily by the model as it
was trained.

## Dates, `attention`, exact matches of 1,000 validation dates, %

| mode | seeds | mean | least–most | mean validation loss |
|---|---|---|---|---|
{dates}

## CMUdict, `attention`, 2,670 development words, one seed a line

A standard error of a WER of 25 % of so many words is 0.84 points.

| mode | WER, % | PER, % | epoch |
|---|---|---|---|
{cmudict}

## What half precision does in decoding

The same models, greedily: as they were trained, in bfloat16, and frozen, which computes in float32.

| model | bfloat16: WER, % | PER, % | float32: WER, % | PER, % | words that differ |
|---|---|---|---|---|---|
{decoding}
"""


def on_dates(mode: str, seed: int) -> dict:
    """Train the model of the dates, and return how it ends."""
    import variants_on_dates as home

    from keras_attn import text
    from keras_attn.datasets import dates

    data = dates.load()
    source = text.CharacterTokenizer.learn(data.train.sources)
    target = text.CharacterTokenizer.learn(data.train.targets)
    found = home.train(NAME, seed, data, source, target)
    return {"val_loss": found["val_loss"], **found["validation"]}


def on_cmudict(mode: str, seed: int, folder: str | None) -> dict:
    """Train the model of CMUdict, and return its run."""
    import cmudict as home

    from keras_attn.datasets import cmudict

    home.SEED, home.RUNS = seed, home.RUNS / f"{mode}.{seed}"
    return home.train(NAME, cmudict.load(folder))


def decoded(model, sources, references) -> dict:
    """Return how a model trained in half precision decodes, and how once frozen."""
    found: dict = {}
    said = []
    for name, asked in (("bfloat16", model), ("float32", model.freeze())):
        rates = asked.generation_metrics(sources, references)
        said.append(asked.generate(sources))
        found[name] = [100 * (1 - rates["exact_match"]), 100 * rates["edit_distance_rate"]]
    return found | {"differ": sum(a != b for a, b in zip(*said, strict=True))}


def decode(folder: str | None) -> dict:
    """Decode the development words by every fast model that is there."""
    import keras

    import keras_attn
    from keras_attn.datasets import cmudict

    part = cmudict.load(folder).validation
    sources, references = keras_attn.scoring.grouped(part.sources, part.targets)
    files = sorted((HERE.parent / "build" / "runs").glob(f"fast*/{NAME}.cmudict/model.keras"))
    return {
        file.parent.parent.name.replace(".", ", seed "): decoded(
            keras.saving.load_model(file), sources, references
        )
        for file in files
    }


def run(task: str, mode: str, seed: int, folder: str | None) -> dict:
    """Train in this process, in one of the modes."""
    import keras

    import keras_attn

    sys.path.insert(0, str(ZOO))
    train = on_dates if task == "dates" else lambda *given: on_cmudict(*given, folder)
    if mode == "plain":
        with keras_attn.kernels.plain():
            return train(mode, seed)
    keras_attn.configure_cpu()
    keras.config.set_dtype_policy("mixed_bfloat16")
    return train(mode, seed)


def apart(task: str, mode: str, seed: int, folder: str | None) -> dict:
    """Run in a process of its own; what it prints goes where ours goes."""
    command = [sys.executable, __file__, task, "--one", mode, str(seed)]
    command += ["--data", folder] if folder else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        last = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return json.loads(last)


def page(results: dict) -> str:
    """Return the results as Markdown."""
    lines = []
    for mode in MODES:
        runs = results["dates"].get(mode, {})
        if not runs:
            continue
        right = [100 * found["exact_match"] for found in runs.values()]
        loss = statistics.mean(found["val_loss"][-1] for found in runs.values())
        spread = f"{min(right):.2f}–{max(right):.2f}"
        lines.append(
            f"| {mode} | {len(right)} | {statistics.mean(right):.2f} | {spread} | {loss:.5f} |"
        )
    words = []
    committed = json.loads((ZOO / "cmudict.json").read_text())["runs"][NAME]
    for mode, found in {"float32, seed 0, zoo/cmudict.md": committed, **results["cmudict"]}.items():
        best = found["log"][found["best_epoch"] - 1]
        wrong, edits = 100 * (1 - best["val_exact_match"]), 100 * best["val_edit_distance_rate"]
        words.append(f"| {mode} | {wrong:.2f} | {edits:.2f} | {found['best_epoch']} |")
    decoding = [
        f"| {name} | {found['bfloat16'][0]:.2f} | "
        f"{found['bfloat16'][1]:.2f} | {found['float32'][0]:.2f} | {found['float32'][1]:.2f} | "
        f"{found['differ']} |"
        for name, found in results["decoding"].items()
    ]
    return PAGE.format(
        machine=results["machine"],
        dates="\n".join(lines),
        cmudict="\n".join(words),
        decoding="\n".join(decoding),
    )


def save(results: dict) -> None:
    """Write data and page."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(page(results))


def main():
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("dates", "cmudict", "decoding"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--data", help="a folder with CMUdict, if it is not to be downloaded")
    parser.add_argument("--one", nargs=2, metavar=("MODE", "SEED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run(given.task, given.one[0], int(given.one[1]), given.data)))
        return
    results = {"dates": {}, "cmudict": {}, "decoding": {}}
    if RESULTS.exists():
        results |= json.loads(RESULTS.read_text())
    results["machine"] = f"{platform.processor() or platform.machine()}, 2 cores"
    if given.task == "decoding":
        results["decoding"] = decode(given.data)
    elif given.task == "cmudict":
        for seed in given.seeds:
            for mode in given.modes:
                if f"{mode}, seed {seed}" not in results["cmudict"]:
                    found = apart("cmudict", mode, seed, given.data)
                    results["cmudict"][f"{mode}, seed {seed}"] = found
                    save(results)
    else:
        for seed in given.seeds:
            for mode in given.modes:
                if str(seed) not in results["dates"].setdefault(mode, {}):
                    results["dates"][mode][str(seed)] = apart("dates", mode, seed, None)
                    save(results)
    save(results)
    print(page(results))


if __name__ == "__main__":
    main()
