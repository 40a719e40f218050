"""Seq2Seq: the model that users build, fit, ask and export."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_attn.layers.choices import serializable
from keras_attn.models import distilling, fitting, inputs
from keras_attn.models.frozen import Frozen
from keras_attn.models.generation import GENERATED_AT_A_TIME, Generation
from keras_attn.models.network import Network
from keras_attn.models.runner import Runner
from keras_attn.training.callbacks import StopOnNaN, TooLongReport
from keras_attn.types import BOS, EOS

CLOSE = 1e-3  # relative to the largest logit
# What a search goes through; a copy has those of the class.
OWN_METHODS = (
    "encode encoders prepared step steppers stepper project log_probabilities log_likelihood "
    "scored call"
).split()


@serializable
class Seq2Seq(Generation, Network):
    """A recurrent encoder-decoder, strings in and strings out.

    `zoo.build` makes one by name. It is a `keras.Model`: compile, fit, callbacks, saving and
    distribution are Keras' own.

    Args:
        encoder: An encoder layer.
        decoder: A `Decoder`.
        source: A tokeniser, or a vocabulary size for ids.
        target: A tokeniser, or a vocabulary size.
        embedding_size: Positive int E.
        dropout: Fraction dropped of the embedded tokens.
        share_embeddings: Whether source and target share one table.
        tie_readout: Whether the vocabulary projection is the target's embedding table.
        max_source: Positive int, tokens, EOS included; longer sources are cut.
        max_target: Positive int, tokens, EOS included; longer targets are cut.
        frozen: Names of what is not trained: "source_embedding", "target_embedding", "projection".

    Raises:
        ValueError: an argument outside its range, or parts that do not fit.
    """

    def __init__(self, encoder, decoder, source: Any = 8000, target: Any = 8000, **kwargs):
        super().__init__(encoder, decoder, source, target, **kwargs)
        self._runner = Runner(self)

    # === Training ===

    def check_teacher(self, teacher: Any, teacher_weight: float = 1.0) -> None:
        """Refuse a teacher that this model cannot learn from in `fit`.

        Raises:
            TypeError: something else than a model or an ensemble.
            ValueError: other tokenisers, a teacher of shorter sources, models that copy, or a
                weight outside [0, 1].
        """
        distilling.check(self, teacher, teacher_weight)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        *,
        seed: int | None = None,
        too_long: str = "cut",
        teacher: Any = None,
        teacher_weight: float = 1.0,
        **kwargs,
    ):
        """Train, on strings or on ids, as `keras.Model.fit` does.

        Args:
            x: n strings; or a `tf.data.Dataset` of (source, target[, sample_weight]) strings; or
                {"source": ids (n, S), "target_in": ids (n, T)}.
            y: n strings, or target_out ids (n, T), 0 where there is no token.
            batch_size: Pairs of a batch; 64 by default for strings.
            epochs: Epochs.
            verbose: As in Keras.
            callbacks: Keras callbacks.
            validation_split: Fraction of the last pairs to validate on.
            validation_data: (x, y) or (x, y, sample_weight), or a dataset of them.
            shuffle: Whether every epoch has an order of its own.
            class_weight: Refused: classes are tokens, and `sample_weight` says what a pair counts.
            sample_weight: Float (n,).
            seed: Int that, with the epoch's number, gives the order; None draws one.
            too_long: "cut" or "drop" pairs beyond `max_source` or `max_target`; they are counted.
            teacher: A `Seq2Seq` or an `Ensemble` to learn from (distillation): at each place of the
                targets, the ten tokens that it takes for most probable are learnt, in its
                proportions. It is asked once, before the first epoch. Strings in memory alone; or
                None. Label smoothing then holds for the loss of validation data alone, and what
                rewards the choices of hard attention is the target's token all the same.
            teacher_weight: Float in [0, 1], the teacher's share in what is learnt; the rest is the
                target's token.
            **kwargs: The rest of `keras.Model.fit`'s.

        Returns:
            Keras' `History`.

        Raises:
            TypeError: something that is neither strings nor ids, or a teacher beside others than
                strings in memory.
            ValueError: no pairs, unequal numbers, ids outside the vocabulary, `class_weight`, no
                optimizer, or a teacher that does not fit, see `check_teacher`.
            FloatingPointError: the loss became NaN; the model has its last good weights.
        """
        if class_weight is not None:
            raise ValueError(
                "class_weight: the classes of a target are its tokens, one a position, which Keras "
                "cannot weigh; give sample_weight, one number a pair, instead."
            )
        if self.optimizer is None:
            raise ValueError("fit: compile the model with an optimizer first.")
        callbacks = _callback_list(callbacks)
        if not any(isinstance(callback, StopOnNaN) for callback in callbacks):
            callbacks = [StopOnNaN(), *callbacks]  # before any that save
        prepare: dict[str, Any] = {"batch_size": batch_size, "too_long": too_long}
        taught = {"teacher": teacher, "teacher_weight": teacher_weight}
        if inputs.is_text(x):
            if validation_split and validation_data is None:
                (x, y, sample_weight), validation_data = fitting.split(
                    x, y, sample_weight, validation_split
                )
            data = fitting.from_text(
                self, x, y, sample_weight, shuffle=shuffle, seed=seed, **prepare, **taught
            )
            x, y, sample_weight, shuffle = data.dataset, None, None, False
            callbacks, batch_size, validation_split = [*data.callbacks, *callbacks], None, 0.0
        else:
            if teacher is not None:
                raise TypeError("teacher: goes with lists or arrays of strings, got others.")
            x, y, sample_weight = self._ids(x, y, sample_weight, too_long)
        if validation_data is not None:
            prepare["batch_size"] = kwargs.get("validation_batch_size") or prepare["batch_size"]
            validation_data, reports = self._validation(validation_data, **prepare)
            callbacks = [*reports, *callbacks]
        with _streams_end_unannounced(callbacks):
            return super().fit(
                fitting.for_replicas(self, x, batch_size),
                y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                sample_weight=sample_weight,
                **kwargs,
            )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        *,
        too_long: str = "cut",
        **kwargs,
    ):
        """Return loss and metrics, as `keras.Model.evaluate` does; takes what `fit` takes."""
        reports: list = []
        if inputs.is_text(x):
            x, reports = fitting.from_text(
                self, x, y, sample_weight, batch_size=batch_size, too_long=too_long
            )
            y, sample_weight, batch_size = None, None, None
        else:
            x, y, sample_weight = self._ids(x, y, sample_weight, too_long)
        with _streams_end_unannounced(reports):
            found = super().evaluate(
                fitting.for_replicas(self, x, batch_size),
                y,
                batch_size=batch_size,
                verbose=verbose,
                sample_weight=sample_weight,
                **kwargs,
            )
        for report in reports:
            report.on_epoch_end(0)
        return found

    def _validation(self, data, **prepare):
        """Return what Keras validates on, and the callbacks that report on it."""
        pair = isinstance(data, tuple) or (isinstance(data, list) and not inputs.is_text(data))
        x, y, sample_weight = (*data, None, None)[:3] if pair else (data, None, None)
        if inputs.is_text(x):
            names = ("validation_data[0]", "validation_data[1]")
            found = fitting.from_text(self, x, y, sample_weight, names=names, **prepare)
            return fitting.for_replicas(self, found.dataset, None), found.callbacks
        x, y, sample_weight = self._ids(x, y, sample_weight, prepare["too_long"])
        names = ("validation_data[0]", "validation_batch_size")
        x = fitting.for_replicas(self, x, prepare["batch_size"], names)
        return (x if y is None else (x, y, sample_weight)), []

    def _ids(self, x, y, sample_weight, too_long):
        x, y = inputs.id_pairs(x, y, self.codec)
        return fitting.from_ids(self, x, y, sample_weight, too_long)

    # === Asking ===

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        **kwargs,
    ):
        """Generate for strings or source ids; return logits for a dict with "target_in".

        A dataset of pairs of strings stands for its sources. `steps` and `callbacks` go with
        logits.
        """
        logits = "target_in" in x if isinstance(x, dict) else not inputs.is_text(x)
        if logits and (isinstance(x, dict) or inputs.is_dataset(x)):
            if kwargs:
                raise ValueError(f"{next(iter(kwargs))}: goes with generating, not with logits.")
            return super().predict(x, batch_size, verbose, steps, callbacks)
        if steps is not None or callbacks:
            raise ValueError(
                "steps, callbacks: they go with ids and target_in, not with generating."
            )
        if inputs.is_dataset(x):
            x = inputs.sources_of(x)
        source = x["source"] if isinstance(x, dict) else x
        return self.generate(source, batch_size=batch_size or GENERATED_AT_A_TIME, **kwargs)

    def freeze(self, *, jit_compile: bool = True) -> Frozen:
        """Return what answers as this model does now, only faster.

        It has a copy of the weights, and what does not depend on sources is computed when it is
        made. Its searches are compiled by XLA, one loop for each size of batch (1, 8, 16, 32, 64,
        128 rows, and multiples of that) and of source (the widths of training batches), which takes
        a second or two when the size is first met; see `keras_attn.cache_compiled`. Answers are the
        same, up to rounding. Training the model further does not change it; threads may share it.

        A model that computes in half precision is frozen in the precision of its weights, float32:
        it is closer to them, and faster, as XLA has no products of bfloat16 on CPUs.

        Args:
            jit_compile: Whether searches are compiled; without, they start at once.

        Returns:
            `Frozen`, with `generate`, `search`, `stream`, `score`, `attend` and `export`.

        Raises:
            ValueError: a quantised model, one with LoRA, or one that has a method put on itself.
        """
        return Frozen(copied(self), jit_compile)

    def in_full_precision(self) -> Seq2Seq:
        """Return this model, or what answers as it does in its weights' precision, if it does not.

        Raises:
            ValueError: see `freeze`.
        """
        config = self.get_config()
        return self if _in_full_precision(config) == config else copied(self)


def copied(model: Seq2Seq) -> Seq2Seq:
    """Return a model of the same weights that computes in their precision, not compiled.

    Raises:
        ValueError: a method was put on the model itself, or its layers have other weights than its
            configuration makes; a copy would not answer alike.
    """
    own = [name for name in OWN_METHODS if name in vars(model)]
    if own:
        raise ValueError(
            f"model: {own[0]!r} was put on the model itself, and a copy in full precision, to be "
            "frozen or exported, would not have it; override it in a subclass."
        )
    config = model.get_config()
    copy = type(model).from_config(config)
    if [w.shape for w in copy.weights] != [w.shape for w in model.weights]:
        raise ValueError(
            "model: its layers have other weights than its configuration makes, as behind "
            "quantize() and enable_lora(); such a model answers, but is neither frozen nor, where "
            "it computes in half precision, exported."
        )
    copy.set_weights(model.get_weights())
    if not _alike(model, copy):
        raise ValueError(
            "model: a copy of its configuration and weights answers otherwise, so that something "
            "was changed in a layer after it was made; give that to the layer's constructor."
        )
    if (full := _in_full_precision(config)) != config:
        copy = type(model).from_config(full)
        copy.set_weights(model.get_weights())
    return copy


def _alike(model: Seq2Seq, copy: Seq2Seq) -> bool:
    """Return whether two models of one precision give a step the same logits."""
    ids = np.minimum([[4, 5, 6, EOS]], model.source_size - 1)

    def said(one):
        memory, state = one.encode(ids)
        return np.array(one.step(tf.constant([BOS]), state, memory)[0], np.float64)

    expected, found = said(model), said(copy)
    return np.allclose(found, expected, rtol=CLOSE, atol=CLOSE * np.abs(expected).max())


def _in_full_precision(config: Any) -> Any:
    """Return a configuration, however nested, in which what computes in half precision does not."""
    if isinstance(config, list | tuple):
        return type(config)(_in_full_precision(part) for part in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy" and config["config"]["name"].startswith("mixed_"):
        return {**config, "config": {**config["config"], "name": "float32"}}
    return {key: _in_full_precision(part) for key, part in config.items()}


@contextlib.contextmanager
def _streams_end_unannounced(callbacks):
    """Silence Keras' warning that a stream of strings ended: its length was never known."""
    with warnings.catch_warnings():
        if any(isinstance(callback, TooLongReport) for callback in callbacks):
            warnings.filterwarnings("ignore", message="Your input ran out of data")
        yield


def _callback_list(callbacks) -> list:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
