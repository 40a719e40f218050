"""Seq2Seq: the model that users build, fit, ask and export."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import keras
import numpy as np

from keras_attn.layers.base import positive
from keras_attn.layers.choices import serializable
from keras_attn.models import fitting, inputs
from keras_attn.models.network import Network
from keras_attn.models.rows import chunks, padded, stacked
from keras_attn.models.runner import Runner, search
from keras_attn.plots import Alignments
from keras_attn.serving.export import export_saved_model
from keras_attn.text import pipeline
from keras_attn.training.callbacks import StopOnNaN, TooLongReport, edit_distances
from keras_attn.types import EOS, PAD, UNK, SearchResult

NO_LIMIT = 2**31 - 1
GENERATED_AT_A_TIME = 128


@serializable
class Seq2Seq(Network):
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
            **kwargs: The rest of `keras.Model.fit`'s.

        Returns:
            Keras' `History`.

        Raises:
            TypeError: something that is neither strings nor ids.
            ValueError: no pairs, unequal numbers, ids outside the vocabulary, `class_weight`, or no
                optimizer.
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
        if inputs.is_text(x):
            if validation_split and validation_data is None:
                (x, y, sample_weight), validation_data = fitting.split(
                    x, y, sample_weight, validation_split
                )
            data = fitting.from_text(
                self, x, y, sample_weight, shuffle=shuffle, seed=seed, **prepare
            )
            x, y, sample_weight, shuffle = data.dataset, None, None, False
            callbacks, batch_size, validation_split = [*data.callbacks, *callbacks], None, 0.0
        else:
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
            return super().predict(x, batch_size, verbose, steps, callbacks)
        if steps is not None or callbacks:
            raise ValueError(
                "steps, callbacks: they go with ids and target_in, not with generating."
            )
        if inputs.is_dataset(x):
            x = inputs.sources_of(x)
        source = x["source"] if isinstance(x, dict) else x
        return self.generate(source, batch_size=batch_size or GENERATED_AT_A_TIME, **kwargs)

    def generate(
        self, source: Any, *, max_length: int | None = None, batch_size: int = GENERATED_AT_A_TIME
    ):
        """Return the best target of each source.

        Args:
            source: A string, n strings, or ids (n, S).
            max_length: Most tokens of a target, EOS included; `max_target` by default.
            batch_size: Sources decoded at a time.

        Returns:
            A str for a string, a list of str for strings, an int array (n, T) for ids.

        Raises:
            TypeError: something that is neither, or ids for a model with tokenisers.
            ValueError: ids outside the vocabulary, or a length outside 1 to `max_target`.
        """
        found = self.search(source, max_length=max_length, batch_size=batch_size)
        token_ids = found.token_ids[:, 0]
        if isinstance(self.target, int):
            return token_ids
        texts = self._texts(token_ids, source)
        return texts[0] if isinstance(source, str | bytes) else texts

    def _texts(self, token_ids, source) -> list[str]:
        if not len(token_ids):
            return []
        texts = self.codec.text(token_ids, inputs.texts("source", source)).numpy().tolist()
        return [text.decode("utf-8", "replace") for text in texts]

    def search(
        self, source: Any, *, max_length: int | None = None, batch_size: int = GENERATED_AT_A_TIME
    ) -> SearchResult:
        """Return the best target of each source with its scores and alignments, as NumPy arrays.

        Arguments and errors are those of `generate`. The arrays are as wide as the longest target
        (T) and the longest source (S) need.
        """
        return self._searched(self._source_rows(source), max_length, batch_size)

    def _searched(self, rows, max_length, batch_size):
        limit = self._max_length(max_length)
        parts = []
        for chosen, source_ids in chunks(rows, positive("batch_size", batch_size)):
            found = self._runner.search(source_ids, np.full(len(chosen), limit, np.int32), limit)
            parts.append((chosen, SearchResult(*(x.numpy() for x in found))))
        return stacked(parts, len(rows.lengths))

    def _max_length(self, max_length):
        if max_length is None:
            return self.max_target
        if positive("max_length", max_length) > self.max_target:
            raise ValueError(
                f"max_length: expected at most max_target={self.max_target} tokens, "
                f"got {max_length}."
            )
        return max_length

    def _source_rows(self, source):
        rows = inputs.source_rows("source", source, self.codec, self.max_source)
        self._warn_of_cut(rows, "sources", "max_source")
        return rows

    def _warn_of_cut(self, rows, what, limit):
        if rows.cut.any():
            warnings.warn(
                f"{int(rows.cut.sum())} of {len(rows.cut)} {what} were longer than "
                f"{limit}={getattr(self, limit)} tokens (EOS counts) and were cut.",
                stacklevel=5,
            )

    def score(
        self, source: Any, target: Any, *, batch_size: int = GENERATED_AT_A_TIME
    ) -> np.ndarray:
        """Return log p(target | source) in nats, float32 (n,).

        EOS is part of a target that is not cut at `max_target`; ids are scored as they stand.

        Args:
            source: A string, n strings, or ids (n, S).
            target: As many targets.
            batch_size: Pairs scored at a time.

        Raises:
            TypeError: something that is neither strings nor ids.
            ValueError: unequal numbers, or ids outside the vocabulary.
        """
        sources = self._source_rows(source)
        targets = self._target_rows(target, source)
        inputs.same_number(sources.lengths, targets.lengths, ("source", "target"))
        owners = np.repeat(sources.lengths, targets.lengths)
        targets = targets._replace(values=self.codec.reachable(targets.values, owners))
        scores = np.zeros(len(sources.lengths), np.float32)
        longest = np.maximum(sources.lengths, targets.lengths)
        for chosen, source_ids in chunks(sources, positive("batch_size", batch_size), longest):
            target_out = padded(pipeline.selected(targets, chosen))
            target_in = pipeline.shifted(target_out).numpy()
            scores[chosen] = self._runner.score(source_ids, target_in, target_out).numpy()
        return scores

    def _target_rows(self, target, source):
        rows = inputs.target_rows("target", target, self.codec, self.max_target, source)
        self._warn_of_cut(rows, "targets", "max_target")
        return rows

    def attend(self, source: Any, *, max_length: int | None = None):
        """Generate, and return which source token each target token looked at.

        Args:
            source: A string, or n strings, or ids (n, S).
            max_length: Most tokens of a target, EOS included.

        Returns:
            `Alignments` for a string, a list of them otherwise. EOS is shown as `</s>`.

        Raises:
            ValueError: the model has no attention.
        """
        if not self.decoder.attends:
            raise ValueError(
                "attend: this model has no attention, so there are no alignments; "
                "zoo.names('attention*') lists those that have."
            )
        rows = self._source_rows(source)
        found = self._searched(rows, max_length, GENERATED_AT_A_TIME)
        source_tokens, target_tokens = self._tokens(padded(rows), found.token_ids[:, 0], source)
        shown = []
        for i, (size, length) in enumerate(zip(rows.lengths, found.lengths[:, 0], strict=True)):
            matrix = found.alignments[i, 0, :length, :size]
            shown.append(Alignments(source_tokens[i][:size], target_tokens[i][:length], matrix))
        return shown[0] if isinstance(source, str | bytes) else shown

    def _tokens(self, source_ids, target_ids, source):
        """Return the text of ids (n, S) and (n, T), or the ids themselves without tokenisers."""
        texts = inputs.texts("source", source) if inputs.is_text(source) else source
        return (
            _decoded(self.source, source_ids, lambda ids: self.codec.source_tokens(ids, texts)),
            _decoded(self.target, target_ids, lambda ids: self.codec.target_tokens(ids, texts)),
        )

    def generation_metrics(
        self, source: Any, target: Any, *, batch_size: int = GENERATED_AT_A_TIME
    ) -> dict:
        """Generate, and return how good the whole sequences are.

        Args:
            source: n strings, or ids (n, S).
            target: The reference of each, or n lists of strings, any of which is right.
            batch_size: Sources decoded at a time.

        Returns:
            "exact_match", the fraction without any error, and "edit_distance_rate", edits over the
            tokens of the references, both to the closest reference, the one with the fewest edits.
            A token unknown to the target vocabulary matches nothing.

        Raises:
            ValueError: unequal numbers, or a source without a reference.
        """
        target, owners = inputs.references(target)
        owners = np.arange(len(target)) if owners is None else owners
        source = inputs.texts("source", source) if inputs.is_text(source) else source
        inputs.same_number(source, np.unique(owners), ("source", "target"))
        sources = [source[i] for i in owners] if isinstance(source, list) else source
        references = inputs.target_rows("target", target, self.codec, NO_LIMIT, sources)
        found = self.search(source, batch_size=batch_size).token_ids[:, 0]
        found = self.codec.canonical(found, source)
        expected = padded(references)
        edits = edit_distances(found[owners], np.where(expected == UNK, -1, expected))
        tokens = np.isin(expected, (PAD, EOS), invert=True).sum(axis=1)
        order = np.lexsort((np.arange(len(owners)), edits, owners))
        closest = order[np.unique(owners[order], return_index=True)[1]]
        return {
            "exact_match": float((edits[closest] == 0).mean()),
            "edit_distance_rate": float(edits[closest].sum() / max(tokens[closest].sum(), 1)),
        }

    # === Export ===

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        *,
        overwrite: bool = False,
        verbose: Any = None,
    ) -> str:
        """Write a SavedModel that TF Serving loads as it is, strings in and strings out.

        Args:
            filepath: The version's folder, for example "saved_models/attention.dates/1". It appears
                all at once, when it is complete.
            format: "tf_saved_model".
            overwrite: Whether an existing folder is replaced.
            verbose: Whether to print where it went; as in Keras, None prints.

        Returns:
            The path.

        Raises:
            ValueError: another format.
            TypeError: a model without tokenisers.
            FileExistsError: the folder exists, and `overwrite` is False.
            OSError: the folder cannot be written.
        """
        if format != "tf_saved_model":
            raise ValueError(f"format: expected 'tf_saved_model', got {format!r}.")
        return export_saved_model(self, search, filepath, overwrite=overwrite, verbose=verbose)


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


def _decoded(vocabulary, ids, names) -> list[list[str]]:
    """Return the text of each id (n, T), or the id itself where there is no tokeniser."""
    if isinstance(vocabulary, int):
        return [[str(i) for i in row] for row in ids]
    return [[token.decode("utf-8", "replace") for token in row] for row in names(ids).numpy()]
