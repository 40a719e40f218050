"""Callbacks that `Seq2Seq.fit` adds, and one that measures whole sequences."""

from __future__ import annotations

import warnings
from typing import Any

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
    """Warn, after the first epoch over a stream, how many of its pairs were too long.

    Args:
        counts: Int64 variable (2,), the numbers of all and of too long pairs.
        message: Function of two ints that returns the warning.
    """

    def __init__(self, counts: tf.Variable, message):
        super().__init__()
        self.counts = counts
        self.message = message
        self.reported = False

    def on_epoch_end(self, epoch, logs=None):
        """Warn once."""
        total, too_long = (int(x) for x in self.counts.numpy())
        if too_long and not self.reported:
            self.reported = True
            warnings.warn(self.message(too_long, total), stacklevel=2)


class StopOnNaN(keras.callbacks.Callback):
    """Stop when the loss is not a number, and give back the last good weights.

    Good are weights, and optimizer variables, that were finite when kept and from which the loss
    was still a number. They are kept every `every` batches, in memory.

    Args:
        every: Positive int, batches.

    Raises:
        FloatingPointError: in training, after the weights were given back; it says what to try.
    """

    def __init__(self, every: int = 50):
        super().__init__()
        self.every = every
        self.good: list[np.ndarray] = []
        self.kept_at = (0, 0)
        self.epoch = 0

    def _variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def _keep(self, batch):
        values = [v.numpy() for v in self._variables()]
        if all(np.isfinite(v).all() for v in values if np.issubdtype(v.dtype, np.floating)):
            self.good, self.kept_at = values, (self.epoch, batch)

    def on_train_begin(self, logs=None):
        """Keep the weights that training starts from."""
        self._keep(0)

    def on_epoch_begin(self, epoch, logs=None):
        """Note the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Look at the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if np.isfinite(loss):
            if batch % self.every == self.every - 1:
                self._keep(batch)
            return
        for variable, value in zip(self._variables(), self.good, strict=False):
            variable.assign(value)
        raise FloatingPointError(
            f"The loss became {float(loss)} in epoch {self.epoch + 1}, batch {batch + 1}. Training "
            f"stopped; the model has the weights of epoch {self.kept_at[0] + 1}, batch "
            f"{self.kept_at[1] + 1} again. Try a smaller learning rate, or an optimizer with "
            "clipnorm=1.0; look for infinities in sample_weight."
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
    tokens
    of the references. EarlyStopping and ModelCheckpoint can monitor both if they come later in the
    list.

    Args:
        sources: What `Seq2Seq.generate` takes: n strings, or ids (n, S).
        targets: n strings, or ids (n, T).
        every: Positive int, epochs between two measurements.
        prefix: Put before the names, "val_" by default.
        batch_size: Positive int, sources generated at a time.

    Raises:
        ValueError: no pairs, or unequal numbers of sources and targets.
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
