"""Try ideas: a recipe with a change or two, trained for a few epochs, one after the other.

    python zoo/ideas.py NAME [--only IDEA] [--data-dir DIR]

NAME/ideas.toml says what is tried for the model of that folder: a `recipe`, the folder of the one
that is changed, tables of what all ideas share, such as fewer epochs, and a list of `idea`s, each
a `name` and tables of what it changes. What they measure, with seed 0, goes to NAME/ideas.json,
of which `python zoo/pages.py` makes a table on the card. What has been tried is not tried again.
"""

from __future__ import annotations

import argparse
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import keras
import train

from keras_attn import recipes, training
from keras_attn.training import locks

HERE = Path(__file__).parent
SEED = 0
NOTED = ("weights", "best_epoch", "minutes", "log", "measured", "fitted")


def base(name: str) -> str:
    """Return the folder of the recipe that a folder's ideas change."""
    return tomllib.loads((HERE / name / "ideas.toml").read_text("utf-8"))["recipe"]


def read(name: str) -> dict[str, recipes.Recipe]:
    """Return the recipes of a folder's ideas, by what they are called."""
    given = tomllib.loads((HERE / name / "ideas.toml").read_text("utf-8"))
    if missing := {"recipe", "idea"} - set(given):
        raise ValueError(f"{name}/ideas.toml: expected {', '.join(sorted(missing))}.")
    unchanged = recipes.read(HERE / given.pop("recipe") / "recipe.toml")
    ideas: dict[str, recipes.Recipe] = {}
    for number, idea in enumerate(given.pop("idea")):
        called = idea.pop("name", None)
        if called is None or called in ideas:
            raise ValueError(f"idea {number}: expected a name of its own, got {called!r}.")
        ideas[called] = changed(changed(unchanged, given), idea)
    return ideas


def changed(recipe: recipes.Recipe, tables: dict[str, Any]) -> recipes.Recipe:
    """Return a recipe with other values; tables keep what is not named.

    Raises:
        TypeError, ValueError: what no recipe may say, see `recipes.checked`.
    """
    now: dict[str, Any] = recipe._asdict()
    for key, value in tables.items():
        now[key] = now.get(key, {}) | value if isinstance(value, dict) else value
    return recipes.checked(now)


def tried(name: str, recipe: recipes.Recipe, directory: str | None) -> dict[str, Any]:
    """Train an idea of a folder, or go on with it, and return what it measured."""
    run = train.RUNS / f"{name}.idea.{recipes.digest(recipe, 'decoding')[:8]}"
    by = train.made(run, f"zoo/{name}/ideas.toml", f"zoo/{base(name)}/recipe.toml")
    keras.backend.clear_session()
    _, found = recipes.run(recipe, run, SEED, directory, [training.Progress()])
    return {key: found[key] for key in NOTED} | by | train.taught(recipe)


def load(name: str) -> dict[str, Any]:
    """Return what was measured before."""
    file = HERE / name / "ideas.json"
    return json.loads(file.read_text()) if file.exists() else {}


def save(name: str, results: dict[str, Any]) -> None:
    """Write what was measured, all at once."""
    aside = HERE / name / ".ideas.json"
    aside.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(aside, HERE / name / "ideas.json")


def add(name: str, idea: str, found: dict[str, Any]) -> None:
    """Put what an idea measured beside what other processes did, in the order that is told now."""
    with locks.alone(HERE / name, wait=True):
        results, told = load(name) | {idea: found}, read(name)
        for gone in sorted(set(results) - set(told)):
            print(f"{gone}: is in ideas.toml no more, so that its figures go", flush=True)
        save(name, {idea: results[idea] for idea in told if idea in results})


def main() -> None:
    """Try what has not been tried."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--data-dir", help="where the data lies, if it is not to be downloaded")
    parser.add_argument("--only", metavar="IDEA", help="the name of one idea; by default all")
    given = parser.parse_args()
    train.one_of(parser, given.name, sorted(x.parent.name for x in HERE.glob("*/ideas.toml")))
    ideas = read(given.name)
    if given.only is not None and given.only not in ideas:
        parser.error(f"--only: expected one of {', '.join(map(repr, ideas))}, got {given.only!r}.")
    for idea, recipe in ideas.items():
        before = load(given.name).get(idea, {"made_of": {}})
        if given.only in (None, idea) and recipes.changed(recipe, before["made_of"]):
            print(f"--- {idea}", flush=True)
            found = {"made_of": recipes.resolved(recipe)} | tried(
                given.name, recipe, given.data_dir
            )
            add(given.name, idea, found)


if __name__ == "__main__":
    with train.told():
        main()
