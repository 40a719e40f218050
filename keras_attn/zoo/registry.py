"""The registry: names of architectures, their cards, and how to build them."""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from keras_attn.models import Seq2Seq
from keras_attn.zoo import embeddings, shipped
from keras_attn.zoo.compose import compose
from keras_attn.zoo.options import OPTIONS, resolve

IDS = 8000  # vocabulary of a model that is built with neither tokenisers nor sizes


@dataclass(frozen=True)
class Card:
    """What an architecture is.

    Attributes:
        title: One line.
        equations: Its equations, one a line, in the letters of the paper.
        paper: Where they come from.
        deviations: What is done otherwise than there, and why.
        recipe: Training that is a good start.
        name: The name in the registry, filled in there.
        changes: Function that returns what it changes in the table of options, filled in there.
        paper_size: What size="paper" changes, in pairs of option and value; empty for entries that
            are no paper's own model.
    """

    title: str
    equations: tuple[str, ...]
    paper: str
    deviations: tuple[str, ...] = ()
    recipe: str = "Adam, learning rate 2e-3 decaying to 0, batches of 64, 10 to 20 epochs."
    name: str = ""
    changes: Callable[[], dict[str, Any]] = dict
    paper_size: tuple[tuple[str, Any], ...] = ()

    def resolved(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Return all options and their values, given what a user changes."""
        return resolve(self.changes(), overrides, dict(self.paper_size) or None)

    @property
    def options(self) -> dict[str, Any]:
        """All options and their values."""
        return self.resolved({})

    @property
    def num_parameters(self) -> int:
        """Weights of `zoo.build(name)`, with 8000 source and 8000 target ids."""
        return build(self.name).count_params()

    def __str__(self) -> str:
        """Return the card as text."""
        changes = [f"{key}={value!r}" for key, value in self.changes().items()]
        lines = [
            f"{self.name}: {self.title}",
            "",
            *(f"    {line}" for line in self.equations),
            "",
            f"Paper:      {self.paper}",
            "Deviations:" + "".join(f"\n    - {line}" for line in self.deviations or ("none",)),
            f"Options:    {', '.join(changes) or 'the defaults'}; any of {', '.join(OPTIONS)}",
            *self._paper_lines(),
            f"Parameters: {self.num_parameters:,} with {IDS} source and {IDS} target ids",
            f"Recipe:     {self.recipe}",
        ]
        return "\n".join(lines)

    def _paper_lines(self):
        if not self.paper_size:
            return []
        sizes = ", ".join(f"{name}={value!r}" for name, value in self.paper_size)
        return [f"Paper size: size='paper' is {sizes}"]


_cards: dict[str, Card] = {}


def _canonical(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, got {type(name).__name__}.")
    return name.replace("-", "_")


def register(name: str, card: Card) -> Callable:
    """Register an architecture of your own.

    Decorates a function without arguments that returns the options it changes, as a dict; a value
    may be a name or an object, such as a scorer of yours. It is called for every model, so that no
    two models share an object.

    Args:
        name: A name that is not taken.
        card: What it is.

    Raises:
        ValueError: the name is taken, or has a dot.
        TypeError: an option that does not exist, or `card` is none.
    """
    key = _canonical(name)
    if "." in key:
        raise ValueError(f"name: a dot separates weights from an architecture, got {name!r}.")
    if key in _cards:
        raise ValueError(f"name: {name!r} is registered already.")
    if not isinstance(card, Card):
        raise TypeError(f"card: expected a Card, got {type(card).__name__}.")

    def decorate(changes: Callable[[], dict[str, Any]]):
        resolve({}, changes())  # refuses unknown options
        _cards[key] = replace(card, name=key, changes=changes)
        return changes

    return decorate


def names(pattern: str = "*", weights: bool = False) -> list[str]:
    """Return the names that match a shell pattern, sorted.

    Args:
        pattern: Such as "attention*".
        weights: Whether to list the trained models that come with the package,
            "architecture.tag", in place of architectures.
    """
    # A hyphen is an underscore, but for the ranges in brackets.
    parts = re.split(r"(\[[^]]*\])", pattern)
    pattern = "".join(part if part.startswith("[") else part.replace("-", "_") for part in parts)
    return sorted(fnmatch.filter(shipped.names() if weights else _cards, pattern))


def card(name: str) -> Card:
    """Return the card of an architecture.

    Raises:
        ValueError: no architecture has this name; the message gives close ones.
    """
    key = _canonical(name)
    if key not in _cards:
        close = difflib.get_close_matches(key, _cards, n=3)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"Names: {names()}."
        raise ValueError(f"name: no architecture is called {name!r}. {hint}")
    return _cards[key]


def config(name: str, **overrides) -> dict[str, Any]:
    """Return all options of an architecture and their values.

    Raises:
        ValueError: no architecture has this name.
        TypeError: an option that does not exist.
    """
    return card(name).resolved(overrides)


def build(
    name: str,
    *,
    source: Any = None,
    target: Any = None,
    weights: Any = None,
    source_embeddings: Any = None,
    target_embeddings: Any = None,
    **overrides,
) -> Seq2Seq:
    """Build a model.

    Args:
        name: An architecture; or "architecture.tag", a trained model that comes with the package,
            see `names(weights=True)`.
        source: A tokeniser, or a vocabulary size for those who bring ids; 8000 by default.
        target: A tokeniser, or a vocabulary size; 8000 by default.
        weights: The path of a `.keras` file, which brings its tokenisers and options.
        source_embeddings: Float (Vs, E), first values of the source's embedding table, such as
            pretrained vectors; `embedding_size` is then E. To keep them as they are, set
            `model.source_embedding.trainable = False`.
        target_embeddings: Float (V, E), those of the target's.
        **overrides: Options, see `zoo.config`.

    Returns:
        A built `Seq2Seq`.

    Raises:
        ValueError: an unknown name, weights that are not there or are damaged, options that do not
            fit, or embeddings of another shape.
        TypeError: an unknown option, or tokenisers or options beside weights.
    """
    base, _, tag = name.partition(".") if isinstance(name, str) else (name, "", "")
    found = card(base)
    if tag and weights is not None:
        raise TypeError(f"weights: {name!r} names weights already, got weights={weights!r} too.")
    tables = {"source_embeddings": source_embeddings, "target_embeddings": target_embeddings}
    if tag or weights is not None:
        given = [key for key, table in tables.items() if table is not None]
        if source is not None or target is not None or overrides or given:
            raise TypeError(
                "source, target and options go without weights: trained weights bring their own "
                f"tokenisers and options, got {sorted([*overrides, *given]) or 'tokenisers'}."
            )
        return shipped.load(f"{found.name}.{tag}") if tag else _load(found.name, weights)
    options = found.resolved({**overrides, **embeddings.width_of(tables, overrides)})
    source, target = (IDS if given is None else given for given in (source, target))
    model = compose(options, source, target, found.name)
    embeddings.assign(model, tables)
    return model


def _load(name: str, weights: Any) -> Seq2Seq:
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(f"weights: expected the path of a file, got {type(weights).__name__}.")
    path = Path(weights)
    if not path.is_file():
        raise ValueError(
            f"weights: expected the path of a .keras file, got {str(weights)!r}, which is no file."
        )
    model = keras.saving.load_model(path)
    if not isinstance(model, Seq2Seq) or model.name != name:
        raise ValueError(
            f"weights: {str(path)!r} holds {model.name!r} ({type(model).__name__}), not {name!r}."
        )
    return model
