"""Small models and texts that many tests share."""

from __future__ import annotations

import fcntl
import functools
import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_attn import layers, text, zoo

WORDS = ["abc", "de", "fghij", "kl mn", "a", "hello", "ünïcødé", "zzz"]
SPOKEN = ["c b a", "e d", "j i h g f", "n m l k", "a", "o l l e h", "é d ø c ï n ü", "z z z"]
# These pairs are of one width: an epoch is one step, and one graph.
FEW, FEW_SPOKEN = ([texts[i] for i in (0, 1, 4, 7)] for texts in (WORDS, SPOKEN))
CLASSIC = ["context_every_step", "context_as_init", "combined", "attention"]
PLAIN = [*CLASSIC, *(f"attention_{s}" for s in ("additive", "dot", "general", "scaled_dot"))]

# Some of each kind; `make evidence` runs the contracts over every name.
KINDS = [
    *CLASSIC,
    *("attention_copy", "attention_hard", "bahdanau2015", "luong2015_local_p", "conv_attention"),
]
EVIDENCE = "KERAS_ATTN_EVIDENCE" in os.environ
evidence = pytest.mark.skipif(not EVIDENCE, reason="runs under `make evidence`")


def some(cases, number):
    """Return the first cases, or all of them under `make evidence`."""
    return list(cases) if EVIDENCE else list(cases)[:number]


EVERY = zoo.names() if EVIDENCE else KINDS
EXPORTED = EVERY if EVIDENCE else ["attention_copy"]
FITTED_BY_XLA = CLASSIC if EVIDENCE else ["attention"]
# Without and with feedback, with a context that is fixed, none, attended to at once and in steps.
FOUR = ["context_every_step", "context_as_init", "attention_copy", "bahdanau2015"]
SLOW = EVERY if EVIDENCE else FOUR


@functools.cache
def tokenizers():
    """Return a source and a target tokeniser for `WORDS` and `SPOKEN`."""
    source = text.CharacterTokenizer.learn([*WORDS, "bcdefghijklmnopqrstuvwxy"])
    target = text.WhitespaceTokenizer.learn([*SPOKEN, "p q r s t u v w x y"])
    return source, target


def randomised(model, scale=0.4, seed=0):
    """Give every weight small random values, so that nothing is zero by its initialiser."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, scale, weight.shape))
    return model


def small(name, **options):
    """Return a small randomised model with tokenisers."""
    source, target = tokenizers()
    options = {"units": 8, "embedding_size": 6, "max_source": 12, "max_target": 9, **options}
    keras.utils.set_random_seed(0)
    return randomised(zoo.build(name, source=source, target=target, **options))


# How large weights are, and their seed, where 1.5 and 0 would not do.
TALKATIVE = {
    "attention_key_value": (1.0, 0),
    "attention_low_rank": (1.2, 0),
    "attention_multi_head": (1.0, 0),
    "bahdanau2015": (1.0, 0),
    "cho2014": (1.0, 0),
    "conv_attention": (0.5, 0),
    "luong2015_concat": (1.35, 0),
    "luong2015_dot": (1.2, 2),
    "luong2015_general": (1.0, 0),
    "luong2015_local_m": (1.0, 0),
    "luong2015_local_p": (1.2, 2),
    "luong2015_location": (1.2, 0),
    "transformer_attention": (1.2, 0),
}


def talkative(name):
    """Return `small(name)` with weights so large that its answers differ.

    Too large, and gates blow rounding up: scores in float32 would be further from those in float64
    than the 1e-5 that scores may differ by. Those of the models here were within 7e-6.
    """
    return randomised(small(name), *TALKATIVE.get(name, (1.5, 0)))


# What makes graphs soon, where it does not matter which model it is.
CHEAP = {"cell": "simple_rnn", "bidirectional": False}


@functools.cache
def shared(name, **options):
    """Return `small(name, ...)`, made once: do not train it."""
    return small(name, **options)


def exported(name, **options):
    """Return the path of `shared(name, ...)`, exported once with a beam of 3; not to be changed."""
    folder = Path(os.environ["KERAS_ATTN_EXPORTS"]) / "-".join([name, *options])
    folder.mkdir(exist_ok=True)
    path = folder / "letters" / "1"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # while another worker exports it
        if not path.exists():
            shared(name, **options).export(path, beam_size=3, verbose=False)
    return path


def assert_close(found, expected, relative, floor=1.0):
    """Compare tensors with tolerances relative to the largest number of each, or to `floor`."""
    for x, y in zip(found, expected, strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
        x, y = (np.asarray(tf.convert_to_tensor(part)) for part in (x, y))
        np.testing.assert_allclose(x, y, atol=relative * max(floor, np.abs(y).max(initial=0)))


def chooses(model):
    """Return whether a model's attention chooses one position, which has no gradient."""
    attention = getattr(model.decoder.context, "attention", None)
    return isinstance(getattr(attention, "normaliser", None), layers.Hard) or isinstance(
        getattr(attention, "window", None), layers.MonotonicWindow
    )


def some_ids(model, rows=5, length=9, targets=6, seed=0):
    """Return random source and target_in ids: rows of unequal length, padded with 0."""
    rng = np.random.default_rng(seed)
    source = rng.integers(3, model.source_size, (rows, length)).astype(np.int32)
    target_in = rng.integers(3, model.target_size, (rows, targets)).astype(np.int32)
    for row in range(rows):
        last = rng.integers(0, length - 2) if row else length - 3
        source[row, last:] = [2] + [0] * (length - last - 1)
    target_in[:, 0] = 1
    return source, target_in
