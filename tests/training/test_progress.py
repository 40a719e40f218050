"""What a person sees of a training."""

from __future__ import annotations

import io

import keras
import pytest
import small_models
from rich.console import Console

from keras_attn import training, zoo


def test_one_line_an_epoch():
    model = small_models.small("context_as_init", **small_models.CHEAP)
    model.compile()
    text = io.StringIO()
    progress = training.Progress(Console(file=text, width=40))
    pairs = small_models.FEW, small_models.FEW_SPOKEN
    model.fit(*pairs, epochs=3, verbose=0, callbacks=[progress], validation_data=pairs)
    lines = [line for line in text.getvalue().splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("val loss" in line and line.endswith(" s") for line in lines)


class Broken(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_a_log_has_lines_of_epochs_alone(tmp_path):
    source, target = small_models.tokenizers()
    model = zoo.build("context_as_init", source=source, target=target, **small_models.CHEAP)
    text = io.StringIO()
    pairs = small_models.FEW, small_models.FEW_SPOKEN
    progress = training.Progress(Console(file=text))
    training.train(model, pairs, pairs, tmp_path, epochs=2, callbacks=[progress])
    *lines, last = text.getvalue().split("\n")
    assert [line[:9] for line in lines if line] == ["epoch 1/2", "epoch 2/2"]
    assert lines.count("") == 1 and last == ""  # rich ends a bar by a line, once


def test_the_cursor_comes_back_when_a_person_breaks_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    source, target = small_models.tokenizers()
    model = zoo.build("context_as_init", source=source, target=target, **small_models.CHEAP)
    text = io.StringIO()
    progress = training.Progress(Console(file=text, width=40, force_terminal=True))
    pairs = small_models.FEW, small_models.FEW_SPOKEN
    with pytest.raises(KeyboardInterrupt):
        training.train(model, pairs, pairs, tmp_path, epochs=1, callbacks=[progress, Broken()])
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert text.getvalue().count(hidden) == text.getvalue().count(shown) == 1
    progress.stop()  # again, or before anything began
    training.Progress().stop()
