"""Publish a run of the zoo: weights for the package, an export, and a picture of its attention.

    python zoo/publish.py NAME [--seed N] [--data-dir DIR] [--again]

NAME is a folder here whose run is in build/runs (train.py). Its weights go into the package
(`zoo.build("NAME")`, float16), its export to saved_models/NAME/1, and where it looks in a
development source to NAME/alignments.png. Both forms are then measured as `keras-attn evaluate`
measures them, and what that finds goes to results.json, with hashes of what was measured; `python
zoo/pages.py` tells it. With `--again` what was published of that run is only measured, as after
another way of decoding in the recipe.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import train

from keras_attn import Seq2Seq, recipes, zoo
from keras_attn.serving import checking
from keras_attn.training import locks
from keras_attn.zoo import shipped

HERE = Path(__file__).parent
SAVED_MODELS = HERE.parent / "saved_models"
MEGABYTES = 5  # that weights may have to come with the package


def evaluated(path: Path, name: str, seed: int, directory: str | None) -> dict:
    """Return what `keras-attn evaluate` measures of a model's file or export."""
    command = [sys.executable, "-m", "keras_attn_cli", "evaluate", str(path)]
    asked = [str(HERE / name / "recipe.toml"), "--seed", str(seed), "--json"]
    done = subprocess.run(
        [*command, *asked, *train.at(directory)], cwd=HERE.parent, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:  # it has said why
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


def pack(model: Seq2Seq, name: str) -> None:
    """Put weights into the package, if they are not too large."""
    if 2 * model.count_params() > MEGABYTES * 1e6:
        shipped.remove(name)  # of a smaller one before
    else:
        shipped.pack(model, name)


def measured(name: str, seed: int, directory: str | None) -> dict:
    """Return what is measured of what is published: the package's weights, and the export."""
    found: dict = {"seed": seed, "package": None}
    if name in shipped.names():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.keras"
            zoo.build(name).save(file)
            digest = {"sha256": shipped.digest(name)}
            found["package"] = evaluated(file, name, seed, directory) | digest
    path = SAVED_MODELS / name / "1"
    digest = {"sha256": digest_of(path)}
    return found | {"saved_model": evaluated(path, name, seed, directory) | digest}


def digest_of(path: Path) -> str:
    """Return the SHA-256 of an export's graph and weights."""
    found = hashlib.sha256()
    for file in (path / "saved_model.pb", *sorted((path / "variables").iterdir())):
        found.update(file.read_bytes())
    return found.hexdigest()


def is_of(name: str, run: Path) -> bool:
    """Return whether what is published is a run's: the package's weights, and golden answers."""
    model = keras.saving.load_model(run / "model.keras", compile=False).in_full_precision()
    rows = checking.golden(SAVED_MODELS / name / "1")
    texts, scores = model.generate([row["source"] for row in rows], return_scores=True)
    for row, text, score in zip(rows, texts, scores, strict=True):
        tie = row["gap"] is not None and row["gap"] < 1e-3
        if not tie and (text != row["target"] or abs(score - row["score"]) > 1e-3):
            return False
    packed = zoo.build(name).get_weights() if name in shipped.names() else model.get_weights()
    halves = ([np.float16(x) for x in weights] for weights in (packed, model.get_weights()))
    return all(np.array_equal(*both) for both in zip(*halves, strict=True))


def draw(model: Seq2Seq, sources: list[str], file: Path) -> None:
    """Draw where a model looks in a source that is longer than nine of ten others."""
    by_length = sorted(sources, key=lambda text: (len(text), text))
    model.attend(by_length[len(by_length) * 9 // 10]).plot(file)


def publish(name: str, seed: int, directory: str | None) -> None:
    """Make weights, export and picture of a run, in place of what is there."""
    recipe = recipes.read(HERE / name / "recipe.toml")
    model = keras.saving.load_model(train.run_of(name, seed) / "model.keras", compile=False)
    _, held_out = recipes.pairs_of(recipe, directory, seed)
    if model.decoder.attends:
        draw(model.in_full_precision(), held_out.sources, HERE / name / "alignments.png")
    pack(model, name)
    beam_size = max(5, recipe.decoding.get("beam_size", 1))
    path = SAVED_MODELS / name / "1"
    model.export(path, beam_size=beam_size, overwrite=True, verbose=False)
    notice = HERE.parent / f"LICENSE.{recipe.data}"  # goes where the export goes
    if notice.exists():
        shutil.copy(notice, path / "assets.extra")


def main() -> None:
    """Publish it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", help="where the data lies, if it is not to be downloaded")
    parser.add_argument("--again", action="store_true", help="measure what was published")
    given = parser.parse_args()
    name, seed = given.name, given.seed
    train.one_of(parser, name, train.names())
    directory = given.data_dir and str(Path(given.data_dir).resolve())
    about = recipes.DATA[recipes.read(HERE / name / "recipe.toml").data].ABOUT
    if not about.shared:
        parser.error(f"NAME: of data whose licence is {about.licence} no model is given away.")
    results = train.load(name)
    if str(seed) not in results["runs"]:
        parser.error(f"NAME: {name} has no results of seed {seed}; run python zoo/train.py {name}.")
    if given.again and not (SAVED_MODELS / name / "1").exists():
        parser.error(f"--again: {name} has not been published.")
    run = train.run_of(name, seed)
    if not (run / "model.keras").exists():
        parser.error(f"NAME: there is no {run}; run python zoo/train.py {name} first.")
    if given.again and not is_of(name, run):
        parser.error(f"--again: what is published of {name} is not the run of seed {seed}.")
    if not given.again:
        publish(name, seed, directory)
    found = measured(name, seed, directory)
    with locks.alone(HERE / name, wait=True):
        train.save(name, train.load(name) | {"shipped": found})
    for form in ("package", "saved_model"):
        wrong = found[form] and found[form]["sequence_error_rate"]
        print(f"{form}: {'too large' if wrong is None else f'{wrong:.2%} wrong'}", flush=True)


if __name__ == "__main__":
    with train.told():
        main()
