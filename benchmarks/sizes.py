"""What all contestants of a benchmark share: sizes, made-up data, first weights, a unit of work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

PAD, BOS, EOS, FIRST = 0, 1, 2, 4  # special ids, and the first id of a real token


@dataclass(frozen=True)
class Size:
    """The numbers that the cost of a model depends on.

    Attributes:
        name: "small", like spelling to sound, or "medium", like short sentences.
        embedding: Width E of the embedded tokens.
        units: Width U of encoder and decoder.
        vocabulary: Ids V of source and target each.
        source: Longest source S, tokens, EOS included.
        target: Longest target T of training.
        batch: Rows B of a batch.
        steps: Tokens of every target that is generated.
        beam: Width of the beam; 1 is greedy search.
        batches: Batches of a training sample.
    """

    name: str
    embedding: int
    units: int
    vocabulary: int
    source: int
    target: int
    batch: int
    steps: int
    beam: int = 1
    batches: int = 20

    @classmethod
    def parse(cls, text: str) -> Size:
        """Return the size of a text: "small", or with changes, "small,batch=1,beam=5"."""
        name, *changes = text.split(",")
        numbers = (change.split("=") for change in changes)
        return replace(SIZES[name], **{key: int(value) for key, value in numbers})

    def __str__(self) -> str:
        """Return what `parse` reads."""
        usual = SIZES[self.name]
        changes = [
            f"{key}={value}" for key, value in vars(self).items() if value != vars(usual)[key]
        ]
        return ",".join([self.name, *changes])


SIZES = {
    "small": Size("small", 128, 256, 64, source=12, target=12, batch=128, steps=16),
    "medium": Size("medium", 256, 512, 8000, source=20, target=20, batch=64, steps=25),
}


class Batches(NamedTuple):
    """Ids of n batches, int32 (n * B, S) and (n * B, T), right-padded."""

    source: np.ndarray
    target_in: np.ndarray
    target_out: np.ndarray


def rows(rng: np.random.Generator, number: int, longest: int, vocabulary: int) -> np.ndarray:
    """Return random rows of longest/2 to `longest` ids, EOS last, PAD behind it, (number, longest).

    The first row has the full length, so that no batch of one is shorter than it says.
    """
    lengths = rng.integers(longest // 2, longest + 1, size=number)
    lengths[0] = longest
    places = np.arange(longest)
    ids = rng.integers(FIRST, vocabulary, size=(number, longest))
    ids = np.where(places == lengths[:, None] - 1, EOS, ids)
    return np.where(places < lengths[:, None], ids, PAD).astype("int32")


def batches(size: Size) -> Batches:
    """Return the pairs that all contestants train on."""
    rng = np.random.default_rng(0)
    number = size.batches * size.batch
    source = rows(rng, number, size.source, size.vocabulary)
    target_out = rows(rng, number, size.target, size.vocabulary)
    before = np.where(target_out[:, :-1] == EOS, PAD, target_out[:, :-1])
    target_in = np.concatenate([np.full((number, 1), BOS, "int32"), before], axis=1)
    return Batches(source, target_in, target_out)


def sources(size: Size) -> np.ndarray:
    """Return the sources that all contestants decode, int32 (B, S)."""
    return rows(np.random.default_rng(1), size.batch, size.source, size.vocabulary)


def weights(size: Size, attention: str, generating: bool = False) -> dict[str, np.ndarray]:
    """Return the first weights of all contestants, so that equal work gives equal numbers.

    Args:
        size: Widths.
        attention: "luong", dot products after the update, "feeding", the same with input feeding,
            or "bahdanau", additive before it.
        generating: Whether no special id is ever the most probable, so that no target ends early
            and all contestants take as many steps.

    Returns:
        Kernels as Keras has them, inputs first, gates in the order i, f, g, o. The decoder's
        kernel reads [embedded; context] or [embedded; fed], `combine` reads [context; state].
    """
    e, u, v = size.embedding, size.units, size.vocabulary
    shapes = {
        "source_embedding": (v, e),
        "target_embedding": (v, e),
        "encoder_kernel": (e, 4 * u),
        "encoder_recurrent": (u, 4 * u),
        "decoder_kernel": (e + (0 if attention == "luong" else u), 4 * u),
        "decoder_recurrent": (u, 4 * u),
        "combine": (2 * u, u),
        "projection": (u, v),
    }
    if attention == "bahdanau":
        shapes |= {"query": (u, u), "keys": (u, u), "scale": (u,)}
    rng = np.random.default_rng(2)
    made = {name: rng.normal(0, 0.08, shape).astype("float32") for name, shape in shapes.items()}
    for side in ("encoder", "decoder"):
        made[f"{side}_bias"] = np.repeat(np.float32([0, 1, 0, 0]), u)
    made["projection_bias"] = np.zeros(v, "float32")
    if generating:
        made["projection_bias"][:FIRST] = -30
    return made


@dataclass
class Work:
    """One unit of work of a contestant.

    Attributes:
        run: Does it; returns a loss, or ids (B, steps), to be compared with others'.
        parameters: Weights of the model.
        parts: What `run`'s time is divided by, such as the steps that it takes.
        facts: What else is to be recorded.
    """

    run: Callable[[], Any]
    parameters: int
    parts: int = 1
    facts: dict[str, Any] = field(default_factory=dict)


class NotThere(Exception):
    """A contestant that does not exist yet, or not here; the message says why."""
