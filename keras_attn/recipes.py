"""Recipes: all that a model of the zoo was made of, in one TOML file that makes it again.

    architecture = "attention"
    data = "cmudict"
    seeds = [0]

    [source]
    tokeniser = "character"
    lowercase = true

    [target]
    tokeniser = "whitespace"

    [options]
    units = 256

    [training]
    epochs = 20

    [decoding]
    beam_size = 5

`keras-attn train RECIPE` runs one; so does `run` here, in code.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import math
import sys
import tomllib
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_attn import datasets, scoring, text, training, zoo
from keras_attn.zoo import shipped

DATA = {
    "cmudict": datasets.cmudict,
    "dates": datasets.dates,
    "g2p": datasets.g2p,
    "geo880": datasets.geo880,
    "inflection": datasets.inflection,
    "multi30k": datasets.multi30k,
    "scan": datasets.scan,
    "slovene": datasets.slovene,
}
JOINT = "joint"  # a target's tokeniser that is the source's, learnt from both sides
OF_SEED = "seed"  # the value of an option of the data that is the seed of the run, such as a fold
TRAINING = [
    name
    for name, parameter in inspect.signature(training.train).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    and name not in ("seed", "callbacks", "by_row")
]
DECODING = ("beam_size", "length_penalty")
TABLES = ("data_options", "source", "target", "options", "training", "decoding")
# Where classes of sources by length begin, in tokens without EOS.
LENGTHS = (1, 4, 6, 8, 10, 12, 15, 20, 30)
FITTED = 1000  # training sources that are measured too
AT_A_TIME = 1024  # sources between two looks at the progress


class Recipe(NamedTuple):
    """How a model is made.

    Attributes:
        architecture: String, a name of the zoo.
        data: String, a key of `DATA`.
        data_options: Dict, what its `load` takes, without directory; "seed" is the seed of a run.
        seeds: List of ints, one run each.
        source: Dict of "tokeniser", a key of `text.KINDS`, and what its `learn` takes.
        target: The same for targets; "joint" is one tokeniser for both.
        options: Dict, of the architecture.
        training: Dict, what `training.train` takes, without seed and callbacks; "teacher" is a list
            of trained models that come with the package.
        decoding: Dict, what `generate` takes when the model is measured.
    """

    architecture: str
    data: str
    data_options: dict[str, Any]
    seeds: list[int]
    source: dict[str, Any]
    target: dict[str, Any]
    options: dict[str, Any]
    training: dict[str, Any]
    decoding: dict[str, Any]


def read(path: Any) -> Recipe:
    """Read a recipe.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML, lacks something, or has what no recipe has; the message names
            the file and the key.
    """
    try:
        given = tomllib.loads(Path(path).read_text("utf-8"))
        return checked(given)
    except (ValueError, TypeError) as error:  # a TOMLDecodeError is a ValueError too
        raise ValueError(f"{path}: {error}") from error


def digest(recipe: Recipe, *without: str) -> str:
    """Return the SHA-256 of what a recipe says, but for its seeds and what is named besides."""
    said = {key: x for key, x in recipe._asdict().items() if key not in ("seeds", *without)}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Return all that a recipe says and what it leaves to defaults, but for its seeds.

    Returns:
        Dict of what JSON can hold: "architecture", "data", and "TABLE.KEY" of each table.
    """
    found = {"architecture": recipe.architecture, "data": recipe.data}
    for table, usual in _usual(recipe).items():
        given = usual | getattr(recipe, table)
        found |= {f"{table}.{key}": value for key, value in given.items()}
    return json.loads(json.dumps(found))


