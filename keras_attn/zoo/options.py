"""The options of every architecture: one table of names, defaults and meanings."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras_attn.layers.bridges import bridges
from keras_attn.layers.cells import CELLS
from keras_attn.layers.contexts import contexts
from keras_attn.layers.copying import gates
from keras_attn.layers.encoders import encoders
from keras_attn.layers.heads import KEYS
from keras_attn.layers.normalisers import normalisers
from keras_attn.layers.orders import orders
from keras_attn.layers.readouts import readouts
from keras_attn.layers.scorers import scorers
from keras_attn.layers.starts import starts
from keras_attn.layers.summaries import summaries
from keras_attn.layers.windows import windows

SIZES = {
    "tiny": {"units": 32, "embedding_size": 16},
    "small": {"units": 128, "embedding_size": 64},
    "base": {"units": 256, "embedding_size": 128},
    "large": {"units": 512, "embedding_size": 256},
}
PAPER = "paper"  # the size of a paper's own model, for entries that have one


class Option(NamedTuple):
    """One option: its default, what it means, and the names it takes, if it takes names."""

    default: Any
    meaning: str
    choices: tuple[str, ...] = ()


def _named(default, meaning, choices):
    return Option(default, meaning, tuple(choices))


OPTIONS: dict[str, Option] = {
    "units": Option(
        256,
        "width of the decoder, and of the encoder in each direction (half with dots)",
    ),
    "embedding_size": Option(128, "width of the embedded tokens"),
    "cell": _named("lstm", "the recurrent cell of encoder and decoder", CELLS),
    "decoder_cell": _named(None, "the decoder's cell; None is `cell`", (None, *CELLS)),
    "num_layers": Option(1, "layers of the encoder, and of the decoder"),
    "encoder_layers": Option(None, "layers of the encoder; None is `num_layers`"),
    "bidirectional": Option(True, "whether the encoder reads both ways"),
    "reverse_source": Option(False, "whether the encoder reads from the last token to the first"),
    "residual": Option(False, "whether layers after the first add their input to their output"),
    "encoder": _named("rnn", "the kind of encoder", encoders.classes),
    "bridge": _named("linear", "the decoder's initial state", bridges.classes),
    "context": _named("attention", "what a step sees of the source", contexts.classes),
    "summary": _named("last", "the fixed context vector", summaries.classes),
    "feedback": Option(True, "whether a step reads the previous token"),
    "start": _named("token", "what the first step reads", starts.classes),
    "order": _named("update_attend", "whether a step updates or attends first", orders.classes),
    "scorer": _named("general", "how well a key answers a query", scorers.classes),
    "normaliser": _named("softmax", "scores to alignments", normalisers.classes),
    "window": _named("global", "which positions a query may look at", windows.classes),
    "num_heads": Option(1, "heads of the attention"),
    "keys": _named("values", "whether keys are the values, or both are projected", KEYS),
    "coverage_loss": Option(0.0, "weight of the loss of looking twice at a position"),
    "copy": _named("none", "whether tokens of the source are copied", gates.classes),
    "input_feeding": Option(False, "whether a step reads the previous step's features"),
    "readout": _named(
        "tanh", "the features that the vocabulary projection reads", readouts.classes
    ),
    "readout_units": Option(None, "width of the features; None is `units`"),
    "readout_state": _named("current", "the state that the readout sees", ("current", "previous")),
    "dropout": Option(0.2, "fraction dropped of embeddings, layer inputs and features"),
    "recurrent_dropout": Option(0.0, "fraction dropped of the recurrent inputs"),
    "share_embeddings": Option(False, "whether source and target share one embedding table"),
    "tie_readout": Option(False, "whether the vocabulary projection is the target's table"),
    "max_source": Option(64, "most tokens of a source, EOS included"),
    "max_target": Option(64, "most tokens of a target, EOS included"),
    "size": _named("base", "a preset of units and embedding_size", (*SIZES, PAPER)),
    "dtype": Option(None, "dtype policy, such as mixed_bfloat16; None is Keras' global one"),
}


def resolve(
    defaults: dict[str, Any], overrides: dict[str, Any], paper: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return all options: the table's, those of a size, an architecture's, and the user's.

    Args:
        defaults: What an architecture changes in the table.
        overrides: What the user changes.
        paper: What size="paper" changes, if the architecture has that.

    Raises:
        TypeError: an unknown option; the message lists the valid ones.
        ValueError: an unknown size.
    """
    unknown = sorted(set(overrides) - set(OPTIONS))
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; the options are {', '.join(OPTIONS)}.")
    size = overrides.get("size", defaults.get("size", OPTIONS["size"].default))
    overrides = {name: _underscored(name, value) for name, value in overrides.items()}
    defaults = {name: _underscored(name, value) for name, value in defaults.items()}
    sizes = SIZES if paper is None else {**SIZES, PAPER: paper}
    if not isinstance(size, str) or size not in sizes:
        raise ValueError(f"size: expected one of {sorted(sizes)}, got {size!r}.")
    table = {name: option.default for name, option in OPTIONS.items()}
    if size == PAPER:
        return {**table, **defaults, **sizes[size], **overrides}
    return {**table, **sizes[size], **defaults, **overrides}


def _underscored(name, value):
    """Return a choice by its name: hyphens equal underscores."""
    named = isinstance(value, str) and OPTIONS[name].choices
    return value.replace("-", "_") if named else value


def table() -> str:
    """Return the table of options as Markdown."""
    lines = ["| option | default | meaning | names |", "|---|---|---|---|"]
    for name, option in OPTIONS.items():
        choices = ", ".join(f"`{choice}`" for choice in option.choices)
        lines.append(f"| `{name}` | `{option.default!r}` | {option.meaning} | {choices} |")
    return "\n".join(lines)
