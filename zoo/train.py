"""Train the zoo: every recipe and seed that has no results yet, each in a process of its own.

    python zoo/train.py [NAME ...] [--data-dir DIR] [--seed N] [--again]

NAME is a folder here, such as attention.cmudict; all by default. DIR goes with NAMEs of one data
set. A run that was killed goes on where it was. Runs live in build/runs, in folders NAME.SEED.XXXX
that go by what the recipe says; what they measured goes to NAME/results.json, from which
`python zoo/pages.py` makes curves, cards and zoo/README.md. With --again what has results is
trained once more, from nothing, and measured beside them, to see whether they come again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from keras_attn import recipes
from keras_attn.kernels import cores
from keras_attn.training import locks
from keras_attn.zoo import shipped

HERE = Path(__file__).parent
RUNS = HERE.parent / "build" / "runs"
SUMMARISED = ("exact_match", "sequence_error_rate", "token_error_rate", "bleu", "chrf")
VERSIONS = ("babel", "keras", "keras_attn", "numpy", "tensorflow")


def commit(*files: str) -> str:
    """Return the commit that is checked out, with a + where the package or files are others."""

    def git(*asked: str) -> str:
        command = ["git", "-C", str(HERE.parent), *asked]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "keras_attn", "keras_attn_cli.py", *files)
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def machine() -> str:
    """Return processor and cores."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    number = cores.available()
    return f"{next(names, platform.machine())}, {number} core{'s' * (number > 1)}"


def load(name: str) -> dict:
    """Return the results of a folder, without runs if what they were made of has changed since."""
    file = HERE / name / "results.json"
    recipe = recipes.read(HERE / name / "recipe.toml")
    anew = {"made_of": recipes.resolved(recipe), "runs": {}}
    found = json.loads(file.read_text()) if file.exists() else anew
    if changes := recipes.changed(recipe, found["made_of"]):
        told = ", ".join(changes)
        print(f"{name}: {told} changed, so that its results are made anew", flush=True)
        return anew
    return found


def names() -> list[str]:
    """Return the folders here that have a recipe."""
    return sorted(path.parent.name for path in HERE.glob("*/recipe.toml"))


def one_of(parser: argparse.ArgumentParser, name: str, known: list[str]) -> None:
    """End with a message if a name is none of those that are known."""
    if name not in known:
        parser.error(f"NAME: expected one of {', '.join(known)}, got {name!r}.")


@contextlib.contextmanager
def told() -> Iterator[None]:
    """End with one line where something is wrong that whoever runs a script can mend."""
    try:
        yield
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def run_of(name: str, seed: int, again: bool = False) -> Path:
    """Return where a run lives: what makes it another one has another folder."""
    recipe = recipes.read(HERE / name / "recipe.toml")
    return RUNS / f"{name}.{seed}.{recipes.digest(recipe, 'decoding')[:8]}{'.again' * again}"


def made(run: Path, *files: str) -> dict:
    """Note by what a run is made, and return that; it may go on under another commit, elsewhere.

    One that has ended, and is only measured again, was made by what made it.
    """
    if (run / "model.keras").exists() and noted(run):
        return {key: value for key, value in noted(run).items() if key != "peak_memory_mb"}
    before, found = noted(run), {"commit": commit(*files), "machine": machine()}
    for key, between in (("commit", ", "), ("machine", "; ")):
        earlier = before[key].split(between) if key in before else []
        found[key] = between.join(dict.fromkeys([*earlier, found[key]]))
    found["versions"] = {package: version(package) for package in VERSIONS}
    found["when"] = datetime.now(UTC).strftime("%Y-%m-%d")
    note(run, before | found)
    return found


def noted(run: Path) -> dict:
    """Return what was noted of a run, in a file beside it."""
    file = run.with_suffix(f"{run.suffix}.json")
    return json.loads(file.read_text()) if file.exists() else {}


def note(run: Path, found: dict) -> None:
    """Note something of a run."""
    file = run.with_suffix(f"{run.suffix}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n")


def most_memory(run: Path, megabytes: int) -> dict:
    """Return the most memory that a process of a run took: one that only measures takes less."""
    before = noted(run)
    found = {"peak_memory_mb": max(megabytes, before.get("peak_memory_mb", 0))}
    note(run, before | found)
    return found