def _usual(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the defaults of each table."""

    def learnt(given: dict[str, Any]) -> dict[str, Any]:
        joint = given["tokeniser"] == JOINT
        return {} if joint else _defaults(text.KINDS[given["tokeniser"]].learn)

    data, training_ = _defaults(DATA[recipe.data].load), _defaults(training.train)
    return {
        "data_options": {key: value for key, value in data.items() if key != "directory"},
        "source": learnt(recipe.source),
        "target": learnt(recipe.target),
        "options": zoo.card(recipe.architecture).resolved(recipe.options),
        "training": {key: value for key, value in training_.items() if key in TRAINING},
        "decoding": {"beam_size": 1, "length_penalty": 0.0},
    }


def changed(recipe: Recipe, before: dict[str, Any]) -> list[str]:
    """Return the keys of `resolved` that are not what they were, of old ones or the recipe's own.

    An option that came after, and of which the recipe says nothing, changes nothing.
    """
    now = resolved(recipe)
    own = {f"{table}.{key}" for table in TABLES for key in getattr(recipe, table)}
    return sorted(
        key for key in before.keys() | own if key not in before or before[key] != now.get(key)
    )


def _defaults(function: Callable) -> dict[str, Any]:
    """Return what a function takes where nothing is said."""
    parameters = inspect.signature(function).parameters.items()
    return {name: x.default for name, x in parameters if x.default is not inspect.Parameter.empty}


def checked(given: dict[str, Any]) -> Recipe:
    """Return the recipe that tables say, as TOML reads them.

    Raises:
        TypeError: an option of the wrong kind.
        ValueError: it lacks something, or has what no recipe has; the message names the key.
    """
    _known("a recipe", given, Recipe._fields)
    for key, kind in (("architecture", str), ("data", str), ("seeds", list)):
        if not isinstance(given.get(key), kind):
            raise ValueError(f"{key}: expected a {kind.__name__}, got {given.get(key)!r}.")
    for key in TABLES:
        if not isinstance(given.setdefault(key, {}), dict):
            raise ValueError(f"{key}: expected a table, [{key}], got {given[key]!r}.")
    recipe = Recipe(**given)
    if recipe.data not in DATA:
        raise ValueError(f"data: expected one of {sorted(DATA)}, got {recipe.data!r}.")
    _known("data_options", recipe.data_options, set(_takes(recipe.data)) - {"directory"})
    if not recipe.seeds or any(
        type(seed) is not int or not 0 <= seed < 2**32 for seed in recipe.seeds
    ):
        raise ValueError(f"seeds: expected ints from 0 to 2**32 - 1, got {recipe.seeds!r}.")
    if len(set(recipe.seeds)) < len(recipe.seeds):
        raise ValueError(f"seeds: expected each once, got {recipe.seeds!r}.")
    for side in ("source", "target"):
        kind = given[side].get("tokeniser")
        joint = side == "target" and kind == JOINT
        if not joint and (not isinstance(kind, str) or kind not in text.KINDS):
            raise ValueError(
                f"{side}.tokeniser: expected one of {sorted(text.KINDS)}, got {kind!r}."
            )
        learns = [] if joint else list(inspect.signature(text.KINDS[kind].learn).parameters)
        _known(side, given[side], ["tokeniser", *learns[1:]])
    _known("training", recipe.training, TRAINING)
    _of_trained(recipe.training.get("teacher", []))
    _known("decoding", recipe.decoding, DECODING)
    beam = recipe.decoding.get("beam_size", 1)
    if type(beam) is not int or beam < 1:
        raise ValueError(f"decoding.beam_size: expected a positive int, got {beam!r}.")
    penalty = recipe.decoding.get("length_penalty", 0.0)
    if type(penalty) not in (int, float) or not 0 <= penalty < math.inf:
        raise ValueError(f"decoding.length_penalty: expected a number from 0, got {penalty!r}.")
    if "epochs" not in recipe.training:
        raise ValueError("training.epochs: expected an int, got none.")
    if "teacher_weight" in recipe.training and not recipe.training.get("teacher"):
        raise ValueError("training.teacher_weight: expected a teacher beside it, got none.")
    _of_usual_kind(recipe)
    return recipe


KINDS = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}  # of a default: what may be
PLAIN = (str, bool, int, float, list, dict)


def _of_usual_kind(recipe: Recipe) -> None:
    """Raise a ValueError if a value is not of the kind of its default, where that has one."""
    for table, usual in _usual(recipe).items():
        for key, value in getattr(recipe, table).items():
            kind = int if key == "epochs" else type(usual.get(key))
            if value == OF_SEED and table == "data_options":
                continue
            if type(value) not in KINDS.get(kind, PLAIN):
                wanted = f"{'an' if kind is int else 'a'} {kind.__name__}"
                wanted = wanted if kind in KINDS else "a string, number, list or table"
                raise ValueError(f"{table}.{key}: expected {wanted}, got {value!r}.")


def _takes(data: str) -> Iterable[str]:
    """Return the names of what the `load` of a data set takes."""
    return inspect.signature(DATA[data].load).parameters


def _known(where: str, given: Iterable[str], known: Collection[str]) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{where} has no {key!r}; it has {sorted(known)}.{meant}")


def _of_trained(teacher: Any) -> None:
    trained = shipped.names()
    if not isinstance(teacher, list) or not all(name in trained for name in teacher):
        raise ValueError(
            f"training.teacher: expected a list of models of the package, {trained}, got "
            f"{teacher!r}."
        )


def _taught(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of a training with models in place of their names."""
    models = [zoo.build(name) for name in settings.get("teacher", [])]
    if not models:
        return {key: value for key, value in settings.items() if key != "teacher"}
    return settings | {"teacher": zoo.ensemble(models) if len(models) > 1 else models[0]}


def pairs_of(recipe: Recipe, directory: Any = None, seed: int = 0):
    """Return the pairs to train on and those to measure by.

    Args:
        recipe: A recipe.
        directory: Where the data lies, if it is not to be downloaded.
        seed: Int, of the run, which the data may depend on.

    Raises:
        ValueError: a directory for data that is generated; see the data set's `load` too.
        OSError: see the data set's `load`.
    """
    options = {
        name: seed if value == OF_SEED else value for name, value in recipe.data_options.items()
    }
    if directory is not None:
        if "directory" not in _takes(recipe.data):
            raise ValueError(f"directory: {recipe.data!r} is generated, not read.")
        options["directory"] = directory
    found = DATA[recipe.data].load(**options)
    return found.train, found.validation


def build(recipe: Recipe, pairs, seed: int):
    """Return the model before its training: tokenisers learnt from pairs, weights by the seed."""
    keras.utils.set_random_seed(seed)
    source, target = tokenisers(recipe, pairs)
    return zoo.build(recipe.architecture, source=source, target=target, **recipe.options)


def tokenisers(recipe: Recipe, pairs) -> tuple[Any, Any]:
    """Return those of sources and targets, learnt from pairs."""

    def learnt(given: dict[str, Any], texts: Sequence[str]):
        options = {key: value for key, value in given.items() if key != "tokeniser"}
        return text.KINDS[given["tokeniser"]].learn(texts, **options)

    if recipe.target["tokeniser"] == JOINT:
        both = learnt(recipe.source, [*pairs.sources, *pairs.targets])
        return both, both
    return learnt(recipe.source, pairs.sources), learnt(recipe.target, pairs.targets)


def run(
    recipe: Recipe,
    folder: Any,
    seed: int,
    directory: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> tuple[Any, dict[str, Any]]:
    """Train once, and measure the best epoch by the recipe's decoding.

    Args:
        recipe: A recipe.
        folder: Where the run lives; called again after a kill, it goes on there.
        seed: Int.
        directory: See `pairs_of`.
        callbacks: More Keras callbacks.

    Returns:
        The model, and a dict: "seed", "weights", "best_epoch", "minutes" of training, with
        what it took to choose the best epoch where the log tells that,
        "peak_memory_mb" of the process, "log" with an entry an epoch, "measured", see `measured`,
        in full precision, and "fitted", the same of training pairs: of the 1,000 sources with the
        smallest hashes.

    Raises:
        ImportError: what measures is not installed.
    """
    about = DATA[recipe.data].ABOUT
    scoring.sequence_scores([""], [[""]])  # says now if it cannot be measured
    if about.translation:
        scoring.translation_scores([""], [[""]])
    pairs, held_out = pairs_of(recipe, directory, seed)
    model = build(recipe, pairs, seed)
    log = training.train(
        model,
        pairs,
        held_out,
        folder,
        seed=seed,
        callbacks=callbacks,
        by_row=about.by_row,
        **_taught(recipe.training),
    )
    best = training.best(log, recipe.training.get("monitor", "edit_distance_rate"))
    cleaning = model.target.cleaning
    generate = model.in_full_precision().generate
    return model, {
        "seed": seed,
        "weights": model.count_params(),
        "best_epoch": int(best["epoch"]),
        "minutes": round(sum(x["seconds"] + x.get("measuring", 0) for x in log) / 60, 1),
        "peak_memory_mb": round(peak_memory() / 2**20),
        "log": [training.finite(entry) for entry in log],
        "measured": measured(generate, cleaning, held_out, recipe),
        "fitted": measured(generate, cleaning, _some(pairs), recipe),
    }


def _some(pairs) -> datasets.Pairs:
    """Return the pairs of some sources, the same each time."""
    hashed = {hashlib.sha256(source.encode()).digest(): source for source in pairs.sources}
    chosen = {hashed[key] for key in sorted(hashed)[:FITTED]}
    return datasets.Pairs.of(pair for pair in zip(*pairs, strict=True) if pair[0] in chosen)


def answered(
    generate: Callable[[list[str]], list[str]],
    cleaning: Any,
    pairs: Any,
    told: Callable[[int], None] = lambda number: None,
    by_row: bool = False,
) -> tuple[scoring.Grouped, list[str]]:
    """Return the sources and references of pairs, and what is generated; see `measured`.

    Sources are generated of once, and stand there once, with all their targets; by row they stand
    there as often as in the pairs, with one target each.
    """
    targets = [target.decode() for target in cleaning.apply(pairs.targets).numpy()]
    grouped = scoring.grouped(pairs.sources, targets)
    hypotheses: list[str] = []
    for i in range(0, len(grouped.sources), AT_A_TIME):
        chunk = grouped.sources[i : i + AT_A_TIME]
        hypotheses += generate(chunk)
        told(len(chunk))
    if not by_row:
        return grouped, hypotheses
    said = dict(zip(grouped.sources, hypotheses, strict=True))
    rows = scoring.Grouped(list(pairs.sources), [[target] for target in targets])
    return rows, [said[source] for source in rows.sources]


def measured(
    generate: Callable[..., list[str]],
    cleaning: Any,
    pairs: Any,
    recipe: Recipe,
    told: Callable[[int], None] = lambda number: None,
) -> dict[str, Any]:
    """Score what is generated of pairs; equal sources share their targets, unless rows count.

    Args:
        generate: Function of n strings and the options of `decoding` to n strings.
        cleaning: The target tokeniser's, of which targets are what a model has learnt to write.
        pairs: `Pairs`.
        recipe: A recipe.
        told: Called with the number of sources that are done now.

    Returns:
        "sources", their number; "exact_match", "sequence_error_rate" and "token_error_rate",
        fractions; and "by_length", of sources, in tokens, a list of "from", "to", "sources" and
        "exact_match". Of translations "bleu" and "chrf" too, in lower case, with their signatures,
        and "bleu" by length.
    """
    about = DATA[recipe.data].ABOUT
    (sources, references), hypotheses = answered(
        lambda chunk: generate(chunk, **recipe.decoding), cleaning, pairs, told, about.by_row
    )
    tokens = {side: tokens_of(recipe, side) for side in ("source", "target")}
    found = scoring.sequence_scores(hypotheses, references, tokens["target"])
    if about.translation:
        found |= scoring.translation_scores(hypotheses, references, lowercase=True)
    lengths = [len(tokens["source"](source)) for source in sources]
    rows = []
    for first, following in zip(LENGTHS, (*LENGTHS[1:], sys.maxsize), strict=True):
        within = [i for i, length in enumerate(lengths) if first <= length < following]
        if within:
            said, wanted = [hypotheses[i] for i in within], [references[i] for i in within]
            right = scoring.sequence_scores(said, wanted, tokens["target"])["exact_match"]
            last = max(lengths[i] for i in within) if following == sys.maxsize else following - 1
            row = {"from": first, "to": last, "sources": len(within), "exact_match": right}
            if about.translation:
                row["bleu"] = scoring.translation_scores(said, wanted, lowercase=True)["bleu"]
            rows.append(row)
    return {"sources": len(sources), **found, "by_length": rows}


def tokens_of(recipe: Recipe, side: str) -> Callable[[str], list[str]]:
    """Return how a text is split to count errors and lengths: characters, or words."""
    kind = getattr(recipe, side)["tokeniser"]
    kind = recipe.source["tokeniser"] if kind == JOINT else kind
    return list if kind in ("character", "byte") else str.split


def peak_memory() -> int:
    """Return the most memory that this process has had, bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
