"""From strings to what `keras.Model.fit` trains on: a dataset, and callbacks that go with it."""

from __future__ import annotations

import numbers
import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_attn.layers.base import positive
from keras_attn.models import distilling, inputs
from keras_attn.models.rows import padded
from keras_attn.text import pipeline
from keras_attn.training import losses
from keras_attn.training.callbacks import EpochClock, TooLongReport

BATCH_SIZE = 64


class Fitting(NamedTuple):
    """A dataset of batches of ids, and the callbacks that it needs."""

    dataset: tf.data.Dataset
    callbacks: list[keras.callbacks.Callback]


def too_long_message(model, too_long: str):
    """Return a function of two counts that says what happened to long pairs."""
    done = "cut" if too_long == "cut" else "dropped"
    other = (
        "too_long='drop' leaves them out" if too_long == "cut" else "too_long='cut' keeps them, cut"
    )

    def message(count, total):
        return (
            f"{count} of {total} pairs were longer than max_source={model.max_source} or "
            f"max_target={model.max_target} tokens (EOS counts) and were {done}; {other}, or build "
            "the model with larger limits."
        )

    return message


def from_text(
    model,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    shuffle: bool = False,
    seed: int | None = None,
    too_long: str = "cut",
    teacher: Any = None,
    teacher_weight: float = 1.0,
    names: tuple[str, str] = ("x", "y"),
) -> Fitting:
    """Return the batches of pairs of strings.

    Args:
        model: A `Seq2Seq` with tokenisers.
        x: n strings, or a `tf.data.Dataset` of (source, target[, sample_weight]).
        y: n strings, or None beside a dataset.
        sample_weight: Float (n,), or None.
        batch_size: Most pairs of a batch; 64 by default.
        shuffle: Whether every epoch has an order of its own; a dataset keeps its own order.
        seed: Int, or None to draw one from NumPy's global generator.
        too_long: "cut" or "drop", what to do with pairs beyond `max_source` or `max_target`.
        teacher: A model or an ensemble to learn from, see `distilling.soft_targets`, or None.
        teacher_weight: Float in [0, 1].
        names: What messages call `x` and `y`.

    Raises:
        ValueError: no pairs, unequal numbers, an unknown `too_long`, or targets beside a dataset.
        TypeError: anything but strings.
    """
    _check_too_long(too_long)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, numbers.Integral)):
        raise TypeError(f"seed: expected an int or None, got {seed!r}.")
    _need_tokenisers(model)
    batch_size = checked_batch_size(batch_size)
    if teacher is not None:
        model.check_teacher(teacher, teacher_weight)
        if inputs.is_dataset(x):
            raise TypeError("teacher: goes with lists or arrays of strings, got a dataset.")
        if not losses.is_cross_entropy(model.loss) or model.loss_is_weighed:
            raise ValueError(
                "teacher: goes with the cross-entropy of compile(loss='auto'), without "
                f"loss_weights; got {model.loss!r}{' and weights' * model.loss_is_weighed}."
            )
    message = too_long_message(model, too_long)
    if inputs.is_dataset(x):
        if y is not None or sample_weight is not None:
            raise ValueError(
                "y, sample_weight: a dataset brings its own, as elements (source, target[, "
                "sample_weight]); got them beside one."
            )
        return _from_dataset(model, x, batch_size, too_long, message)
    if y is None:
        raise ValueError(f"{names[1]}: expected the targets, one string a source, got None.")
    x, y = inputs.texts(names[0], x), inputs.texts(names[1], y)
    inputs.same_number(x, y, names)
    if sample_weight is not None:
        sample_weight = inputs.weights(sample_weight, len(x))
    codec = model.codec
    of_source = pipeline.rows_of(codec.source_ids, model.max_source, pipeline.source_ids)
    of_target = pipeline.rows_of(codec.target_ids, model.max_target, pipeline.target_ids)
    sources = pipeline.tokenized(of_source, (x,))
    targets = pipeline.tokenized(of_target, (y, x))
    long = sources.cut | targets.cut
    if long.any():
        warnings.warn(message(int(long.sum()), len(x)), stacklevel=3)
    if too_long == "drop" and long.any():
        if long.all():
            raise ValueError("x: " + message(len(x), len(x)) + " Nothing is left.")
        kept = np.flatnonzero(~long)
        sources, targets = pipeline.selected(sources, kept), pipeline.selected(targets, kept)
        sample_weight = None if sample_weight is None else np.asarray(sample_weight)[kept]
    soft: Any = ()
    if teacher is not None:
        soft = distilling.soft_targets(teacher, sources, targets, teacher_weight)
    with tf.init_scope():
        epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
    dataset = pipeline.batches(
        sources,
        targets,
        sample_weight,
        soft_targets=soft,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=int(np.random.randint(2**31)) if seed is None else seed,
        epoch=epoch,
    )
    return Fitting(dataset, [EpochClock(epoch)])


def _check_too_long(too_long):
    if too_long not in ("cut", "drop"):
        raise ValueError(f"too_long: expected 'cut' or 'drop', got {too_long!r}.")