def train(name: str, seed: int, directory: str | None, again: bool = False) -> dict:
    """Run a recipe with a seed in a new process, and return what it measured."""
    run = run_of(name, seed, again)
    recipe = f"zoo/{name}/recipe.toml"
    by = made(run, recipe)
    asked = ["train", recipe, "--seed", str(seed), "--out", str(run), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "keras_attn_cli", *asked, *at(directory)],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:  # it has said why
        raise SystemExit(done.returncode)
    command = f"keras-attn train {recipe} --seed {seed} --out run"
    found = json.loads(done.stdout)
    found |= {"command": command} | by | most_memory(run, found["peak_memory_mb"])
    return found | taught(recipes.read(HERE / name / "recipe.toml"))


def taught(recipe: recipes.Recipe) -> dict:
    """Return which weights of its teachers a model learnt from, if it had some."""
    teachers = recipe.training.get("teacher", [])
    return {"teachers": {name: shipped.digest(name) for name in teachers}} if teachers else {}


def at(directory: str | None) -> list[str]:
    """Return the option that says where data lies."""
    return ["--data-dir", directory] if directory else []


def summary(runs: dict) -> dict:
    """Return mean, least and most of what all seeds measured; folds count by their sources."""
    sources = [run["measured"]["sources"] for run in runs.values()]
    found = {}
    for key in SUMMARISED:
        values = [run["measured"][key] for run in runs.values() if key in run["measured"]]
        if values:  # there is no BLEU of what is no translation
            mean = statistics.fmean(values, sources)
            found[key] = {"mean": mean, "least": min(values), "most": max(values)}
    return found


def add(name: str, recipe: recipes.Recipe, kind: str, seed: int, found: dict) -> None:
    """Put what a run of a recipe measured beside what other processes did.

    Raises:
        ValueError: the folder's recipe is another one by now.
    """
    with locks.alone(HERE / name, wait=True):
        results = load(name)
        if changes := recipes.changed(recipe, results["made_of"]):
            raise ValueError(
                f"{name}: {', '.join(changes)} changed while seed {seed} was trained, so that its "
                "results are not written; with the recipe that it was, the same command does."
            )
        runs = results.get(kind, {}) | {str(seed): found}
        results[kind] = dict(sorted(runs.items(), key=lambda of: int(of[0])))
        save(name, results)


def save(name: str, results: dict) -> None:
    """Write results, all at once."""
    results = results | {"summary": summary(results["runs"])}
    aside = HERE / name / ".results.json"
    aside.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(aside, HERE / name / "results.json")


def main():
    """Train what is not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}")
    parser.add_argument("--data-dir", help="where the data lies, if it is not to be downloaded")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--again", action="store_true", help="what has results, once more")
    given = parser.parse_args()
    directory = given.data_dir and str(Path(given.data_dir).resolve())
    kind = "reruns" if given.again else "runs"
    chosen = given.names or names()
    for name in chosen:
        one_of(parser, name, names())
    data = {recipes.read(HERE / name / "recipe.toml").data for name in chosen}
    if given.data_dir and len(data) > 1:
        parser.error(f"--data-dir: expected NAMEs of one data set, got {', '.join(sorted(data))}.")
    for name in chosen:
        recipe = recipes.read(HERE / name / "recipe.toml")
        if given.seed not in (None, *recipe.seeds):
            parser.error(f"--seed: expected one of {recipe.seeds} for {name}, got {given.seed}.")
        for seed in recipe.seeds if given.seed is None else [given.seed]:
            results = load(name)
            if given.again and str(seed) not in results["runs"]:
                print(f"{name}, seed {seed}: there are no results yet", flush=True)
                continue
            if str(seed) in results.get(kind, {}):
                print(f"{name}, seed {seed}: there are results", flush=True)
                continue
            print(f"--- {name}, seed {seed}{', again' * given.again}", flush=True)
            found = train(name, seed, directory, given.again)
            add(name, recipe, kind, seed, found)


if __name__ == "__main__":
    with told():
        main()
