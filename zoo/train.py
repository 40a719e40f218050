"""Train the zoo: every recipe and seed that has no results yet, each in a process of its own.

    python zoo/train.py [NAME ...] [--data-dir DIR] [--seed N]

NAME is a folder here, such as attention.cmudict; all by default. A run that was killed goes on
where it was. Runs live in build/runs; what they measured goes to NAME/results.json, from which
`python zoo/pages.py` makes curves, cards and zoo/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from keras_attn import recipes

HERE = Path(__file__).parent
RUNS = HERE.parent / "build" / "runs"
SUMMARISED = ("exact_match", "sequence_error_rate", "token_error_rate", "bleu", "chrf")
VERSIONS = ("keras", "keras_attn", "numpy", "tensorflow")


def commit(name: str) -> str:
    """Return the commit that is checked out, with a + where what a run is made by is another."""

    def git(*asked: str) -> str:
        command = ["git", "-C", str(HERE.parent), *asked]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    made_by = ("keras_attn", "keras_attn_cli.py", f"zoo/{name}/recipe.toml")
    changed = git("status", "--porcelain", "--", *made_by)
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def machine() -> str:
    """Return processor and cores."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())}, {len(os.sched_getaffinity(0))} cores"


def load(name: str) -> dict:
    """Return the results of a folder, without runs if its recipe has changed since."""
    file, recipe = HERE / name / "results.json", HERE / name / "recipe.toml"
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()
    found = json.loads(file.read_text()) if file.exists() else {"recipe_sha256": digest, "runs": {}}
    if found["recipe_sha256"] != digest:
        print(f"{name}: the recipe has changed; its runs are made anew", flush=True)
        return {"recipe_sha256": digest, "runs": {}}
    return found


def command(name: str, seed: int) -> list[str]:
    """Return the command of a run, from the root of the repository."""
    recipe = f"zoo/{name}/recipe.toml"
    return [
        "keras-attn",
        "train",
        recipe,
        "--seed",
        str(seed),
        "--out",
        f"build/runs/{name}.{seed}",
    ]


def train(name: str, seed: int, directory: str | None) -> dict:
    """Run a recipe with a seed in a new process, and return what it measured."""
    asked = [*command(name, seed), "--json", *(["--data-dir", directory] if directory else [])]
    done = subprocess.run(
        [sys.executable, "-m", "keras_attn_cli", *asked[1:]],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found = json.loads(done.stdout)
    return found | {
        "command": " ".join(command(name, seed)),
        "commit": commit(name),
        "machine": machine(),
        "versions": {package: version(package) for package in VERSIONS},
        "when": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def summary(runs: dict) -> dict:
    """Return mean, least and most of what all seeds measured."""
    found = {}
    for key in SUMMARISED:
        values = [run["measured"][key] for run in runs.values() if key in run["measured"]]
        if not values:  # of what is no translation
            continue
        found[key] = {"mean": statistics.mean(values), "least": min(values), "most": max(values)}
    return found


def save(name: str, results: dict) -> None:
    """Write results, all at once."""
    results = results | {"summary": summary(results["runs"])}
    aside = HERE / name / ".results.json"
    aside.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(aside, HERE / name / "results.json")


def main():
    """Train what is not there."""
    names = sorted(path.parent.name for path in HERE.glob("*/recipe.toml"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--data-dir", help="where the data lies, if it is not to be downloaded")
    parser.add_argument("--seed", type=int, help="only this one")
    given = parser.parse_args()
    for name in given.names or names:
        if name not in names:
            parser.error(f"NAME: expected one of {', '.join(names)}, got {name!r}.")
        recipe = recipes.read(HERE / name / "recipe.toml")
        for seed in recipe.seeds if given.seed is None else [given.seed]:
            results = load(name)
            if str(seed) not in results["runs"]:
                print(f"--- {name}, seed {seed}", flush=True)
                results["runs"][str(seed)] = train(name, seed, given.data_dir)
                save(name, results)


if __name__ == "__main__":
    main()
