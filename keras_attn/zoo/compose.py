"""From options to a model: the one place where the parts of every architecture are put together."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from keras_attn.layers.attention import Attention
from keras_attn.layers.base import positive
from keras_attn.layers.bridges import bridges
from keras_attn.layers.contexts import AttentionContext, contexts
from keras_attn.layers.decoder import Decoder
from keras_attn.layers.encoders import RNNEncoder, encoders
from keras_attn.layers.readouts import readouts
from keras_attn.layers.recurrence import Recurrence
from keras_attn.layers.summaries import summaries
from keras_attn.models import Seq2Seq
from keras_attn.zoo.options import OPTIONS

EQUAL_DEPTHS = ("dot", "scaled_dot")
OF_ATTENTION = ("scorer", "normaliser", "window", "num_heads", "keys", "coverage_loss", "copy")
OF_RNN_ENCODERS = ("bidirectional", "reverse_source")


def compose(options: dict[str, Any], source: Any, target: Any, name: str) -> Seq2Seq:
    """Build the model that `options` describe.

    Args:
        options: Every option of the table.
        source: A tokeniser or a vocabulary size.
        target: A tokeniser or a vocabulary size.
        name: The model's name.

    Raises:
        ValueError: options outside their range, that do not fit, or of which one would have no
            effect.
    """
    _refuse_idle(options)
    _refuse_used(options)
    if options["dtype"] in ("bfloat16", "float16"):
        raise ValueError(
            f"dtype: weights in {options['dtype']} do not train; give 'mixed_{options['dtype']}'."
        )
    encoder, decoder = _encoder(options), _decoder(options)
    if options["summary"] != "last" and not decoder.reads_summary:
        raise ValueError(
            f"summary={options['summary']!r} has no effect here: nothing reads the summary. Use it "
            "with context='fixed', bridge='summary' or start='summary'."
        )
    return Seq2Seq(
        encoder,
        decoder,
        source,
        target,
        **_taken(
            options,
            "embedding_size dropout share_embeddings tie_readout max_source max_target dtype",
        ),
        name=name,
    )


def _refuse_idle(options):
    """Raise a ValueError for options that nothing reads."""
    if options["context"] in ("none", "fixed"):
        why = f"context={options['context']!r} has no attention"
        _refuse_changed(options, OF_ATTENTION, why)
    if options["encoder"] in encoders.classes and options["encoder"] != "rnn":
        _refuse_changed(options, OF_RNN_ENCODERS, f"encoder={options['encoder']!r} is no RNN")
    if options["readout"] == "linear":
        _refuse_changed(options, ("readout_units",), "readout='linear' has the width of its parts")


def _refuse_used(options):
    """Raise a ValueError for an object that is part of another model, whose weights it has."""
    for name, value in options.items():
        if isinstance(value, keras.layers.Layer) and value.built and value.trainable_weights:
            raise ValueError(
                f"{name}: the {type(value).__name__} given has weights already, as part of another "
                "model or layer; make a new one for every model."
            )


def _refuse_changed(options, names, why):
    for name in names:
        if options[name] != OPTIONS[name].default:
            raise ValueError(f"{name}={options[name]!r} has no effect here: {why}.")


def _taken(options, names: str) -> dict[str, Any]:
    return {name: options[name] for name in names.split()}


def _by_name(choices, identifier, **options):
    """Return the choice, with options where it is given by name."""
    return choices.get(identifier, **(options if isinstance(identifier, str) else {}))


def _taken_by(cls, options, **renamed):
    """Return those options that the constructor of `cls` takes."""
    parameters = inspect.signature(cls).parameters
    return {name: value for name, value in {**options, **renamed}.items() if name in parameters}


def _encoder(options):
    units = positive("units", options["units"])
    if _dots(options) and options["bidirectional"]:
        if units % 2:
            raise ValueError(
                f"units: scorer={options['scorer']!r} with a bidirectional encoder needs an even "
                f"number, got {units}."
            )
        units //= 2
    summary, length = options["summary"], {}
    if summary == "concat":
        length = {"length": options["max_source"]}
    identifier = options["encoder"]
    if not isinstance(identifier, str):
        return encoders.get(identifier)
    kind = encoders.classes.get(identifier.replace("-", "_"), RNNEncoder)  # get() refuses others
    layers = options["encoder_layers"]
    taken = _taken_by(
        kind,
        _taken(options, "cell num_layers bidirectional residual dropout recurrent_dropout"),
        units=units,
        num_layers=options["num_layers"] if layers is None else layers,
        reverse=options["reverse_source"],
        summary=_by_name(summaries, summary, dtype=options["dtype"], **length),
    )
    return encoders.get(identifier, dtype=options["dtype"], **taken)


def _dots(options) -> bool:
    """Return whether the scorer needs keys as deep as queries, and nothing projects them."""
    plain = options["num_heads"] == 1 and options["keys"] == "values"
    attends = options["context"] == "attention" and options["encoder"] == "rnn"
    return plain and attends and options["scorer"] in EQUAL_DEPTHS


def _decoder(options):
    dtype = options["dtype"]
    cell = options["cell"] if options["decoder_cell"] is None else options["decoder_cell"]
    recurrence = Recurrence(
        cell, **_taken(options, "units num_layers residual dropout recurrent_dropout dtype")
    )
    return Decoder(
        recurrence,
        context=_context(options),
        bridge=_by_name(bridges, options["bridge"], dtype=dtype),
        readout=_readout(options),
        **_taken(options, "order start feedback input_feeding readout_state copy dropout dtype"),
    )


def _context(options):
    if options["context"] != "attention":
        return _by_name(contexts, options["context"], dtype=options["dtype"])
    length = {"length": options["max_source"]} if options["scorer"] == "location" else {}
    attention = Attention(
        **_taken(options, "scorer normaliser window num_heads keys coverage_loss dtype"), **length
    )
    return AttentionContext(attention, dtype=options["dtype"])


def _readout(options):
    """Return the readout; one that is tied to the embeddings is as wide as they are."""
    units = options["readout_units"]
    if units is None and options["tie_readout"]:
        units = options["embedding_size"]
    width = {} if options["readout"] == "linear" else {"units": units}
    return _by_name(readouts, options["readout"], dtype=options["dtype"], **width)
