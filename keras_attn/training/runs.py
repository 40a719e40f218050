"""A training run in a folder: it can be killed and resumed, stops early, and keeps the best."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_attn.scoring import grouped, translation_scores
from keras_attn.text import pipeline
from keras_attn.text.arguments import utf8
from keras_attn.training import state
from keras_attn.training.locks import alone
from keras_attn.training.optimizers import adam, averaged
from keras_attn.training.progress import Progress

STATE, BEST, LOG, MODEL = "state.npz", "best.npz", "log.jsonl", "model.keras"
BLEU = "bleu"
MONITORS = {"loss": 1, "perplexity": 1, "exact_match": -1, "edit_distance_rate": 1, BLEU: -1}


def train(
    model: Any,
    pairs: tuple[Sequence[str], Sequence[str]],
    validation: tuple[Sequence[str], Sequence[str]],
    folder: Any,
    *,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    warmup: float = 0.02,
    final: float = 0.01,
    clip: float = 1.0,
    label_smoothing: float = 0.1,
    average: float = 0.08,
    patience: int | None = None,
    monitor: str = "edit_distance_rate",
    by_row: bool = False,
    teacher: Any = None,
    teacher_weight: float = 1.0,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict[str, float]]:
    """Train with `adam`, measuring averaged weights after each epoch, and keep the best of them.

    The folder gets the state after each epoch. Called again with the same arguments after the
    process was killed, it goes on from there, and ends with the weights that it would have ended
    with: on a CPU exactly, if `keras.utils.set_random_seed` was called before the model was built.

    Args:
        model: A `Seq2Seq`; it is compiled here.
        pairs: n sources and n targets.
        validation: Sources and targets to choose by; equal sources share their targets.
        folder: Where the run lives; it is made if need be.
        epochs: Positive int.
        batch_size: Positive int, pairs.
        learning_rate: Positive float, the peak.
        warmup: See `adam`.
        final: See `adam`.
        clip: See `adam`.
        label_smoothing: Float in [0, 1).
        average: Fraction of the run that the average of the weights reaches back; 0 for none.
        patience: Epochs without a better validation after which to stop, or None for never.
        monitor: What is better: less "edit_distance_rate", "loss" (label smoothing included) or
            "perplexity", or more "exact_match" or "bleu", which of translations is measured in
            lower case, greedily (sacrebleu). Loss and perplexity may turn long before what is
            generated does (zoo/README.md).
        by_row: Whether each pair of the validation counts for itself, as in running text; else a
            source counts once, and each of its targets is right.
        teacher: A model or an ensemble to learn from, or None; see `Seq2Seq.fit`. The loss of the
            validation is that of its targets, smoothed.
        teacher_weight: Float in [0, 1], the teacher's share in what is learnt.
        seed: Int, for the order of the pairs.
        callbacks: More Keras callbacks; they see the measurements in the logs.

    Returns:
        The logs of all epochs. The model has the best weights, and the folder `model.keras`.

    Raises:
        ImportError: sacrebleu is not installed, and "bleu" is asked for.
        TypeError: a model without tokenisers, a teacher that is neither model nor ensemble, or
            pairs or a validation of what is no text.
        ValueError: an argument outside its range, a teacher that does not fit, or a folder with
            another run, a damaged one, or another process that trains there.
    """
    if monitor not in MONITORS:
        raise ValueError(f"monitor: expected one of {sorted(MONITORS)}, got {monitor!r}.")
    for name, value in (("epochs", epochs), ("patience", patience), ("batch_size", batch_size)):
        if not (name == "patience" and value is None) and (type(value) is not int or value < 1):
            raise ValueError(f"{name}: expected a positive int, got {value!r}.")
    if isinstance(model.source, int) or isinstance(model.target, int):
        raise TypeError("model: expected one with tokenisers, as pairs are strings; see zoo.build.")
    if monitor == BLEU:
        translation_scores(["a"], [["a"]])  # says now if it cannot be measured
    if teacher is not None:
        model.check_teacher(teacher, teacher_weight)
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "warmup": warmup,
        "final": final,
        "clip": clip,
        "label_smoothing": label_smoothing,
        "average": average,
        "monitor": monitor,
        "seed": seed,
    }
    columns: list[list[bytes]] = []
    for name, given in (("pairs", pairs), ("validation", validation)):
        sources, targets = (utf8(column, name) for column in given)
        columns += sources, targets
        if len(sources) != len(targets) or not len(sources):
            raise ValueError(
                f"{name}: expected as many targets as sources, and one or more; got "
                f"{len(sources)} sources and {len(targets)} targets."
            )
    limits = model.max_source, model.max_target
    steps = epochs * pipeline.count(model.source, model.target, pairs, *limits, batch_size)
    model.compile(
        adam(
            steps,
            learning_rate=learning_rate,
            warmup=warmup,
            final=final,
            clip=clip,
            average=average,
        ),
        label_smoothing=label_smoothing,
    )
    folder = Path(folder)
    settings |= {"steps": steps, "by_row": by_row, "teacher": None}
    settings |= {"data": _texts(columns), "model": _configuration(model)}
    if teacher is not None:
        settings["teacher"] = [_fingerprint(teacher), teacher_weight]
    run = Run(folder, validation, monitor, patience, settings)
    with alone(folder):
        done = run.resume(model)
        if done < epochs and not run.stopped:
            _fit(
                model,
                pairs,
                [run, *callbacks],
                batch_size=batch_size,
                epochs=epochs,
                initial_epoch=done,
                seed=seed,
                teacher=teacher,
                teacher_weight=teacher_weight,
            )
        state.restore(model, folder / BEST)
        save_model(model, folder / MODEL)
    return run.log


def _fit(model, pairs, callbacks, **options):
    """Fit; whatever ends it, the bar goes, and the cursor comes back."""
    try:
        model.fit(*pairs, verbose=0, callbacks=callbacks, **options)
    finally:
        for callback in callbacks:
            if isinstance(callback, Progress):
                callback.stop()


def _texts(columns: list[list[bytes]]) -> str:
    """Return what tells columns of texts from others."""
    found = hashlib.sha256()
    for column in columns:
        for raw in (b"%d" % len(column), *column):
            found.update(b"%d:%s" % (len(raw), raw))
    return found.hexdigest()[:12]


def _configuration(model) -> str:
    """Return what tells how a model is made, but for its weights, from others."""

    def plain(x):
        if isinstance(x, list | tuple):
            return [plain(part) for part in x]
        if not isinstance(x, dict):
            return x
        said = {key: plain(value) for key, value in x.items() if key != "build_config"}
        if isinstance(said.get("name"), str):  # Keras counts layers of a kind in a process
            said["name"] = re.sub(r"_\d+$", "", said["name"])
        return said

    said = keras.saving.serialize_keras_object(model)["config"]
    return hashlib.sha256(json.dumps(plain(said), sort_keys=True).encode()).hexdigest()[:12]


def _fingerprint(model) -> str:
    """Return what tells the weights of a model from others."""
    found = hashlib.sha256()
    for weight in model.weights:
        found.update(weight.numpy().tobytes())
    return found.hexdigest()


class Run(keras.callbacks.Callback):
    """Measure averaged weights after each epoch, keep the best, and save the state.

    Args:
        folder: Path.
        validation: Sources and targets.
        monitor: A key of `MONITORS`.
        patience: Positive int, or None.
        settings: What a run resumed in the folder must have been begun with.
    """

    def __init__(self, folder: Path, validation, monitor: str, patience: int | None, settings):
        super().__init__()
        self.settings = settings
        self.folder, self.validation = folder, validation
        self.monitor, self.patience = monitor, patience
        self.log: list[dict[str, float]] = []
        self.began, self.prepares = time.perf_counter(), True

    def resume(self, model) -> int:
        """Restore what the folder holds, if anything, and return the number of epochs done."""
        if not (self.folder / STATE).exists():
            return 0
        if not (self.folder / BEST).exists():
            raise ValueError(f"{str(self.folder)!r} has lost its {BEST}; begin in another folder.")
        progress = state.restore(model, self.folder / STATE, self._refuse_another)
        self.log = progress["log"]
        return len(self.log)

    def _refuse_another(self, progress):
        """Raise a ValueError if what is in the folder was begun otherwise."""
        changed = {k: v for k, v in self.settings.items() if progress["settings"].get(k) != v}
        if changed:
            was = {key: progress["settings"].get(key) for key in changed}
            raise ValueError(
                f"{str(self.folder)!r} holds a run with {was}, and now it is {changed}; give the "
                "same settings, model and data (of which these are hashes), or another folder."
            )

    @property
    def best(self) -> int:
        """The index of the best epoch."""
        return self.log.index(best(self.log, self.monitor))

    @property
    def stopped(self) -> bool:
        """Whether patience has run out."""
        waited = len(self.log) - 1 - self.best if self.log else 0
        return self.patience is not None and waited >= self.patience

    def on_epoch_begin(self, epoch, logs=None):
        """Note the time; what comes before the first epoch, as asking a teacher, is part of it."""
        self.began = self.began if self.prepares else time.perf_counter()
        self.prepares = False

    def on_epoch_end(self, epoch, logs=None):
        """Measure, and write what has to outlive the process."""
        trained = time.perf_counter()
        with averaged(self.model):
            measured = self._measured()
            entry = {"epoch": epoch + 1, **(logs or {}), **measured}
            entry["seconds"] = trained - self.began
            entry["measuring"] = time.perf_counter() - trained
            self.log = [*self.log, {k: float(v) for k, v in entry.items()}]
            if self.best == len(self.log) - 1:
                state.save(self.model, self.folder / BEST, self._progress())
        (logs if logs is not None else {}).update(measured)
        state.save(self.model, self.folder / STATE, self._progress())
        with _aside(self.folder / LOG) as path:
            path.write_text("".join(json.dumps(finite(entry)) + "\n" for entry in self.log))
        if self.stopped:
            self.model.stop_training = True

    def _progress(self):
        return {"settings": self.settings, "log": self.log}

    def _measured(self) -> dict[str, float]:
        found = self.model.evaluate(*self.validation, batch_size=256, verbose=0, return_dict=True)
        sources, targets = self.validation
        if self.settings["by_row"]:
            references = [[target] for target in targets]
        else:
            sources, references = grouped(sources, targets)
        measured, said = self.model.generation_metrics(sources, references, return_texts=True)
        found |= measured
        if self.monitor == BLEU:
            found[BLEU] = translation_scores(said, references, lowercase=True)[BLEU]
        return {f"val_{name}": value for name, value in found.items()}


def best(log: list[dict[str, float]], monitor: str) -> dict[str, float]:
    """Return the best epoch's entry of a log, the first of equals; what is no number is worst."""

    def badness(entry):
        value = MONITORS[monitor] * entry[f"val_{monitor}"]
        return value if math.isfinite(value) else math.inf

    return min(log, key=badness)


def finite(entry: dict[str, float]) -> dict[str, float | None]:
    """Return an entry of the log as JSON knows it: without infinities."""
    return {key: value if math.isfinite(value) else None for key, value in entry.items()}


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file, all at once."""
    with _aside(path) as aside:
        model.save(aside)


@contextlib.contextmanager
def _aside(path: Path):
    """Give a path beside `path`, with its ending, and rename it into place at the end."""
    aside = path.with_name(f".aside.{path.name}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
