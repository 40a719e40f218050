"""Callbacks that `Seq2Seq.fit` adds, and one that measures whole sequences."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_attn.types import EOS, PAD


class EpochClock(keras.callbacks.Callback):
    """Tell the data which epoch begins, so that its order depends on the epoch alone.

    Args:
        epoch: Int64 variable.
    """

    def __init__(self, epoch: tf.Variable):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        """Set the variable."""
        self.epoch.assign(epoch)


class TooLongReport(keras.callbacks.Callback):
    """Warn once, after an epoch over a stream, how many of its pairs were too long.

    Args:
        counts: Int64 variable (2,), the numbers of all and of too long pairs.
        message: Function of two ints that returns the warning.
        drop: Whether pairs that are too long are left out.

    Raises:
        ValueError: at the end of an epoch, if the stream gave no pair, or none but dropped ones.
    """

    def __init__(self, counts: tf.Variable, message, drop: bool = False):
        super().__init__()
        self.counts = counts
        self.message = message
        self.drop = drop
        self.reported = False

    def on_epoch_begin(self, epoch, logs=None):
        """Count from 0: a distribution strategy looks at the first pairs before any epoch."""
        self.counts.assign([0, 0])

    def on_epoch_end(self, epoch, logs=None):
        """Warn once; refuse a stream of nothing."""
        total, too_long = (int(x) for x in self.counts.numpy())
        if total == (too_long if self.drop else 0):
            raise ValueError(
                f"x: expected at least one pair, got a dataset of {total} pairs, all too long."
                if total
                else "x: expected at least one pair, got an empty dataset."
            )
        if too_long and not self.reported:
            self.reported = True
            warnings.warn(self.message(too_long, total), stacklevel=2)


class Kept(NamedTuple):
    """The values of all variables at one time.

    Attributes:
        values: One numpy array a variable.
        when: What the weights are, as a phrase.
    """

    values: list[np.ndarray]
    when: str


class StopOnNaN(keras.callbacks.Callback):
    """Stop when the loss is not a number, and give back the last good weights.

    Good are weights, and optimizer variables, that are finite and gave a loss that is a number, or
    those that training began with. They are kept every `every` batches, in memory.

    Args:
        every: Positive int, batches.

    Raises:
        FloatingPointError: in training, after the weights were given back; it says what to try.
    """

    def __init__(self, every: int = 50):
        super().__init__()
        self.every = every
        self.epoch = 0
        self.done = 0  # batches of the epoch
        self.waited = 0  # batches since weights were kept
        self.good = Kept([], "")
        self.candidate: Kept | None = None  # whose loss is not known yet

    def _variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def _keep(self, when):
        return Kept([tf.convert_to_tensor(v).numpy() for v in self._variables()], when)

    def on_train_begin(self, logs=None):
        """Keep the weights that training begins with."""
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self.good, self.candidate, self.waited = self._keep("that it began with"), None, 0

    def on_epoch_begin(self, epoch, logs=None):
        """Note the epoch."""
        self.epoch, self.done = epoch, 0

    def on_train_batch_end(self, batch, logs=None):
        """Look at the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            self._stop(float(loss), batch)
        if self.candidate is not None:
            self.good, self.candidate = self.candidate, None
        self.waited, self.done = self.waited + batch + 1 - self.done, batch + 1
        if self.waited >= self.every:
            kept = self._keep(f"of epoch {self.epoch + 1}, batch {batch + 1}")
            if all(np.isfinite(value).all() for value in kept.values):
                self.candidate, self.waited = kept, 0

    def _stop(self, loss, batch):
        for variable, value in zip(self._variables(), self.good.values, strict=True):
            variable.assign(value)
        raise FloatingPointError(
            f"The loss became {loss} in epoch {self.epoch + 1}, batch {batch + 1}. Training "
            f"stopped; the model has the weights {self.good.when} again. Try a smaller learning "
            "rate, or an optimizer with clipnorm=1.0; look for infinities in sample_weight."
        )


def edit_distances(hypotheses: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return the Levenshtein distances, in tokens, of rows of ids (n, T), PAD and EOS left out."""

    def sparse(ids):
        rows = [row[(row != PAD) & (row != EOS)] for row in np.asarray(ids, np.int64)]
        return tf.RaggedTensor.from_row_lengths(
            np.concatenate([np.zeros(0, np.int64), *rows]), [len(row) for row in rows]
        ).to_sparse()

    return tf.edit_distance(sparse(hypotheses), sparse(references), normalize=False).numpy()


class GenerationMetrics(keras.callbacks.Callback):
    """Generate at the end of epochs, and log how good the whole sequences are.

    Logs `<prefix>exact_match`, the fraction of pairs generated without any error, and
    `<prefix>edit_distance_rate`, edits (insertions, deletions, substitutions of tokens) over the
    tokens of the references. EarlyStopping and ModelCheckpoint can monitor both if they come later
    in the list.

    Args:
        sources: What `Seq2Seq.generate` takes: n strings, or ids (n, S).
        targets: n strings, or ids (n, T).
        every: Positive int, epochs between two measurements.
        prefix: Put before the names, "val_" by default.
        batch_size: Positive int, sources generated at a time.

    Raises:
        TypeError: sources or targets are no lists or arrays.
        ValueError: no pairs, unequal numbers of sources and targets, or `every` is not positive.
    """

    def __init__(
        self,
        sources: Any,
        targets: Any,
        every: int = 1,
        prefix: str = "val_",
        batch_size: int = 128,
    ):
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every: expected a positive int, got {every!r}.")
        if any(isinstance(x, str | bytes) or not hasattr(x, "__len__") for x in (sources, targets)):
            raise TypeError(
                "GenerationMetrics: expected lists of sources and targets, got "
                f"{type(sources).__name__} and {type(targets).__name__}."
            )
        if len(sources) != len(targets) or len(sources) == 0:
            raise ValueError(
                "GenerationMetrics: expected as many targets as sources, and at least one; got "
                f"{len(sources)} sources and {len(targets)} targets."
            )
        self.sources, self.targets = sources, targets
        self.every, self.prefix, self.batch_size = every, prefix, batch_size

    def on_epoch_end(self, epoch, logs=None):
        """Measure, and add to the logs."""
        if (epoch + 1) % self.every:
            return
        measured = self.model.generation_metrics(
            self.sources, self.targets, batch_size=self.batch_size
        )
        if logs is not None:
            logs.update({self.prefix + name: value for name, value in measured.items()})