def from_ids(model, x: Any, y: Any, sample_weight: Any, too_long: str) -> tuple[Any, Any, Any]:
    """Cut ids in memory as strings are cut, or drop them; datasets and generators pass.

    Args:
        model: A `Seq2Seq`.
        x: Checked ids, {"source": (n, S), "target_in": (n, T)}.
        y: Checked ids (n, T).
        sample_weight: Float (n,), (n, 1) or (n, T), or None.
        too_long: "cut" or "drop".

    Returns:
        x, y and sample_weight; sources end with EOS.
    """
    _check_too_long(too_long)
    if not isinstance(x, dict):
        return x, y, sample_weight
    sources = inputs.source_rows_of_ids(x["source"], model.max_source)
    y = model.codec.reachable(y, sources.lengths)
    long = sources.cut | inputs.target_rows_of_ids(y, model.max_target).cut
    if long.any():
        warnings.warn(too_long_message(model, too_long)(int(long.sum()), len(y)), stacklevel=3)
    kept = np.flatnonzero(~long if too_long == "drop" else np.ones_like(long))
    if not len(kept):
        raise ValueError("x: every pair is too long; nothing is left.")
    x = {
        "source": padded(pipeline.selected(sources, kept)),
        "target_in": x["target_in"][kept, : model.max_target],
    }
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight, np.float32)
        sample_weight = sample_weight.reshape(len(long), -1)[kept, : model.max_target]
    return x, y[kept, : model.max_target], sample_weight


def _from_dataset(model, pairs, batch_size, too_long, message) -> Fitting:
    spec = pairs.element_spec
    pair = isinstance(spec, tuple) and len(spec) in (2, 3) and inputs.is_text(spec[1])
    if not pair or any(part.shape.rank not in (0, 1) for part in spec):
        raise TypeError(
            "x: expected a dataset of (source, target) or (source, target, sample_weight), both "
            f"strings, single or batched, got elements of {spec}."
        )
    if spec[0].shape.rank == 1:
        pairs = pairs.unbatch()
    if int(pairs.cardinality()) == 0:
        raise ValueError("x: expected at least one pair, got an empty dataset.")
    counts = tf.Variable([0, 0], dtype=tf.int64, trainable=False)
    dataset = pipeline.stream(
        pairs,
        model.codec,
        model.max_source,
        model.max_target,
        batch_size=batch_size,
        drop=too_long == "drop",
        counts=counts,
    )
    return Fitting(dataset, [TooLongReport(counts, message, too_long == "drop")])


def for_replicas(model, x: Any, batch_size: int | None, names=("x", "batch_size")) -> Any:
    """Return `x` so that its batches split evenly over the replicas of a distribution strategy.

    Args:
        model: A `Seq2Seq`.
        x: A dataset of batches of ids, which is filled up; checked ids in memory; or what Keras
            iterates over, which passes.
        batch_size: Rows of a batch of ids in memory; Keras' 32 by default.
        names: What messages call `x` and `batch_size`.

    Raises:
        ValueError: the first batch of ids in memory would not split evenly.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas == 1:
        return x
    if inputs.is_dataset(x):
        return pipeline.even(x, replicas)
    if isinstance(x, dict):
        rows, size = len(x["source"]), 32 if batch_size is None else batch_size
        if min(rows, size) % replicas:
            raise ValueError(
                f"{names[1]}: expected a multiple of the strategy's {replicas} replicas, and as "
                f"many rows or more in {names[0]}; got {size}, and {rows} rows."
            )
    return x


def checked_batch_size(batch_size: Any) -> int:
    """Return the batch size, 64 for None; a ValueError unless it is a positive int."""
    return BATCH_SIZE if batch_size is None else positive("batch_size", batch_size)


def _need_tokenisers(model):
    for argument, vocabulary in (("source", model.source), ("target", model.target)):
        if isinstance(vocabulary, int):
            raise TypeError(
                f"x: got strings, but this model has no {argument} tokeniser; build it with "
                "zoo.build(name, source=tokeniser, target=tokeniser), or give ids."
            )


def split(x: Any, y: Any, sample_weight: Any, fraction: float):
    """Split off the last `fraction` of pairs for validation, before any shuffling, as Keras does.

    Returns:
        (x, y, sample_weight) for training, and the same for validation.

    Raises:
        ValueError: a dataset, a fraction outside (0, 1), or one that leaves a part empty.
    """
    if inputs.is_dataset(x):
        raise ValueError(
            "validation_split: works on lists and arrays, got a dataset; give validation_data."
        )
    if not 0 < fraction < 1:
        raise ValueError(f"validation_split: expected a number in [0, 1), got {fraction!r}.")
    x, y = inputs.texts("x", x), inputs.texts("y", y)
    inputs.same_number(x, y)
    if sample_weight is not None:
        inputs.same_number(x, sample_weight, ("x", "sample_weight"))
    at = int(len(x) * (1 - fraction))
    if at in (0, len(x)):
        raise ValueError(
            f"validation_split: {fraction!r} of {len(x)} pairs leaves no pair for one of the parts."
        )
    weights = (None, None) if sample_weight is None else (sample_weight[:at], sample_weight[at:])
    return (x[:at], y[:at], weights[0]), (x[at:], y[at:], weights[1])
