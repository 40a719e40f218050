"""keras_attn through its public API, as a user calls it."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path

import keras
import tensorflow as tf
from sizes import EOS, NotThere, Size, Work, batches, sources, weights

import keras_attn
from keras_attn import text, zoo
from peers.feeding import dataset

ATTENTIONS = {
    "luong": {"scorer": "dot"},
    "feeding": {"scorer": "dot", "input_feeding": True},
    "bahdanau": {"scorer": "additive", "order": "attend_update"},
}
# Names of `sizes.weights`, by the parts of a weight's path that tell it from the others.
PLACES = {
    "source_embedding": ("source_embedding",),
    "target_embedding": ("target_embedding",),
    "encoder_kernel": ("encoder", "cell/kernel"),
    "encoder_recurrent": ("encoder", "cell/recurrent_kernel"),
    "encoder_bias": ("encoder", "cell/bias"),
    "decoder_kernel": ("recurrence", "cell/kernel"),
    "decoder_recurrent": ("recurrence", "cell/recurrent_kernel"),
    "decoder_bias": ("recurrence", "cell/bias"),
    "query": ("query_kernel",),
    "keys": ("key_kernel",),
    "scale": ("scorer", "scale"),
    "combine": ("combine/kernel",),
    "projection": ("projection/kernel",),
    "projection_bias": ("projection/bias",),
}


@functools.cache
def configured():
    """Set TensorFlow up for this machine, once, before it starts."""
    if not hasattr(keras_attn, "configure_cpu"):
        raise NotThere("keras_attn.configure_cpu is not there yet")
    keras_attn.configure_cpu()


def built(size: Size, attention: str, dtype: str, generating: bool = False):
    """Return the model with the weights that all contestants begin with."""
    model = zoo.build(
        "attention",
        source=size.vocabulary,
        target=size.vocabulary,
        embedding_size=size.embedding,
        units=size.units,
        bidirectional=False,
        bridge="copy",
        dropout=0.0,
        max_source=max(64, size.source),
        max_target=max(64, size.target),
        dtype=dtype,
        **ATTENTIONS[attention],
    )
    for name, value in weights(size, attention, generating).items():
        (place,) = (w for w in model.weights if all(part in w.path for part in PLACES[name]))
        place.assign(value)
    return model


def threads():
    """Return how many threads TensorFlow was told to use; 0 is its own choice."""
    return {
        "intra_op": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op": tf.config.threading.get_inter_op_parallelism_threads(),
    }


def training(
    size: Size,
    attention: str = "luong",
    dtype: str = "float32",
    configure: bool = False,
    metrics: str | None = None,
    plain: bool = False,
) -> Work:
    """Return an epoch of `fit` over the batches.

    Args:
        size: The size.
        attention: "luong", "feeding" or "bahdanau".
        dtype: The model's dtype policy.
        configure: Whether `keras_attn.configure_cpu` is called first.
        metrics: "auto" for the metrics that a model has by default, which peers do not have.
        plain: Whether the decoder is Keras' cell and layers, step by step, and the encoder Keras'.
    """
    if configure:
        configured()
    model = built(size, attention, dtype)
    model.compile("adam", metrics=metrics)
    source, target_in, target_out = batches(size)
    pairs = {"source": source, "target_in": target_in}, target_out
    data = dataset(pairs, size.batch)

    def run():
        with keras_attn.kernels.plain() if plain else contextlib.nullcontext():
            return model.fit(data, verbose=0).history["loss"][0]

    return Work(run, model.count_params(), size.batches, {"threads": threads()})


def generating(
    size: Size,
    attention: str = "luong",
    dtype: str = "float32",
    configure: bool = False,
    frozen: bool = False,
) -> Work:
    """Return a search of one batch; EOS is banned, so that every target has `size.steps` tokens.

    Args:
        size: The size; `size.beam` is the beam.
        attention: "luong" or "bahdanau".
        dtype: The model's dtype policy.
        configure: Whether `keras_attn.configure_cpu` is called first.
        frozen: Whether the model is frozen first.
    """
    if frozen and not hasattr(keras_attn.Seq2Seq, "freeze"):
        raise NotThere("Seq2Seq.freeze is not there yet")
    if configure:
        configured()
    model = built(size, attention, dtype, generating=True)
    parameters = model.count_params()
    if frozen:
        model = model.freeze()
    source = sources(size)
    options = {"beam_size": size.beam, "num_return": 1, "banned": [EOS], "max_length": size.steps}

    def run():
        return model.search(source, batch_size=size.batch, **options).token_ids[:, 0]

    return Work(run, parameters, 1, {"threads": threads()})


def from_file(size: Size):
    """Return the model of a file with tokenisers, which is written once."""
    file = Path(tempfile.gettempdir(), "keras_attn_starting.keras")
    if not file.exists():
        letters = text.CharacterTokenizer.learn(
            ["".join(map(chr, range(65, 61 + size.vocabulary)))]
        )
        options = {"embedding_size": size.embedding, "units": size.units, "bidirectional": False}
        zoo.build("attention", source=letters, target=letters, **options).save(file)
    return keras.saving.load_model(file, compile=False)


def starting(
    size: Size,
    told,
    what: str,
    dtype="float32",
    configure=False,
    frozen=False,
    cached=False,
    stored=False,
):
    """Train for one step, or generate once, in a new process."""
    if cached:
        keras_attn.cache_compiled(Path(tempfile.gettempdir(), "keras_attn_starting"))
    common = {"dtype": dtype, "configure": configure}
    if stored and what == "training":
        raise NotThere("what is stored is asked, not trained")
    if stored:
        model = from_file(size).freeze()
        told("built")
        model.generate("ABCDEFGHIJKL"[: size.source], max_length=size.steps)
    elif what == "training":
        if configure:
            configured()
        model = built(size, "luong", dtype)
        model.compile("adam", metrics=None)
        source, target_in, target_out = (ids[: size.batch] for ids in batches(size))
        told("built")
        model.fit(
            {"source": source, "target_in": target_in},
            target_out,
            batch_size=size.batch,
            verbose=0,
        )
    else:
        work = generating(size, frozen=frozen, **common)
        told("built")
        work.run()
    told("done")
