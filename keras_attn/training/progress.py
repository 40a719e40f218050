"""What a person sees of a training that takes a while."""

from __future__ import annotations

import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

SHOWN = {
    "loss": "loss",
    "val_loss": "val loss",
    "val_perplexity": "perplexity",
    "val_exact_match": "exact match",
    "val_edit_distance_rate": "edits",
}


class Progress(keras.callbacks.Callback):
    """One bar over the whole training, and one line an epoch, on standard error.

    Args:
        console: A rich console, or None for one on standard error. Where that is no terminal, there
            are lines without a bar.
    """

    def __init__(self, console: Any = None):
        super().__init__()
        self.console = console or Console(stderr=True)
        self.batches = 0  # of an epoch, known when the first one ends
        self.bar: Bar | None = None

    def on_train_begin(self, logs=None):
        """Start the bar."""
        self.epochs = self.params["epochs"]
        self.batches = self.params.get("steps") or 0
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        self.bar = Bar(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("training", total=self._total(self.epochs))
        self.bar.start()

    def _total(self, epochs):
        return epochs * self.batches or None

    def on_epoch_begin(self, epoch, logs=None):
        """Note the time."""
        self.epoch, self.began = epoch, time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar."""
        loss = (logs or {}).get("loss", float("nan"))
        self.bar.update(
            self.task,
            completed=self.epoch * self.batches + batch + 1 if self.batches else None,
            description=f"epoch {self.epoch + 1}/{self.epochs}, loss {loss:.4f}",
        )

    def on_epoch_end(self, epoch, logs=None):
        """Print the epoch's line."""
        seconds = time.perf_counter() - self.began
        shown = [f"{SHOWN[k]} {(logs or {})[k]:.4f}" for k in SHOWN if k in (logs or {})]
        self.console.print(
            f"epoch {epoch + 1}/{self.epochs}: {', '.join(shown)}, {seconds:.0f} s",
            highlight=False,
            soft_wrap=True,
        )

    def on_train_end(self, logs=None):
        """Take the bar away."""
        self.stop()

    def stop(self) -> None:
        """Take the bar away, which Keras does not ask for when a training is broken off."""
        bar, self.bar = self.bar, None
        if bar is not None:
            bar.stop()
